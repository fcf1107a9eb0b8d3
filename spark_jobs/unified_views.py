"""The exact union of both layers, and the views, as temporary views in a Spark session: the SQL of `twofold query`.

    create_views(spark, settings, pipeline)
    spark.sql("SELECT origin, count(*) FROM unified_events GROUP BY origin")

A stored view could not pin its tables, so a union that commits while it is read would be seen in one and not in the
other. Here each table is read at one snapshot; call again to see what came since.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyspark.sql import SparkSession

from spark_jobs.spark_session import as_of
from twofold import serving, tables
from twofold.definition.model import Pipeline, View
from twofold.errors import QueryError
from twofold.reader import Reader, statements
from twofold.reader.pinned import Pinned
from twofold.reader.unified import is_current
from twofold.settings import Settings


def create_views(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> list[str]:
    """Make (or renew) `unified_events`, and `unified_<view>` and `live_<view>` of every view; returns their names.

    Rows that `events` and batch_<view> do not hold yet are computed by DuckDB, as in `twofold query`, and handed over.
    A view that no job has computed yet has no `live_<view>`.
    """
    with Reader(settings, {pipeline.name: pipeline}) as reader:
        reader.pin_in_order(pipeline, statements.offered(pipeline))
        pins = [reader.pinned(pipeline, name) for name in (tables.EVENTS, tables.STREAM_LOG, tables.BATCH_LOG)]
        for pinned in pins:
            if pinned.table is None:
                raise QueryError(
                    f"pipeline {pipeline.name} has no table {pinned.name} yet: none of its jobs ever ran",
                    f"run `twofold stream {pipeline.name}` or `twofold batch {pipeline.name}`",
                )
        engine = reader.engine_of(pipeline)
        past = engine.past
        parts = (("tail", past.tail), ("decided", past.decided))
        tail, decided = (
            rows and _handed_over(spark, reader, f"_tw_{pipeline.name}_{part}", rows) for part, rows in parts
        )
        untouched, touched = _relation(pins[0], nothing=engine.outdated is not None), None
        if past.beaten_days:
            days = serving.on_days(f"`{pipeline.event.time}`", past.beaten_days)
            touched = f"(SELECT * FROM {untouched} WHERE {days})"
            untouched = f"(SELECT * FROM {untouched} WHERE NOT {days})"
        exact = serving.unified_events(pipeline, untouched, touched, tail, decided)
        spark.sql(exact).createOrReplaceTempView(statements.UNIFIED_EVENTS)
        made = [name for view in pipeline.views.values() for name in _views(spark, reader, pipeline, view)]
    return [statements.UNIFIED_EVENTS, *made]


def _views(spark: SparkSession, reader: Reader, pipeline: Pipeline, view: View) -> Iterator[str]:
    tabled = [reader.pinned(pipeline, name(view)) for name in (tables.batch_view_name, tables.stream_view_name)]
    batch, stream = (
        _relation(pinned) if pinned.table is not None and is_current(pipeline, view, pinned) else None
        for pinned in tabled
    )
    found = reader.windows(pipeline, view)
    parts = ((part, getattr(found, part)) for part in ("touched", "folded"))
    touched, folded = (rows and _handed_over(spark, reader, f"_tw_{view.name}_{part}", rows) for part, rows in parts)
    exact = serving.unified_view(view, None if found.whole else batch, touched, folded, found.sealed_through)
    spark.sql(exact).createOrReplaceTempView(statements.unified_view_name(view.name))
    yield statements.unified_view_name(view.name)
    if batch or stream:
        spark.sql(serving.live_view(view, batch, stream, found.sealed_through)).createOrReplaceTempView(
            statements.live_view_name(view.name)
        )
        yield statements.live_view_name(view.name)


def _handed_over(spark: SparkSession, reader: Reader, name: str, relation: str) -> str:
    """Rows of the reader's DuckDB as a temporary view of Spark."""
    rows = reader.connection.sql(f"SELECT * FROM {relation}").to_arrow_table()
    spark.createDataFrame(rows).createOrReplaceTempView(name)
    return name


def _relation(pinned: Pinned, nothing: bool = False) -> str:
    table = pinned.made
    snapshot = table.current_snapshot()
    if nothing or snapshot is None:
        return f"(SELECT * FROM {tables.qualified(*table.name())} WHERE FALSE)"
    return as_of(table, snapshot.snapshot_id, pinned.columns)
