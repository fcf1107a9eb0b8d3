"""`unified_events`, `unified_<view>` and `live_<view>` in DuckDB: the steps of `twofold.serving`, over pinned tables.

    event times of the tail, and of the rows it beats ─┐
    days of `events` touched since batch_<view> ───────┴─► windows touched ─► folded from unified_events ─┐
    batch_<view> without these windows ──────────────────────────────────────────────────────────────────┴─► unified

Where batch_<view> is not there, or is of another declaration or a history that was expired, all windows are folded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from itertools import count

from duckdb import DuckDBPyConnection
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile

from twofold import serving, table_state, tables, windows
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.errors import QueryError
from twofold.reader import pruning
from twofold.reader.pinned import Pinned, day_of
from twofold.serving import Past
from twofold.table_state import Boundary, Folded

Read = Callable[[Pinned, tuple[DataFile, ...]], str]
"""Makes a relation of some data files of a pinned table."""
Tables = tuple[Pinned, Pinned, Pinned]
"""`events`, stream_log and batch_log, pinned in this order."""


@dataclass(frozen=True)
class DuckDBEngine:
    """The steps' engine. The three tables must have been pinned in this order, `events` first."""

    connection: DuckDBPyConnection
    pipeline: Pipeline
    pinned_events: Pinned
    pinned_stream_log: Pinned
    pinned_batch_log: Pinned
    read: Read
    outdated: Pinned | None = None
    """The `events` that were made of rows which the logs have replaced since: `pinned_events` is an empty one then."""
    within: frozenset[date] | None = None
    """Of `events`, only the files of these days; None: all."""
    _numbers: count[int] = field(default_factory=count)

    @classmethod
    def over(cls, connection: DuckDBPyConnection, pipeline: Pipeline, pinned: Tables, read: Read) -> DuckDBEngine:
        """Over `events` and both logs; where rows of these were replaced since `events` was made, all is past it."""
        name, (events, *logs) = pipeline.name, pinned
        stream, batch = (table_state.landed(log.history, name) for log in logs)
        if table_state.boundary(events.history, name, stream.topic_id).is_of(stream, batch):
            return cls(connection, pipeline, *pinned, read)
        return cls.from_scratch(connection, pipeline, pinned, read)

    @classmethod
    def from_scratch(
        cls, connection: DuckDBPyConnection, pipeline: Pipeline, pinned: Tables, read: Read
    ) -> DuckDBEngine:
        """Over the logs alone: of `events`, only what retention has taken from them."""
        events, stream, batch = pinned
        return cls(connection, pipeline, replace(events, table=None), stream, batch, read, outdated=events)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Columns of `events` whose fields are no longer declared."""
        declared = tables.events(self.pipeline).column_names
        return tuple(column.name for column in self.pinned_events.columns if column.name not in declared)

    def only_united(self) -> str | None:
        """Rows of an outdated `events` whose record stream_log has no longer."""
        log = self.pinned_stream_log.table
        retained = table_state.retained_from(log.properties) if log else {}
        if self.outdated is None or not retained:
            return None
        events = self.read(self.outdated, self.outdated.all_files)
        return serving.no_longer_logged(self.pipeline, events, retained, self.dropped)

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
        return self._past(self.pinned_stream_log, boundary, pruning.past_offsets(boundary.offsets))

    def batch_log(self, boundary: Boundary) -> str:
        """The log's files with landings after the boundary's."""
        return self._past(self.pinned_batch_log, boundary, pruning.compared("landing", ">", boundary.landing))

    def _past(self, log: Pinned, edge: Boundary, where: BooleanExpression) -> str:
        covered = table_state.covered(log.history, edge)
        return self.read(log, log.narrowed(log.files_since(covered.id if covered else None), where))

    def events(self, days: Collection[date], *, on: bool) -> str:
        """Files are pure in their day, so days are separated by file, at no cost per row."""
        everything = self.pinned_events.all_files if self.within is None else self.pinned_events.on_days(self.within)
        return self.read(self.pinned_events, tuple(file for file in everything if (day_of(file) in days) == on))

    def near(self, days: Collection[date], tail: str) -> str:
        """Where ids grow with time, few files of these days reach into those of the tail."""
        where = pruning.overlapping(self.connection, self.pipeline.event.key, tail)
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


@dataclass(frozen=True)
class Windows:
    """What `unified_<view>` is made of besides batch_<view>. The relations are tables, made already."""

    whole: bool
    """No row of batch_<view> counts: everything is in `folded`."""
    touched: str | None
    """Relation with the `window_start` of each window that is in `folded`; None: no window, or every one."""
    folded: str | None
    """Relation of keys and measures; None: no row."""
    sealed_through: datetime | None


def windows_of(engine: DuckDBEngine, view: View, batch: Pinned) -> Windows:
    """Fold the windows that batch_<view> lacks, from the pinned tables."""
    pipeline, state = engine.pipeline, table_state.folded(batch.history)
    # What was computed with narrower types is as it was in live_<view>, until the next union; here all is exact.
    if state and not (state.has_types(fingerprint.types(pipeline, view)) and _same(pipeline, view, state)):
        state = None
    sealed = state.sealed_through if state else None
    days = table_state.touched_since(engine.pinned_events.history, state.snapshot) if state else None
    # A day at an end of Python's calendar stands for all that lies past it.
    if days is None or not days.isdisjoint((date.min, date.max)):
        fold = windows.fold(view, pipeline.event.time, f"({engine.unified()})")
        return Windows(True, None, engine.table(f"{view.name}_folded", fold), sealed)
    moments = [serving.duckdb(query) for query in serving.touched_times(pipeline, engine.past)]
    if not moments and not days:
        return Windows(False, None, None, sealed)
    found = windows.starts(view, moments, days)
    touched = engine.table(
        f"{view.name}_touched",
        f"SELECT {windows.START}, make_timestamptz({windows.START}) AS window_start FROM ({found}) AS _tw_f",
    )
    rows = engine.connection.execute(windows.days_of(view, touched)).fetchall()
    unified = engine.unified({windows.day(number) for (number,) in rows})
    fold = windows.fold(view, pipeline.event.time, f"({unified})", touched)
    return Windows(False, touched, engine.table(f"{view.name}_folded", fold), sealed)


def unified(view: View, batch: Pinned, found: Windows, read: Read) -> str:
    """The query of `unified_<view>`, in DuckDB's dialect."""
    rows = None if found.whole else read(batch, batch.all_files)
    return serving.duckdb(serving.unified_view(view, rows, found.touched, found.folded, found.sealed_through))


def live(pipeline: Pipeline, view: View, batch: Pinned, stream: Pinned, read: Read) -> str:
    """The query of `live_<view>`, in DuckDB's dialect: of a layer that is of this declaration."""
    made = [pinned for pinned in (batch, stream) if pinned.table is not None]
    if not made:
        raise never_made(pipeline, f"live_{view.name}")
    current = [pinned for pinned in made if is_current(pipeline, view, pinned)]
    if not current:
        raise _outdated(pipeline, view, made[0])
    relations = {pinned.name: read(pinned, pinned.all_files) for pinned in current}
    state = table_state.folded(batch.history) if batch in current else None
    text = serving.live_view(
        view, relations.get(batch.name), relations.get(stream.name), state.sealed_through if state else None
    )
    return serving.duckdb(text)


def streamed(pipeline: Pipeline, view: View, stream: Pinned, read: Read) -> str:
    """The rows of `stream_<view>` that are in force, in DuckDB's dialect."""
    if stream.table is None:
        raise never_made(pipeline, tables.stream_view_name(view))
    if not is_current(pipeline, view, stream):
        raise _outdated(pipeline, view, stream)
    return serving.duckdb(serving.newest(view, view.measures, read(stream, stream.all_files)))


def never_made(pipeline: Pipeline, name: str) -> QueryError:
    """A view's table is asked for before any job made it."""
    return QueryError(
        f"{pipeline.name}.{name} is not there yet: no job has computed this view",
        f"run `twofold stream {pipeline.name}` or `twofold union {pipeline.name}` first",
    )


def is_current(pipeline: Pipeline, view: View, pinned: Pinned) -> bool:
    """Whether the rows of a view's table are of its declaration of today."""
    state, known = table_state.folded(pinned.history), {column.name for column in pinned.columns}
    return known.issuperset((*view.by, *view.measures)) and (state is None or _same(pipeline, view, state))


def _same(pipeline: Pipeline, view: View, state: Folded) -> bool:
    return state.definition == fingerprint.view(pipeline, view)


def _outdated(pipeline: Pipeline, view: View, pinned: Pinned) -> QueryError:
    return QueryError(
        f"{pinned.name} is of another declaration: window, groups, measures or lateness of {view.name} changed",
        f"`twofold rebuild {pipeline.name}` computes all views again; or declare the change as a new view",
    )
