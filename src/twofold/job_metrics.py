"""What a job sends when it has ended well: the time, its duration, when the next run is due; and the size of tables.

with measured(lake, "union"): … ─► good, seconds, due ─► "missed its schedule" is `time() > due + grace`

Apart from `metrics`, since the producer has no pyiceberg.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table

from twofold import commits, database, metrics, tables
from twofold.errors import TwofoldError, first_line
from twofold.lake import Lake
from twofold.metrics import Meter
from twofold.services import due

SMALL_BYTES = 8 << 20
"""Reading a smaller file costs more for finding it than for what is in it."""


@contextmanager
def measured(lake: Lake, kind: str, *, idle: bool = False) -> Iterator[Meter]:
    """Report the run that the block is, unless it raises; gives the meter for what else there is to send.

    How it ended is kept in `twofold.database`, too: see `failure`. An `idle` run tells no duration.
    """
    meter, started = Meter(lake.settings, lake.name), time.monotonic()
    with failure_kept(lake, kind):
        yield meter
    _keep(lake, kind, "")
    now = datetime.now(UTC)
    meter.gauge(metrics.RUN_GOOD, now.timestamp(), kind=kind)
    if not idle:
        meter.gauge(metrics.RUN_SECONDS, time.monotonic() - started, kind=kind)
    due.send(meter, kind, due.next_run(lake.pipeline.schedule, kind, now))


@contextmanager
def failure_kept(lake: Lake, kind: str) -> Iterator[None]:
    """Keep how the block failed, if it does, as the end of a run."""
    try:
        yield
    except Exception as error:
        _keep(lake, kind, first_line(error))
        raise


def _keep(lake: Lake, kind: str, error: str) -> None:
    # The catalog being away may be why the run failed, and says more than that nothing can be kept of it.
    with suppress(TwofoldError, psycopg.Error):
        database.save_result(lake.settings, lake.name, f"{due.RUN}{kind}", {"error": error})


def failure(lake: Lake, kind: str) -> str:
    """When and how the last run of a kind failed, as a clause; empty if it ended well, or none is known."""
    kept = database.latest_result(lake.settings, lake.name, f"{due.RUN}{kind}")
    if kept is None or not kept.body["error"]:
        return ""
    return f"the last {kind} failed, at {kept.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC: {kept.body['error']}"


@dataclass(frozen=True)
class DataFiles:
    """The data files of a table's current snapshot."""

    count: int
    small: int
    """Those below `SMALL_BYTES`."""
    size_bytes: int


def data_files(table: Table) -> DataFiles:
    """Count them, by the manifests."""
    files = [entry.data_file for one in commits.manifests_of(table) for entry in one.fetch_manifest_entry(table.io)]
    sizes = [file.file_size_in_bytes for file in files if file.content is DataFileContent.DATA]
    return DataFiles(len(sizes), sum(size < SMALL_BYTES for size in sizes), sum(sizes))


def send_tables(lake: Lake, meter: Meter) -> None:
    """Files, bytes, rows and snapshots of every table that there is, from its metadata."""
    for name in tables.names(lake.pipeline):
        if table := lake.find(name):
            snapshot, files = table.current_snapshot(), data_files(table)
            rows = snapshot.summary["total-records"] if snapshot and snapshot.summary else None
            meter.gauge(metrics.TABLE_FILES, files.count, table=name)
            meter.gauge(metrics.TABLE_SMALL_FILES, files.small, table=name)
            meter.gauge(metrics.TABLE_BYTES, files.size_bytes, table=name)
            meter.gauge(metrics.TABLE_ROWS, int(rows or 0), table=name)
            meter.gauge(metrics.TABLE_SNAPSHOTS, len(table.metadata.snapshots), table=name)
