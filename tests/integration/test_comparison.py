"""The comparison of the layers after unions, on tables filled directly: every difference is decided here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from tests import lake, small_world
from tests.small_world import HOUR, START, Row, event
from twofold import catalog, comparison, tables
from twofold.definition import fingerprint
from twofold.definition.model import Limits, Pipeline, View
from twofold.lake import Lake
from twofold.settings import Settings
from twofold.table_state import Boundary, Folded, Landed, encode

Define = Callable[..., Pipeline]


@pytest.mark.parametrize("at_once", [False, True], ids=["a micro-batch each", "both landings in one micro-batch"])
def test_the_difference_is_that_of_the_windows_touched_and_late_events_are_counted(
    stack: Settings, define: Define, twofold: Callable[..., Any], at_once: bool
) -> None:
    """One landing up to minute 220, then rows of minutes 30 (late), 160 (its window is open to the stream) and 239.

    Read at once, none is late: no micro-batch before has moved the watermark.
    """
    pipeline = define(lateness="10 minutes", limits={"difference": 0.3})
    made = lake.make(stack, pipeline)
    early = [event(f"s{n}", 20 * n, "a", 10) for n in range(12)]
    late = [event("late", 30, "a", 20), event("open", 160, "a", 10), event("in_time", 239, "a", 10)]
    kafka = [
        {"kafka_partition": 0, "kafka_offset": n, "kafka_timestamp": START + 24 * HOUR}
        for n in range(len(early) + len(late))
    ]
    rows = [{**row, **place, "outcome": tables.ACCEPTED} for row, place in zip([*early, *late], kafka, strict=True)]
    first, rest = rows[: len(early)], rows[len(early) :]
    log = made[tables.STREAM_LOG]
    lake.append(log, [{**row, "landing": 1} for row in first], Landed(pipeline.name, 1, "t", {0: len(first)}))
    first_read = log.refresh().metadata.current_snapshot_id
    lake.append(log, [{**row, "landing": 2} for row in rest], Landed(pipeline.name, 2, "t", {0: len(rows)}))
    reads = [log.refresh().metadata.current_snapshot_id]
    covered = Boundary(pipeline.name, "t", {0: len(rows)}, 0, START + timedelta(minutes=239), (START.date(),))
    lake.append(made[tables.EVENTS], [{**row, "layer": "stream", "withdrawn": False} for row in rows], covered)
    fill(stack, pipeline, tables.batch_view_name, rows, [None], START + 3 * HOUR)
    # The late one never reached its window in the stream: that has 3 events of 30 in all, not 4 of 50.
    streamed = [row for row in rows if row["id"] != "late"]
    fill(stack, pipeline, tables.stream_view_name, streamed, reads if at_once else [first_read, *reads])

    found = comparison.compare(Lake(stack, pipeline))
    view = found.views["by_kind"]
    assert (found.events_before, found.events_after, found.healed_late) == (0, 15, 0 if at_once else 1)
    # Of four windows three are sealed; in the first the sums differ most, by 20 of 50.
    assert (view.compared, view.different, view.only_batch, view.only_stream) == (3, 1, 0, 0)
    assert view.mean == pytest.approx((20 / 50) / 3)
    (worst,) = view.worst
    assert worst.startswith("by_kind [2024-05-01T00:00, 01:00) kind=a: ")
    assert "events 4 batch, 3 speed" in worst and "total 50 batch, 30 speed" in worst
    assert comparison.beyond(found, pipeline.limits) == []
    assert comparison.beyond(found, Limits(difference=0.1))

    # Asked again, or after the same unions by the command, it tells the same.
    assert asdict(comparison.compare(Lake(stack, pipeline))) == asdict(found)
    said = twofold("compare", pipeline.name).stdout
    assert f"{0 if at_once else 1} late ones healed" in said and "batch_by_kind and stream_by_kind: 3 windows" in said
    lake.append(made[tables.EVENTS], [], Boundary(pipeline.name, "t", {0: len(rows)}, 0, covered.max_event_time))
    idle = comparison.compare(Lake(stack, pipeline))
    assert (idle.events_before, idle.events_after, idle.healed_late, idle.views["by_kind"].compared) == (15, 15, 0, 0)


def fill(
    settings: Settings,
    pipeline: Pipeline,
    name: Callable[[View], str],
    rows: list[Row],
    reads: list[int | None],
    sealed: datetime | None = None,
) -> None:
    """A view's table, in a commit for each snapshot that it has read; all rows are in the first."""
    (view,) = pipeline.views.values()
    folded = small_world.fold(rows, view.window, view.every)
    if name is tables.stream_view_name:
        folded = folded.append_column(tables.VERSION, pa.array([1] * len(folded), pa.int64()))
    table = catalog.load(settings).create_table((pipeline.name, name(view)), folded.schema)
    for number, snapshot in enumerate(reads):
        state = Folded(snapshot, fingerprint.view(pipeline, view), sealed)
        table.append(folded if number == 0 else folded.slice(0, 0), snapshot_properties=encode(state))


def test_what_the_next_union_folds_again_with_wider_types_is_compared_after_it(stack: Settings, define: Define) -> None:
    """Nothing is kept before, or the days of these windows would be passed over."""
    pipeline = define(lateness="10 minutes")
    made, (view,) = lake.make(stack, pipeline), pipeline.views.values()
    rows: list[Row] = [event(f"s{n}", 20 * n, "a", 10) for n in range(12)]
    covered = Boundary(pipeline.name, "t", {}, 0, START + 4 * HOUR, (START.date(),))
    lake.append(made[tables.EVENTS], [{**row, "layer": "stream", "withdrawn": False} for row in rows], covered)
    fill(stack, pipeline, tables.batch_view_name, rows, [None], START + 3 * HOUR)
    fill(stack, pipeline, tables.stream_view_name, rows, [None])
    found = comparison.compare(Lake(stack, pipeline)).views["by_kind"]
    assert found.compared == 3

    more = Boundary(pipeline.name, "t", {}, 0, START + 5 * HOUR, (START.date(),))
    lake.append(made[tables.EVENTS], [], more)
    before, batch = comparison.latest(stack, pipeline.name), Lake(stack, pipeline).table(tables.batch_view_name(view))
    for types, compared in (("narrower", 0), (fingerprint.types(pipeline, view), 3)):
        state = Folded(None, fingerprint.view(pipeline, view), START + 3 * HOUR, types=types)
        batch.append(batch.scan().to_arrow().slice(0, 0), snapshot_properties=encode(state))
        now = comparison.compare(Lake(stack, pipeline))
        assert (now.views["by_kind"].compared, comparison.latest(stack, pipeline.name)) == (
            compared,
            now if compared else before,
        )
