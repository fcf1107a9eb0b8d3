"""Window arithmetic, the proof's and the days to fold, against windows found by trying them all."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs import days
from twofold import serving, windows
from twofold.definition.model import View
from twofold.proof import sql
from twofold.windows import event_days, window_days

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CONNECTION = duckdb.connect()
CONNECTION.execute("SET TimeZone = 'UTC'")
SECONDS = st.integers(1, 5_000).map(lambda number: timedelta(seconds=number))


@settings(max_examples=100)
@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),
    SECONDS,
    st.floats(0.05, 1),
)
def test_a_row_is_in_every_window_that_holds_it_and_in_no_other(at: datetime, window: timedelta, share: float) -> None:
    every = max(timedelta(microseconds=round(window / timedelta(microseconds=1) * share)), timedelta(microseconds=1))
    view = View("v", window, every, (), {})
    source = f"(SELECT TIMESTAMPTZ '{at.isoformat()}' AS t) AS source"
    query = f"SELECT {sql.START}, {sql.END} FROM ({sql.in_windows(source, 't', view)}) ORDER BY ALL"
    found = CONNECTION.execute(query).fetchall()

    nearest = (at - EPOCH) // every
    tried = (EPOCH + (nearest + shift) * every for shift in range(-25, 3))
    expected = sorted(start for start in tried if start <= at < start + window)
    microsecond = timedelta(microseconds=1)
    assert found == [((start - EPOCH) // microsecond, (start + window - EPOCH) // microsecond) for start in expected]


@settings(max_examples=200)
@given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.integers(1, 1_000), st.floats(0.05, 1))
def test_only_days_on_which_windows_start_are_folded_from_the_days_they_reach(
    touched: date, hours: int, share: float
) -> None:
    """A window of 30 days, every 30 days, was folded for each of 30 days, from all of its rows each time."""
    window, microsecond = timedelta(hours=hours), timedelta(microseconds=1)
    every = max(timedelta(hours=round(hours * share)), timedelta(hours=1))
    midnight = datetime(touched.year, touched.month, touched.day, tzinfo=UTC)
    nearest = (midnight - EPOCH) // every
    starts = [EPOCH + (nearest + shift) * every for shift in range(-25, 26)]
    holding = [start for start in starts if start - timedelta(days=1) < midnight < start + window]
    assert window_days([touched], window, every) == {start.date() for start in holding}

    there = [start for start in starts if start.date() == touched]
    reached = {touched + timedelta(days=number) for number in range(((window + every) // timedelta(days=1)) + 2)}
    last = max(there, default=midnight) + window - microsecond
    assert not there or event_days([touched], window, every) == {one for one in reached if one <= last.date()}


def test_windows_of_many_days_share_the_rows_they_read() -> None:
    """91 days every 7, a million events a day: 86 parts read 7.8 G rows for one late event; 166 M are needed."""
    one, window, every = timedelta(days=1), timedelta(days=91), timedelta(days=7)
    rows = {date(2024, 1, 1) + number * one: 1_000_000 for number in range(400)}
    wanted = sorted(window_days([date(2024, 10, 1)], window, every))
    groups = days.grouped(rows, ((day, event_days([day], window, every)) for day in wanted))
    assert [day for group in groups for day in group] == wanted and len(wanted) == 13
    read = sum(rows.get(day, 0) for group in groups for day in event_days(group, window, every))
    needed = sum(rows.get(day, 0) for day in event_days(wanted, window, every))
    assert needed <= read < 2 * needed


def test_many_days_apart_are_a_set_and_say_the_same() -> None:
    """A range for each of thousands of days made engines try every range for every row."""
    apart = [date(2000, 1, 1) + timedelta(days=3 * number) for number in range(100)]
    these = [date.min, *apart, date.max]
    near = [day + timedelta(days=shift) for day in apart for shift in (-1, 0, 1)]
    source = ", ".join(f"(TIMESTAMPTZ '{day} {clock} UTC')" for day in near for clock in ("00:00", "23:59:59.999999"))
    ends = "(make_timestamptz(-188000000000000000)), (make_timestamptz(288000000000000000))"
    moments_of = f"SELECT t FROM (VALUES {source}, {ends}) AS m(t) WHERE "
    one_by_one = " OR ".join(serving.on_days("t", [day]) for day in these)
    for text in (serving.on_days("t", these), serving.duckdb(serving.on_days("t", these))):
        assert " OR " not in text
        assert CONNECTION.sql(moments_of + text).fetchall() == CONNECTION.sql(moments_of + one_by_one).fetchall()

    view = View("v", timedelta(hours=1), timedelta(minutes=15), (), {})
    query = windows.starts(view, [], these)
    assert "UNION" not in query
    one_by_one = " UNION ".join(windows.starts(view, [], [day]) for day in these)
    assert set(CONNECTION.sql(query).fetchall()) == set(CONNECTION.sql(one_by_one).fetchall())
