"""batch_<view> from `events`: exactly the days of windows that hold a touched event, replaced whole.

    events commits since the view's own ─► days touched ─► days of windows ─► fold ─► replaced, with sealed_through

Replaced, not upserted, so that a group that vanished goes. A crash before this commit heals with the next run: the
view's own commit says which `events` it was computed from.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from spark_jobs import folds
from spark_jobs.merge import read
from spark_jobs.publishing import tagged
from twofold import boundary, serving, tables
from twofold import catalog as catalogs
from twofold.boundary import Boundary, Folded, History
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.settings import Settings
from twofold.windows import window_days

_DAY = timedelta(days=1)


def recompute(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View) -> int:
    """Bring one view up to `events`; returns the days of windows that were recomputed."""
    table = folds.ensure_table(spark, pipeline, view, tables.batch_view_name(view), tables.EVENTS)
    catalog = catalogs.load(settings)
    events = catalogs.history(catalogs.find(catalog, pipeline.name, tables.EVENTS))
    known = boundary.folded(catalogs.history(catalogs.find(catalog, pipeline.name, tables.batch_view_name(view))))
    state = _next_state(pipeline, view, events, known)
    touched = boundary.touched_since(events, None if known is None else known.snapshot)
    if known is not None and known == state:
        return 0
    accepted = read(spark, pipeline, tables.EVENTS, events.head).where("NOT withdrawn")
    writer_state = boundary.encode(state)
    if touched is None:
        fold = folds.fold(accepted, pipeline, view)
        tagged(fold.writeTo(table), writer_state).overwrite(F.lit(True))
        return len(_days(fold))
    days = window_days(touched, view.window, view.every)
    fold = _fold_of(accepted, pipeline, view, days)
    writer = tagged(fold.writeTo(table), writer_state)
    if days:
        writer.overwrite(F.expr(serving.on_days("window_start", days)))
    else:
        writer.append()
    return len(days)


def replace_whole(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View) -> None:
    """Put the view over all of `events` in place of a table that another declaration filled."""
    events = catalogs.read_history(settings, pipeline.name, tables.EVENTS)
    accepted = read(spark, pipeline, tables.EVENTS, events.head).where("NOT withdrawn")
    state = boundary.encode(_next_state(pipeline, view, events, None))
    folds.replace_table(folds.fold(accepted, pipeline, view), pipeline, view, tables.batch_view_name(view), state)


def _next_state(pipeline: Pipeline, view: View, events: History, known: Folded | None) -> Folded:
    covered = boundary.boundary(events, pipeline.name)
    sealed = [t for t in (known and known.sealed_through, _sealed(pipeline, covered)) if t]
    return Folded(events.head, fingerprint.view(pipeline, view), max(sealed, default=None))


def _sealed(pipeline: Pipeline, covered: Boundary) -> datetime | None:
    """Windows ending up to here are complete but for late events, which the next union heals."""
    return None if covered.max_event_time is None else covered.max_event_time - pipeline.lateness


def _fold_of(rows: DataFrame, pipeline: Pipeline, view: View, days: Iterable[date]) -> DataFrame:
    """All windows that start on `days`, from the events that they can hold."""
    wanted = sorted(days)
    reach = -(-view.window // _DAY)
    needed = {day + shift * _DAY for day in wanted for shift in range(reach + 1)}
    needed_rows = rows.where(serving.on_days(f"`{pipeline.event.time}`", needed))
    return folds.fold(needed_rows, pipeline, view).where(serving.on_days("window_start", wanted))


def _days(fold: DataFrame) -> list[Row]:
    return fold.select(F.to_date("window_start")).distinct().collect()
