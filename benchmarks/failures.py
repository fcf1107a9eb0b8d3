"""What ends a part of a run: the figures of the parts before it still count."""

from __future__ import annotations

import time
from collections.abc import Callable

_POLL_S = 0.5


class BenchFailure(Exception):
    """A part could not be measured."""


class CommandFailed(BenchFailure):
    """A measured command did not end well."""


class NotThere(BenchFailure):
    """An awaited condition does not come true."""


def until(condition: Callable[[], bool], what: str, give_up_s: float) -> None:
    """Wait for a condition; raise NotThere where it does not come true in time."""
    give_up = time.monotonic() + give_up_s
    while not condition():
        if time.monotonic() > give_up:
            raise NotThere(f"{what} did not come within {give_up_s:.0f} s")
        time.sleep(_POLL_S)


class Differs(BenchFailure):
    """Two engines do not give the same answer, so their times say nothing."""
