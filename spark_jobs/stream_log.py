"""The log's query: Kafka ─► contract ─► stream_log, every record exactly once.

    micro-batch N ─► its end offsets (checkpoint) against what stream_log holds (its snapshot's summary)
                     all held: a replay, nothing to write    some held: only the rest is written
                     none held: tasks write data files ─► the driver commits them, the end offsets in the same commit

A commit holds only on top of the snapshot whose offsets were read, and offsets only grow: so exactness needs neither
Spark's memory of epochs, nor old snapshots, nor the lock, which is for peace.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import click
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from spark_jobs import maintenance
from spark_jobs.checkpoints import Checkpoint
from spark_jobs.spark_session import JVM_FAILED, Job
from spark_jobs.tasks import FromKafka, WrittenBatch, crashed, packed
from twofold import commits, evolution, kafka, ledger, schemas, table_state, tables
from twofold.commits import AssertProperty
from twofold.contract import kafka_records
from twofold.definition.model import Pipeline
from twofold.errors import BoundaryError, NotRunning, TwofoldError
from twofold.ledger import Erased
from twofold.schema_registry import Registry
from twofold.table_files import Place
from twofold.table_state import Landed
from twofold.topic import place

QUERY = "log"
_EARLIEST = -2
"""Spark's number for the first offset that Kafka still has."""
TIDY_EVERY = commits.MERGED_AT_ONCE
"""Commits between two checks of the history that the table keeps."""
_OFFSETS_PER_TASK = 100_000
"""A task takes this many in about half a second; each task leaves a data file of its own."""
_ATTEMPTS = 5

Trigger = Mapping[str, Any]
"""Keyword arguments of `DataStreamWriter.trigger`."""


@dataclass
class LogWriter:
    """Ingests micro-batches into stream_log; keeps the table as it was last read or committed."""

    job: Job
    fence: Callable[[], str]
    """Called before every commit: raises where this job may no longer write, else gives the topic's id."""
    counted: Callable[[int, Mapping[str, int], Mapping[int, float]], None]
    """Called for every batch written: its number, the rows per outcome and the rejected ones per kind of reason, and
    per partition the newest time stamp of Kafka, in Unix seconds."""
    landed: Landed = field(init=False)
    table: Table = field(init=False)
    erased: Erased = field(default_factory=Erased, init=False)
    error: TwofoldError | None = None
    """Why the last batch was refused; kept here, as Spark wraps what a batch raises."""
    _clock_warned: bool = False
    _commits: int = 0

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> Landed:
        """Read what the table holds."""
        self.table = self.job.lake.table(tables.STREAM_LOG)
        self.landed = table_state.streamed(self.table, self.pipeline.name)
        if not self.erased.is_of(self.table):
            self.erased = ledger.read(self.job.lake, self.table)
        schemas.refuse_other_definition(self.table, self.pipeline)
        return self.landed

    @property
    def pipeline(self) -> Pipeline:
        """Whose records they are."""
        return self.job.pipeline

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the query keeps its offsets."""
        return Checkpoint.of(self.job, QUERY)

    def begin(self) -> None:
        """Read what the table holds; of a stream that begins elsewhere than at 0, find out where, once and for good.

        That is kept before anything is landed, and by every commit from then on: so a lost checkpoint changes nothing
        of it. Of two first starts at once one decides.
        """
        topic = self.pipeline.topic

        def attempt() -> None:
            if self.refresh().offsets or topic.start == table_state.EARLIEST:
                return
            since = None if isinstance(topic.start, str) else topic.start
            start = kafka.first_offsets(self.job.settings, topic.name, since)
            declared = table_state.start_text(topic)
            first = Landed(
                self.pipeline.name, offsets=start, topic_id=self.fence(), start=start, declared_start=declared
            )
            self.table = schemas.commit_state(self.table, first, [AssertProperty(key=table_state.START)])
            self.landed = first
            places = ", ".join(f"{topic.name}[{partition}]@{offset}" for partition, offset in start.items())
            click.echo(f"{self.pipeline.name}: the stream begins with {declared}: {places}", err=True)

        self._retried(attempt)
        for said in evolution.of_start(topic, self.landed):
            click.echo(f"warning: {self.pipeline.name}: {said}", err=True)

    def start(self, trigger: Trigger) -> StreamingQuery:
        """Start the query where the table ends, or where its checkpoint is."""
        self.checkpoint.settle()
        self.begin()
        self._leave_what_is_lost()
        access = {f"kafka.{name}": value for name, value in kafka.java(self.job.settings).items()}
        records = (
            self.job.spark.readStream.format("kafka")
            .options(**access)
            .option("subscribe", self.pipeline.topic.name)
            .option("startingOffsets", self._starting_offsets())
            .option("maxOffsetsPerTrigger", self.pipeline.stream.max_offsets_per_trigger)
            # Records of a transaction count once it is committed; aborted ones never do.
            .option("kafka.isolation.level", "read_committed")
            .option("includeHeaders", str("headers" in kafka_records.columns_beside(self.pipeline)).lower())
            # A poll gives no more, and has a cost of its own: by itself it gives 500.
            .option("kafka.max.poll.records", 10_000)
            # Loss must stop the job, never pass silently.
            .option("failOnDataLoss", "true")
            .load()
            .select("value", "partition", "offset", "timestamp", *kafka_records.columns_beside(self.pipeline))
        )
        writer = records.writeStream.queryName(f"{self.pipeline.name}_{QUERY}").foreachBatch(self.write)
        return writer.option("checkpointLocation", self.checkpoint.path).trigger(**trigger).start()

    def _leave_what_is_lost(self) -> None:
        """A checkpoint from before a loss was accepted would begin in it; without one the query begins after it."""
        done = self.checkpoint.done(self.pipeline.topic.name)
        if self.checkpoint.has_begun() and any(done.get(one.partition, 0) < one.end for one in self.landed.lost):
            self.checkpoint.discard()

    def _starting_offsets(self) -> str:
        """Used only where there is no checkpoint: a lost one is recreated from what the table holds."""
        if not self.landed.offsets or self.checkpoint.has_begun():
            return "earliest"
        # Spark wants every partition named, also those that were added since.
        state = kafka.describe(self.job.settings, self.pipeline.topic.name)
        beginnings = dict.fromkeys(state.partitions if state else (), _EARLIEST)
        return json.dumps({self.pipeline.topic.name: {**beginnings, **self.landed.offsets}})

    def write(self, records: DataFrame, batch_id: int) -> None:
        """Ingest one micro-batch, unless the table holds it already."""
        try:
            self._write(records, batch_id)
        except NotRunning:
            raise  # waited for, as any service that is away
        except TwofoldError as error:
            self.error = error
            raise

    def _write(self, records: DataFrame, batch_id: int) -> None:
        ends = self.checkpoint.kafka_offsets(batch_id, self.pipeline.topic.name)
        starts = self.checkpoint.kafka_offsets(batch_id - 1, self.pipeline.topic.name) or {}
        if ends is None:
            raise BoundaryError(f"batch {batch_id} has no offsets in {self.checkpoint.path}", self._rebuild_remedy())

        def attempt() -> None:
            held = self.landed.offsets
            if any(end > held.get(partition, 0) for partition, end in ends.items()):
                self._refuse_gap(starts, held)
                self._ingest(records, batch_id, starts, ends)

        self._retried(attempt)

    def _retried(self, attempt: Callable[[], None]) -> None:
        remedy = "see that only one streaming job and one maintenance run; the job continues by itself"
        commits.retried(f"{self.pipeline.name}.{tables.STREAM_LOG}", attempt, remedy)

    def _refuse_gap(self, starts: Mapping[int, int], held: Mapping[int, int]) -> None:
        gaps = {p: (held.get(p, 0), start) for p, start in starts.items() if start > held.get(p, 0)}
        if gaps:
            listed = ", ".join(place(self.pipeline.topic.name, p, gap) for p, gap in gaps.items())
            raise BoundaryError(
                f"the checkpoint is ahead of {self.pipeline.name}.stream_log: {listed} would be skipped",
                self._rebuild_remedy(),
            )

    def _rebuild_remedy(self) -> str:
        return f"delete the checkpoint {self.checkpoint.path}: the next start recreates it from what stream_log holds"

    def _ingest(self, records: DataFrame, batch_id: int, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """Write and commit one micro-batch; CommitFailedException where others landed first: all is decided again."""
        held = self.landed.offsets
        size = sum(end - max(starts.get(partition, 0), held.get(partition, 0)) for partition, end in ends.items())
        repeated = {p: offset for p, offset in held.items() if starts.get(p, 0) < offset}
        written = self._run(records, max(1, -(-size // _OFFSETS_PER_TASK)), repeated)
        files = [file for one in written for file in one.files]
        state = replace(
            self.landed,
            landing=self.landed.landing + 1,
            offsets={**held, **{p: max(end, held.get(p, 0)) for p, end in ends.items()}},
            topic_id=self.fence(),
        )
        if not self._commit(files, state):
            commits.discard(self.table, files)
            raise CommitFailedException("others landed meanwhile")
        self._count(batch_id, written)
        self._tidy()

    def _tidy(self) -> None:
        """Now and then, between two batches: merge manifests, and expire snapshots that are no longer needed."""
        self._commits += 1
        if self._commits % TIDY_EVERY or commits.clock_behind_ms(self.table.metadata):
            return
        history = table_state.history_of(self.table)
        expired = maintenance.log_expirable(self.job, history, datetime.now(UTC))
        try:
            self.table = commits.tidy(self.table, expired)
        except CommitFailedException:
            self.refresh()

    def _commit(self, files: Sequence[Any], state: Landed) -> bool:
        """Commit, also on top of what maintenance committed meanwhile; False where anything was landed meanwhile."""
        for _ in range(_ATTEMPTS):
            self._warn_of_the_clock()
            begun = AssertProperty(key=table_state.START, value=self.table.properties.get(table_state.START))
            # Rows of an id that was erased meanwhile must not come in with this batch.
            unchanged = [schemas.same_definition(self.table), begun, self.erased.unchanged]
            try:
                if files:
                    self.table = commits.append(self.table, files, table_state.encode(state), unchanged)
                else:
                    self.table = schemas.commit_state(self.table, state, unchanged)
            except CommitFailedException:
                before = (self.landed, self.erased)
                if (self.refresh(), self.erased) != before:
                    return False
            else:
                self.landed = state
                return True
        return False

    def _run(self, records: DataFrame, count: int, held: Mapping[int, int]) -> list[WrittenBatch]:
        kit = packed(self.pipeline, Place.of(self.table), self.erased)
        registry = Registry.of(self.job.settings)
        # One moment for all rows, kept in them: whoever judges them again judges alike.
        landed_at = None if self.pipeline.topic.managed else datetime.now(UTC)
        task = FromKafka(kit, self.landed.landing + 1, registry, dict(held), landed_at=landed_at)
        parallel = self.job.spark.sparkContext.defaultParallelism
        try:
            return task.run(records, min(count, parallel))
        except JVM_FAILED as error:
            if not crashed(error):
                raise
            click.echo(f"{self.pipeline.name}: a record ends the process that judges it; judging apart", err=True)
            return replace(task, apart=True).run(records, 1)

    def _count(self, batch_id: int, written: Sequence[WrittenBatch]) -> None:
        counts = sum((one.counts for one in written), Counter[str]())
        newest: dict[int, float] = {}
        for one in written:
            for partition, stamp in one.newest.items():
                newest[partition] = max(stamp, newest.get(partition, 0.0))
        self.counted(batch_id, counts, newest)

    def _warn_of_the_clock(self) -> None:
        warning = commits.clock_warning(self.table)
        if warning and not self._clock_warned:
            click.echo(f"warning: {warning}", err=True)
        self._clock_warned = bool(warning)
