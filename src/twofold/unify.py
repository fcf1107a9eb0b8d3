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
class Past:
    """What the small steps found past the boundary. Relations go after FROM."""

    tail: str | None = None
    """One winner per id; None: nothing is past the boundary."""
    decided: str | None = None
    """Who wins, per id of the tail that `events` has too; None: it has none of them."""
    beaten: str | None = None
    """The rows of `events` that the tail beats."""
    beaten_days: frozenset[date] = frozenset()


def past(engine: Engine, pipeline: Pipeline, boundary: Boundary) -> Past:
    """Run the small steps."""
    stream, batch = engine.stream_log(boundary), engine.batch_log(boundary)
    tail = engine.keep("tail", serving.tail(pipeline, stream, batch, boundary.offsets, boundary.landing))
    near = serving.widened(_days(engine, pipeline, tail), pipeline.event.id_horizon)
    if not near:
        return Past()
    hits = engine.keep("hits", serving.hits(pipeline, engine.near(near, tail), tail))
    if not _days(engine, pipeline, hits):
        return Past(tail)
    decided = engine.keep("decided", serving.decided(pipeline, tail, hits))
    beaten = serving.beaten(pipeline, hits, decided)
    return Past(tail, decided, beaten, frozenset(_days(engine, pipeline, beaten)))


def unified_events(engine: Engine, pipeline: Pipeline, found: Past) -> str:
    """The query of `unified_events` over what the small steps kept."""
    beaten = found.beaten_days
    return serving.unified_events(
        pipeline,
        engine.events(beaten, on=False),
        touched=engine.events(beaten, on=True) if beaten else None,
        tail=found.tail,
        decided=found.decided,
    )


def touched_times(pipeline: Pipeline, found: Past) -> list[str]:
    """Queries of event times, as `_tw_at` in microseconds: of what the tail puts in, and of what it takes out."""
    time = f"unix_micros(`{pipeline.event.time}`) AS _tw_at"
    return [f"SELECT DISTINCT {time} FROM {relation} AS _tw_r" for relation in (found.tail, found.beaten) if relation]


def _days(engine: Engine, pipeline: Pipeline, relation: str) -> set[date]:
    """The days of event time in a relation."""
    day = serving.day_of(f"`{pipeline.event.time}`")
    return engine.days(f"SELECT DISTINCT {day} AS _tw_day FROM {relation} AS _tw_r")
