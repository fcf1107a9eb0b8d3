"""What the proof says: one Check per invariant, as data, as JSON and as lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_OFFENDERS = 10
"""At most this many offending records are named; the numbers count all of them."""

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


@dataclass(frozen=True)
class Proof:
    """All checks of one pipeline."""

    pipeline: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no invariant is violated."""
        return all(check.ok for check in self.checks)

    @property
    def behind(self) -> bool:
        """Whether some layer has not yet caught up."""
        return any(check.behind for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "pipeline": self.pipeline,
            "ok": self.ok,
            "behind": self.behind,
            "invariants": [asdict(check) for check in self.checks],
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
    _offenders: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """A fact, with the numbers compared."""
        self._facts.append(text)

    def behind(self, text: str) -> None:
        """Something still missing."""
        self._behind.append(text)

    def violated(self, text: str, offenders: Iterable[str] = ()) -> None:
        """A violation, and the records that show it."""
        self._faults.append(text)
        self._offenders.extend(offenders)

    @property
    def holds(self) -> bool:
        """Whether nothing was violated so far."""
        return not self._faults

    def check(self) -> Check:
        """The outcome: violations first, then what is behind, then the facts."""
        text = "; ".join([*self._faults, *(f"behind: {text}" for text in self._behind), *self._facts])
        named = tuple(self._offenders[:MOST_OFFENDERS])
        return Check(self.id, not self._faults, bool(self._behind), text, self.numbers, named)
