"""The view queries: stream_log ─► watermark ─► one per id ─► windows ─► stream_<view>, appended while a window is open.

They read the landed table, not Kafka: a record is parsed once, and a view added later finds all of history there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from spark_jobs import checkpoints, stream_start, view_fill, view_fold
from spark_jobs.stream_log import Trigger
from spark_jobs.stream_start import Whole
from spark_jobs.view_tasks import Kit, Measures
from twofold import catalog as catalogs
from twofold import schemas, tables, versions
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.errors import BoundaryError
from twofold.lake import Lake
from twofold.settings import Settings
from twofold.table_files import Place
from twofold.table_state import Folded
from twofold.versions import StreamView

TIDY_EVERY = 20
"""Commits between two looks at what the table keeps of its versions and its history."""


class StateOutgrown(Exception):
    """A view's state no longer fits into memory."""


@dataclass
class ViewWriter:
    """One view's query."""

    spark: SparkSession
    settings: Settings
    pipeline: Pipeline
    view: View
    table: StreamView = field(init=False)
    _query: StreamingQuery | None = None
    _commits: int = 0
    _in_memory: bool = False
    """Where the query's state is: the session only says where that of the view is which was started last."""
    _outgrown: bool = False

    @property
    def checkpoint(self) -> str:
        """Where the view's query keeps its state and how far it has read stream_log."""
        return self.settings.checkpoint(self.pipeline.name, self.view.name)

    def ensure(self) -> None:
        """Make the table, or refuse a changed declaration, before anything is written."""
        name = tables.stream_view_name(self.view)
        schemas.ensure_view(catalogs.load(self.settings), self.pipeline, self.view, name)
        self.table = StreamView(Lake(self.settings, self.pipeline), self.view)

    def start(self, trigger: Trigger) -> StreamingQuery:
        """Start where the checkpoint is; without one, fill the view with what is landed, and go on from there."""
        self.table.refresh()
        room = 0 if self._outgrown else self.pipeline.stream.state_memory << 20
        whole = stream_start.prepare(self.spark, self.settings, self.pipeline, self.view, self.table.folded, room)
        self._in_memory = self.spark.conf.get(checkpoints.PROVIDER) == stream_start.MEMORY
        log = (
            self.spark.readStream.format("iceberg")
            .option("streaming-max-rows-per-micro-batch", tables.VIEW_ROWS_PER_BATCH)
            # Retention deletes old rows of the log; what it took was folded before.
            .option("streaming-skip-delete-snapshots", "true")
            .load(tables.qualified(self.pipeline, tables.STREAM_LOG))
        )
        updates = self._updates(self._filled(whole, log) if whole else log)
        writer = updates.writeStream.queryName(f"{self.pipeline.name}_{self.view.name}").outputMode("update")
        query = writer.foreachBatch(self._make_state_first if whole else self.write)
        self._query = query.option("checkpointLocation", self.checkpoint).trigger(**trigger).start()
        return self._query

    def _filled(self, whole: Whole, log: DataFrame) -> DataFrame:
        """Fill the view; what the query has yet to read of the log."""
        version = versions.version(whole.sequence_number, whole.files)
        state = self._state(whole.snapshot, version)
        filled = view_fill.fill(self.spark, self.pipeline, self.view, self.table, whole, state)
        checkpoints.begin_at(self.spark, self.checkpoint, whole.offset(0))
        now_ms, watermark_ms = int(time.time() * 1000), filled.watermark_us // 1000
        end = whole.offset(whole.files)
        checkpoints.end_first_batch_at(self.spark, self.checkpoint, end, now_ms, watermark_ms)
        return filled.rest(log)

    def _updates(self, log: DataFrame) -> DataFrame:
        """The windows that changed; of each id only the first row counts that comes within the delay."""
        delay = f"{view_fold.delay(self.pipeline, self.view).total_seconds() * 1000:.0f} milliseconds"
        rows = view_fold.rows(view_fold.accepted(log), self.pipeline, self.view).withWatermark(view_fold.SEEN, delay)
        distinct = rows.dropDuplicatesWithinWatermark([self.pipeline.event.id])
        return view_fold.fold(view_fold.on_time(distinct, self.pipeline, self.view), self.pipeline, self.view)

    def _make_state_first(self, updates: DataFrame, batch_id: int) -> None:
        """The first batch of a filled view only makes the state: its windows are there, and some only begin in it."""
        if batch_id == 0:
            _make_state(updates)
        else:
            self.write(updates, batch_id)

    def write(self, updates: DataFrame, batch_id: int) -> None:
        """Append the windows that changed. A batch without any commits too: what it read counts as read."""
        end = checkpoints.offsets(self.spark, self.checkpoint, batch_id)
        if end is None:
            raise BoundaryError(f"batch {batch_id} has no offsets in {self.checkpoint}", self._remedy())
        if end["snapshot_id"] == checkpoints.NO_SNAPSHOT:
            # The first batch of a query that began before anything was landed: the next one wants its state.
            _make_state(updates)
            return
        log = catalogs.load(self.settings).load_table((self.pipeline.name, tables.STREAM_LOG))
        read = log.snapshot_by_id(end["snapshot_id"])
        if read is None:
            raise BoundaryError(f"batch {batch_id} ends at a snapshot that has expired", self._remedy())
        state = self._state(read.snapshot_id, versions.version(read.sequence_number or 0, end["position"]))
        assert state.version is not None
        task = Measures(Kit(self.view, Place.of(self.table.table)).packed(), state.version)
        self.table.append(task.run(updates), state)
        self._commits += 1
        if self._commits % TIDY_EVERY == 0:
            self.table.fold()
            self.table.tidy(datetime.now(UTC))
        self._refuse_outgrown()

    def _refuse_outgrown(self) -> None:
        """End the query whose state has come to need twice the memory that it may: the next start goes to RocksDB."""
        progress = self._query.lastProgress if self._query else None
        if progress is None or not self._in_memory:
            return
        used = sum(operator["memoryUsedBytes"] for operator in progress["stateOperators"])
        if used > 2 * (self.pipeline.stream.state_memory << 20):
            self._outgrown = True
            raise StateOutgrown(f"its state takes {used >> 20} MiB of memory; it is filled anew, with state in RocksDB")

    def _state(self, snapshot: int, version: int) -> Folded:
        definition = fingerprint.view(self.pipeline, self.view)
        return Folded(snapshot, definition, version=version, state=stream_start.layout(self.view))

    def _remedy(self) -> str:
        return f"delete the checkpoint {self.checkpoint}: the next start fills the view anew from stream_log"


def _make_state(updates: DataFrame) -> None:
    """Run a batch for its state alone."""
    updates.write.format("noop").mode("overwrite").save()
