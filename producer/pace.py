"""When each record is due: as fast as possible, at a rate, or as it was sent, only faster."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from time import monotonic

from producer.sources.chunk import Chunk

SLICE_RECORDS = 2000
"""At most so many records are handed over at once."""
CATCH_UP_S = 1.0
"""After a longer stop (a broker away), the plan is moved rather than caught up with in one burst."""
MIN_WAIT_S = 0.005


class Pace:
    """Cuts chunks into slices, each given out when it is due."""

    def __init__(
        self,
        rate: float | None,
        speed_up: float | None,
        wait: Callable[[float], bool],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`wait(seconds)` sleeps and tells whether the run was stopped meanwhile."""
        self._rate, self._speed_up, self._wait, self._clock = rate, speed_up, wait, clock
        self._origin: float | None = None
        self._anchor: float | None = None

    def slices(self, chunk: Chunk) -> Iterator[tuple[int, int]]:
        """Index ranges [low, high) of the chunk, in order, each when it is due; ends early if stopped."""
        due = self._due(chunk)
        low = 0
        while low < len(chunk):
            high = min(low + SLICE_RECORDS, len(chunk))
            if due is not None:
                if not self._wait_until(due[low]):
                    return
                high = min(high, bisect_right(due, self._now(), low + 1))
            yield low, high
            low = high

    def _due(self, chunk: Chunk) -> list[float] | None:
        """Seconds after the origin at which each record is due; None: at once."""
        if self._rate is not None:
            self._anchor = chunk.first if self._anchor is None else self._anchor
            return [(chunk.first + index - self._anchor) / self._rate for index in range(len(chunk))]
        if self._speed_up is not None and chunk.send_at:
            self._anchor = chunk.send_at[0] if self._anchor is None else self._anchor
            return [(moment - self._anchor) / self._speed_up for moment in chunk.send_at]
        return None

    def _now(self) -> float:
        if self._origin is None:
            self._origin = self._clock()
        return self._clock() - self._origin

    def _wait_until(self, due: float) -> bool:
        """Wait for a due time; False if stopped. Far behind, move the origin, so that the pace is kept from here."""
        behind = self._now() - due
        if behind > CATCH_UP_S and self._origin is not None:
            self._origin += behind - CATCH_UP_S
        while (left := due - self._now()) > 0:
            if self._wait(max(left, MIN_WAIT_S)):
                return False
        return True
