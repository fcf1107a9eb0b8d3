"""The ports: the page in the docs is the table in the code."""

from __future__ import annotations

from pathlib import Path

from scripts import docs
from twofold.settings import Settings
from twofold.stack.ports import IN_USE


def test_the_docs_page_is_made_from_the_table() -> None:
    assert Path("docs/ports.md").read_text() == docs.ports()


def test_defaults_of_the_table_are_those_of_the_settings() -> None:
    fields = Settings.model_fields
    assert {port.name: fields[f"{port.name}_port"].default for port in IN_USE} == {p.name: p.default for p in IN_USE}
    assert len({port.default for port in IN_USE}) == len(IN_USE)
