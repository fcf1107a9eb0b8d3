"""Which snapshots of a table may be expired. Pure: histories come in as data, ids go out.

    head ─► ancestor ─► ancestor ─► … ─► oldest
    └── each guard keeps this many of the newest ──┘   what no guard keeps may go

A guard's answer is a number of ancestors, never a set: every reader and every state needs the whole chain from the
head back to what it looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from twofold.boundary import History

EVERYTHING = 1 << 62
"""More than any table has: keep the whole chain."""


def carries_state(history: History, key: str) -> int:
    """Keep the nearest ancestor whose summary has `key`, and all that is newer.

    Incident: compaction commits without a summary of ours. Expired down to such a commit, a table says that nothing
    was ever landed, and the next start lands everything again.
    """
    nearest = history.nearest(key)
    return EVERYTHING if nearest is None else is_resumed_from(history, nearest.id)


def is_resumed_from(history: History, snapshot_id: int) -> int:
    """Keep the snapshot that a query goes on from, and all that is newer.

    Incident: a view query replays its last batch from the end of the batch before. Where that snapshot is gone it
    stops for good ("the snapshot was expired or removed"). A snapshot outside the chain keeps everything: better
    kept than guessed.
    """
    newer = history.since(snapshot_id)
    return EVERYTHING if newer is None else len(newer) + 1


def is_not_begun(history: History) -> int:
    """Keep all, unless it is too late: a view's query that was started on an empty log begins at its first snapshot.

    Incident: Iceberg's source begins at the oldest snapshot that is left and reads only what that one added. After
    an expiry, a new view lacked nine tenths of history, in silence. Once the first snapshot is gone a view begins
    otherwise (see `spark_jobs.stream_views`), and nothing need be kept for it.
    """
    return EVERYTHING if reaches_first(history) else 0


def reaches_first(history: History) -> bool:
    """Whether the chain still goes back to the table's first snapshot."""
    return all(snapshot.parent is None or snapshot.parent in history.snapshots for snapshot in history.ancestors())


MOST_PER_BATCH = 5000
"""So many snapshots at most are kept for their age alone, in a table that gets one with every micro-batch."""


def is_young(history: History, now: datetime, retention: timedelta, most: int = EVERYTHING) -> int:
    """Keep what is younger than `retention` and all that is newer, `most` at most.

    Incident: a reader pins a snapshot and reads its files for as long as its query takes. And the other way: every
    commit writes the list of all snapshots, so a day of them (86,400) made a commit take nine seconds.
    """
    oldest_ms = (now - retention).timestamp() * 1000
    young = [number for number, snapshot in enumerate(history.ancestors(), 1) if snapshot.timestamp_ms > oldest_ms]
    return min(most, max(young, default=0))


def expirable(history: History, guards: Mapping[str, int]) -> list[int]:
    """Ids of the ancestors that no guard keeps, oldest first. The head always stays.

    Snapshots outside the chain (a branch, a rollback) are not ours to expire.
    """
    kept = max([1, *guards.values()])
    return [snapshot.id for snapshot in list(history.ancestors())[kept:]][::-1]
