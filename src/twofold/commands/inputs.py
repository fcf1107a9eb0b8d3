"""`twofold land` and `replay`: files into a pipeline's inbox, each whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from twofold import inbox
from twofold import replay as replays
from twofold.definition.load import load_pipeline
from twofold.errors import TwofoldError, UsageError
from twofold.lake import Lake
from twofold.replay import Plan
from twofold.settings import Settings

_BAR_FROM_BYTES = 32 << 20


@click.command()
@click.argument("pipeline")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--as", "name", help="Name to put one FILE under, below the inbox; default: its own name.")
@click.pass_obj
def land(settings: Settings, pipeline: str, files: tuple[Path, ...], name: str | None) -> None:
    """Put files into the inbox of PIPELINE, each whole or not at all.

    The next `twofold batch` takes each file once. Other content put under the same name replaces the file, and the
    new content is taken as a correction of the old. CSV files (with a header) and JSON lines may be gzipped;
    Parquet is taken as it is.

    \b
    Examples:
      twofold land flights january.csv february.csv.gz
      twofold land flights /data/export.jsonl --as 2013/march.jsonl
    """
    declared = load_pipeline(settings, pipeline)
    named = _named(files, name)
    _check_sources(files)
    folder = inbox.folder(settings, declared.name)
    for source, target in named:
        _put(folder, source, target)
        click.echo(f"put {target}", err=True)


def _named(files: tuple[Path, ...], name: str | None) -> list[tuple[Path, str]]:
    """Each source with its name in the inbox; UsageError where two would share one."""
    if name is not None and len(files) > 1:
        raise UsageError("--as names one file, but several were given", "put them one at a time")
    named = [(file, inbox.checked_name(name or file.name)) for file in files]
    twice = [target for target, count in Counter(target for _, target in named).items() if count > 1]
    if twice:
        raise UsageError(f"two files would be put as {', '.join(twice)}", "put them one at a time with --as")
    return named


def _check_sources(files: tuple[Path, ...]) -> None:
    """TwofoldError naming every source that cannot be read, before any is put."""
    faults = [f"{file}: {fault}" for file in files if (fault := _source_fault(file))]
    if faults:
        raise TwofoldError("cannot be put:\n  " + "\n  ".join(faults), "nothing was put; correct the list of files")


def _source_fault(file: Path) -> str:
    if not file.exists():
        return "no such file"
    if file.is_dir():
        return "is a folder: name the files in it"
    if not file.is_file():
        return "is no regular file"
    return "" if os.access(file, os.R_OK) else "cannot be read: check its permissions"


def _put(folder: inbox.Folder, source: Path, target: str) -> None:
    size = source.stat().st_size
    shown = sys.stderr.isatty() and size >= _BAR_FROM_BYTES
    try:
        with click.progressbar(length=size, label=target, file=sys.stderr, hidden=not shown) as bar:
            folder.put(source, target, bar.update)
    except OSError as error:
        raise TwofoldError(
            f"{target} was not put: {error.strerror or error}", "nothing of it is there; fix the cause and repeat"
        ) from None


@click.command()
@click.argument("pipeline")
@click.option("--landings", metavar="A..B", help="Files that these landings took: 3, 3..5, or 3.. for all since.")
@click.option("--mended", multiple=True, type=click.Path(path_type=Path), help="A file of fixed records; repeatable.")
@click.option("--label", help="Names the copies; the same label again changes nothing.  [default: the moment, UTC]")
@click.option("--go", is_flag=True, help="Do it; without this, only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def replay(
    settings: Settings,
    pipeline: str,
    landings: str | None,
    mended: tuple[Path, ...],
    label: str | None,
    go: bool,
    as_json: bool,
) -> None:
    """Let ingested files of PIPELINE, or fixed records, go through again, as copies below replay/ in its inbox.

    For files: after a changed definition, so that records which were rejected or filtered are judged again. The next
    `twofold batch` takes each copy once, and its rows win over the old ones of the same id.

    \b
    Examples:
      twofold replay flights --landings 3..          # says what would go through again
      twofold replay flights --landings 3.. --go && twofold batch flights
      twofold rejects flights --to fix.jsonl        # fix it, then:
      twofold replay flights --mended fix.jsonl --go && twofold batch flights
    """
    lake = Lake(settings, load_pipeline(settings, pipeline))
    if bool(landings) == bool(mended):
        raise UsageError("replay wants either --landings or --mended", "see `twofold replay --help`")
    name = label or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if landings:
        plan = replays.plan_landings(lake, *replays.numbers(landings), name)
    else:
        plan = replays.plan_mended(lake.name, mended, name)
    if go:
        replays.carry_out(lake, plan)
    click.echo(json.dumps({**asdict(plan), "done": go}) if as_json else "\n".join(_lines(plan, go)))


def _lines(plan: Plan, done: bool) -> Iterator[str]:
    yield f"{plan.pipeline}: {len(plan.copies)} files {'put' if done else 'would be put'} into the inbox"
    for copy in plan.copies:
        rows = "" if copy.rows is None else f", {copy.rows:,} rows"
        yield f"  {copy.source} ({copy.size_bytes:,} bytes{rows}) as {copy.target}"
    yield from (f"  left out: {line}" for line in plan.left_out)
    yield f"next: `twofold batch {plan.pipeline}`" if done else "nothing was done: --go does it"
