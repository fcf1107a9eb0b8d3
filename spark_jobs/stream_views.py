"""The view queries: stream_log ─► watermark ─► one per id ─► windows ─► stream_<view>, appended while a window is open.

They read stream_log, not Kafka: a record is parsed once, and a view added later finds the whole history there.
Where a query begins in stream_log, and where it keeps its state, is decided before Spark starts the query:

    checkpoint, its snapshot still there ─► where it left off
    none, and nothing was landed yet ─────► the first snapshot, batch by batch
    none, or its snapshot is gone ────────► the whole log as of one snapshot fills the view; then what follows
    no batch of it was ever done ─────────► the same
    its state is of another make ─────────► the same: other parts, or in memory what no longer fits there
    rows that it has read were replaced ──► the same: `twofold reland` judged them again; a running query fails on that

Iceberg's source begins at the oldest snapshot left and reads only what that one added: after an expiry it would
silently skip the history before it. The source can also read all of a snapshot's files, but never does so by itself; so
the first batch is written into the checkpoint, as Spark would log it. The view itself is filled at once, by one query
over the snapshot, as asking a state store about each row costs many times more; the first batch only makes the state.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.types import TimestamptzType
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from spark_jobs import checkpoints
from spark_jobs.checkpoints import Checkpoint
from spark_jobs.spark_session import Job, as_of
from spark_jobs.stream_log import Trigger
from spark_jobs.view_aggregation import SEEN, Aggregation, Measures
from twofold import commits, schemas, table_state, tables, versions
from twofold.definition import fingerprint
from twofold.definition.model import View
from twofold.definition.names import ELEMENT
from twofold.errors import BoundaryError
from twofold.table_state import Folded, History
from twofold.versions import StreamView

TIDY_EVERY = 20
"""Commits between two checks of the versions and the history that the table keeps."""
MEMORY = "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider"
ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
BYTES_PER_ID = 300
"""Of the JVM's memory, for an id of 20 characters: 220 to 255 were measured, after garbage collection."""
_SLACK = 2
"""State is taken to memory where it fits this many times, and leaves it where it no longer fits once: it stays put."""
_LAYOUT = 2
"""Raised when the queries are built differently from the existing states."""


class StateOutgrown(Exception):
    """A view's state no longer fits into memory."""


@dataclass(frozen=True)
class Whole:
    """All files of one snapshot."""

    snapshot: int
    sequence_number: int
    files: int
    landing: int

    def offset(self, position: int) -> dict[str, Any]:
        """The offset of that many files, as Iceberg's source writes it."""
        return {"version": 1, "snapshot_id": self.snapshot, "position": position, "scan_all_files": True}


@dataclass
class ViewWriter:
    """One view's query."""

    job: Job
    view: View
    table: StreamView = field(init=False)
    _query: StreamingQuery | None = None
    _commits: int = 0
    _in_memory: bool = False
    """Where the query's state is: the session only says where that of the view is which was started last."""
    _outgrown: bool = False

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the view's query keeps its state and how far it has read stream_log."""
        return Checkpoint.of(self.job, self.view.name)

    @property
    def _aggregation(self) -> Aggregation:
        return Aggregation(self.job.pipeline, self.view)

    def ensure(self) -> None:
        """Make the table, or refuse a changed declaration, before anything is written."""
        lake = self.job.lake
        schemas.ensure_view(lake.catalog(), lake.pipeline, self.view, tables.stream_view_name(self.view))
        self.table = StreamView(lake, self.view)

    def start(self, trigger: Trigger) -> StreamingQuery:
        """Start where the checkpoint is; without one, fill the view with what was ingested, and continue from there."""
        self.table.refresh()
        whole = self._prepare()
        log = (
            self.job.spark.readStream.format("iceberg")
            .option("streaming-max-rows-per-micro-batch", tables.VIEW_ROWS_PER_BATCH)
            # Retention deletes old rows of the log; they were folded before.
            .option("streaming-skip-delete-snapshots", "true")
            .load(self.job.qualified(tables.STREAM_LOG))
        )
        updates = self._updates(self._filled(whole, log) if whole else log)
        writer = updates.writeStream.queryName(f"{self.job.pipeline.name}_{self.view.name}").outputMode("update")
        query = writer.foreachBatch(self._make_state_first if whole else self.write)
        self._query = query.option("checkpointLocation", self.checkpoint.path).trigger(**trigger).start()
        return self._query

    def _prepare(self) -> Whole | None:
        """Make the checkpoint one that a query can start from, and that leaves out no row.

        Returns what the view is to be filled with, where it begins again.
        """
        checkpoint, conf = self.checkpoint, self.job.spark.conf
        checkpoint.settle()
        log = self.job.lake.table(tables.STREAM_LOG)
        before = checkpoint.state_provider()
        room = 0 if self._outgrown else self.job.pipeline.stream.state_memory << 20
        provider = _provider(log, self._aggregation, before, room)
        conf.set(checkpoints.PROVIDER, provider)
        self._in_memory = provider == MEMORY
        resumed = checkpoint.resumed_from()
        if (
            resumed is not None
            and checkpoint.has_ended_a_batch()
            and self._follows(table_state.history_of(log), resumed["snapshot_id"])
            and before == provider
            and self.table.folded is not None
            and self.table.folded.state == self._layout
        ):
            # A query that drains walks from its beginning, at every start: were that not to follow, the very first
            # snapshot could never be expired. At its position the source would find nothing new, and fails on that.
            checkpoint.begin_at({**resumed, "position": 0})
            return None
        checkpoint.discard()
        return None if log.current_snapshot() is None else _whole(self.job)

    def _follows(self, log: History, read: int) -> bool:
        """Whether all that a query has yet to read is appended to the snapshot that it has read."""
        name = self.job.pipeline.name
        before = table_state.landed(History(log.snapshots, read), name)
        return log.since(read) is not None and before.relanded == table_state.landed(log, name).relanded

    def _filled(self, whole: Whole, log: DataFrame) -> DataFrame:
        """Replace the view by its fold over a snapshot of stream_log; what the query has yet to read of the log."""
        aggregation, state = self._aggregation, self._state(whole.snapshot, whole.sequence_number, whole.files)
        table = self.job.lake.table(tables.STREAM_LOG)
        pinned = f"SELECT * FROM {as_of(table, whole.snapshot, table.schema().fields)}"
        accepted = aggregation.accepted(self.job.spark.sql(pinned))
        distinct = aggregation.rows(self._first_of_each_id(accepted))
        self.table.fill(self._measures(state).run(aggregation.fold(distinct)), state)
        highest = F.unix_micros(F.max(aggregation.seen)).alias("_tw_latest")
        latest_us = accepted.agg(highest).collect()[0]["_tw_latest"]
        delay_us = aggregation.delay // timedelta(microseconds=1)
        # Where Spark's watermark would be, had it read all of it; to Spark, it begins at the epoch.
        watermark_us = max(0, (latest_us or 0) - delay_us)
        self.checkpoint.begin_at(whole.offset(0))
        self.checkpoint.end_first_batch_at(whole.offset(whole.files), int(time.time() * 1000), watermark_us // 1000)
        # Rows before that meet no row that is still on time: the query's state can do without them.
        is_open = aggregation.time >= F.timestamp_micros(F.lit(watermark_us - delay_us))
        return log.where(is_open | (F.col("landing") > whole.landing))

    def _first_of_each_id(self, accepted: DataFrame) -> DataFrame:
        """The earliest row of each id, as Kafka took them in."""
        event = self.job.pipeline.event
        if not event.id:
            return accepted
        place = ("kafka_timestamp", "kafka_partition", "kafka_offset", *([ELEMENT] if event.each else []))
        first = Window.partitionBy(f"`{self.job.pipeline.event.key}`").orderBy(*place)
        return accepted.withColumn("_tw_place", F.row_number().over(first)).where("_tw_place = 1")

    def _updates(self, log: DataFrame) -> DataFrame:
        """The windows that changed; of each id only the first row counts, while a window of it may be open.

        An id is forgotten by the event's own time, as its windows are closed: by the arrival, one ahead of it was
        forgotten while its window was open, and counted again.
        """
        aggregation = self._aggregation
        delay = f"{aggregation.delay.total_seconds() * 1000:.0f} milliseconds"
        rows = aggregation.rows(aggregation.accepted(log)).withWatermark(SEEN, delay)
        event = self.job.pipeline.event
        timed = aggregation.on_time(rows)
        return aggregation.fold(timed.dropDuplicatesWithinWatermark([event.key]) if event.id else timed)

    def _make_state_first(self, updates: DataFrame, batch_id: int) -> None:
        """The first batch of a filled view only makes the state: its windows exist, and some only begin in it."""
        if batch_id == 0:
            _make_state(updates)
        else:
            self.write(updates, batch_id)

    def write(self, updates: DataFrame, batch_id: int) -> None:
        """Append the windows that changed. A batch without any windows commits too: what it read counts as read."""
        end = self.checkpoint.offsets(batch_id)
        if end is None:
            raise BoundaryError(f"batch {batch_id} has no offsets in {self.checkpoint.path}", self._remedy())
        if end["snapshot_id"] == checkpoints.NO_SNAPSHOT:
            # The first batch of a query that began before anything was landed: the next one wants its state.
            _make_state(updates)
            return
        read = self.job.lake.table(tables.STREAM_LOG).snapshot_by_id(end["snapshot_id"])
        if read is None:
            raise BoundaryError(f"batch {batch_id} ends at a snapshot that has expired", self._remedy())
        state = self._state(read.snapshot_id, read.sequence_number or 0, end["position"])
        self.table.append(self._measures(state).run(updates), state)
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
        if used > 2 * (self.job.pipeline.stream.state_memory << 20):
            self._outgrown = True
            raise StateOutgrown(
                f"its state takes {used >> 20} MiB of memory; it is filled again, with state in RocksDB"
            )

    def _measures(self, state: Folded) -> Measures:
        return Measures.of(self.view, self.table.table, state.version)

    def _state(self, snapshot: int, sequence_number: int, files: int) -> Folded:
        """The state that the table carries once this many files of a snapshot were read."""
        definition, version = fingerprint.view(self.job.pipeline, self.view), versions.version(sequence_number, files)
        types = fingerprint.types(self.job.pipeline, self.view)
        return Folded(snapshot, definition, version=version, state=self._layout, types=types)

    @property
    def _layout(self) -> str:
        """A short name for what the query's state holds; it is stored, and another one's state is of no use."""
        # Ids and groups are the keys of the state, which Spark takes in the types that they had.
        types = fingerprint.types(self.job.pipeline, self.view)
        facts = json.dumps([_LAYOUT, types, *(astuple(part) for part in self.view.parts)])
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    def _remedy(self) -> str:
        return f"delete the checkpoint {self.checkpoint.path}: the next start fills the view again from stream_log"


def _make_state(updates: DataFrame) -> None:
    """Run a batch for its state alone."""
    updates.write.format("noop").mode("overwrite").save()


def _provider(log: Table, aggregation: Aggregation, before: str | None, room: int) -> str:
    """Memory, where the ids that the query remembers fit; what is in one place stays there as long as it can."""
    needed = _ids(log, aggregation) * BYTES_PER_ID
    fits = needed <= room if before == MEMORY else needed * _SLACK <= room
    return MEMORY if room and fits else ROCKSDB


def _ids(log: Table, aggregation: Aggregation) -> int:
    """At most this many ids are remembered, by the statistics of the log's files.

    An id is forgotten once the watermark has passed its time by the delay, and the watermark is behind by the delay.
    """
    times = (aggregation.pipeline.event.time, tables.arrival(aggregation.pipeline))
    columns = [log.schema().find_field(name).field_id for name in times]
    span = 2 * aggregation.delay // timedelta(microseconds=1)
    highest = [
        (min(int(from_bytes(TimestamptzType(), bounds[column])) for column in columns), file.record_count)
        for manifest in commits.manifests_of(log)
        for file in (entry.data_file for entry in manifest.fetch_manifest_entry(log.io))
        if (bounds := file.upper_bounds or {}).keys() >= set(columns)
    ]
    latest = max((top for top, _ in highest), default=0)
    return sum(count for top, count in highest if top > latest - span)


def _whole(job: Job) -> Whole:
    """The newest append (the source passes over others) whose manifests name no deleted file (it would read those)."""

    def attempt() -> Whole:
        found = _clean_append(job)
        if found is None:
            commits.append(commits.tidy(job.lake.table(tables.STREAM_LOG), forget=True), (), {})
            found = _clean_append(job)
        if found is None:
            raise CommitFailedException("it was rewritten meanwhile")
        return found

    remedy = "see that only one maintenance runs at a time, then start the streaming job again"
    return commits.retried(f"{job.pipeline.name}.{tables.STREAM_LOG}", attempt, remedy)


def _clean_append(job: Job) -> Whole | None:
    table = job.lake.table(tables.STREAM_LOG)
    history = table_state.history_of(table)
    ancestors = (table.snapshot_by_id(one.id) for one in history.ancestors())
    appends = (one for one in ancestors if one and one.summary and one.summary.operation == Operation.APPEND)
    snapshot = next(appends, None)
    if snapshot is None:
        return None
    landed = table_state.landed(History(history.snapshots, snapshot.snapshot_id), job.pipeline.name)
    if landed.relanded != table_state.landed(history, job.pipeline.name).relanded:
        return None  # rows were replaced since
    manifests = [one for one in snapshot.manifests(table.io) if one.content == ManifestContent.DATA]
    if any(one.deleted_files_count for one in manifests):
        return None
    return Whole(
        snapshot.snapshot_id,
        snapshot.sequence_number or 0,
        sum((one.added_files_count or 0) + (one.existing_files_count or 0) for one in manifests),
        landed.landing,
    )
