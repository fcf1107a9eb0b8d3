"""Files, bytes, rows and snapshots of a pipeline's tables, from their metadata, as metrics."""

from __future__ import annotations

from dataclasses import dataclass

from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table

from twofold import catalog as catalogs
from twofold import metrics, tables
from twofold.definition.model import Pipeline
from twofold.meter import Meter
from twofold.settings import Settings

SMALL_BYTES = 8 << 20
"""Reading a smaller file costs more for finding it than for what is in it."""


@dataclass(frozen=True)
class DataFiles:
    """The data files of a table's current snapshot."""

    count: int
    small: int
    """Those below `SMALL_BYTES`."""
    size_bytes: int


def send(settings: Settings, pipeline: Pipeline, meter: Meter) -> None:
    """Tell of every table that there is."""
    catalog = catalogs.load(settings)
    for name in tables.names(pipeline):
        if table := catalogs.find(catalog, pipeline.name, name):
            _send(meter, name, table)


def data_files(table: Table) -> DataFiles:
    """Count them, by the manifests."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    files = [entry.data_file for one in manifests for entry in one.fetch_manifest_entry(table.io)]
    sizes = [file.file_size_in_bytes for file in files if file.content is DataFileContent.DATA]
    return DataFiles(len(sizes), sum(size < SMALL_BYTES for size in sizes), sum(sizes))


def _send(meter: Meter, name: str, table: Table) -> None:
    snapshot, files = table.current_snapshot(), data_files(table)
    rows = snapshot.summary["total-records"] if snapshot and snapshot.summary else None
    meter.gauge(metrics.TABLE_FILES, files.count, table=name)
    meter.gauge(metrics.TABLE_SMALL_FILES, files.small, table=name)
    meter.gauge(metrics.TABLE_BYTES, files.size_bytes, table=name)
    meter.gauge(metrics.TABLE_ROWS, int(rows or 0), table=name)
    meter.gauge(metrics.TABLE_SNAPSHOTS, len(table.metadata.snapshots), table=name)
