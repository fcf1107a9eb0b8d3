"""`twofold query`: SQL over both layers, exact at every instant, without a JVM."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
from duckdb import DuckDBPyRelation

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
    text = sys.stdin.read() if sql == "-" else sql
    form = form or _form_of(target)
    if form == "parquet" and target is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal", "name a file with --output")
    with Reader(settings, mentioned_pipelines(settings, text, pipeline)) as reader:
        _write(reader.query(text, pipeline), form, target)


def _form_of(target: Path | None) -> str:
    suffix = target.suffix.removeprefix(".") if target else ""
    return suffix if suffix in ("json", "csv", "parquet") else "table"


def _write(relation: DuckDBPyRelation, form: str, target: Path | None) -> None:
    write: Any = partial(getattr(output, f"write_{form}"), relation)
    if target is not None:
        with output.whole(target) as part:
            left_out = write(part)
    else:
        left_out = output.spooled(write, sys.stdout.buffer)
    if left_out:
        click.echo(f"only the first {output.SHOWN_ROWS} rows: --format json or csv gives all", err=True)
