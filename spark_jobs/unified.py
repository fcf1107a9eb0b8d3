"""The exact union of both layers as temporary views in a Spark session, from the same SQL that `twofold query` runs.

    create_views(spark, settings, pipeline)
    spark.sql("SELECT origin, count(*) FROM unified_events GROUP BY origin")

A stored view could not pin its tables, so a union that commits while it is read would be seen in one and not in the
other. Here each table is read at one snapshot; call again to see what came since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date

from pyiceberg.catalog import Catalog
from pyspark.sql import SparkSession

from twofold import boundary, catalog, serving, tables, unify
from twofold.boundary import Boundary, History
from twofold.definition.model import Pipeline, View
from twofold.errors import QueryError
from twofold.settings import Settings
from twofold.tables import Table


@dataclass(frozen=True)
class Pinned:
    """One table at one snapshot."""

    relation: str
    history: History


@dataclass(frozen=True)
class SparkEngine:
    """What the steps of `twofold.unify` need of Spark."""

    spark: SparkSession
    pipeline: Pipeline
    pinned_events: Pinned
    pinned_stream_log: Pinned
    pinned_batch_log: Pinned

    def stream_log(self, boundary: Boundary) -> str:
        """The whole log: Iceberg prunes by the condition in the query."""
        return self.pinned_stream_log.relation

    def batch_log(self, boundary: Boundary) -> str:
        """The whole log: Iceberg prunes by the condition in the query."""
        return self.pinned_batch_log.relation

    def events(self, days: Collection[date], *, on: bool) -> str:
        """By a condition that Iceberg prunes partitions with."""
        if not days and not on:
            return self.pinned_events.relation
        these = serving.on_days(f"`{self.pipeline.event.time}`", days)
        return f"(SELECT * FROM {self.pinned_events.relation} WHERE {these if on else f'NOT {these}'})"

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
    """Make (or renew) `unified_events` and every `unified_<view>` that has a table; returns their names."""
    found = catalog.load(settings)
    # Backwards along the data's way: what moves from a log into `events` meanwhile is then seen in the log.
    declared = (tables.events(pipeline), tables.stream_log(pipeline), tables.batch_log(pipeline))
    engine = SparkEngine(spark, pipeline, *(_declared(found, pipeline, table) for table in declared))
    log = boundary.landed(engine.pinned_stream_log.history, pipeline.name)
    edge = boundary.boundary(engine.pinned_events.history, pipeline.name, log.topic_id)
    spark.sql(unify.unified_events(engine, pipeline, unify.past(engine, pipeline, edge))).createOrReplaceTempView(
        "unified_events"
    )
    made = [view.name for view in pipeline.views.values() if _view(spark, found, pipeline, view)]
    return ["unified_events", *(f"unified_{name}" for name in made)]


def _declared(found: Catalog, pipeline: Pipeline, declared: Table) -> Pinned:
    pinned = _pin(found, pipeline, declared.name, declared.columns)
    if pinned is None:
        raise QueryError(
            f"pipeline {pipeline.name} has no table {declared.name} yet: none of its jobs ever ran",
            f"run `twofold stream {pipeline.name}` or `twofold batch {pipeline.name}`",
        )
    return pinned


def _view(spark: SparkSession, found: Catalog, pipeline: Pipeline, view: View) -> bool:
    batch = _pin(found, pipeline, tables.batch_view_name(view))
    stream = _pin(found, pipeline, tables.stream_view_name(view), [(tables.VERSION, "BIGINT")])
    made = [pinned for pinned in (batch, stream) if pinned is not None]
    if not made:
        return False
    empty = f"(SELECT * FROM {made[0].relation} WHERE FALSE)"
    newest = stream and f"({serving.newest(view, view.measures, stream.relation)})"
    folded = boundary.folded(batch.history) if batch else None
    text = serving.unified_view(
        view,
        view.measures,
        batch.relation if batch else empty,
        newest or empty,
        folded.sealed_through if folded else None,
    )
    spark.sql(text).createOrReplaceTempView(f"unified_{view.name}")
    return True


def _pin(found: Catalog, pipeline: Pipeline, name: str, wanted: Iterable[tuple[str, str]] = ()) -> Pinned | None:
    """The table as it is now. A snapshot is read with the columns of its own day: later ones are null in it."""
    table = catalog.find(found, pipeline.name, name)
    if table is None:
        return None
    qualified, snapshot = tables.qualified(pipeline, name), table.current_snapshot()
    if snapshot is None:
        return Pinned(f"(SELECT * FROM {qualified} WHERE FALSE)", catalog.history(table))
    schema = table.schema() if snapshot.schema_id is None else table.schemas()[snapshot.schema_id]
    later = [f"CAST(NULL AS {kind}) AS `{column}`" for column, kind in wanted if column not in schema.column_names]
    relation = f"{qualified} VERSION AS OF {snapshot.snapshot_id}"
    if later:
        relation = f"(SELECT *, {', '.join(later)} FROM {relation})"
    return Pinned(relation, catalog.history(table))
