"""What is recorded about one service, and the rules for restarting it. Pure: times are arguments.

asked manually ──► wanted or not; a start clears the budget
asked by a schedule ──► started, unless stopped manually, left down, or finished
an end nobody asked for ──► again at once while the budget lasts, then left down
an end for a changed definition ──► again at once, at no cost
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from twofold.definition.names import SERVICES

PRODUCER, STREAM = SERVICES

AWAY = 75
"""Exit code (EX_TEMPFAIL) of a service that gave up waiting for the broker or the catalog: no crash of its own."""
CHANGED = 76
"""Exit code of a streaming job whose event's declaration changed while it ran: no crash, it wants the new one."""
CHANGES_PER_HOUR = 30
"""Up to that many starts for a changed definition are free. No person makes more: later ones are a fault, and count."""
BUDGET_S = 3600.0
_KEPT = 50
_MEANS = {AWAY: "what it needs was away", CHANGED: "the definition changed"}

Did = Literal["started", "running", "finished", "stopped", "left down"]
"""What a request came to; `running`: nothing was done, since it runs."""


@dataclass(frozen=True)
class End:
    """One end of a service."""

    at: float
    """Unix seconds."""
    code: int
    """Exit code; negative: the signal that ended it."""
    asked: bool
    """Whether it was asked to stop."""
    ran_s: float

    def __str__(self) -> str:
        if self.code < 0:
            name = next((one.name for one in signal.Signals if one == -self.code), "unknown")
            how = f"signal {-self.code} ({name})"
        else:
            how = f"exit code {self.code}" + (f" ({_MEANS[self.code]})" if self.code in _MEANS else "")
        return f"{how} after {self.ran_s:,.0f} s"


@dataclass(frozen=True)
class Restart:
    """One start after an end that nobody asked for."""

    at: float
    why: str


@dataclass(frozen=True)
class Record:
    """One service, as remembered over restarts of its supervisor."""

    again: bool = False
    """To be started as soon as it is down."""
    stopped_at: float = 0.0
    """When it was stopped manually; 0: it was not, or was started again since."""
    left_down: str = ""
    """Why only a manual start brings it back; empty: nothing prevents a start."""
    finished: bool = False
    """It came to its own end, with all its work done."""
    cleared_at: float = 0.0
    """Restarts before this moment no longer count."""
    restarts: tuple[Restart, ...] = ()
    """Those that count against the budget."""
    changes: tuple[Restart, ...] = ()
    """Those for a changed definition, which do not."""
    ends: tuple[End, ...] = ()

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From what `to_json` wrote."""
        made = {name: tuple(Restart(**one) for one in data[name]) for name in ("restarts", "changes")}
        return cls(**{**data, **made, "ends": tuple(End(**end) for end in data["ends"])})

    def spent(self, now: float) -> int:
        """Restarts that count now.

        >>> Record(cleared_at=5, restarts=(Restart(1, ""), Restart(7, ""), Restart(3000, ""))).spent(3650)
        1
        """
        return self._counted(self.restarts, now)

    def changed(self, now: float) -> int:
        """Starts for a changed definition within the same time."""
        return self._counted(self.changes, now)

    @property
    def last_restart(self) -> Restart | None:
        """The newest of both kinds."""
        return max((*self.restarts, *self.changes), key=lambda restart: restart.at, default=None)

    def _counted(self, restarts: tuple[Restart, ...], now: float) -> int:
        since = max(self.cleared_at, now - BUDGET_S)
        return sum(restart.at > since for restart in restarts)


def start(record: Record, now: float, *, by_hand: bool, alive: bool) -> tuple[Record, Did]:
    """Someone wants it to run. A manual start (`by_hand`) overrules everything and clears the budget."""
    if by_hand:
        record = replace(record, stopped_at=0.0, left_down="", cleared_at=now)
    if alive:
        return record, "running"
    if record.stopped_at:
        return record, "stopped"
    if record.left_down:
        return record, "left down"
    if record.finished and not by_hand:
        return record, "finished"
    return replace(record, again=True, finished=False), "started"


def stop(record: Record, now: float) -> Record:
    """Someone wants it to stop, and to stay down."""
    return replace(record, again=False, stopped_at=now)


def restart(record: Record, now: float, per_hour: int, *, by_hand: bool, why: str) -> tuple[Record, Did]:
    """Start it again, running or not; unless `by_hand` only within the budget, and never against a person's will."""
    if by_hand:
        return start(record, now, by_hand=True, alive=False)
    if record.stopped_at:
        return record, "stopped"
    record = _again(record, now, per_hour, why)
    return record, "left down" if record.left_down else "started"


def ended(record: Record, end: End, service: str, per_hour: int) -> Record:
    """It has ended: by request, at its own good end, for want of what it needs, for a new definition, or by a crash."""
    record = replace(record, ends=(*record.ends, end)[-_KEPT:])
    if end.asked:
        return record
    if end.code == 0 and service == PRODUCER:
        return replace(record, finished=True)
    if end.code == AWAY:
        return record
    if end.code == CHANGED and record.changed(end.at) < CHANGES_PER_HOUR:
        changes = (*record.changes, Restart(end.at, _MEANS[CHANGED]))[-_KEPT:]
        return replace(record, again=True, changes=changes)
    return _again(record, end.at, per_hour, f"ended with {end}")


def _again(record: Record, now: float, per_hour: int, why: str) -> Record:
    if record.left_down:
        return record
    if record.spent(now) >= per_hour:
        text = f"restarted {per_hour} times within an hour already, and then: {why} ({moment(now)})"
        return replace(record, again=False, left_down=text)
    return replace(record, again=True, restarts=(*record.restarts, Restart(now, why))[-_KEPT:])


def moment(at: float) -> str:
    """Unix seconds as people read them.

    >>> moment(0)
    '1970-01-01 00:00:00 UTC'
    """
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
