"""Windows on the time line: which days hold the starts of the windows that an event can be in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


def window_days(touched: Iterable[date], window: timedelta, every: timedelta) -> set[date]:
    """Days on which a window starts that can hold an event of the `touched` days.

    >>> hour = timedelta(hours=1)
    >>> sorted(window_days([date(2013, 1, 2)], hour, hour))
    [datetime.date(2013, 1, 2)]
    >>> sorted(window_days([date(2013, 1, 2)], hour, hour / 4))
    [datetime.date(2013, 1, 1), datetime.date(2013, 1, 2)]
    """
    days: set[date] = set()
    for day in touched:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        before = (start - window - _EPOCH) // every * every + _EPOCH
        first = (before + every).date()
        days.update(first + shift * _DAY for shift in range((day - first).days + 1))
    return days
