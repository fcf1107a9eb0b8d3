"""How the tail past the boundary is folded into `events`: the steps, once for readers and for the union itself.

    logs ─► tail (one winner per id) ─► days within the id horizon ─► hits: rows of `events` with the tail's ids
                                                                     │
      no hit: events UNION ALL tail, no join at all                  ▼
      else:   an anti-join on the days of beaten rows only ◄── decided: who wins, per id

An engine keeps the small steps (tail, hits, decided); `events` itself is only ever scanned by the final query.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
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

    def near(self, days: Collection[date], tail: str) -> str:
        """Relation with at least the rows of `events` on these days that have an id of the tail."""

    def keep(self, name: str, query: str) -> str:
        """Run a query once and keep its rows; returns the relation."""

    def days(self, query: str) -> set[date]:
        """The one date column of a query's rows."""


@dataclass(frozen=True)
class Steps:
    """The small steps, as relations that an engine keeps; None where there is nothing in them."""

    tail: str | None = None
    hits: str | None = None
    decided: str | None = None
    beaten: frozenset[date] = frozenset()
    """Days of the rows of `events` that the tail beats."""


def steps(engine: Engine, pipeline: Pipeline, boundary: Boundary) -> Steps:
    """Run the small steps."""
    stream, batch = engine.stream_log(boundary), engine.batch_log(boundary)
    tail = engine.keep("tail", serving.tail(pipeline, stream, batch, boundary.offsets, boundary.landing))
    near = serving.widened(days(engine, pipeline, tail), pipeline.event.id_horizon)
    if not near:
        return Steps()
    hits = engine.keep("hits", serving.hits(pipeline, engine.near(near, tail), tail))
    if not days(engine, pipeline, hits):
        return Steps(tail)
    decided = engine.keep("decided", serving.decided(pipeline, tail, hits))
    return Steps(tail, hits, decided, frozenset(days(engine, pipeline, serving.beaten(pipeline, hits, decided))))


def unified_events(engine: Engine, pipeline: Pipeline, boundary: Boundary) -> str:
    """Run the small steps; returns the query of `unified_events` over what they keep."""
    found = steps(engine, pipeline, boundary)
    return serving.unified_events(
        pipeline,
        engine.events(found.beaten, on=False),
        touched=engine.events(found.beaten, on=True) if found.beaten else None,
        tail=found.tail,
        decided=found.decided,
    )


def days(engine: Engine, pipeline: Pipeline, relation: str) -> set[date]:
    """The days of event time in a relation; what Python has no date for counts as its first day, or its last."""
    time = f"least(greatest(`{pipeline.event.time}`, {serving.moment(date.min)}), {serving.moment(date.max)})"
    return engine.days(f"SELECT DISTINCT CAST({time} AS DATE) AS _tw_day FROM {relation} AS _tw_r")
