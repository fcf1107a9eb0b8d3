"""`unified_<view>` and `live_<view>` in DuckDB.

    event times of the tail, and of the rows it beats ─┐
    days of `events` touched since batch_<view> ───────┴─► windows touched ─► folded from unified_events ─┐
    batch_<view> without these windows ──────────────────────────────────────────────────────────────────┴─► unified

Where batch_<view> is not there, or is of another declaration or a history that was expired, all windows are folded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from twofold import serving, table_state, tables, windows
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.errors import QueryError
from twofold.reader.events import DuckDBEngine, Read
from twofold.reader.pinned import Pinned
from twofold.table_state import Folded


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
    """Fold what batch_<view> does not say, by the tables that are pinned."""
    pipeline, state = engine.pipeline, table_state.folded(batch.history)
    if state is None or not _same(pipeline, view, state):
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
        f"`twofold rebuild {pipeline.name}` computes all views anew; or declare the change as a new view",
    )
