"""The union: everything past the boundary into `events`, and the boundary with it, in one commit; then the views.

    both logs past the boundary ─► the steps of `twofold.serving`: tail, hits, decided
    days of winning tail rows and of beaten rows ─► their files replaced: what stays ∪ what won, sorted

    `events` commits since a view's own ─► days touched ─► days of windows ─► fold ─► batch_<view>, with sealed_through

A commit holds only on top of the snapshot that was read: of two unions at once the second is refused, reads the new
boundary and tries again. The pipeline's lock only makes this rare.

Of a view exactly the files are replaced of the days of windows that hold a touched event: replaced, not upserted, so
that vanished groups disappear. A crash before that commit is repaired by the next run, as the view's own commit says
which `events` it is folded from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property

import click
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.update import TableUpdate

from spark_jobs import days
from spark_jobs.days import DaysQuery, Scratch, scratch
from spark_jobs.spark_session import Job
from twofold import commits, looks, schemas, serving, table_state, tables, windows
from twofold.definition.model import Pipeline, View
from twofold.lake import Lake
from twofold.reader.pinned import Pinned, day_of, pin
from twofold.reader.unified import DuckDBEngine
from twofold.table_files import Place
from twofold.table_state import Boundary, Folded, Landed
from twofold.text import quoted
from twofold.windows import event_days, window_days

_REMEDY = "see that only one union or maintenance runs at a time, then run the union again: nothing was lost"


@dataclass(frozen=True)
class Logs:
    """What one attempt reads: `events` first, then the logs, so everything past the boundary is included."""

    pipeline: Pipeline
    events: Pinned
    stream: Pinned
    batch: Pinned
    boundary: Boundary

    @cached_property
    def landed(self) -> tuple[Landed, Landed]:
        """What stream_log and batch_log hold."""
        stream, batch = (table_state.landed(log.history, self.pipeline.name) for log in (self.stream, self.batch))
        return stream, batch

    @property
    def next(self) -> Boundary:
        """The boundary that covers everything pinned."""
        before, (stream, batch) = self.boundary, self.landed
        return Boundary(
            before.pipeline,
            stream.topic_id or before.topic_id,
            # A log that was restored to an earlier state must not move the boundary back.
            {**before.offsets, **{p: max(end, before.offsets.get(p, 0)) for p, end in stream.offsets.items()}},
            max(before.landing, batch.landing),
            before.max_event_time,
            seen=before.seen,
            relanded=(stream.relanded, batch.relanded),
        )

    @property
    def is_outdated(self) -> bool:
        """Whether rows that `events` was made of were replaced in the logs since."""
        return not self.boundary.is_of(*self.landed)

    @property
    def sort_order(self) -> str:
        """How `events` is sorted."""
        return ", ".join(map(quoted, tables.events(self.pipeline).sort))

    def engine(self, duck: Scratch) -> DuckDBEngine:
        """The steps of the union over what is pinned."""
        return DuckDBEngine(duck.connection, self.pipeline, self.events, self.stream, self.batch, duck.read)

    def recreated(self, duck: Scratch) -> United:
        """The winners among all that ever took part, in one commit, with the boundary that covers them."""
        pinned = (self.events, self.stream, self.batch)
        engine = DuckDBEngine.from_scratch(duck.connection, self.pipeline, pinned, duck.read)
        whole = replace(self, boundary=Boundary(self.pipeline.name))
        known = replace(whole.next, max_event_time=self.boundary.max_event_time, seen=self.boundary.seen)
        stream, batch, after = whole.seen(engine, known)
        if more := engine.only_united():
            stream += duck.number(f"SELECT count(*) FROM ({serving.duckdb(more)})")
        names = serving.columns(serving.event_columns(self.pipeline, engine.dropped))
        rows = serving.duckdb(f"SELECT {names} FROM {engine.past.tail}") if engine.past.tail else ""
        files = duck.write(Place.of(self.events.made), rows, self.sort_order) if rows else []
        after = replace(after, rebuilt=True)
        self.commit(self.events.all_files, files, after)
        return United(stream, batch, sum(file.record_count for file in files), boundary=after)

    def seen(self, engine: DuckDBEngine, after: Boundary) -> tuple[int, int, Boundary]:
        """Rows past the boundary by layer, stream's first; and the boundary `after` with what is newest among them."""
        edge = self.boundary
        stream = serving.latest_times(self.pipeline, engine.stream_log(edge), edge.offsets)
        batch = serving.batch_contenders(self.pipeline, engine.batch_log(edge), edge.landing)
        ((rows, latest_us, arrived_us),) = engine.connection.execute(serving.duckdb(stream)).fetchall()
        ((files,),) = engine.connection.execute(f"SELECT count(*) FROM ({serving.duckdb(batch)})").fetchall()
        latest, arrived = _later(after.max_event_time, latest_us), _later(after.seen, arrived_us)
        return rows, files, replace(after, max_event_time=latest, seen=arrived)

    def commit(self, old: tuple[DataFile, ...], files: list[DataFile], after: Boundary) -> None:
        """Put `files` in the place of `old` ones of `events`, and the boundary with them; or leave none of them."""
        if warning := commits.clock_warning(self.events.made):
            click.echo(f"warning: {warning}", err=True)
        _replace(self.events.made, self.events, old, files, after)


@dataclass(frozen=True)
class United:
    """What a union did, in rows."""

    stream_rows: int = 0
    batch_rows: int = 0
    inserted: int = 0
    replaced: int = 0
    days: tuple[date, ...] = ()
    boundary: Boundary | None = None


def unite(job: Job) -> United:
    """Union until the commit holds; raise after too many conflicts."""

    def attempt() -> United:
        logs = read(job.lake)
        if logs.is_outdated:
            with scratch(job.settings) as duck:
                return _less(logs.recreated(duck), logs.events)
        if logs.boundary.covers(*logs.landed):
            return United(boundary=logs.boundary)
        with scratch(job.settings) as duck:
            return _Union(job, logs, duck, logs.engine(duck)).run()

    return commits.retried(f"{job.lake.name}.{tables.EVENTS}", attempt, _REMEDY)


def recreate(lake: Lake) -> United:
    """`events` made of the logs alone, as if nothing had ever been united; all its rows count as inserted."""

    def attempt() -> United:
        with scratch(lake.settings) as duck:
            return read(lake).recreated(duck)

    return commits.retried(f"{lake.name}.{tables.EVENTS}", attempt, _REMEDY)


def _less(united: United, before: Pinned) -> United:
    """What was rebuilt, with the rows that were there before not counted as inserted."""
    had = sum(file.record_count for file in before.all_files)
    return replace(united, inserted=max(0, united.inserted - had), replaced=min(united.inserted, had))


def read(lake: Lake) -> Logs:
    """Pin the tables and read their state; refused where the log is of another topic."""
    catalog, pipeline = lake.catalog(), lake.pipeline
    declared = (tables.events(pipeline), tables.stream_log(pipeline), tables.batch_log(pipeline))
    events, stream, batch = (pin(catalog, pipeline.name, table.name, table) for table in declared)
    topic_id = table_state.landed(stream.history, pipeline.name).topic_id
    return Logs(pipeline, events, stream, batch, table_state.boundary(events.history, pipeline.name, topic_id))


def _later(known: datetime | None, found_us: int | None) -> datetime | None:
    found = None if found_us is None else windows.moment(found_us)
    return max((moment for moment in (known, found) if moment), default=None)


def _replace(
    table: Table,
    before: Pinned,
    old: Collection[DataFile],
    files: list[DataFile],
    state: Boundary | Folded,
    updates: Sequence[TableUpdate] = (),
) -> None:
    """Commit on top of what is pinned, or leave none of the new files."""
    try:
        commits.replace(table, before.history.head, old, files, table_state.encode(state), updates)
    except CommitFailedException:
        commits.discard(table, files)
        raise


@dataclass(frozen=True)
class _Union:
    """One attempt."""

    job: Job
    logs: Logs
    duck: Scratch
    engine: DuckDBEngine
    """The steps over what is pinned."""

    def run(self) -> United:
        """All steps; CommitFailedException where `events` was changed meanwhile, and then nothing stays."""
        engine = self.engine
        found = engine.past
        stream, batch, after = self.logs.seen(engine, self.logs.next)
        if found.tail is None:
            self.logs.commit((), [], after)
            return United(stream, batch, boundary=after)
        won, beaten = found.tail, None
        if found.beaten and found.decided:
            won = engine.keep("won", serving.winning_tail(engine.pipeline, found.tail, found.decided))
            beaten = engine.keep("beaten", f"SELECT * FROM {found.beaten} AS _tw_r")
        rows = self._rows_by_day(won)
        wins = rows.total()
        replaced = self.duck.number(f"SELECT count(*) FROM {beaten}") if beaten else 0
        touched = {*rows, *found.beaten_days}
        old = self.logs.events.on_days(touched)
        rows.update(dict.fromkeys(touched, 0))
        for file in old:
            rows[day_of(file)] += file.record_count
        files = self._rewrite(rows, old, won, beaten)
        after = replace(after, touched_days=tuple(sorted(touched)))
        self.logs.commit(old, files, after)
        return United(stream, batch, wins - replaced, replaced, after.touched_days, after)

    def _rewrite(self, rows: Counter[date], old: tuple[DataFile, ...], won: str, beaten: str | None) -> list[DataFile]:
        place, groups = Place.of(self.logs.events.made), days.grouped(rows)
        if days.is_spread(len(groups), rows.total()):
            return self._spread(place, groups, old, won, beaten)
        files: list[DataFile] = []
        pipeline = self.engine.pipeline
        time = f"`{pipeline.event.time}`"
        for group in map(set, groups):
            touched = self.duck.read(self.logs.events, tuple(file for file in old if day_of(file) in group))
            its = won if len(groups) == 1 else f"(SELECT * FROM {won} WHERE {serving.on_days(time, group)})"
            query = serving.duckdb(serving.rewritten(pipeline, touched, its, beaten, self.engine.dropped))
            files += self.duck.write(place, query, self.logs.sort_order)
        return files

    def _spread(
        self, place: Place, groups: list[list[date]], old: tuple[DataFile, ...], won: str, beaten: str | None
    ) -> list[DataFile]:
        """What tasks need of the tail goes into files first; those of a day that had none are its files already."""
        order, dropped, pipeline = self.logs.sort_order, self.engine.dropped, self.engine.pipeline
        listed = serving.event_columns(pipeline, dropped)
        names = serving.columns(listed)
        new = self.duck.write(place, serving.duckdb(f"SELECT {names} FROM {won}"), order)
        there = {pipeline.event.key, pipeline.event.time, *serving.provenance(pipeline)}
        absent = [name for name in listed if name not in there]
        away = ", ".join(["*", *(f"NULL AS `{name}`" for name in absent)])
        gone = self.duck.write(place, serving.duckdb(f"SELECT {away} FROM {beaten}"), order) if beaten else []
        had = {day_of(file) for file in old}
        query = serving.duckdb(serving.rewritten(pipeline, "_tw_touched", "_tw_won", "_tw_gone", dropped))
        parts = []
        for group in groups:
            its = had.intersection(group)
            picked = {"_tw_touched": old, "_tw_won": new, "_tw_gone": gone}
            sources = {name: [file for file in files if day_of(file) in its] for name, files in picked.items()}
            parts += [DaysQuery(query, sources)] if its else []
        files = days.write(self.job, self.duck, place, order, self.logs.events.columns, parts)
        commits.discard(self.logs.events.made, [*gone, *(file for file in new if day_of(file) in had)])
        return files + [file for file in new if day_of(file) not in had]

    def _rows_by_day(self, relation: str) -> Counter[date]:
        day = windows.day_number(f"epoch_us({quoted(self.engine.pipeline.event.time)})")
        found: Counter[date] = Counter()
        for number, count in self.duck.connection.execute(
            f"SELECT {day} AS _tw_day, count(*) FROM {relation} GROUP BY 1"
        ).fetchall():
            found[windows.day(number)] += count
        return found


def recompute_view(job: Job, view: View) -> int:
    """Bring one view up to `events`; returns the days of windows that were folded."""
    name = tables.batch_view_name(view)

    def attempt() -> int:
        schemas.ensure_view(job.lake.catalog(), job.pipeline, view, name)
        folding = _Folding.of(job, view)
        known = table_state.folded(folding.before.history)
        state = looks.view_state(job.pipeline, view, folding.events.history, known)
        if known == state:
            return 0
        # With wider types the same expressions may give other values of events that nothing has touched.
        since = known.snapshot if known and known.types == state.types else None
        touched = table_state.touched_since(folding.events.history, since)
        return folding.commit(folding.before.made, touched, state)

    return commits.retried(f"{job.lake.name}.{name}", attempt, _REMEDY)


def rebuild_view(job: Job, view: View) -> int:
    """Fold the view from all of `events`, in one commit, with the columns of a changed declaration; its rows."""
    name = tables.batch_view_name(view)

    def attempt() -> None:
        found = job.lake.find(name)
        if found is None or not schemas.is_outdated(found, job.pipeline, view):
            recompute_view(job, view)
            return
        folding = _Folding.of(job, view)
        table, updates = schemas.redeclared(folding.before.made, job.pipeline, view, name)
        state = looks.view_state(job.pipeline, view, folding.events.history, None)
        folding.commit(table, None, state, updates)

    commits.retried(f"{job.lake.name}.{name}", attempt, _REMEDY)
    return sum(file.record_count for file in pin(job.lake.catalog(), job.lake.name, name).all_files)


@dataclass(frozen=True)
class _Folding:
    """The fold of one view from `events`, both as they are pinned."""

    job: Job
    view: View
    before: Pinned
    events: Pinned

    @classmethod
    def of(cls, job: Job, view: View) -> _Folding:
        """The view's table first: then `events` is never behind the state that the table carries."""
        catalog, pipeline = job.lake.catalog(), job.pipeline
        before = pin(catalog, pipeline.name, tables.batch_view_name(view))
        return cls(job, view, before, pin(catalog, pipeline.name, tables.EVENTS, tables.events(pipeline)))

    def commit(
        self, table: Table, touched: Collection[date] | None, state: Folded, updates: Sequence[TableUpdate] = ()
    ) -> int:
        """Replace the windows that events of the `touched` days can be in (None: all); their days."""
        all_days = {day_of(file) for file in self.events.all_files} if touched is None else touched
        wanted = window_days(all_days, self.view.window, self.view.every)
        old = self.before.all_files if touched is None else self.before.on_days(wanted)
        files = self._fold(Place.of(table), wanted)
        _replace(table, self.before, old, files, state, updates)
        return len({day_of(file) for file in files}) if touched is None else len(wanted)

    def _fold(self, place: Place, wanted: Collection[date]) -> list[DataFile]:
        window, every = self.view.window, self.view.every
        near = ((day, event_days([day], window, every)) for day in sorted(wanted))
        files: dict[date, list[DataFile]] = {}
        for file in self.events.on_days(event_days(wanted, window, every)):
            files.setdefault(day_of(file), []).append(file)
        rows = {day: sum(file.record_count for file in its) for day, its in files.items()}
        parts = [self._part(group, files) for group in days.grouped(rows, near)]
        keys = ", ".join(map(quoted, tables.view_keys(self.view)))
        with scratch(self.job.settings) as duck:
            return days.write(self.job, duck, place, keys, self.events.columns, parts)

    def _part(self, starts: Collection[date], held: Mapping[date, Sequence[DataFile]]) -> DaysQuery:
        accepted = "(SELECT * FROM _tw_events WHERE NOT withdrawn)"
        fold = windows.fold(self.view, self.job.pipeline.event.time, accepted)
        chosen = serving.duckdb(serving.on_days("window_start", starts))
        query = f"SELECT * FROM ({fold}) AS _tw_folded WHERE {chosen}"
        reached = sorted(event_days(starts, self.view.window, self.view.every))
        return DaysQuery(query, {"_tw_events": [file for day in reached for file in held.get(day, ())]})
