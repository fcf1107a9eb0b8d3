"""The landing query: Kafka ─► contract ─► stream_log, every record exactly once.

    micro-batch N ─► its end offsets (checkpoint) against what stream_log holds (its snapshot's summary)
                     all held: a replay, nothing to write    some held: only the rest is written
                     none held: append; the end offsets ride in the same commit

So exactness needs neither Spark's memory of epochs nor old snapshots, which expiry would take away: the offsets
in the table's own commit decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from spark_jobs import checkpoints, contract
from spark_jobs.commits import tagged
from twofold import boundary, kafka_access, reasons, serving, tables, topic
from twofold import catalog as catalogs
from twofold.boundary import Landed
from twofold.definition.model import Pipeline
from twofold.errors import BoundaryError, TwofoldError
from twofold.settings import Settings

QUERY = "log"
_RAW = "record value"
"""Name of the bytes while they are judged; with a blank, as an event field may be called `value`."""
_NEWEST = "newest"
_EARLIEST = -2
"""Spark's number for the first offset that Kafka still has."""

Trigger = Mapping[str, Any]
"""Keyword arguments of `DataStreamWriter.trigger`."""


@dataclass
class LogWriter:
    """Appends micro-batches to stream_log; keeps what the table holds, as only this process appends."""

    spark: SparkSession
    settings: Settings
    pipeline: Pipeline
    fence: Callable[[], str]
    """Called before every commit: raises where this job may no longer write, else gives the topic's id."""
    counted: Callable[[int, Mapping[str, int], Mapping[int, float]], None]
    """Told of every batch written: its number, the rows per outcome and the rejected ones per kind of reason, and per
    partition the newest time stamp of Kafka, in Unix seconds."""
    landed: Landed = field(init=False)
    error: TwofoldError | None = None
    """Why the last batch was refused: Spark wraps what a batch raises, so it is kept here."""

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> Landed:
        """Read what the table holds."""
        history = catalogs.read_history(self.settings, self.pipeline.name, tables.STREAM_LOG)
        self.landed = boundary.landed(history, self.pipeline.name)
        return self.landed

    @property
    def checkpoint(self) -> str:
        """Where the landing query keeps its offsets."""
        return self.settings.checkpoint(self.pipeline.name, QUERY)

    def start(self, trigger: Trigger) -> StreamingQuery:
        """Start the query where the table ends, or where its checkpoint is."""
        checkpoints.settle(self.spark, self.checkpoint)
        self.refresh()
        access = {f"kafka.{name}": value for name, value in kafka_access.java(self.settings).items()}
        records = (
            self.spark.readStream.format("kafka")
            .options(**access)
            .option("subscribe", self.pipeline.topic.name)
            .option("startingOffsets", self._starting_offsets())
            .option("maxOffsetsPerTrigger", self.pipeline.stream.max_offsets_per_trigger)
            # Loss must stop the job, never pass in silence.
            .option("failOnDataLoss", "true")
            .load()
        )
        rows = judged(records, self.pipeline)
        writer = rows.writeStream.queryName(f"{self.pipeline.name}_{QUERY}").foreachBatch(self.write)
        return writer.option("checkpointLocation", self.checkpoint).trigger(**trigger).start()

    def _starting_offsets(self) -> str:
        """Used only where there is no checkpoint: a lost one is made anew from what the table holds."""
        if not self.landed.offsets or checkpoints.exists(self.spark, self.checkpoint):
            return "earliest"
        # Spark wants every partition named, also those that were added since.
        state = topic.describe(self.settings, self.pipeline.topic.name)
        beginnings = dict.fromkeys(state.partitions if state else (), _EARLIEST)
        return boundary.kafka_json(self.pipeline.topic.name, {**beginnings, **self.landed.offsets})

    def write(self, rows: DataFrame, batch_id: int) -> None:
        """Land one micro-batch, unless the table holds it already."""
        try:
            self._write(rows, batch_id)
        except TwofoldError as error:
            self.error = error
            raise

    def _write(self, rows: DataFrame, batch_id: int) -> None:
        ends = checkpoints.kafka_offsets(self.spark, self.checkpoint, batch_id, self.pipeline.topic.name)
        starts = checkpoints.kafka_offsets(self.spark, self.checkpoint, batch_id - 1, self.pipeline.topic.name) or {}
        if ends is None:
            raise BoundaryError(f"batch {batch_id} has no offsets in {self.checkpoint}", self._rebuild_remedy())
        held = self.landed.offsets
        if all(end <= held.get(partition, 0) for partition, end in ends.items()):
            return
        self._refuse_gap(starts, held)
        if any(starts.get(partition, 0) < offset for partition, offset in held.items()):
            rows = rows.where(serving.past_offsets(held))
        self._append(batch_id, rows, ends)

    def _refuse_gap(self, starts: Mapping[int, int], held: Mapping[int, int]) -> None:
        gaps = {p: (held.get(p, 0), start) for p, start in starts.items() if start > held.get(p, 0)}
        if gaps:
            listed = ", ".join(f"{self.pipeline.topic.name}[{p}]@{low}–{high - 1}" for p, (low, high) in gaps.items())
            raise BoundaryError(
                f"the checkpoint is ahead of {self.pipeline.name}.stream_log: {listed} would be skipped",
                self._rebuild_remedy(),
            )

    def _rebuild_remedy(self) -> str:
        return f"delete the checkpoint {self.checkpoint}: the next start makes it anew from what stream_log holds"

    def _append(self, batch_id: int, rows: DataFrame, ends: Mapping[int, int]) -> None:
        state = Landed(
            self.pipeline.name, self.landed.landing + 1, offsets={**self.landed.offsets, **ends}, topic_id=self.fence()
        )
        partitions = max(ends) + 1
        seen = Observation()
        numbered = rows.withColumn("landing", _landing(state.landing, partitions))
        numbered = numbered.observe(seen, *_counts(), _newest(partitions).alias(_NEWEST))
        tagged(numbered.writeTo(tables.qualified(self.pipeline, tables.STREAM_LOG)), boundary.encode(state)).append()
        self.landed = state
        counts = dict(seen.get)
        newest = {p: at_ms / 1000 for p, at_ms in enumerate(counts.pop(_NEWEST)) if at_ms is not None}
        self.counted(batch_id, counts, newest)


def judged(records: DataFrame, pipeline: Pipeline) -> DataFrame:
    """Kafka records to rows of stream_log, but for their landing. Part of the query, so that it is built only once."""
    received = records.select(
        F.col("value").alias(_RAW),
        F.col("partition").alias("kafka_partition"),
        F.col("offset").alias("kafka_offset"),
        F.col("timestamp").alias("kafka_timestamp"),
    )
    read = contract.read_json(received, pipeline, F.col(_RAW))
    rows = contract.judge(read, pipeline, F.col("kafka_timestamp"), F.col(_RAW))
    return rows.select(*(name for name in tables.stream_log(pipeline).column_names if name != "landing"))


def _landing(number: int, partitions: int) -> Column:
    """The number, out of an array with an entry per partition.

    A plain number would be part of the generated code, which Spark and the JVM would compile anew for every batch.
    """
    return F.array_repeat(F.lit(number).cast("bigint"), partitions)[F.col("kafka_partition")]


def _counts() -> list[Column]:
    outcomes = (tables.ACCEPTED, tables.FILTERED, tables.REJECTED)
    by_outcome = [F.count_if(F.col("outcome") == outcome).alias(outcome) for outcome in outcomes]
    # A record without a fault has no reason, and null meets no pattern.
    return by_outcome + [F.count_if(F.col("reason").rlike(p)).alias(kind) for kind, p in reasons.PATTERNS.items()]


def _newest(partitions: int) -> Column:
    """Per partition the newest time stamp of Kafka among the rows, in milliseconds; null: no row is of it.

    One comparison per partition and row, in the pass that counts: no grouping, which would shuffle the rows.
    """
    stamps = (f"max(if(kafka_partition = {p}, unix_millis(kafka_timestamp), null))" for p in range(partitions))
    return F.expr(f"array({', '.join(stamps)})")
