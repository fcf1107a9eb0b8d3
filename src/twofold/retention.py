"""Which whole days of stream_log may be deleted. Pure: offsets per partition and day come in as data.

today - keep ────────────────┐
first day that the union or ─┼─► the earliest, less 7 days where it is a reader ─► the day before which all goes
some view has not read yet ──┘
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

SPARE = timedelta(days=7)
"""So far behind every reader retention stays."""


@dataclass(frozen=True)
class Stretch:
    """The offsets that one partition got on one day (of Kafka's clock)."""

    day: date
    partition: int
    first: int
    last: int


def first_day_kept(
    stretches: Iterable[Stretch], readers: Iterable[Mapping[int, int]], today: date, keep: timedelta
) -> date:
    """All days before this one may go: older than `keep`, and SPARE behind each reader's offsets (exclusive ends)."""
    found, positions = list(stretches), list(readers)
    unread = [s.day for s in found for read in positions if s.last >= read.get(s.partition, 0)]
    return _contiguous(found, min([today - keep, *(day - SPARE for day in unread)]))


def _contiguous(stretches: list[Stretch], day: date) -> date:
    """The latest day, at or before `day`, that cuts every partition in two without a hole.

    Incident: a broker's clock was set back, so a later offset carried an earlier day; deleting that day would leave
    a hole in the offsets that is no different from a lost record.
    """
    while any(_splits(stretches, later, day) for later in stretches):
        day -= timedelta(days=1)
    return day


def _splits(stretches: list[Stretch], later: Stretch, day: date) -> bool:
    gone = [s.last for s in stretches if s.partition == later.partition and s.day < day]
    return later.day >= day and later.first < max(gone, default=-1)


def offsets_kept_from(stretches: Iterable[Stretch], day: date, before: Mapping[int, int]) -> dict[int, int]:
    """Partition → first offset that stays when all days before `day` go; never lower than it was.

    >>> offsets_kept_from([Stretch(date(2013, 1, 1), 0, 0, 9)], date(2013, 1, 2), {1: 4})
    {1: 4, 0: 10}
    """
    kept = dict(before)
    for stretch in stretches:
        if stretch.day < day:
            kept[stretch.partition] = max(kept.get(stretch.partition, 0), stretch.last + 1)
    return kept
