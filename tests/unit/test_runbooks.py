"""The runbook: every page, command, setting and panel that it sends an operator to is there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from monitoring.dashboards import boards
from twofold.cli import COMMANDS, cli
from twofold.settings import Settings

PAGES = sorted((Path(__file__).parents[2] / "docs" / "runbooks").glob("*.md"))
page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).is_file()]


@page
def test_commands_are_the_programs_own(page: Path) -> None:
    for command, rest in re.findall(r"`twofold (\w[\w-]*)([^`]*)`", page.read_text()):
        assert command in COMMANDS
        found = cli.get_command(click.Context(cli), command)
        assert found
        if found.context_settings.get("ignore_unknown_options"):
            continue  # hands its arguments on
        known = {name for option in found.params for name in (*option.opts, *option.secondary_opts)}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


@page
def test_settings_exist(page: Path) -> None:
    named = {name.lower() for name in re.findall(r"`TWOFOLD_(\w+)[`=]", page.read_text())}
    assert named <= {*Settings.model_fields, "supervisor_"}


@page
def test_boards_and_panels_exist(page: Path) -> None:
    text = re.sub(r"`[^`]*`", "", " ".join(page.read_text().split()))
    titles = {board.title for board in boards()}
    assert set(re.findall(r"\*(\d [^*]+)\*", text)) <= titles
    panels = {panel.title for board in boards() for row in board.panels.values() for panel in row}
    assert set(re.findall(r'"([A-Z][^"]+)"', text)) - panels <= {"Running"}
