"""A view over all that is landed, at once: asking a state store about each row costs many times more.

stream_log as of a snapshot ─┬─► one row per id ─► fold ─► stream_<view>, whole
                             └─► rows that a later one can still meet ─► the query's first batch, for its state
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from spark_jobs import view_fold
from spark_jobs.stream_start import Whole
from spark_jobs.view_tasks import Kit, Measures
from twofold import tables
from twofold.definition.model import Pipeline, View
from twofold.table_files import Place
from twofold.table_state import Folded
from twofold.versions import StreamView


@dataclass(frozen=True)
class Filled:
    """What a filled view covers, but for the windows and ids that the query has to know of."""

    pipeline: Pipeline
    landing: int
    watermark_us: int
    """Where Spark's watermark would be, had it read all of it: only what is behind it has no window open."""
    open_from_us: int
    """Event time: rows before it meet no row that is still on time."""

    def rest(self, log: DataFrame) -> DataFrame:
        """The rows that the query needs: those that are open, and all that was landed since."""
        is_open = F.col(f"`{self.pipeline.event.time}`") >= F.timestamp_micros(F.lit(self.open_from_us))
        return log.where(is_open | (F.col("landing") > self.landing))


def fill(spark: SparkSession, pipeline: Pipeline, view: View, table: StreamView, whole: Whole, state: Folded) -> Filled:
    """Replace the view by its fold over a snapshot of stream_log."""
    accepted = view_fold.accepted(_log(spark, pipeline, whole.snapshot))
    assert state.version is not None
    task = Measures(Kit(view, Place.of(table.table)).packed(), state.version)
    distinct = view_fold.rows(_first_of_each_id(accepted, pipeline), pipeline, view)
    table.fill(task.run(view_fold.fold(distinct, pipeline, view)), state)
    highest = F.unix_micros(F.max(view_fold.seen(pipeline))).alias("_tw_latest")
    latest = accepted.agg(highest).collect()[0]["_tw_latest"]
    delay = view_fold.delay(pipeline, view) // timedelta(microseconds=1)
    # To Spark, the watermark begins at the epoch.
    watermark = max(0, (latest or 0) - delay)
    return Filled(pipeline, whole.landing, watermark, watermark - delay)


def _log(spark: SparkSession, pipeline: Pipeline, snapshot: int) -> DataFrame:
    """stream_log as of a snapshot, which has the columns of its own day: a field declared since is null in it."""
    name = tables.qualified(pipeline, tables.STREAM_LOG)
    rows = spark.read.option("versionAsOf", snapshot).table(name)
    later = (field for field in spark.table(name).schema if field.name not in rows.columns)
    return rows.select("*", *(F.lit(None).cast(field.dataType).alias(field.name) for field in later))


def _first_of_each_id(accepted: DataFrame, pipeline: Pipeline) -> DataFrame:
    """The earliest row of each id, as Kafka took them in."""
    place = ("kafka_timestamp", "kafka_partition", "kafka_offset")
    first = Window.partitionBy(f"`{pipeline.event.id}`").orderBy(*place)
    return accepted.withColumn("_tw_place", F.row_number().over(first)).where("_tw_place = 1")
