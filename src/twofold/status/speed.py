"""How fast the speed layer lands, told by its commits alone: each snapshot says when it was and what it added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from twofold.table_state import History, Landed

BIN = timedelta(seconds=15)
WINDOW = timedelta(minutes=15)
_LAST = timedelta(minutes=1)


def landed(log: History, now: datetime) -> tuple[tuple[datetime, int], ...]:
    """Rows landed per BIN over the last WINDOW, oldest first; every bin is there, the empty ones too."""
    first = _floor(now - WINDOW) + BIN
    rows: Counter[datetime] = Counter()
    for at, added in _commits(log):
        if at < first:
            break
        rows[_floor(at)] += added
    bins = (_floor(now) - first) // BIN + 1
    return tuple((first + i * BIN, rows[first + i * BIN]) for i in range(bins))


def rows_per_second(log: History, now: datetime) -> float:
    """Rows landed over the last minute, per second."""
    total = 0
    for at, added in _commits(log):
        if at < now - _LAST:
            break
        total += added
    return round(total / _LAST.total_seconds(), 1)


def _commits(log: History) -> Iterator[tuple[datetime, int]]:
    """Commits that landed rows, newest first; compaction's add rows too, but land none."""
    for snapshot in log.ancestors():
        if Landed.KEY in snapshot.summary:
            yield snapshot.at, int(snapshot.summary.get("added-records", 0))


def _floor(at: datetime) -> datetime:
    seconds = int(at.timestamp())
    return datetime.fromtimestamp(seconds - seconds % int(BIN.total_seconds()), UTC)
