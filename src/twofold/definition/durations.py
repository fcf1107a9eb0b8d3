"""Durations (`2 hours`) and sizes (`1 MiB`) as text: strict, whole numbers, one unit, positive."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS_MS = {
    "ms": 1, "millisecond": 1, "milliseconds": 1,
    "s": 1000, "sec": 1000, "second": 1000, "seconds": 1000,
    "min": 60_000, "minute": 60_000, "minutes": 60_000,
    "h": 3_600_000, "hour": 3_600_000, "hours": 3_600_000,
    "d": 86_400_000, "day": 86_400_000, "days": 86_400_000,
    "week": 604_800_000, "weeks": 604_800_000,
}  # fmt: skip
_UNITS_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,15}) ?([A-Za-z]+)")
LONGEST = timedelta(days=3650)

EXPECTED_DURATION = "a duration above 0 and up to 3650 days, such as `500 ms`, `90 s`, `15 minutes`, `2 hours`, `1 day`"
EXPECTED_SIZE = "a number of bytes, or a size such as `64 KiB` or `1 MiB`, from 1 byte to 1 GiB"


def parse_duration(text: object) -> timedelta:
    """Read a duration; ValueError says what is expected. There are no months or years: their length varies.

    >>> parse_duration("15 minutes")
    datetime.timedelta(seconds=900)
    """
    match = _NUMBER_AND_UNIT.fullmatch(text) if isinstance(text, str) else None
    unit_ms = _UNITS_MS.get(match[2]) if match else None
    if match is None or unit_ms is None:
        raise ValueError(EXPECTED_DURATION)
    milliseconds = int(match[1]) * unit_ms
    if not 0 < milliseconds <= LONGEST / timedelta(milliseconds=1):
        raise ValueError(EXPECTED_DURATION)
    return timedelta(milliseconds=milliseconds)


def parse_size(value: object) -> int:
    """Read a size in bytes; ValueError says what is expected.

    >>> parse_size("1 MiB"), parse_size(4096)
    (1048576, 4096)
    """
    size = 0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _NUMBER_AND_UNIT.fullmatch(value)):
        size = int(match[1]) * _UNITS_BYTES.get(match[2], 0)
    if not 1 <= size <= 1 << 30:
        raise ValueError(EXPECTED_SIZE)
    return size


def format_duration(duration: timedelta) -> str:
    """The inverse of `parse_duration`, in the largest unit that leaves a whole number.

    >>> format_duration(timedelta(hours=48)), format_duration(timedelta(seconds=90))
    ('2 days', '90 seconds')
    """
    milliseconds = duration // timedelta(milliseconds=1)
    for unit in ("day", "hour", "minute", "second"):
        if milliseconds % _UNITS_MS[unit] == 0:
            count = milliseconds // _UNITS_MS[unit]
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{milliseconds} ms"
