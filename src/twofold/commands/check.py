"""`twofold check`: every fault of every pipeline file, before anything runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import click

from twofold.definition.fault import Fault
from twofold.definition.load import check_file, clashes, definition_files, shown_path
from twofold.definition.model import Pipeline
from twofold.errors import UsageError
from twofold.settings import Settings
from twofold.text import counted


class CheckedFile(NamedTuple):
    """One checked file."""

    path: Path
    pipeline: Pipeline | None
    faults: list[Fault]


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option(
    "--pipelines",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to check when no FILE is named  [env: TWOFOLD_PIPELINES; default: ./pipelines]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, an object for each file.")
@click.pass_context
def check(context: click.Context, files: tuple[Path, ...], pipelines: Path | None, as_json: bool) -> None:
    """Check pipeline definitions and list all their faults, each with file, line and path.

    Without FILE every definition of the pipelines folder is checked. Exit code 0 when all are fine, 1 when any has
    faults, 2 when there is nothing to check.

    \b
    Examples:
      twofold check
      twofold check pipelines/flights.yaml
      twofold check --pipelines ~/streams --json
    """
    settings: Settings = context.obj
    results = check_files(list(files) or _folder_files(pipelines or settings.pipelines))
    click.echo(json.dumps([_as_object(result) for result in results], indent=2) if as_json else _as_text(results))
    context.exit(1 if any(result.faults for result in results) else 0)


def check_files(paths: list[Path]) -> list[CheckedFile]:
    """Check files one by one, then against each other: names and topics must differ."""
    once = list({path.resolve(): path for path in paths}.values())
    results = [CheckedFile(path, *check_file(path)) for path in once]
    found = clashes([(result.path, result.pipeline) for result in results if result.pipeline is not None])
    return [result._replace(faults=result.faults + _of(result.path, found)) for result in results]


def _of(path: Path, faults: list[Fault]) -> list[Fault]:
    return [fault for fault in faults if fault.file == shown_path(path)]


def _folder_files(folder: Path) -> list[Path]:
    files = definition_files(folder)
    if not files:
        raise UsageError(
            f"no pipeline files (*.yaml) in {shown_path(folder)}", "name a FILE, or a folder with --pipelines"
        )
    return files


def _as_text(results: list[CheckedFile]) -> str:
    lines = [line for result in results for line in _lines(result)]
    faults, files = sum(len(result.faults) for result in results), len(results)
    summary = f"{counted(files, 'file')}, {counted(faults, 'fault') if faults else 'no faults'}"
    return "\n".join([*lines, summary])


def _lines(result: CheckedFile) -> list[str]:
    if result.faults or result.pipeline is None:
        return [str(fault) for fault in result.faults]
    pipeline = result.pipeline
    counts = f"{counted(len(pipeline.event.fields), 'field')}, {counted(len(pipeline.views), 'view')}"
    return [f"{shown_path(result.path)}: ok ({pipeline.name}, {counts})"]


def _as_object(result: CheckedFile) -> dict[str, object]:
    pipeline = result.pipeline
    return {
        "file": shown_path(result.path),
        "ok": not result.faults,
        "name": pipeline.name if pipeline else None,
        "fields": list(pipeline.event.fields) if pipeline else [],
        "views": list(pipeline.views) if pipeline else [],
        "faults": [dataclasses.asdict(fault) for fault in result.faults],
    }
