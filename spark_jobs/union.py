"""The union itself: everything past the boundary into `events`, and the boundary with it, in one commit.

    both logs past the boundary ─► the steps of `twofold.unify`: tail, hits, decided
    days of winning tail rows and of beaten rows ─► their files replaced: what stays ∪ what won, sorted

The commit holds only on top of the snapshot that was read: of two unions at once the second is refused, reads the new
boundary and goes again. The pipeline's lock only keeps that from being the usual case.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import date

import click
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyspark.sql import SparkSession

from spark_jobs import days
from spark_jobs.days import From, Part, Scratch
from twofold import boundary, commits, serving, tables, unify, windows
from twofold import catalog as catalogs
from twofold.boundary import Boundary
from twofold.data_files import Place
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.reader.pinned import Pinned, day_of, pin
from twofold.reader.unified import DuckDBEngine
from twofold.settings import Settings
from twofold.text import quoted

ATTEMPTS = 5


@dataclass(frozen=True)
class Logs:
    """What one attempt reads: `events` first, then the logs, so what is past the boundary is all there."""

    events: Pinned
    stream: Pinned
    batch: Pinned
    boundary: Boundary

    @property
    def next(self) -> Boundary:
        """The boundary that covers all that is pinned."""
        before = self.boundary
        stream, batch = (boundary.landed(log.history, before.pipeline) for log in (self.stream, self.batch))
        return Boundary(
            before.pipeline,
            stream.topic_id or before.topic_id,
            # A log that was put back to an earlier state must not take the boundary back with it.
            {**before.offsets, **{p: max(end, before.offsets.get(p, 0)) for p, end in stream.offsets.items()}},
            max(before.landing, batch.landing),
            before.max_event_time,
            seen=before.seen,
        )

    @property
    def has_news(self) -> bool:
        """Whether anything was landed past the boundary."""
        return (self.next.offsets, self.next.landing) != (self.boundary.offsets, self.boundary.landing)


@dataclass(frozen=True)
class United:
    """What a union did, in rows."""

    stream_rows: int = 0
    batch_rows: int = 0
    inserted: int = 0
    replaced: int = 0
    days: tuple[date, ...] = ()
    boundary: Boundary | None = None


def unite(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> United:
    """Union until the commit holds; raise after too many conflicts."""
    for _ in range(ATTEMPTS):
        logs = read(settings, pipeline)
        if not logs.has_news:
            return United(boundary=logs.boundary)
        try:
            with Scratch(settings) as duck:
                return _Union(spark, settings, pipeline, logs, duck).run()
        except CommitFailedException:
            continue
    raise contended(pipeline, tables.EVENTS)


def contended(pipeline: Pipeline, table: str) -> TwofoldError:
    """A table that others changed each time."""
    return TwofoldError(
        f"{pipeline.name}.{table} was changed by others during each of {ATTEMPTS} attempts",
        "see that only one union or maintenance runs at a time, then run the union again: nothing was lost",
    )


def read(settings: Settings, pipeline: Pipeline) -> Logs:
    """Pin the tables and read their state; refused where the log is of another topic."""
    catalog = catalogs.load(settings)
    declared = (tables.events(pipeline), tables.stream_log(pipeline), tables.batch_log(pipeline))
    events, stream, batch = (pin(catalog, pipeline.name, table.name, table) for table in declared)
    topic_id = boundary.landed(stream.history, pipeline.name).topic_id
    return Logs(events, stream, batch, boundary.boundary(events.history, pipeline.name, topic_id))


@dataclass(frozen=True)
class _Union:
    """One attempt."""

    spark: SparkSession
    settings: Settings
    pipeline: Pipeline
    logs: Logs
    duck: Scratch

    def run(self) -> United:
        """All steps; CommitFailedException where `events` was changed meanwhile, and then nothing stays."""
        engine = DuckDBEngine(
            self.duck.connection,
            self.pipeline,
            self.logs.events,
            self.logs.stream,
            self.logs.batch,
            self.duck.read,
        )
        found = unify.past(engine, self.pipeline, self.logs.boundary)
        stream, batch, after = seen(self.duck, engine, self.pipeline, self.logs, self.logs.next)
        if found.tail is None:
            return self._commit(United(stream, batch, boundary=after), (), [])
        won, beaten = found.tail, None
        if found.beaten and found.decided:
            won = engine.keep("won", serving.winning_tail(self.pipeline, found.tail, found.decided))
            beaten = engine.keep("beaten", f"SELECT * FROM {found.beaten} AS _tw_r")
        rows = self._rows_by_day(won)
        wins = rows.total()
        replaced = self.duck.number(f"SELECT count(*) FROM {beaten}") if beaten else 0
        touched = {*rows, *found.beaten_days}
        old = self.logs.events.on_days(touched)
        rows.update(dict.fromkeys(touched, 0))
        for file in old:
            rows[day_of(file)] += file.record_count
        files = self._rewrite(engine, rows, old, won, beaten)
        after = replace(after, touched_days=tuple(sorted(touched)))
        return self._commit(United(stream, batch, wins - replaced, replaced, after.touched_days, after), old, files)

    def _rewrite(
        self, engine: DuckDBEngine, rows: Counter[date], old: tuple[DataFile, ...], won: str, beaten: str | None
    ) -> list[DataFile]:
        place, order = Place.of(self.logs.events.made), sort_order(self.pipeline)
        groups = days.grouped(rows)
        if len(groups) > 1 and rows.total() > days.SPREAD_ROWS:
            return self._spread(place, order, groups, old, won, beaten)
        files: list[DataFile] = []
        time = f"`{self.pipeline.event.time}`"
        for group in map(set, groups):
            touched = self.duck.read(self.logs.events, tuple(file for file in old if day_of(file) in group))
            its = won if len(groups) == 1 else f"(SELECT * FROM {won} WHERE {serving.on_days(time, group)})"
            query = serving.duckdb(serving.rewritten(self.pipeline, touched, its, beaten))
            files += self.duck.write(place, query, order)
        return files

    def _spread(
        self,
        place: Place,
        order: str,
        groups: list[list[date]],
        old: tuple[DataFile, ...],
        won: str,
        beaten: str | None,
    ) -> list[DataFile]:
        """What tasks need of the tail goes into files first; those of a day that had none are its files already."""
        names = serving.columns(tables.events(self.pipeline).column_names)
        new = self.duck.write(place, serving.duckdb(f"SELECT {names} FROM {won}"), order)
        absent = ", ".join(f"NULL AS `{name}`" for name in self._not_in_hits())
        away = serving.duckdb(f"SELECT *{absent and ', '}{absent} FROM {beaten}") if beaten else ""
        gone = self.duck.write(place, away, order) if beaten else []
        had = {day_of(file) for file in old}
        query = serving.duckdb(serving.rewritten(self.pipeline, "_tw_touched", "_tw_won", "_tw_gone"))
        columns = self.logs.events.columns
        parts = []
        for group in groups:
            its = had.intersection(group)
            picked = {"_tw_touched": old, "_tw_won": new, "_tw_gone": gone}
            sources = {
                name: From(columns, tuple(f for f in files if day_of(f) in its)) for name, files in picked.items()
            }
            parts += [Part(query, sources)] if its else []
        files = days.write(self.spark, self.settings, self.duck, place, order, parts)
        commits.discard(self.logs.events.made, [*gone, *(file for file in new if day_of(file) in had)])
        return files + [file for file in new if day_of(file) not in had]

    def _not_in_hits(self) -> list[str]:
        event = self.pipeline.event
        there = {event.id, event.time, *serving.PROVENANCE}
        return [name for name in tables.events(self.pipeline).column_names if name not in there]

    def _rows_by_day(self, relation: str) -> Counter[date]:
        day = windows.day_number(f"epoch_us({quoted(self.pipeline.event.time)})")
        found: Counter[date] = Counter()
        for number, count in self.duck.connection.execute(
            f"SELECT {day} AS _tw_day, count(*) FROM {relation} GROUP BY 1"
        ).fetchall():
            found[windows.day(number)] += count
        return found

    def _commit(self, united: United, old: tuple[DataFile, ...], files: list[DataFile]) -> United:
        assert united.boundary is not None
        replace_files(self.logs.events, old, files, united.boundary)
        return united


def sort_order(pipeline: Pipeline) -> str:
    """How `events` is sorted."""
    return ", ".join(map(quoted, tables.events(pipeline).sort))


def replace_files(events: Pinned, old: tuple[DataFile, ...], files: list[DataFile], after: Boundary) -> None:
    """Commit, or leave none of the new files."""
    table = events.made
    if told := commits.clock_warning(table):
        click.echo(f"warning: {told}", err=True)
    try:
        commits.replace(table, events.history.head, old, files, boundary.encode(after))
    except CommitFailedException:
        commits.discard(table, files)
        raise


def seen(
    duck: Scratch, engine: DuckDBEngine, pipeline: Pipeline, logs: Logs, after: Boundary
) -> tuple[int, int, Boundary]:
    """Rows past the boundary by layer, stream's first; and the boundary `after` with what is newest among them."""
    edge, time = logs.boundary, quoted(pipeline.event.time)
    stream = serving.duckdb(serving.stream_contenders(pipeline, engine.stream_log(edge), edge.offsets))
    batch = serving.duckdb(serving.batch_contenders(pipeline, engine.batch_log(edge), edge.landing))
    ((rows, latest, arrived),) = duck.connection.execute(
        f"SELECT count(*), epoch_us(max({time})), epoch_us(max(least({time}, kafka_timestamp))) FROM ({stream})"
    ).fetchall()
    ((files,),) = duck.connection.execute(f"SELECT count(*) FROM ({batch})").fetchall()
    times = [windows.moment(us) for us in (latest,) if us is not None] + [t for t in (after.max_event_time,) if t]
    all_seen = [windows.moment(us) for us in (arrived,) if us is not None] + [t for t in (after.seen,) if t]
    known = replace(after, max_event_time=max(times, default=None), seen=max(all_seen, default=None))
    return rows, files, known
