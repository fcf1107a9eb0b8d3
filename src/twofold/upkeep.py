"""What a maintenance run is asked to do, checked: the same rules for the command line and for the job."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from twofold.definition.types import format_duration, parse_duration
from twofold.errors import UsageError
from twofold.retention import SPARE

SNAPSHOT_RETENTION = "7 days"
ORPHAN_AGE = "3 days"
KEEP_SNAPSHOTS = 100
MIN_INPUT_FILES = 5

_YOUNGEST_ORPHAN = timedelta(days=3)
_ZERO = re.compile(r"0+ ?[A-Za-z]*")


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
    """Read the options as they were typed; UsageError says which one is refused and why."""
    return Upkeep(
        _duration("--snapshot-retention", snapshot_retention, or_zero=True),
        _safe_orphan_age(_duration("--orphan-age", orphan_age)),
        keep_snapshots,
        min_input_files,
        None if retain_stream_log is None else _safe_retention(_duration("--retain-stream-log", retain_stream_log)),
        dry_run,
    )


def _duration(option: str, text: str, or_zero: bool = False) -> timedelta:
    if or_zero and _ZERO.fullmatch(text):
        return timedelta(0)
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {text!r} is not {error}", f"for example {option} '7 days'") from None


def _safe_orphan_age(age: timedelta) -> timedelta:
    """Refuse less than 3 days.

    Incident: a file that nothing refers to yet belongs to a commit in flight. Removed as an orphan, it is missing
    from the table a second later, and its rows are gone for good.
    """
    if age < _YOUNGEST_ORPHAN:
        raise UsageError(
            f"--orphan-age: {format_duration(age)} is too short: files that nothing refers to may belong "
            "to a commit in flight, and removing those destroys data",
            "use 3 days or more",
        )
    return age


def _safe_retention(keep: timedelta) -> timedelta:
    """Refuse less than what retention keeps in any case, rather than keep more than was asked in silence."""
    if keep < SPARE:
        raise UsageError(
            f"--retain-stream-log: {format_duration(keep)} is too short: retention stays 7 days behind "
            "the union and every view query",
            "use 7 days or more",
        )
    return keep
