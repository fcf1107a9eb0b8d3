"""How the tail past the boundary is folded into `events`: the steps, written once for Spark and for DuckDB.

    logs ─► tail (one winner per id) ─► days within the id horizon ─► hits: rows of `events` with the tail's ids
                                                                     │
      no hit: events UNION ALL tail, no join at all                  ▼
      else:   an anti-join on the days of beaten rows only ◄── decided: who wins, per id

An engine keeps the small steps (tail, hits, decided); `events` itself is only ever scanned by the final query.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Protocol

from twofold import serving
from twofold.boundary import Boundary
from twofold.definition.model import Pipeline


class Engine(Protocol):
    """What the steps need of Spark or DuckDB. Queries are texts in Spark's dialect; relations go after FROM."""

    def stream_log(self, boundary: Boundary) -> str:
        """Relation with at least the rows of `stream_log` past the boundary."""

    def batch_log(self, boundary: Boundary) -> str:
        """Relation with at least the rows of `batch_log` past the boundary."""

    def events(self, days: Collection[date], *, on: bool) -> str:
        """Relation with exactly the rows of `events` on (or not on) these days of event time."""

    def keep(self, name: str, query: str) -> str:
        """Run a query once and keep its rows; returns the relation."""

    def days(self, query: str) -> set[date]:
        """The one date column of a query's rows."""


def unified_events(engine: Engine, pipeline: Pipeline, boundary: Boundary) -> str:
    """Run the small steps; returns the query of `unified_events` over what they keep."""
    stream, batch = engine.stream_log(boundary), engine.batch_log(boundary)
    tail = engine.keep("tail", serving.tail(pipeline, stream, batch, boundary.offsets, boundary.landing))
    near = serving.widened(_days(engine, pipeline, tail), pipeline.event.id_horizon)
    if not near:
        return serving.unified_events(pipeline, engine.events((), on=False))
    hits = engine.keep("hits", serving.hits(pipeline, engine.events(near, on=True), tail))
    if not _days(engine, pipeline, hits):
        return serving.unified_events(pipeline, engine.events((), on=False), tail=tail)
    decided = engine.keep("decided", serving.decided(pipeline, tail, hits))
    beaten = _days(engine, pipeline, serving.beaten(pipeline, hits, decided))
    return serving.unified_events(
        pipeline,
        engine.events(beaten, on=False),
        touched=engine.events(beaten, on=True) if beaten else None,
        tail=tail,
        decided=decided,
    )


def _days(engine: Engine, pipeline: Pipeline, relation: str) -> set[date]:
    # Python has no dates before year 1: they count as its first day.
    time = f"greatest(`{pipeline.event.time}`, {serving.moment(date.min)})"
    return engine.days(f"SELECT DISTINCT CAST({time} AS DATE) AS _tw_day FROM {relation} AS _tw_r")
