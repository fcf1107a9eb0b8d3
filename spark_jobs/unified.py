"""The exact union of both layers, and the views, as temporary views in a Spark session: the SQL of `twofold query`.

    create_views(spark, settings, pipeline)
    spark.sql("SELECT origin, count(*) FROM unified_events GROUP BY origin")

A stored view could not pin its tables, so a union that commits while it is read would be seen in one and not in the
other. Here each table is read at one snapshot; call again to see what came since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date

from pyspark.sql import SparkSession

from twofold import boundary, serving, tables, unify
from twofold.boundary import Boundary
from twofold.definition.model import Pipeline, View
from twofold.errors import QueryError
from twofold.reader import Reader, statements
from twofold.reader.pinned import Pinned
from twofold.reader.unified import is_current
from twofold.settings import Settings


@dataclass(frozen=True)
class SparkEngine:
    """What the steps of `twofold.unify` need of Spark."""

    spark: SparkSession
    pipeline: Pipeline
    pinned_events: str
    pinned_stream_log: str
    pinned_batch_log: str

    def stream_log(self, boundary: Boundary) -> str:
        """The whole log: Iceberg prunes by the condition in the query."""
        return self.pinned_stream_log

    def batch_log(self, boundary: Boundary) -> str:
        """The whole log: Iceberg prunes by the condition in the query."""
        return self.pinned_batch_log

    def events(self, days: Collection[date], *, on: bool) -> str:
        """By a condition that Iceberg prunes partitions with."""
        if not days and not on:
            return self.pinned_events
        these = serving.on_days(f"`{self.pipeline.event.time}`", days)
        return f"(SELECT * FROM {self.pinned_events} WHERE {these if on else f'NOT {these}'})"

    def near(self, days: Collection[date], tail: str) -> str:
        """All of these days."""
        return self.events(days, on=True)

    def keep(self, name: str, query: str) -> str:
        """A cached temporary view."""
        view = f"_tw_{self.pipeline.name}_{name}"
        self.spark.catalog.dropTempView(view)
        self.spark.sql(query).cache().createTempView(view)
        return view

    def days(self, query: str) -> set[date]:
        """The dates of a one-column result."""
        return {row[0] for row in self.spark.sql(query).collect()}


def create_views(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> list[str]:
    """Make (or renew) `unified_events`, and `unified_<view>` and `live_<view>` of every view; returns their names.

    What batch_<view> does not say is folded by DuckDB, as `twofold query` does it, and handed over as rows. A view that
    no job has computed yet has no `live_<view>`.
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
        engine = SparkEngine(spark, pipeline, *map(_relation, pins))
        log = boundary.landed(pins[1].history, pipeline.name)
        found = unify.past(engine, pipeline, boundary.boundary(pins[0].history, pipeline.name, log.topic_id))
        spark.sql(unify.unified_events(engine, pipeline, found)).createOrReplaceTempView(statements.UNIFIED_EVENTS)
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


def _relation(pinned: Pinned) -> str:
    """The table at the pinned snapshot, which is read with the columns of its own day: later ones are null in it."""
    table = pinned.made
    qualified, snapshot = tables.qualified(*table.name()), table.current_snapshot()
    if snapshot is None:
        return f"(SELECT * FROM {qualified} WHERE FALSE)"
    schema = table.schema() if snapshot.schema_id is None else table.schemas()[snapshot.schema_id]
    later = [
        f"CAST(NULL AS {str(column.iceberg).replace('timestamptz', 'timestamp')}) AS `{column.name}`"
        for column in pinned.columns
        if column.name not in schema.column_names
    ]
    relation = f"{qualified} VERSION AS OF {snapshot.snapshot_id}"
    return f"(SELECT *, {', '.join(later)} FROM {relation})" if later else relation
