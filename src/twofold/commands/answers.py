"""`twofold query` and `export`: the exact answer as of now, without a JVM."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from twofold.commands import standard_input
from twofold.definition.load import load_pipeline
from twofold.errors import UsageError
from twofold.reader import Reader, output
from twofold.reader.statements import mentioned_pipelines
from twofold.settings import Settings


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
    text = standard_input().read() if sql == "-" else sql
    suffix = target.suffix.removeprefix(".") if target else ""
    form = form or (suffix if suffix in ("json", "csv", "parquet") else "table")
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
    shown = sys.stderr.isatty()
    with (
        output.whole_folder(target, overwrite=overwrite) as folder,
        Reader(settings, {declared.name: declared}) as reader,
        click.progressbar(length=100, label=f"exporting {pipeline}", file=sys.stderr, hidden=not shown) as bar,
    ):
        rows = output.export(
            reader, declared, folder, single=single, progress=lambda percent: bar.update(int(percent) - bar.pos)
        )
        written_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    click.echo(f"{rows:,} events, {written_bytes / 1e6:,.1f} MB, written to {target}", err=True)
