"""What a union changed in the answer: the batch and speed views compared per window, and the late events it healed.

    commits of `events` since the last comparison ─► days touched ─► windows of those days, sealed
    batch_<view> ─┬─► difference per window and group ─► Comparison ─► metrics, kept for the check and the status page
    stream_<view> ┘

The layers differ where events came late to the stream, and where files corrected it; the batch layer is right. So this
is how far `live_<view>` was off; `unified_<view>` was exact all along.
Manually: `twofold compare flights`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from pyiceberg.types import DecimalType, DoubleType, FloatType, IntegerType, LongType

from twofold import database, job_metrics, metrics, serving, table_state, tables
from twofold.definition import fingerprint
from twofold.definition.model import Limits, Pipeline, View
from twofold.lake import Lake
from twofold.reader import Reader
from twofold.reader.unified import is_current
from twofold.settings import Settings
from twofold.table_state import Boundary, Folded, History
from twofold.text import quoted
from twofold.windows import EPOCH, window_days

KIND = "comparison"
"""Under which `twofold.database` keeps the last one."""
_NEARLY = 1e-9
"""Doubles may differ by this much of their size: engines add in different orders."""
_WORST = 5
_NUMBERS = (IntegerType, LongType, FloatType, DoubleType, DecimalType)


@dataclass(frozen=True)
class ViewDifference:
    """One view: rows are windows by group."""

    compared: int = 0
    different: int = 0
    only_batch: int = 0
    only_stream: int = 0
    mean: float = 0.0
    """Mean difference of the compared rows, 0 (equal) to 1."""
    worst: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """One comparison; `snapshot` is the `events` snapshot that it covers."""

    pipeline: str
    snapshot: str | None
    days: int | None
    """Days of event time that the unions touched; None: all."""
    events_before: int
    events_after: int
    healed_late: int
    views: dict[str, ViewDifference]
    replaced: bool = False
    """Records were judged again or erased since the last one: so the number of rows says nothing of unions."""
    edge: dict[str, Any] = field(default_factory=dict)
    """The boundary of `snapshot`, which may be expired at the next one; version 0.2.0 did not keep it."""

    @property
    def change(self) -> str:
        """What became of the number of events, in words."""
        if self.replaced:
            went = f"events went from {self.events_before:,} rows to {self.events_after:,}"
            return f"{went} with records judged again or erased (no limit of new events holds)"
        return f"{self.events_after - self.events_before:,} new events"

    @property
    def difference(self) -> float:
        """The mean over all compared rows of all views."""
        compared = sum(view.compared for view in self.views.values())
        return sum(view.mean * view.compared for view in self.views.values()) / compared if compared else 0.0


def compare(lake: Lake) -> Comparison:
    """Compare what the unions since the last comparison touched, and keep the result.

    Asked again with no union in between, it gives the kept result: so it is safe to repeat. Nothing is kept while the
    next union has a view to fold again with wider types: its windows are compared then.
    """
    settings, pipeline = lake.settings, lake.pipeline
    kept = latest(settings, pipeline.name)
    with Reader(settings, {pipeline.name: pipeline}) as reader:
        history = reader.pinned(pipeline, tables.EVENTS).history
        if kept and kept.snapshot == _text(history.head):
            return kept
        found = _compared(reader, pipeline, history, kept)
        is_whole = not any(_is_narrower(reader, pipeline, view) for view in pipeline.views.values())
    if is_whole:
        database.save_result(settings, pipeline.name, KIND, asdict(found))
    return found


def latest(settings: Settings, pipeline: str) -> Comparison | None:
    """The last comparison, or None."""
    kept = database.latest_result(settings, pipeline, KIND)
    return from_json(kept.body) if kept else None


def from_json(body: Mapping[str, Any]) -> Comparison:
    """A comparison out of the kept result."""
    return msgspec.convert(body, Comparison)


def compare_and_send(lake: Lake) -> Comparison:
    """Compare, and send the numbers as metrics: gauges, as a comparison that is repeated reports the same again."""
    with job_metrics.measured(lake, "compare") as meter:
        kept, found = latest(lake.settings, lake.name), compare(lake)
        for name, view in told(lake.pipeline, kept, found).items():
            meter.gauge(metrics.COMPARED_WINDOWS, view.compared, view=name)
            meter.gauge(metrics.COMPARED_DIFFERENT, view.different, view=name)
            meter.gauge(metrics.COMPARED_DIFFERENCE, view.mean, view=name)
        meter.gauge(metrics.COMPARED_HEALED, found.healed_late)
        meter.gauge(metrics.COMPARED_NEW, max(found.events_after - found.events_before, 0))
    return found


def told(pipeline: Pipeline, kept: Comparison | None, found: Comparison) -> dict[str, ViewDifference]:
    """What is sent, by view: of one that is not declared any more nothing differs, or its alert would never end."""
    seen = {**(kept.views if kept else {}), **found.views}
    return {name: view if name in pipeline.views else ViewDifference() for name, view in seen.items()}


def beyond(found: Comparison, limits: Limits) -> list[str]:
    """A sentence with the numbers for each limit that is passed.

    >>> from dataclasses import replace
    >>> counts = Comparison("p", "2", 1, events_before=10, events_after=8, healed_late=0, views={})
    >>> beyond(counts, Limits())
    ['events went from 10 rows to 8: no union takes rows away']
    >>> beyond(replace(counts, events_after=30), Limits(max_new_events=5))
    ['20 new events, more than limits.max_new_events: 5']
    """
    new = found.events_after - found.events_before
    faults = []
    if found.replaced:
        pass  # they take rows away, and bring some, as they were asked to
    elif new < 0:
        faults.append(
            f"events went from {found.events_before:,} rows to {found.events_after:,}: no union takes rows away"
        )
    elif limits.max_new_events is not None and new > limits.max_new_events:
        faults.append(f"{new:,} new events, more than limits.max_new_events: {limits.max_new_events:,}")
    elif new < limits.min_new_events:
        faults.append(f"{new:,} new events, fewer than limits.min_new_events: {limits.min_new_events:,}")
    if found.difference > limits.difference:
        worst = "; ".join(line for view in found.views.values() for line in view.worst[:2])
        faults.append(
            f"the layers differ by {found.difference:.1%} on average, more than limits.difference: "
            f"{limits.difference:.1%} (for example {worst})"
        )
    return faults


def _compared(reader: Reader, pipeline: Pipeline, history: History, kept: Comparison | None) -> Comparison:
    known = int(kept.snapshot) if kept and kept.snapshot else None
    touched = table_state.touched_since(history, known)
    last = History(history.snapshots, known)
    before, after = (table_state.boundary(one, pipeline.name) for one in (last, history))
    if kept and kept.edge:
        before = msgspec.convert(kept.edge, Boundary, str_keys=True)
    head = history.snapshots.get(history.head) if history.head is not None else None
    return Comparison(
        pipeline.name,
        _text(history.head),
        None if touched is None else len(touched),
        kept.events_after if kept else 0,
        head.rows if head else 0,
        _healed(reader, pipeline, before, after),
        {view.name: _view(reader, pipeline, view, touched) for view in pipeline.views.values()},
        before.relanded != after.relanded,
        json.loads(table_state.encode(replace(after, touched_days=()))[Boundary.KEY]),
    )


def _view(reader: Reader, pipeline: Pipeline, view: View, touched: set[date] | None) -> ViewDifference:
    batch, stream = tables.batch_view_name(view), tables.stream_view_name(view)
    pinned = {name: reader.pinned(pipeline, name) for name in (batch, stream)}
    folded = table_state.folded(pinned[batch].history)
    if (
        not all(one.table and is_current(pipeline, view, one) for one in pinned.values())
        or folded is None
        or folded.sealed_through is None
        or _is_narrower(reader, pipeline, view)
    ):
        return ViewDifference()
    days = None if touched is None else window_days(touched, view.window, view.every)
    sealed = f"window_end <= TIMESTAMPTZ '{folded.sealed_through.isoformat()}'"
    on_days = "true" if days is None else serving.duckdb(serving.on_days("window_start", days))
    numeric = frozenset(column.name for column in pinned[batch].columns if isinstance(column.field_type, _NUMBERS))
    rows = side_by_side(view, quoted(batch), quoted(stream), f"{sealed} AND {on_days}", numeric)
    return _summed(reader, pipeline, view, rows)


def _is_narrower(reader: Reader, pipeline: Pipeline, view: View) -> bool:
    """Whether batch_<view> was folded before a field became wider: sums that had overflowed are null there."""
    folded = table_state.folded(reader.pinned(pipeline, tables.batch_view_name(view)).history)
    return folded is not None and not folded.has_types(fingerprint.types(pipeline, view))


def _summed(reader: Reader, pipeline: Pipeline, view: View, rows: str) -> ViewDifference:
    counts = reader.query(
        f"""SELECT count(*), count(*) FILTER (_tw_difference > 0), count(*) FILTER (NOT _tw_in_stream),
  count(*) FILTER (NOT _tw_in_batch), coalesce(avg(_tw_difference), 0) FROM ({rows})""",
        pipeline.name,
    ).fetchall()[0]
    worst = reader.query(
        f"SELECT * FROM ({rows}) WHERE _tw_difference > 0 ORDER BY _tw_difference DESC, window_start LIMIT {_WORST}",
        pipeline.name,
    )
    described = tuple(_described(view, dict(zip(worst.columns, row, strict=True))) for row in worst.fetchall())
    compared, different, only_batch, only_stream, mean = counts
    return ViewDifference(compared, different, only_batch, only_stream, mean, described)


def _described(view: View, row: dict[str, Any]) -> str:
    groups = "".join(f" {name}={row[name]}" for name in view.by)
    start, end = _clock(row["window_start"], "%Y-%m-%dT%H:%M"), _clock(row["window_end"], "%H:%M")
    window = f"{view.name} [{start}, {end}){groups}"
    if not row["_tw_in_stream"] or not row["_tw_in_batch"]:
        return f"{window}: only in the {'batch' if row['_tw_in_batch'] else 'speed'} layer"
    pairs = ((name, row[f"_tw_b_{name}"], row[f"_tw_s_{name}"]) for name in view.measures)
    return f"{window}: " + ", ".join(f"{name} {b} batch, {s} speed" for name, b, s in pairs if b != s)


def _clock(at: object, form: str) -> str:
    """A moment as text; DuckDB gives one where Python has no such moment: a window may begin before the year 1."""
    return at.strftime(form) if isinstance(at, datetime) else str(at)


def _healed(reader: Reader, pipeline: Pipeline, before: Boundary, after: Boundary) -> int:
    """Stream rows unioned since `before` that came too late for the stream, in one of its views at least."""
    log = reader.pinned(pipeline, tables.STREAM_LOG)
    if log.table is None or not pipeline.views or not after.offsets:
        return 0
    tail = f"{serving.past_offsets(before.offsets)} AND NOT {serving.past_offsets(after.offsets)}"
    late = " UNION ".join(
        f"({came_late(pipeline, view, tables.STREAM_LOG, tail, before.seen, *_read(reader, pipeline, view))})"
        for view in pipeline.views.values()
    )
    return int(reader.query(f"SELECT count(*) FROM ({late})", pipeline.name).fetchall()[0][0])


def _read(reader: Reader, pipeline: Pipeline, view: View) -> tuple[list[int], int]:
    """The last landings of the micro-batches of a view's query, and up to which landing its commits are not kept."""
    log = reader.pinned(pipeline, tables.STREAM_LOG).history
    commits = list(reader.pinned(pipeline, tables.stream_view_name(view)).history.ancestors())
    ends = []
    for commit in commits:
        if Folded.KEY in commit.summary and (state := table_state.folded(History({commit.id: commit}, commit.id))):
            ends.append(table_state.landed(History(log.snapshots, state.snapshot), pipeline.name).landing)
    whole = bool(commits) and commits[-1].parent is None
    return sorted({*ends} - {0}), 0 if whole else min(ends, default=0)


def _text(snapshot: int | None) -> str | None:
    """A snapshot's id as text: in JSON a reader may take so large a number for a double."""
    return None if snapshot is None else str(snapshot)


def side_by_side(view: View, batch: str, stream: str, condition: str, numeric: frozenset[str]) -> str:
    """One row per window and group that meets `condition` and lies where the stream has windows.

    Columns: the keys, both sides of each measure (`_tw_b_<measure>`, `_tw_s_<measure>`), `_tw_in_batch`,
    `_tw_in_stream`, and `_tw_difference`: the largest among the measures, each relative to the larger side; 1 where a
    side lacks the row.
    """
    keys = ("window_start", "window_end", *view.by)
    on = " AND ".join(f"_tw_b.{quoted(key)} IS NOT DISTINCT FROM _tw_s.{quoted(key)}" for key in keys)
    either = ", ".join(f"coalesce(_tw_b.{quoted(key)}, _tw_s.{quoted(key)}) AS {quoted(key)}" for key in keys)
    sides = "".join(
        f", _tw_b.{quoted(m)} AS {quoted(f'_tw_b_{m}')}, _tw_s.{quoted(m)} AS {quoted(f'_tw_s_{m}')}"
        for m in view.measures
    )
    differences = ", ".join(_difference(m, m in numeric) for m in view.measures)
    reach = (
        f"window_start BETWEEN (SELECT min(window_start) FROM {stream}) AND (SELECT max(window_start) FROM {stream})"
    )
    chosen = f"WHERE ({condition}) AND {reach}"
    return f"""SELECT {either}{sides},
  _tw_b._tw_there IS NOT NULL AS _tw_in_batch, _tw_s._tw_there IS NOT NULL AS _tw_in_stream,
  CASE WHEN _tw_b._tw_there IS NULL OR _tw_s._tw_there IS NULL THEN 1.0
       ELSE greatest({differences}) END AS _tw_difference
FROM (SELECT *, true AS _tw_there FROM {batch} {chosen}) AS _tw_b
FULL JOIN (SELECT *, true AS _tw_there FROM {stream} {chosen}) AS _tw_s ON {on}"""


def came_late(
    pipeline: Pipeline,
    view: View,
    log: str,
    since: str,
    top: datetime | None,
    ends: Sequence[int],
    known_after: int = 0,
) -> str:
    """Query of the places (partition, offset) of the accepted rows of `log` past `since` that came too late for a view.

    As Spark counts, in milliseconds: a row is dropped at the watermark that the micro-batches before its own have left,
    which is behind by the lateness and a window, so that no row is late that has an open window. `top` is how far
    time had come before them all: no record says more of it than its own arrival does. `ends` are the last landings of
    the micro-batches in which the view's query read the log; of landings up to `known_after` nothing is known: each
    counts as a micro-batch, which can only find more rows late.
    """
    seen = f"least(epoch_us({quoted(pipeline.event.time)}), epoch_us({tables.arrival(pipeline)}))"
    behind_ms = (pipeline.lateness + view.window) // timedelta(milliseconds=1)
    before = "NULL" if top is None else str((top - EPOCH) // timedelta(microseconds=1))
    listed = ", ".join(f"({end})" for end in ends) or "(NULL::BIGINT)"
    return f"""WITH _tw_tail AS (SELECT *, {seen} AS _tw_seen FROM {log} WHERE outcome = 'accepted' AND ({since})),
  _tw_batches AS (SELECT landing, coalesce(min(_tw_end), landing) AS _tw_batch
    FROM (SELECT DISTINCT landing FROM _tw_tail) AS _tw_landings
    LEFT JOIN (VALUES {listed}) AS _tw_read(_tw_end) ON _tw_end >= landing AND landing > {known_after}
    GROUP BY landing),
  _tw_rows AS (SELECT * FROM _tw_tail JOIN _tw_batches USING (landing)),
  _tw_latest AS (SELECT _tw_batch, max(_tw_seen) AS _tw_last FROM _tw_rows GROUP BY _tw_batch),
  _tw_tops AS (SELECT _tw_batch, greatest({before}, max(_tw_last) OVER _tw_earlier) AS _tw_top FROM _tw_latest
    WINDOW _tw_earlier AS (ORDER BY _tw_batch ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
SELECT kafka_partition, kafka_offset FROM _tw_rows JOIN _tw_tops USING (_tw_batch)
WHERE _tw_seen <= greatest(_tw_top // 1000 - {behind_ms}, 0) * 1000"""


def _difference(measure: str, numeric: bool) -> str:
    b, s = f"_tw_b.{quoted(measure)}", f"_tw_s.{quoted(measure)}"
    same = f"{b} IS NOT DISTINCT FROM {s}"
    if not numeric:
        return f"CASE WHEN {same} THEN 0.0 ELSE 1.0 END"
    x, y = f"{b}::DOUBLE", f"{s}::DOUBLE"
    size = f"greatest(abs({x}), abs({y}))"
    return (
        f"CASE WHEN {same} THEN 0.0 WHEN {b} IS NULL OR {s} IS NULL OR NOT isfinite({x} - {y}) THEN 1.0 "
        f"WHEN abs({x} - {y}) <= {_NEARLY} * {size} THEN 0.0 ELSE least(1.0, abs({x} - {y}) / {size}) END"
    )
