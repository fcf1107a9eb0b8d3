"""Where a view's query begins in stream_log, and where it keeps its state, settled before Spark looks.

    checkpoint, its snapshot still there ─► where it left off
    none, and nothing was landed yet ─────► the first snapshot, batch by batch
    none, or its snapshot is gone ────────► the whole log as of one snapshot fills the view; then what follows
    no batch of it was ever done ─────────► the same
    its state is of another make ─────────► the same: other parts, or in memory what no longer fits there

Iceberg's source begins at the oldest snapshot left and reads only what that one added: after an expiry it would pass
over the history before it in silence. It can also read all of a snapshot's files, but never asks for that itself; so
the first batch is written into the checkpoint, as Spark would log it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import TimestamptzType
from pyspark.sql import SparkSession

from spark_jobs import checkpoints, rewriting, view_fold
from twofold import catalog as catalogs
from twofold import table_state, tables
from twofold.definition.model import Pipeline, View
from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.table_state import Folded, History

MEMORY = "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider"
ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
BYTES_PER_ID = 300
"""Of the JVM's memory, for an id of 20 characters: 220 to 255 were measured, after garbage collection."""
_SLACK = 2
"""State is taken to memory where it fits so many times, and leaves it where it no longer fits once: it stays put."""
_LAYOUT = 1
"""Raised where the queries are built otherwise than the states that are there."""
_ATTEMPTS = 5


@dataclass(frozen=True)
class Whole:
    """All files of one snapshot."""

    snapshot: int
    sequence_number: int
    files: int
    landing: int

    def offset(self, position: int) -> dict[str, Any]:
        """So many of them, as Iceberg's source writes it down."""
        return {"version": 1, "snapshot_id": self.snapshot, "position": position, "scan_all_files": True}


def prepare(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View, folded: Folded | None, room: int
) -> Whole | None:
    """Make the view's checkpoint one that a query can start from, and that leaves out no row.

    Returns what the view is to be filled with, where it begins anew; `folded` is what its table says, and `room` the
    bytes of memory that its state may take.
    """
    checkpoint = settings.checkpoint(pipeline.name, view.name)
    checkpoints.settle(spark, checkpoint)
    log = catalogs.load(settings).load_table((pipeline.name, tables.STREAM_LOG))
    before = checkpoints.state_provider(spark, checkpoint)
    provider = _provider(log, pipeline, view, before, room)
    spark.conf.set(checkpoints.PROVIDER, provider)
    resumed = checkpoints.resumed_from(spark, checkpoint)
    if (
        resumed is not None
        and checkpoints.committed(spark, checkpoint)
        and table_state.history_of(log).since(resumed["snapshot_id"]) is not None
        and before == provider
        and folded is not None
        and folded.state == layout(view)
    ):
        _shorten(spark, checkpoint, resumed)
        return None
    checkpoints.discard(spark, checkpoint)
    return None if log.current_snapshot() is None else _whole(spark, settings, pipeline.name)


def layout(view: View) -> str:
    """A short name for what the query's state holds; it is stored, and another one's state is of no use."""
    facts = json.dumps([_LAYOUT, *(astuple(part) for part in view.parts)])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _provider(log: Table, pipeline: Pipeline, view: View, before: str | None, room: int) -> str:
    """Memory, where the ids that the query remembers fit; what is in one place stays there as long as it can."""
    needed = _ids(log, pipeline, view) * BYTES_PER_ID
    fits = needed <= room if before == MEMORY else needed * _SLACK <= room
    return MEMORY if room and fits else ROCKSDB


def _ids(log: Table, pipeline: Pipeline, view: View) -> int:
    """At most so many ids are remembered, by the statistics of the log's files.

    An id is forgotten once the watermark has passed its time by the delay, and the watermark is behind by the delay.
    """
    column = log.schema().find_field(pipeline.event.time).field_id
    span = 2 * view_fold.delay(pipeline, view) // timedelta(microseconds=1)
    highest = [
        (int(from_bytes(TimestamptzType(), file.upper_bounds[column])), file.record_count)
        for file in _files(log)
        if file.upper_bounds and column in file.upper_bounds
    ]
    latest = max((top for top, _ in highest), default=0)
    return sum(count for top, count in highest if top > latest - span)


def _files(log: Table) -> Iterator[DataFile]:
    snapshot = log.current_snapshot()
    for manifest in snapshot.manifests(log.io) if snapshot else ():
        for entry in manifest.fetch_manifest_entry(log.io):
            yield entry.data_file


def _shorten(spark: SparkSession, checkpoint: str, resumed: dict[str, Any]) -> None:
    """Let the query's beginning follow it: a query that drains walks there from its beginning, at every start.

    Without this, the very first snapshot could never be expired.
    """
    # At its position the source would find nothing new, and fails on that.
    begin = {**resumed, "position": 0}
    if begin != checkpoints.beginning(spark, checkpoint):
        checkpoints.begin_at(spark, checkpoint, begin)


def _whole(spark: SparkSession, settings: Settings, pipeline: str) -> Whole:
    """The newest append (the source passes over others) whose manifests name no deleted file (it would read those)."""
    for _ in range(_ATTEMPTS):
        found = _clean_append(settings, pipeline)
        if found is not None:
            return found
        rewriting.clean_manifests(spark, settings, pipeline, tables.STREAM_LOG)
        name = tables.qualified(pipeline, tables.STREAM_LOG)
        spark.table(name).limit(0).writeTo(name).append()
    raise TwofoldError(
        f"{pipeline}.{tables.STREAM_LOG} was rewritten by others during each of {_ATTEMPTS} attempts to read it whole",
        "see that only one maintenance runs at a time, then start the streaming job again",
    )


def _clean_append(settings: Settings, pipeline: str) -> Whole | None:
    table = catalogs.find(catalogs.load(settings), pipeline, tables.STREAM_LOG)
    assert table is not None
    history = table_state.history_of(table)
    ancestors = (table.snapshot_by_id(one.id) for one in history.ancestors())
    appends = (one for one in ancestors if one and one.summary and one.summary.operation == Operation.APPEND)
    snapshot = next(appends, None)
    if snapshot is None:
        return None
    manifests = [one for one in snapshot.manifests(table.io) if one.content == ManifestContent.DATA]
    if any(one.deleted_files_count for one in manifests):
        return None
    return Whole(
        snapshot.snapshot_id,
        snapshot.sequence_number or 0,
        sum((one.added_files_count or 0) + (one.existing_files_count or 0) for one in manifests),
        table_state.landed(History(history.snapshots, snapshot.snapshot_id), pipeline).landing,
    )
