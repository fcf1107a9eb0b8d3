"""Every aggregate ("fold") of a view, once: the streaming job and the union job both call `fold`.

accepted rows ─► fold: window × group × measures ─► stream_<view> (upserted) or batch_<view> (recomputed)
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs.publishing import tagged
from twofold import tables
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.ensure import BY_DAY, PROPERTIES
from twofold.errors import IncompatibleDefinition

_DEFINITION = "twofold.definition"
"""Property of a view's table: the fingerprint of the declaration that fills it."""


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


def ensure_table(spark: SparkSession, pipeline: Pipeline, view: View, table: str, log: str) -> str:
    """Make a view's table if there is none; refuse one that another declaration filled. Returns its qualified name."""
    name = tables.qualified(pipeline, table)
    if not spark.catalog.tableExists(name):
        _create(spark, pipeline, view, name, fingerprint.view(pipeline, view), log)
    if is_outdated(spark, pipeline, view, table):
        raise IncompatibleDefinition(
            f"{pipeline.source_file or pipeline.name}: views.{view.name} is not what {pipeline.name}.{table} was "
            "computed by (its window, groups, measures, or the pipeline's lateness changed)",
            f"`twofold rebuild {pipeline.name}` computes all views anew; or declare the change as a new view",
        )
    return name


def is_outdated(spark: SparkSession, pipeline: Pipeline, view: View, table: str) -> bool:
    """Whether another declaration filled this table."""
    name = tables.qualified(pipeline, table)
    found = spark.sql(f"SHOW TBLPROPERTIES {name} ('{_DEFINITION}')").first()
    return found is not None and found["value"] != fingerprint.view(pipeline, view)


def replace_table(rows: DataFrame, pipeline: Pipeline, view: View, table: str, state: Mapping[str, str]) -> None:
    """Put `rows` in place of a table that another declaration filled, with their own columns: in one commit."""
    writer = rows.writeTo(tables.qualified(pipeline, table)).using("iceberg").partitionedBy(F.days("window_start"))
    for key, value in {**PROPERTIES, **BY_DAY, _DEFINITION: fingerprint.view(pipeline, view)}.items():
        writer = writer.tableProperty(key, value)
    tagged(writer, state).createOrReplace()


def _create(spark: SparkSession, pipeline: Pipeline, view: View, name: str, declared: str, log: str) -> None:
    shape = fold(spark.table(tables.qualified(pipeline, log)).limit(0), pipeline, view).schema
    columns = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in shape)
    properties = ", ".join(f"'{k}' = '{v}'" for k, v in {**PROPERTIES, **BY_DAY, _DEFINITION: declared}.items())
    spark.sql(
        f"CREATE TABLE IF NOT EXISTS {name} ({columns}) USING iceberg "
        f"PARTITIONED BY (days(window_start)) TBLPROPERTIES ({properties})"
    )
