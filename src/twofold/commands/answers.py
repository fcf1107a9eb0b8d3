"""`twofold query`, `export` and `rejects`: what is read without a JVM, exact at every instant."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from twofold.definition.durations import parse_duration
from twofold.definition.load import load_pipeline
from twofold.errors import UsageError
from twofold.reader import Reader, output
from twofold.reader.rejects import LAYERS, Rejects
from twofold.reader.statements import mentioned_pipelines
from twofold.settings import Settings
from twofold.text import printable


@click.command()
@click.argument("sql")
@click.option("--pipeline", "-p", help="Pipeline whose tables need no prefix.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    help="[default: by the ending of --output, else table]",
)
@click.option(
    "--output", "-o", "target", type=click.Path(path_type=Path), help="File to write; it appears when it is whole."
)
@click.pass_obj
def query(settings: Settings, sql: str, pipeline: str | None, form: str | None, target: Path | None) -> None:
    """Run one reading SQL statement (DuckDB's dialect; times are UTC). `-` reads it from the standard input.

    PIPELINE.unified_events and PIPELINE.unified_VIEW are the exact answers over both layers; PIPELINE.live_VIEW is what
    the layers have computed so far, for dashboards. SHOW TABLES lists all.

    \b
    Examples:
      twofold query "SELECT origin, count(*) FROM flights.unified_events GROUP BY origin"
      twofold query -p flights --format json "SELECT * FROM unified_departures_by_origin LIMIT 5"
      twofold query "SELECT layer, count(*) FROM flights.unified_events GROUP BY ALL" -o shares.csv
      twofold query - < report.sql
    """
    text = sys.stdin.read() if sql == "-" else sql
    form = form or _form_of(target)
    if form == "parquet" and target is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal", "name a file with --output")
    with Reader(settings, mentioned_pipelines(settings, text, pipeline)) as reader:
        write: Any = partial(getattr(output, f"write_{form}"), reader.query(text, pipeline))
        if target is None:
            left_out = output.spooled(write, sys.stdout.buffer)
        else:
            with output.whole(target) as part:
                left_out = write(part)
    if left_out:
        click.echo(f"only the first {output.SHOWN_ROWS} rows: --format json or csv gives all", err=True)


def _form_of(target: Path | None) -> str:
    suffix = target.suffix.removeprefix(".") if target else ""
    return suffix if suffix in ("json", "csv", "parquet") else "table"


@click.command()
@click.argument("pipeline")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), required=True, help="Folder to write; it appears whole."
)
@click.option("--single", is_flag=True, help="One file, sorted by event time, instead of a folder per day.")
@click.option("--overwrite", is_flag=True, help="Replace a folder that is not empty, once the new one is whole.")
@click.pass_obj
def export(settings: Settings, pipeline: str, target: Path, single: bool, overwrite: bool) -> None:
    """Write the unified events, exact as of now, as Parquet: DIR/<event time>_day=2013-05-01/….parquet.

    The files in the bucket are not a substitute: they include superseded ones.

    \b
    Examples:
      twofold export flights --to /data/flights
      twofold export flights --to /data/flights --overwrite
      twofold export flights --to /data/sorted --single
    """
    declared = load_pipeline(settings, pipeline)
    console = Console(stderr=True)
    with (
        output.whole_folder(target, overwrite=overwrite) as folder,
        Reader(settings, {declared.name: declared}) as reader,
        Progress(console=console, transient=True, disable=not console.is_terminal) as shown,
    ):
        task = shown.add_task(f"exporting {pipeline}", total=100)
        rows = output.export(
            reader, declared, folder, single=single, progress=lambda percent: shown.update(task, completed=percent)
        )
        written_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    click.echo(f"{rows:,} events, {written_bytes / 1e6:,.1f} MB, written to {target}", err=True)


class Since(click.ParamType[datetime]):
    """A moment (ISO 8601, UTC unless it says otherwise), or how long ago."""

    name = "moment or duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read `2013-05-01`, `2013-05-01T12:00`, `2 hours`."""
        try:
            return datetime.now(UTC) - parse_duration(value)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a moment such as 2013-05-01T12:00Z nor a duration such as 2 hours")
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command()
@click.argument("pipeline")
@click.option("--layer", type=click.Choice(LAYERS), help="Only what this layer rejected.")
@click.option("--since", type=Since(), help="Only what was received since, e.g. 2013-05-01T12:00 or '2 hours' (ago).")
@click.option("--samples", type=click.IntRange(0, 1000), default=3, show_default=True, help="Records shown per kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write the bytes, a record a line.")
@click.pass_obj
def rejects(
    settings: Settings,
    pipeline: str,
    layer: str | None,
    since: datetime | None,
    samples: int,
    as_json: bool,
    target: Path | None,
) -> None:
    """Show rejected records by kind of reason, and files that were set aside; or write the records' bytes to a file.

    Each record is written byte by byte on a line of its own. One that holds a line break itself would fall apart
    there, so it becomes a file of its own in FILE.apart/.

    \b
    Examples:
      twofold rejects flights
      twofold rejects flights --layer stream --since '2 hours' --json
      twofold rejects flights --to fix.jsonl     # fix it, then:
      twofold produce flights --from fix.jsonl   # or: twofold land flights fix.jsonl
    """
    declared = load_pipeline(settings, pipeline)
    with Reader(settings, {declared.name: declared}) as reader:
        found = Rejects(reader, declared, (layer,) if layer else LAYERS, since)
        if target is not None:
            _write_bytes(found, target)
        elif as_json:
            kinds = [kind.plain() for kind in found.kinds(samples)]
            click.echo(json.dumps({"rejected": kinds, "set_aside": found.set_aside()}, indent=1, ensure_ascii=False))
        else:
            _show(found, samples)


def _show(found: Rejects, samples: int) -> None:
    kinds = found.kinds(samples)
    for kind in kinds:
        click.echo(f"{kind.count:>9,}  {kind.layer:<6}  {kind.kind}")
        for sample in kind.samples:
            payload = "(no value)" if sample.payload is None else printable(sample.payload)
            click.echo(f"{'':19}{printable(sample.place)}  {printable(sample.reason)}  {payload}")
    aside = found.set_aside()
    for file in aside:
        click.echo(f"     file  batch   {printable(file['file'])} set aside: {printable(file['reason'])}")
    total = sum(kind.count for kind in kinds)
    click.echo(f"{total:,} records rejected, {len(aside)} files set aside", err=True)


def _write_bytes(found: Rejects, target: Path) -> None:
    apart = target.with_name(f"{target.name}.apart")
    with output.whole(target) as part, part.open("wb") as lines:
        written = found.write(lines, apart)
    click.echo(f"{written.lines:,} records written to {target}", err=True)
    if written.apart:
        click.echo(f"{written.apart:,} records hold line breaks: each is a file of its own in {apart}/", err=True)
    if written.empty:
        click.echo(f"{written.empty:,} records had no value: there is nothing of them to write", err=True)
