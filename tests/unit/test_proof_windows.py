"""The proof's window arithmetic, against windows found by trying them all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.definition.model import View
from twofold.proof import sql

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CONNECTION = duckdb.connect()
CONNECTION.execute("SET TimeZone = 'UTC'")
SECONDS = st.integers(1, 5_000).map(lambda number: timedelta(seconds=number))


@settings(max_examples=100, deadline=None)
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
