"""Measure Twofold beside its rivals, on a stack of its own, and leave nothing running.

Manually: `python -m benchmarks.run drain union --events 200000 --json figures.json`; all of it: `make bench`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.bench import Bench, define
from benchmarks.failures import BenchFailure
from benchmarks.parts import PARTS, Row
from tests import running

_EVENTS = 1_000_000


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--events", type=click.IntRange(1000), default=_EVENTS, show_default=True, envvar="EVENTS")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures to this file, too.")
def main(parts: tuple[str, ...], events: int, target: Path | None) -> None:
    """Run PARTS (all where none is named) and print their figures.

    \b
    Examples:
      make bench
      EVENTS=100000 make bench
      python -m benchmarks.run drain union --json figures.json
    """
    # SIGTERM takes the stack down on its way out, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows, failed = _measure([name for name in PARTS if name in parts or not parts], events)
    if target is not None:
        target.write_text(json.dumps(_report(rows, events), indent=2) + "\n")
    _print(rows, events)
    sys.exit(1 if failed else 0)


def _measure(names: list[str], events: int) -> tuple[list[Row], list[str]]:
    """The rows of the parts, and the names of those that failed: one of them does not cost the figures of the rest."""
    rows: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as scratch:
        pipelines = Path(scratch) / "pipelines"
        pipelines.mkdir()
        define(pipelines, events)
        with running.running_stack(pipelines, "local") as settings:
            bench = Bench(settings, events, Path(scratch))
            for name in names:
                began = time.monotonic()
                try:
                    # One by one: what was measured before a part fails is kept.
                    for row in PARTS[name](bench):
                        rows.append(row)
                    click.echo(f"{name}: done in {time.monotonic() - began:.0f} s", err=True)
                except BenchFailure as error:
                    failed.append(name)
                    click.echo(f"{name}: failed: {error}", err=True)
    return rows, failed


def _report(rows: list[Row], events: int) -> dict[str, object]:
    machine = {"cores": len(os.sched_getaffinity(0)), "load_1_5_15_min": os.getloadavg()}
    return {"at": datetime.now(UTC).isoformat(), "events": events, **machine, "rows": [asdict(row) for row in rows]}


def _print(rows: list[Row], events: int) -> None:
    cores = len(os.sched_getaffinity(0))
    table = Table("part", "what", title=f"{events:,} events, {cores} cores")
    for heading in ("wall s", "CPU s", "events/s", "events/CPU-s", "ratio", "bound"):
        table.add_column(heading, justify="right")
    table.add_column("note")
    for row in rows:
        numbers = (
            _number(row.wall_s, 2),
            _number(row.cpu_s, 2),
            _number(row.events_per_s),
            _number(row.events_per_cpu_s),
        )
        table.add_row(row.part, row.what, *numbers, _number(row.ratio, 3), row.bound, row.note)
    # As wide as it needs where nobody looks on, so that a file of it is whole.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    main()
