"""Which days of stream_log may go."""

from datetime import date, timedelta

import pytest

from twofold import retention
from twofold.retention import Stretch

TODAY = date(2024, 3, 31)
READ_ALL = {0: 1000, 1: 1000}


def month() -> list[Stretch]:
    """Ten offsets a day in two partitions, all of March."""
    days = range(1, 32)
    return [Stretch(date(2024, 3, day), partition, day * 10, day * 10 + 9) for day in days for partition in (0, 1)]


@pytest.mark.parametrize(
    ("readers", "keep_days", "first_kept"),
    [
        ([READ_ALL], 20, date(2024, 3, 11)),
        ([], 7, date(2024, 3, 24)),
        ([READ_ALL, {0: 150, 1: 1000}], 7, date(2024, 3, 8)),  # one partition unread since the 15th
        ([READ_ALL, {}], 7, date(2024, 2, 23)),  # a view that has not begun
    ],
)
def test_days_old_enough_and_seven_behind_every_reader_go(
    readers: list[dict[int, int]], keep_days: int, first_kept: date
) -> None:
    assert retention.first_day_kept(month(), readers, TODAY, timedelta(days=keep_days)) == first_kept


def test_a_broker_clock_set_back_leaves_no_hole() -> None:
    odd = [Stretch(date(2024, 3, 5), 0, 5, 5), Stretch(date(2024, 3, 4), 0, 0, 9), Stretch(date(2024, 3, 6), 0, 10, 19)]
    assert retention.first_day_kept(odd, [READ_ALL], date(2024, 3, 12), timedelta(days=7)) == date(2024, 3, 4)


def test_the_offsets_kept_never_go_back() -> None:
    kept = retention.offsets_kept_from(month(), date(2024, 3, 3), {0: 500})
    assert kept == {0: 500, 1: 30}
