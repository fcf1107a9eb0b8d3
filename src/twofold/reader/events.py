"""`unified_events` in DuckDB: the steps of `twofold.serving`, over pinned tables."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from itertools import count

from duckdb import DuckDBPyConnection
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile

from twofold import serving, table_state
from twofold.definition.model import Pipeline
from twofold.reader import predicates
from twofold.reader.pinned import Pinned, day_of
from twofold.reader.rendering import quoted
from twofold.serving import Past
from twofold.table_state import Boundary

Read = Callable[[Pinned, tuple[DataFile, ...]], str]
"""Makes a relation of some data files of a pinned table."""


@dataclass(frozen=True)
class DuckDBEngine:
    """The steps' engine. The three tables must have been pinned in this order, `events` first."""

    connection: DuckDBPyConnection
    pipeline: Pipeline
    pinned_events: Pinned
    pinned_stream_log: Pinned
    pinned_batch_log: Pinned
    read: Read
    within: frozenset[date] | None = None
    """Of `events`, only the files of these days; None: all."""
    _numbers: count[int] = field(default_factory=count)

    @cached_property
    def past(self) -> Past:
        """What lies past the boundary, looked at once."""
        return serving.past(self, self.pipeline, self.boundary())

    def unified(self, days: Collection[date] | None = None) -> str:
        """The query of `unified_events`, in DuckDB's dialect; with `days`, of events of these days at least."""
        engine = self if days is None else replace(self, within=frozenset(days))
        return serving.duckdb(serving.unify(engine, self.pipeline, self.past))

    def boundary(self) -> Boundary:
        """What the pinned `events` covers; refused where the log is of another topic."""
        name = self.pipeline.name
        log = table_state.landed(self.pinned_stream_log.history, name)
        return table_state.boundary(self.pinned_events.history, name, log.topic_id)

    def stream_log(self, boundary: Boundary) -> str:
        """The log's files that reach past the boundary's offsets."""
        return self._past(self.pinned_stream_log, boundary, predicates.past_offsets(boundary.offsets))

    def batch_log(self, boundary: Boundary) -> str:
        """The log's files with landings after the boundary's."""
        return self._past(self.pinned_batch_log, boundary, predicates.compared("landing", ">", boundary.landing))

    def _past(self, log: Pinned, edge: Boundary, where: BooleanExpression) -> str:
        covered = table_state.covered(log.history, edge)
        return self.read(log, log.narrowed(log.files_since(covered.id if covered else None), where))

    def events(self, days: Collection[date], *, on: bool) -> str:
        """Files are pure in their day, so days are told apart by file, at no cost per row."""
        everything = self.pinned_events.all_files if self.within is None else self.pinned_events.on_days(self.within)
        return self.read(self.pinned_events, tuple(file for file in everything if (day_of(file) in days) == on))

    def near(self, days: Collection[date], tail: str) -> str:
        """Where ids grow with time, few files of these days reach into those of the tail."""
        key = self.pipeline.event.id
        low, high = self.connection.execute(f"SELECT min({quoted(key)}), max({quoted(key)}) FROM {tail}").fetchall()[0]
        where = predicates.EVERYTHING
        if isinstance(low, str | int):
            where = predicates.all_of([predicates.compared(key, ">=", low), predicates.compared(key, "<=", high)])
        found = self.pinned_events
        return self.read(found, found.narrowed(found.on_days(days), where))

    def keep(self, name: str, query: str) -> str:
        """A temporary table."""
        return self.table(name, serving.duckdb(query))

    def table(self, name: str, query: str) -> str:
        """A temporary table, of a query in DuckDB's dialect."""
        relation = f"_tw_{self.pipeline.name}__{next(self._numbers)}_{name}"
        self.connection.execute(f"CREATE TEMP TABLE {relation} AS {query}")
        return f"temp.main.{relation}"

    def days(self, query: str) -> set[date]:
        """The dates of a one-column result."""
        return {row[0] for row in self.connection.execute(serving.duckdb(query)).fetchall()}
