"""The union by day: which files it replaces, what readers find there, and times at the ends of the calendar."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_jobs import days, union
from tests import lake
from tests.at_work import Work
from tests.small_world import START, Row, event
from twofold import catalog as catalogs
from twofold import commits, table_state, tables
from twofold.definition.model import Pipeline
from twofold.reader.pinned import pin
from twofold.settings import Settings

Define = Callable[..., Pipeline]
DAY = 24 * 60
SLIDING = {"window": "1 day", "every": "6 hours", "measures": {"events": "count(*)", "total": "sum(value)"}}


@pytest.fixture
def work(stack: Settings, spark: SparkSession, define: Define) -> Work:
    """Logs that are filled directly."""
    work = Work(spark, stack, define(views={"sliding": SLIDING}))
    lake.make(stack, work.pipeline)
    return work


def stream(work: Work, number: int, *events: Row) -> None:
    log = catalogs.load(work.settings).load_table((work.pipeline.name, tables.STREAM_LOG))
    lake.land_records(work, log, number, list(events))


def files(work: Work, table: str = tables.EVENTS) -> set[str]:
    return {file.file_path for file in pin(catalogs.load(work.settings), work.pipeline.name, table).all_files}


def recounted(work: Work) -> list[tuple[Any, ...]]:
    """The sliding view from all that was sent: start and end in microseconds, count, total."""
    found: dict[int, list[int]] = {}
    length, step = 86_400_000_000, 21_600_000_000
    for row in work.winners():
        at = (row["at"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        for start in range(at // step * step, at - length, -step):
            found.setdefault(start, []).append(row["value"])
    return sorted((start, start + length, len(values), sum(values)) for start, values in found.items())


def view(work: Work) -> list[tuple[Any, ...]]:
    query = "SELECT epoch_us(window_start), epoch_us(window_end), events, total FROM batch_sliding ORDER BY ALL"
    return work.query(query)


def exact(work: Work) -> None:
    assert work.unified() == work.expected()
    declared = work.pipeline.views["sliding"]
    assert work.spark
    union.recompute_view(work.job, declared)
    assert view(work) == recounted(work)


def test_one_late_record_rewrites_one_day(work: Work) -> None:
    assert work.spark
    stream(work, 1, *(event(f"e{i}", i * DAY, value=i) for i in range(20)))
    union.unite(work.job)
    exact(work)
    before, of_view = files(work), files(work, "batch_sliding")
    assert len(before) == 20

    stream(work, 2, event("late", 3 * DAY + 5))
    united = union.unite(work.job)
    assert (united.inserted, united.replaced, [day.day for day in united.days]) == (1, 0, [4])
    assert len(files(work) - before) == len(before - files(work)) == 1
    exact(work)
    # Windows begin up to a day before it.
    assert len(of_view - files(work, "batch_sliding")) == 2


def test_what_was_replaced_reads_the_same_everywhere(work: Work) -> None:
    """A correction that takes an event to another day: both days are made again, and three readers agree."""
    assert work.spark
    stream(work, 1, *(event(f"e{i}", i * DAY, value=i) for i in range(5)))
    union.unite(work.job)
    catalog, name = catalogs.load(work.settings), work.pipeline.name
    lake.land_file(work, catalog.load_table((name, tables.BATCH_LOG)), 1, [event("e1", 3 * DAY, value=100)])
    united = union.unite(work.job)
    assert (united.inserted, united.replaced, [day.day for day in united.days]) == (0, 1, [2, 4])

    expected = sorted((row["id"], row["value"]) for row in work.winners())
    events = catalog.load_table((name, tables.EVENTS))
    read = events.scan().to_arrow()
    assert sorted(zip(read["id"].to_pylist(), read["value"].to_pylist(), strict=True)) == expected
    theirs = work.spark.table(tables.qualified(work.pipeline, tables.EVENTS)).select("id", "value").collect()
    assert sorted(map(tuple, theirs)) == expected
    assert work.query("SELECT id, value FROM events ORDER BY id") == expected
    snapshot = events.current_snapshot()
    assert snapshot and snapshot.summary
    totals = {key: snapshot.summary[key] for key in ("total-records", "total-data-files", "deleted-data-files")}
    assert totals == {"total-records": "5", "total-data-files": "4", "deleted-data-files": "2"}


@pytest.mark.parametrize("spread", [False, True], ids=["one process", "tasks"])
def test_event_times_at_the_ends_of_the_calendar_stop_nothing(
    work: Work, monkeypatch: pytest.MonkeyPatch, spread: bool
) -> None:
    """A declared `min` may let in the year 1, the default of .NET and Go, and `max_future` the year 9999."""
    assert work.spark
    if spread:
        monkeypatch.setattr(days, "PART_ROWS", 1)
        monkeypatch.setattr(days, "SPREAD_ROWS", 0)
    ends = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, tzinfo=UTC),
        datetime(1969, 12, 31, 23, tzinfo=UTC),
    ]
    stream(work, 1, event("now", 0), *({**event(f"end{i}", 0, value=i), "at": at} for i, at in enumerate(ends)))
    for number in (2, 3):
        union.unite(work.job)
        exact(work)
        stream(work, number, *({**event(f"more{number}{i}", 0, value=i), "at": at} for i, at in enumerate(ends)))
    lake.land_file(
        work,
        catalogs.load(work.settings).load_table((work.pipeline.name, tables.BATCH_LOG)),
        1,
        [{**event("end0", 0, value=9), "at": ends[0] + timedelta(minutes=1)}, event("now", 5 * DAY, value=7)],
    )
    union.unite(work.job)
    exact(work)
    assert union.recreate(work.lake).inserted == len(work.winners())
    exact(work)


def test_a_record_that_is_ahead_seals_nothing(work: Work) -> None:
    """An event 23 hours ahead closes no window in progress: not by its time, nor by that of a later one's arrival."""
    assert work.spark
    stream(work, 1, event("ahead", 23 * 60), event("late", -5 * DAY))
    for number in (2, 3):
        united = union.unite(work.job).boundary
        assert united and united == union.read(work.lake).boundary
        assert (united.max_event_time, united.seen) == (START + timedelta(hours=23), START)
        assert table_state.sealed_through(united, work.pipeline.lateness) == START - work.pipeline.lateness
        stream(work, number, event(f"later{number}", -DAY))
    union.recreate(work.lake)
    rebuilt = union.read(work.lake).boundary
    assert (rebuilt.max_event_time, rebuilt.seen) == (START + timedelta(hours=23), START)


def test_a_union_that_lost_the_race_leaves_nothing(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the attempt that was refused are gone; the next attempt decides again."""
    assert work.spark
    stream(work, 1, *(event(f"e{i}", i * DAY) for i in range(3)))
    replace, refused = commits.replace, list[Any]()
    scratch = work.settings.home / "scratch"
    left_by_others = set(scratch.iterdir()) if scratch.exists() else set()

    def second(table: Any, *arguments: Any) -> Any:  # noqa: ANN401
        if not refused:
            refused.append(table)
            other = catalogs.load(work.settings).load_table(table.name())
            replace(other, other.metadata.current_snapshot_id, [], [], {})
        return replace(table, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(commits, "replace", second)
        united = union.unite(work.job)
    assert refused and united.inserted == 3
    root = Path(refused[0].location().removeprefix("file://"))
    assert {f"file://{path}" for path in (root / "data").rglob("*.parquet")} == files(work)
    assert set(scratch.iterdir()) == left_by_others
    exact(work)
