"""batch_<view> from `events`: exactly the days of windows that hold a touched event, their files replaced.

    events commits since the view's own ─► days touched ─► days of windows ─► fold ─► replaced, with sealed_through

Replaced, not upserted, so that a group that vanished goes. A crash before this commit heals with the next run: the
view's own commit says which `events` it is folded from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.update import TableUpdate
from pyspark.sql import SparkSession

from spark_jobs import days
from spark_jobs.days import From, Part, Scratch
from spark_jobs.union import ATTEMPTS, contended
from twofold import boundary, commits, serving, tables, view_tables, windows
from twofold import catalog as catalogs
from twofold.boundary import Folded
from twofold.data_files import Place
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.reader.pinned import Pinned, day_of, pin
from twofold.settings import Settings
from twofold.text import quoted
from twofold.windows import event_days, window_days


def recompute(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View) -> int:
    """Bring one view up to `events`; returns the days of windows that were folded."""
    name = tables.batch_view_name(view)
    for _ in range(ATTEMPTS):
        view_tables.ensured(catalogs.load(settings), pipeline, view, name)
        before, folding = _pinned(spark, settings, pipeline, view)
        known = boundary.folded(before.history)
        state = folding.state(known)
        if known == state:
            return 0
        touched = boundary.touched_since(folding.events.history, known.snapshot if known else None)
        try:
            return folding.commit(before.made, before, touched, state)
        except CommitFailedException:
            continue
    raise contended(pipeline, name)


def rebuild(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View) -> int:
    """Fold the view from all of `events`, in one commit, with its columns where it was declared anew; its rows."""
    name = tables.batch_view_name(view)
    catalog = catalogs.load(settings)
    for _ in range(ATTEMPTS):
        found = catalogs.find(catalog, pipeline.name, name)
        if found is None or not view_tables.is_outdated(found, pipeline, view):
            recompute(spark, settings, pipeline, view)
            break
        before, folding = _pinned(spark, settings, pipeline, view)
        table, updates = view_tables.redeclared(before.made, pipeline, view, name)
        try:
            folding.commit(table, before, None, folding.state(None), updates)
        except CommitFailedException:
            continue
        break
    else:
        raise contended(pipeline, name)
    return sum(file.record_count for file in pin(catalog, pipeline.name, name).all_files)


def _pinned(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View) -> tuple[Pinned, _Folding]:
    """The view's table first: then `events` is never behind what it says of itself."""
    catalog = catalogs.load(settings)
    before = pin(catalog, pipeline.name, tables.batch_view_name(view))
    events = pin(catalog, pipeline.name, tables.EVENTS, tables.events(pipeline))
    return before, _Folding(spark, settings, pipeline, view, events)


@dataclass(frozen=True)
class _Folding:
    """The fold of one view from `events` as they are pinned."""

    spark: SparkSession
    settings: Settings
    pipeline: Pipeline
    view: View
    events: Pinned

    def state(self, known: Folded | None) -> Folded:
        """What the view says of itself when it is folded from these events; what is sealed stays sealed."""
        edge = boundary.boundary(self.events.history, self.pipeline.name)
        sealed = [
            moment
            for moment in (known and known.sealed_through, boundary.sealed_through(edge, self.pipeline.lateness))
            if moment
        ]
        return Folded(self.events.history.head, fingerprint.view(self.pipeline, self.view), max(sealed, default=None))

    def commit(
        self,
        table: Table,
        before: Pinned,
        touched: Collection[date] | None,
        state: Folded,
        updates: Sequence[TableUpdate] = (),
    ) -> int:
        """Replace the windows that events of the `touched` days can be in (None: all); their days."""
        all_days = {day_of(file) for file in self.events.all_files} if touched is None else touched
        wanted = window_days(all_days, self.view.window, self.view.every)
        old = before.all_files if touched is None else before.on_days(wanted)
        files = self._fold(Place.of(table), wanted)
        try:
            commits.replace(table, before.history.head, old, files, boundary.encode(state), updates)
        except CommitFailedException:
            commits.discard(table, files)
            raise
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
        with Scratch(self.settings) as duck:
            return days.write(self.spark, self.settings, duck, place, keys, parts)

    def _part(self, starts: Collection[date], held: Mapping[date, Sequence[DataFile]]) -> Part:
        accepted = "(SELECT * FROM _tw_events WHERE NOT withdrawn)"
        fold = windows.fold(self.view, self.pipeline.event.time, accepted)
        chosen = serving.duckdb(serving.on_days("window_start", starts))
        query = f"SELECT * FROM ({fold}) AS _tw_folded WHERE {chosen}"
        reached = sorted(event_days(starts, self.view.window, self.view.every))
        files = tuple(file for day in reached for file in held.get(day, ()))
        return Part(query, {"_tw_events": From(self.events.columns, files)})
