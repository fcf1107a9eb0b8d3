"""A view's aggregate ("fold") in Spark, for the streaming job, and how it reads and writes.

accepted rows ─► fold: window × group × measures ─► stream_<view>
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.readwriter import DataFrameWriterV2

from twofold import tables
from twofold.definition.model import Pipeline, View


def fold(rows: DataFrame, pipeline: Pipeline, view: View) -> DataFrame:
    """Rows of `events` shape to one row per window and group: window_start, window_end, groups, measures."""
    window = F.window(pipeline.event.time, _interval(view.window), _interval(view.every))
    measures = [F.expr(measure.spark).alias(name) for name, measure in view.measures.items()]
    folded = rows.groupBy(window.alias("_tw_window"), *view.by).agg(*measures)
    return folded.select(
        F.col("_tw_window.start").alias("window_start"),
        F.col("_tw_window.end").alias("window_end"),
        *view.by,
        *view.measures,
    )


def _interval(length: object) -> str:
    return f"{int(length.total_seconds() * 1_000_000)} microseconds"  # type: ignore[attr-defined]


def tagged(writer: DataFrameWriterV2, state: Mapping[str, str]) -> DataFrameWriterV2:
    """Put `state` (see `twofold.boundary.encode`) into the summary of the snapshot that `writer` commits."""
    for key, value in state.items():
        writer = writer.option(f"snapshot-property.{key}", value)
    return writer


def read(spark: SparkSession, pipeline: Pipeline, table: str, snapshot: int | None) -> DataFrame:
    """A table as of a snapshot, with today's columns; empty where it had none yet."""
    today = spark.table(tables.qualified(pipeline, table))
    if snapshot is None:
        return today.limit(0)
    rows = spark.read.option("versionAsOf", snapshot).table(tables.qualified(pipeline, table))
    # A snapshot has the columns of its own day: a field declared since is null in it.
    later = (field for field in today.schema if field.name not in rows.columns)
    return rows.select("*", *(F.lit(None).cast(field.dataType).alias(field.name) for field in later))
