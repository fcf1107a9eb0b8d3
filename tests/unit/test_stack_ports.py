"""The ports: the page in the docs is the table in the code."""

from __future__ import annotations

from pathlib import Path

from scripts import docs
from twofold.settings import Settings
from twofold.stack.programs import PORTS


def test_the_docs_page_is_made_from_the_table() -> None:
    assert Path("docs/ports.md").read_text() == docs.ports()


def test_defaults_of_the_table_are_those_of_the_settings() -> None:
    fields = Settings.model_fields
    assert {port.name: fields[f"{port.name}_port"].default for port in PORTS.values()} == {
        name: port.default for name, port in PORTS.items()
    }
    assert len({port.default for port in PORTS.values()}) == len(PORTS)
