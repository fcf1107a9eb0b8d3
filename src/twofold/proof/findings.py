"""What the proof says: one Check per invariant, as data, as JSON and as lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

MOST_OFFENDERS = 10
"""At most this many offending records are named; the numbers count all of them."""

HOLDS, BEHIND, NOT_PROVED, VIOLATED = STATES = ("holds", "behind", "not proved", "violated")

MEANINGS = {
    "I1": "every record the producer was acknowledged has landed",
    "I2": "every Kafka offset has landed, each once",
    "I3": "one row per event id",
    "I4": "nothing is there that was not sent or landed",
    "I5": "the views equal a recomputation",
    "I6": "the unified events equal a union from scratch",
    "I7": "every file that a table refers to exists",
    "I8": "the unified views equal a fold of a union from scratch",
}
"""What each invariant says, in a clause."""


@dataclass(frozen=True)
class Check:
    """The outcome of one invariant. Behind is not a violation: something is still missing, and will come."""

    id: str
    ok: bool
    behind: bool
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)
    offenders: tuple[str, ...] = ()
    proved: bool = True
    """False: something could not be checked, which says neither that it is right nor that it is wrong."""
    stuck: bool = False
    """It is behind, and the last run of what would bring it up to date failed."""

    @property
    def state(self) -> str:
        """One of `STATES`: the worst that it is."""
        if not self.ok:
            return VIOLATED
        return BEHIND if self.behind else HOLDS if self.proved else NOT_PROVED


@dataclass(frozen=True)
class Proof:
    """All checks of one pipeline."""

    pipeline: str
    checks: tuple[Check, ...]
    since: datetime | None = None
    """When the proof was made since which everything that changed was checked; None: everything was."""
    in_full_at: datetime | None = None
    """When everything was checked last; None: now."""

    @property
    def ok(self) -> bool:
        """Whether no invariant is violated."""
        return all(check.ok for check in self.checks)

    @property
    def behind(self) -> bool:
        """Whether some layer has not yet caught up."""
        return any(check.behind for check in self.checks)

    @property
    def proved(self) -> bool:
        """Whether all of it could be checked."""
        return all(check.proved for check in self.checks)

    @property
    def stuck(self) -> bool:
        """Whether some layer is behind, and the last run of what would bring it up to date failed."""
        return any(check.stuck for check in self.checks)

    @property
    def exit_code(self) -> int:
        """1: violated, or stuck; 3: not proved; else 0.

        >>> def of(*flags): return Proof("p", (Check("I1", *flags[:2], "", proved=flags[2], stuck=flags[3]),)).exit_code
        >>> of(True, True, True, False), of(True, False, False, False), of(True, True, False, True)
        (0, 3, 1)
        """
        return 1 if not self.ok or self.stuck else 0 if self.proved else 3

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "pipeline": self.pipeline,
            "ok": self.ok,
            "behind": self.behind,
            "proved": self.proved,
            "stuck": self.stuck,
            "since": self.since and self.since.isoformat(),
            "in_full_at": self.in_full_at and self.in_full_at.isoformat(),
            "invariants": [{**asdict(check), "state": check.state} for check in self.checks],
        }


@dataclass
class Findings:
    """Gathers what the parts of one invariant find, in the order they are said.

    >>> found = Findings("I2")
    >>> found.say("7 records")
    >>> found.violated("1 offset missing", ["flights[0]@3: missing"])
    >>> found.check().text
    '1 offset missing; 7 records'
    """

    id: str
    numbers: dict[str, Any] = field(default_factory=dict)
    _facts: list[str] = field(default_factory=list)
    _faults: list[str] = field(default_factory=list)
    _behind: list[str] = field(default_factory=list)
    _unproved: list[str] = field(default_factory=list)
    _stuck: bool = False
    _offenders: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """A fact, with the numbers compared."""
        self._facts.append(text)

    def behind(self, text: str, failure: str = "") -> None:
        """Something still missing, and the job that will bring it; `failure`: how that job's last run failed."""
        self._behind.append(f"{text}; {failure}" if failure else text)
        self._stuck = self._stuck or bool(failure)

    def not_proved(self, text: str) -> None:
        """Something that could not be checked."""
        self._unproved.append(text)

    def violated(self, text: str, offenders: Iterable[str] = ()) -> None:
        """A violation, and the records that show it."""
        self._faults.append(text)
        self._offenders.extend(offenders)

    @property
    def holds(self) -> bool:
        """Whether nothing was violated so far."""
        return not self._faults

    def check(self) -> Check:
        """The outcome: violations first, then what is behind, then what is not proved, then the facts."""
        behind, unproved = [f"behind: {one}" for one in self._behind], [f"not proved: {one}" for one in self._unproved]
        text = "; ".join([*self._faults, *behind, *unproved, *self._facts])
        named = tuple(self._offenders[:MOST_OFFENDERS])
        return Check(self.id, self.holds, bool(behind), text, self.numbers, named, not unproved, self._stuck)
