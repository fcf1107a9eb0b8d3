"""One figure of a run beside its floor; what ends a part of a run; and how a part waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_POLL_S = 0.5


@dataclass(frozen=True)
class Figure:
    """What was measured; what does not apply is None. `bound`: the floor (or ceiling) that the ratio has to keep."""

    what: str
    wall_s: float | None = None
    cpu_s: float | None = None
    events_per_s: float | None = None
    events_per_cpu_s: float | None = None
    ratio: float | None = None
    bound: str = ""
    note: str = ""

    @classmethod
    def of(cls, what: str, events: float, wall_s: float, cpu_s: float, **others: Any) -> Figure:  # noqa: ANN401
        """With both rates, where there were events; `others` are its other fields."""
        rates = (events / wall_s, events / cpu_s) if events else (None, None)
        return cls(what, wall_s, cpu_s, *rates, **others)


class BenchFailure(Exception):
    """A part could not be measured, or its engines do not agree. The figures of the parts before it still count."""


def until(condition: Callable[[], bool], what: str, give_up_s: float) -> None:
    """Wait for a condition; raise BenchFailure where it does not come true in time."""
    give_up = time.monotonic() + give_up_s
    while not condition():
        if time.monotonic() > give_up:
            raise BenchFailure(f"{what} did not come within {give_up_s:.0f} s")
        time.sleep(_POLL_S)
