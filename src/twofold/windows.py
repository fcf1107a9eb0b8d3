"""Windows on the time line: which days and which starts, and the fold of events into windows.

Windows start at multiples of `every` since the epoch; an event is in those that start in (its time - window, its time].
Texts are DuckDB's. They count in microseconds since the epoch, so no calendar ends anywhere. Python knows the years 1
to 9999 only: days before and after count as the first and the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from twofold.definition.model import View

START = "_tw_start"
"""Name of a window's start in microseconds."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = EPOCH.date().toordinal()
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = timedelta(days=1) // _MICROSECOND
_LAST_DAY = date.max.toordinal() - _EPOCH_DAY
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def day(number: int) -> date:
    """The day with this number since the epoch.

    >>> day(1), day(-10**7), day(10**7)
    (datetime.date(1970, 1, 2), datetime.date(1, 1, 1), datetime.date(9999, 12, 31))
    """
    return date.fromordinal(min(max(number + _EPOCH_DAY, 1), date.max.toordinal()))


def moment(microseconds: int) -> datetime:
    """The moment that many microseconds after the epoch.

    >>> moment(-10**18) == datetime.min.replace(tzinfo=UTC), moment(10**18) == datetime.max.replace(tzinfo=UTC)
    (True, True)
    """
    low, high = (_us(end - EPOCH) for end in (_FIRST, _LAST))
    return EPOCH + timedelta(microseconds=min(max(microseconds, low), high))


def earlier(than: datetime, by: timedelta) -> datetime:
    """A moment before another, not before the first.

    >>> earlier(datetime(1, 1, 1, tzinfo=UTC), timedelta(hours=1)).year
    1
    """
    return than - by if than - _FIRST >= by else _FIRST


def window_days(touched: Iterable[date], window: timedelta, every: timedelta) -> set[date]:
    """Days on which a window starts that can hold an event of the `touched` days.

    >>> hour = timedelta(hours=1)
    >>> sorted(window_days([date(2013, 1, 2)], hour, hour))
    [datetime.date(2013, 1, 2)]
    >>> sorted(window_days([date(2013, 1, 2)], hour, hour / 4))
    [datetime.date(2013, 1, 1), datetime.date(2013, 1, 2)]
    >>> window_days([date.min, date.max], hour, hour / 4) >= {date.min, date.max}
    True
    >>> sorted(window_days([date(1970, 3, 1)], hour * 24 * 60, hour * 24 * 30))
    [datetime.date(1970, 1, 1), datetime.date(1970, 1, 31)]
    """
    length, step = _us(window), _us(every)
    numbers: set[int] = set()
    for last in {one.toordinal() - _EPOCH_DAY for one in touched}:
        first = ((last * _DAY_US - length) // step + 1) * step
        if step > _DAY_US:
            numbers.update(start // _DAY_US for start in range(first, (last + 1) * _DAY_US, step))
        else:
            numbers.update(range(first // _DAY_US, last + 1))
        if last == _LAST_DAY:  # It stands for all days that come after.
            numbers.add(last)
    return set(map(day, numbers))


def event_days(starts: Iterable[date], window: timedelta, every: timedelta) -> set[date]:
    """Days of the events that windows can hold which start on these days.

    >>> hour, one = timedelta(hours=1), date(2013, 1, 2)
    >>> event_days([one], hour, hour) == {one}, len(event_days([one], hour, hour / 4))
    (True, 2)
    >>> event_days([date.max], hour, hour)
    {datetime.date(9999, 12, 31)}
    """
    length, step = _us(window), _us(every)
    numbers: set[int] = set()
    for first in (one.toordinal() - _EPOCH_DAY for one in starts):
        last_start = ((first + 1) * _DAY_US - 1) // step * step
        numbers.update(range(first, max(first, (last_start + length - 1) // _DAY_US) + 1))
    return set(map(day, numbers))


def fold(view: View, time: str, source: str, touched: str | None = None) -> str:
    """Events of `source` to one row per window and group: window_start, window_end, groups, measures.

    With `touched`, a relation with a column START, only windows that start there.
    """
    by = "".join(f', "{name}"' for name in view.by)
    measures = "".join(
        f', TRY_CAST({measure.duckdb} AS {measure.type.duckdb}) AS "{name}"' for name, measure in view.measures.items()
    )
    chosen = f" WHERE {START} IN (SELECT {START} FROM {touched})" if touched else ""
    end = f"{START} + {_us(view.window)}"
    return f"""SELECT make_timestamptz({START}) AS window_start, make_timestamptz({end}) AS window_end{by}{measures}
FROM (SELECT *, {_starts(f'epoch_us("{time}")', view)} AS {START} FROM {source} AS _tw_r) AS _tw_placed{chosen}
GROUP BY {START}{by}"""


def starts(view: View, moments: Iterable[str], days: Iterable[date]) -> str:
    """START of each window that holds one of the moments, or a moment of one of the days (UTC), each once.

    `moments` are queries of one column `_tw_at`, in microseconds.
    """
    parts = [f"SELECT {_starts('_tw_at', view)} AS {START} FROM ({query}) AS _tw_m" for query in moments]
    if numbers := sorted(day.toordinal() - _EPOCH_DAY for day in days):
        touched = f"SELECT {_DAY_US} * unnest({numbers}::BIGINT[]) AS _tw_at"
        parts.append(f"SELECT unnest({_range('_tw_at', f'_tw_at + {_DAY_US - 1}', view)}) AS {START} FROM ({touched})")
    return f"SELECT DISTINCT {START} FROM ({' UNION ALL '.join(parts)}) AS _tw_s"


def days_of(view: View, starts: str) -> str:
    """Days since the epoch, as numbers, on which the windows of the relation `starts` can have events."""
    first, last = (day_number(at) for at in (START, f"{START} + {_us(view.window) - 1}"))
    return f"SELECT DISTINCT unnest(generate_series({first}, {last})) AS _tw_day FROM {starts}"


def day_number(at: str) -> str:
    """The day of a moment, as its number since the epoch."""
    return f"({_floor(at, timedelta(days=1))} // {_DAY_US})"


def _starts(at: str, view: View) -> str:
    """Starts of the windows that hold a moment."""
    return _floor(at, view.every) if view.every == view.window else f"unnest({_range(at, at, view)})"


def _range(first: str, last: str, view: View) -> str:
    """Starts of the windows that hold a moment from `first` to `last`."""
    return f"generate_series({_floor(last, view.every)}, {first} - {_us(view.window) - 1}, {-_us(view.every)})"


def _floor(value: str, step: timedelta) -> str:
    # A remainder has the dividend's sign: it is made positive for what is before 1970.
    return f"({value} - ((({value}) % {_us(step)} + {_us(step)}) % {_us(step)}))"


def _us(length: timedelta) -> int:
    return length // _MICROSECOND
