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
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.measure import BenchFailure, Figure
from benchmarks.parts import PARTS, Bench
from tests import running

_EVENTS = 1_000_000
_HISTORY = 10_000_000
Named = tuple[str, Figure]
"""A part, and one of its figures."""


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--events", type=click.IntRange(1000), default=_EVENTS, show_default=True, envvar="EVENTS")
@click.option(
    "--history",
    type=click.IntRange(1_000_000),
    default=_HISTORY,
    show_default=True,
    envvar="HISTORY",
    help="What `proof` begins with, by whole millions.",
)
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures to this file, too.")
def main(parts: tuple[str, ...], events: int, history: int, target: Path | None) -> None:
    """Run PARTS (all where none is named) and print their figures.

    \b
    Examples:
      make bench
      EVENTS=100000 make bench
      python -m benchmarks.run drain union --json figures.json
    """
    # SIGTERM takes the stack down on its way out, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found, failed = _measure([name for name in PARTS if name in parts or not parts], events, history)
    if target is not None:
        target.write_text(json.dumps(_report(found, events), indent=2) + "\n")
    _print(found, events)
    sys.exit(1 if failed else 0)


def _measure(names: list[str], events: int, history: int) -> tuple[list[Named], list[str]]:
    """The figures, and the names of the parts that failed: one of them does not cost the figures of the rest."""
    found: list[Named] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as scratch:
        pipelines = Path(scratch) / "pipelines"
        pipelines.mkdir()
        with running.running_stack(pipelines, "local") as settings:
            bench = Bench(settings, events, history, Path(scratch))
            for name in names:
                began = time.monotonic()
                try:
                    # One by one: what was measured before a part fails is kept.
                    for figure in PARTS[name](bench):
                        found.append((name, figure))
                    click.echo(f"{name}: done in {time.monotonic() - began:.0f} s", err=True)
                except BenchFailure as error:
                    failed.append(name)
                    click.echo(f"{name}: failed: {error}", err=True)
    return found, failed


def _report(found: list[Named], events: int) -> dict[str, object]:
    machine = {"cores": len(os.sched_getaffinity(0)), "load_1_5_15_min": os.getloadavg()}
    rows = [{"part": part, **asdict(figure)} for part, figure in found]
    return {"at": datetime.now(UTC).isoformat(), "events": events, **machine, "rows": rows}


def _print(found: list[Named], events: int) -> None:
    cores = len(os.sched_getaffinity(0))
    table = Table("part", "what", title=f"{events:,} events, {cores} cores")
    digits = {"wall s": 2, "CPU s": 2, "events/s": 0, "events/CPU-s": 0, "ratio": 3}
    for heading in (*digits, "bound"):
        table.add_column(heading, justify="right")
    table.add_column("note")
    for part, figure in found:
        what, *numbers, bound, note = astuple(figure)
        shown = ["" if n is None else f"{n:,.{d}f}" for n, d in zip(numbers, digits.values(), strict=True)]
        table.add_row(part, what, *shown, bound, note)
    # As wide as it needs where nobody looks on, so that a file of it is whole.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    main()
