"""`twofold check`: every fault of every pipeline file, before anything runs; and what differs from the tables."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from twofold.definition.fault import Fault
from twofold.definition.load import check_file, clashes, definition_files, load_pipeline, shown_path
from twofold.definition.model import Pipeline
from twofold.errors import UsageError
from twofold.settings import Settings
from twofold.text import counted

if TYPE_CHECKING:
    from twofold.evolution import Difference


class CheckedFile(NamedTuple):
    """One checked file."""

    path: Path
    pipeline: Pipeline | None
    faults: list[Fault]
    differences: list[Difference] | None = None
    """From the tables, where that was asked; None: it was not, or there are no tables yet."""


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option(
    "--pipelines",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to check when no FILE is named  [env: TWOFOLD_PIPELINES; default: ./pipelines]",
)
@click.option("--against-tables", is_flag=True, help="Also list how each differs from the tables that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, an object for each file.")
@click.pass_obj
def check(
    settings: Settings, files: tuple[Path, ...], pipelines: Path | None, against_tables: bool, as_json: bool
) -> None:
    """Check pipeline definitions and list all their faults, each with file, line and path.

    Without FILE every definition of the pipelines folder is checked. Exit code 0 when all are fine, 1 when any has
    faults, 2 when there is nothing to check.

    With --against-tables, which needs the catalog, FILE may also be a pipeline's name. Each difference is one that
    the tables follow by themselves, that waits for `twofold reland`, that is ignored, or that is refused: then the exit
    code is 1.

    \b
    Examples:
      twofold check
      twofold check pipelines/flights.yaml
      twofold check --pipelines ~/streams --json
      twofold check --against-tables flights
    """
    if against_tables:
        files = tuple(_file_of(settings, file) for file in files)
    results = check_files(list(files) or _folder_files(pipelines or settings.pipelines))
    if against_tables:
        results = [_compared(settings, result) for result in results]
    click.echo(json.dumps([_as_object(result) for result in results], indent=2) if as_json else _as_text(results))
    sys.exit(1 if any(result.faults or _refused(result) for result in results) else 0)


def _file_of(settings: Settings, named: Path) -> Path:
    """The file of a pipeline that is named instead of its file."""
    if named.exists() or named.suffix or len(named.parts) > 1:
        return named
    return Path(load_pipeline(settings, str(named)).source_file)


def _compared(settings: Settings, result: CheckedFile) -> CheckedFile:
    # The catalog's client takes a second to import, and the tables' server to ask.
    from twofold import catalog, schemas

    if result.pipeline is None or result.faults:
        return result
    return result._replace(differences=schemas.differences(catalog.load(settings), result.pipeline))


def _refused(result: CheckedFile) -> int:
    return sum(each.effect == "refused" for each in result.differences or ())


def check_files(paths: list[Path]) -> list[CheckedFile]:
    """Check files one by one, then against each other: names and topics must differ."""
    # Unlike `Path.resolve`, it takes links that lead to each other.
    once = list({os.path.realpath(path): path for path in paths}.values())
    results = [CheckedFile(path, *check_file(path)) for path in once]
    for fault in clashes([(result.path, result.pipeline) for result in results if result.pipeline is not None]):
        next(result for result in results if shown_path(result.path) == fault.file).faults.append(fault)
    return results


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
    if refused := sum(map(_refused, results)):
        summary += f", {counted(refused, 'change')} refused: the tables cannot follow"
    return "\n".join([*lines, summary])


def _lines(result: CheckedFile) -> Iterator[str]:
    if result.faults or result.pipeline is None:
        yield from map(str, result.faults)
        return
    pipeline = result.pipeline
    counts = f"{counted(len(pipeline.event.fields), 'field')}, {counted(len(pipeline.views), 'view')}"
    of_others = "" if pipeline.topic.managed else f", topic {pipeline.topic.name} is only read"
    yield f"{shown_path(result.path)}: ok ({pipeline.name}, {counts}{of_others})"
    for each in result.differences or ():
        yield f"  {each.effect:<7}  {each}"


def _as_object(result: CheckedFile) -> dict[str, object]:
    pipeline = result.pipeline
    return {
        "file": shown_path(result.path),
        "ok": not result.faults,
        "name": pipeline.name if pipeline else None,
        "fields": list(pipeline.event.fields) if pipeline else [],
        "views": list(pipeline.views) if pipeline else [],
        "faults": [dataclasses.asdict(fault) for fault in result.faults],
        "differences": None if result.differences is None else [dataclasses.asdict(one) for one in result.differences],
    }
