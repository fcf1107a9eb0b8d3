"""What maintenance may remove: whole days of stream_log, snapshots; and the options of a run.

Retention of stream_log
    today - keep ────────────────┐
    first day that the union or ─┼─► the earliest, less 7 days where it is a reader ─► the day before which all goes
    some view has not read yet ──┘

Expiry of snapshots
    head ─► ancestor ─► ancestor ─► … ─► oldest
    └── each guard keeps this many of the newest ──┘   what no guard keeps may go

A guard's answer is a number of ancestors, never a set: every reader and every state needs the whole chain from the
head back to what it looks at. All of this is pure: offsets, days and histories come in as data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from twofold.definition.types import format_duration, parse_duration
from twofold.errors import UsageError
from twofold.table_state import History

SNAPSHOT_RETENTION = "7 days"
ORPHAN_AGE = "3 days"
KEEP_SNAPSHOTS = 100
MIN_INPUT_FILES = 5

_YOUNGEST_ORPHAN = timedelta(days=3)
_ZERO = re.compile(r"0+ ?[A-Za-z]*")
SPARE = timedelta(days=7)
"""How far retention stays behind every reader."""


@dataclass(frozen=True)
class Stretch:
    """The offsets that one partition received on one day, by their arrival."""

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


EVERYTHING = 1 << 62
"""More than any table has: keep the whole chain."""


def carries_state(history: History, key: str) -> int:
    """Keep the nearest ancestor whose summary has `key`, and all that is newer.

    Incident: compaction commits without a summary of ours. Expired down to such a commit, a table says that nothing was
    ever ingested, and the next start ingests everything again.
    """
    nearest = history.nearest(key)
    return EVERYTHING if nearest is None else is_resumed_from(history, nearest.id)


def is_resumed_from(history: History, snapshot_id: int) -> int:
    """Keep the snapshot that a query resumes from, and all that is newer.

    Incident: a view query replays its last batch from the end of the batch before. Where that snapshot is gone it
    stops for good ("the snapshot was expired or removed"). A snapshot outside the chain keeps everything: better
    kept than guessed.
    """
    newer = history.since(snapshot_id)
    return EVERYTHING if newer is None else len(newer) + 1


def is_not_begun(history: History) -> int:
    """Keep all, unless it is too late: a view's query that was started on an empty log begins at its first snapshot.

    Incident: Iceberg's source begins at the oldest snapshot that is left and reads only what that one added. After
    an expiry, a new view silently lacked nine tenths of history. Once the first snapshot is gone a view begins
    otherwise (see `spark_jobs.stream_views`), and nothing need be kept for it.
    """
    return EVERYTHING if reaches_first(history) else 0


def reaches_first(history: History) -> bool:
    """Whether the chain still goes back to the table's first snapshot."""
    return all(snapshot.parent is None or snapshot.parent in history.snapshots for snapshot in history.ancestors())


MOST_PER_BATCH = 5000
"""At most this many snapshots are kept for their age alone, in a table that gets one with every micro-batch."""


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


@dataclass(frozen=True)
class Upkeep:
    """The options of one run."""

    snapshot_retention: timedelta
    orphan_age: timedelta
    keep_snapshots: int = KEEP_SNAPSHOTS
    min_input_files: int = MIN_INPUT_FILES
    retain_stream_log: timedelta | None = None
    dry_run: bool = False


def upkeep(
    snapshot_retention: str = SNAPSHOT_RETENTION,
    orphan_age: str = ORPHAN_AGE,
    keep_snapshots: int = KEEP_SNAPSHOTS,
    min_input_files: int = MIN_INPUT_FILES,
    retain_stream_log: str | None = None,
    dry_run: bool = False,
) -> Upkeep:
    """Read the options as they were typed; UsageError says which one is refused and why.

    Incident: a file that nothing refers to yet belongs to a commit in flight. Removed as an orphan, it is missing from
    the table a second later, and its rows are gone for good. And what retention keeps in any case is not silently more
    than was asked.
    """
    young = (
        "files that nothing refers to may belong to a commit in flight, and removing those destroys data",
        "use 3 days or more",
    )
    behind = ("retention stays 7 days behind the union and every view query", "use 7 days or more")
    return Upkeep(
        timedelta(0) if _ZERO.fullmatch(snapshot_retention) else _duration("--snapshot-retention", snapshot_retention),
        _duration("--orphan-age", orphan_age, _YOUNGEST_ORPHAN, *young),
        keep_snapshots,
        min_input_files,
        None if retain_stream_log is None else _duration("--retain-stream-log", retain_stream_log, SPARE, *behind),
        dry_run,
    )


def _duration(option: str, text: str, least: timedelta = timedelta(0), why: str = "", remedy: str = "") -> timedelta:
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {text!r} is not {error}", f"for example {option} '7 days'") from None
    if found < least:
        raise UsageError(f"{option}: {format_duration(found)} is too short: {why}", remedy)
    return found
