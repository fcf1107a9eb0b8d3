"""Files, bytes, rows and snapshots of a pipeline's tables, from their metadata, as metrics."""

from __future__ import annotations

from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table

from twofold import catalog as catalogs
from twofold import metrics, tables
from twofold.definition.model import Pipeline
from twofold.meter import Meter
from twofold.settings import Settings

SMALL_BYTES = 8 << 20
"""Reading a smaller file costs more for finding it than for what is in it."""


def send(settings: Settings, pipeline: Pipeline, meter: Meter) -> None:
    """Tell of every table that there is."""
    catalog = catalogs.load(settings)
    for name in tables.names(pipeline):
        if table := catalogs.find(catalog, pipeline.name, name):
            _send(meter, name, table)


def _send(meter: Meter, name: str, table: Table) -> None:
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    files = [entry.data_file for one in manifests for entry in one.fetch_manifest_entry(table.io)]
    sizes = [file.file_size_in_bytes for file in files if file.content is DataFileContent.DATA]
    rows = snapshot.summary["total-records"] if snapshot and snapshot.summary else None
    meter.gauge(metrics.TABLE_FILES, len(sizes), table=name)
    meter.gauge(metrics.TABLE_SMALL_FILES, sum(size < SMALL_BYTES for size in sizes), table=name)
    meter.gauge(metrics.TABLE_BYTES, sum(sizes), table=name)
    meter.gauge(metrics.TABLE_ROWS, int(rows or 0), table=name)
    meter.gauge(metrics.TABLE_SNAPSHOTS, len(table.metadata.snapshots), table=name)
