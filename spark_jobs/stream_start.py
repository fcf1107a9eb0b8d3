"""Where a view's query begins in stream_log, settled before Spark looks.

    checkpoint, its snapshot still there ─► where it left off
    none, and nothing was landed yet ─────► the first snapshot, batch by batch
    none, or its snapshot is gone ────────► the whole log as of one snapshot in the first batch, then what follows
    first batch of an empty log cut short ► the same: a query that drains cannot begin before the first snapshot again

Iceberg's source begins at the oldest snapshot left and reads only what that one added: after an expiry it would pass
over the history before it in silence. It can also read all of a snapshot's files, but never asks for that itself; so
the first batch is written into the checkpoint here, as Spark would log it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pyiceberg.manifest import ManifestContent
from pyiceberg.table.snapshots import Operation
from pyspark.sql import SparkSession

from spark_jobs import checkpoints, rewriting
from twofold import catalog as catalogs
from twofold import tables
from twofold.errors import TwofoldError
from twofold.settings import Settings

_ATTEMPTS = 5


@dataclass(frozen=True)
class Whole:
    """All files of one snapshot."""

    snapshot: int
    files: int

    def offset(self, position: int) -> dict[str, Any]:
        """So many of them, as Iceberg's source writes it down."""
        return {"version": 1, "snapshot_id": self.snapshot, "position": position, "scan_all_files": True}


def prepare(spark: SparkSession, settings: Settings, pipeline: str, view: str) -> int | None:
    """Make the view's checkpoint one that a query can start from, and that leaves out no row.

    Returns the snapshot whose files are all in the first batch, where that is still to begin.
    """
    checkpoint = settings.checkpoint(pipeline, view)
    checkpoints.settle(spark, checkpoint)
    log = catalogs.read_history(settings, pipeline, tables.STREAM_LOG)
    resumed = checkpoints.resumed_from(spark, checkpoint)
    if resumed is not None and log.since(resumed["snapshot_id"]) is not None:
        _shorten(spark, checkpoint, resumed)
        return None
    checkpoints.discard(spark, checkpoint)
    if log.head is None:
        return None
    everything = _whole(spark, settings, pipeline)
    checkpoints.begin_at(spark, checkpoint, everything.offset(0))
    checkpoints.end_first_batch_at(spark, checkpoint, everything.offset(everything.files), int(time.time() * 1000))
    return everything.snapshot


def reads_everything(batch_id: int, end: dict[str, Any] | None) -> bool:
    """Whether this batch is the whole log: what it gives replaces the view, instead of being upserted."""
    return batch_id == 0 and end is not None and bool(end["scan_all_files"])


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
    ancestors = (table.snapshot_by_id(one.id) for one in catalogs.history(table).ancestors())
    appends = (one for one in ancestors if one and one.summary and one.summary.operation == Operation.APPEND)
    snapshot = next(appends, None)
    if snapshot is None:
        return None
    manifests = [one for one in snapshot.manifests(table.io) if one.content == ManifestContent.DATA]
    if any(one.deleted_files_count for one in manifests):
        return None
    return Whole(
        snapshot.snapshot_id, sum((one.added_files_count or 0) + (one.existing_files_count or 0) for one in manifests)
    )
