"""What is in flight, and what is acknowledged: shared by the sending thread and the client's own.

submit(batch) ──► outstanding ──settle()──► position, per-partition counts and offsets, or set aside as too large
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Condition
from typing import Protocol

from producer.progress import Progress
from twofold.journal import Delivered

IN_FLIGHT_BYTES = 32 << 20
"""The client itself has no bound: above this much the sender waits, so a missing broker never fills the memory."""
LISTED_REFUSALS = 100


class Tracked(Protocol):
    """A batch, as far as the ledger is concerned."""

    partition: int
    positions: list[int]
    bytes_held: int
    settled: int
    opened_at: float


class Ledger:
    """One worker's deliveries, from `start` on."""

    def __init__(self, start: int, aside: Path, clock: Callable[[], float] = time.time) -> None:
        self._changed = Condition()
        self._aside, self._clock = aside, clock
        self._outstanding: dict[int, Tracked] = {}
        self._held = 0
        self._submitted = start
        self._sent = self._acked = self._too_large = 0
        self._refused: list[tuple[int, int]] = []
        self._partitions: dict[int, Delivered] = {}
        self._bytes = 0
        self._ack_s: float | None = None
        self._last_ack_at: float | None = None
        self._busy_since: float | None = None
        self._failure: str | None = None

    def opened(self, batch: Tracked, first: int) -> None:
        """A new batch, before it can be sent; `first` is the position of its first record."""
        with self._changed:
            batch.positions.append(first)
            batch.opened_at = self._clock()
            if not self._outstanding:
                self._busy_since = batch.opened_at
            self._outstanding[id(batch)] = batch

    def submitted(self, position: int, records: int, held: int) -> None:
        """All records before `position` are in batches; `records` of them are new, holding `held` bytes."""
        with self._changed:
            self._submitted, self._sent, self._held = position, self._sent + records, self._held + held
            self._bytes += held

    def delivered(self, batch: Tracked, count: int, base_offset: int) -> None:
        """The next `count` records of a batch are acknowledged; offset -1: the broker did not tell it."""
        with self._changed:
            highest = base_offset + count - 1 if base_offset >= 0 else -1
            before = self._partitions.get(batch.partition, Delivered())
            self._partitions[batch.partition] = before.plus(Delivered(count, highest))
            self._acked += count
            self._last_ack_at = self._busy_since = self._clock()
            self._ack_s = max(0.0, self._last_ack_at - batch.opened_at)
            self._settle(batch, count)

    def too_large(self, batch: Tracked, position: int, value: bytes) -> None:
        """The broker will never take this record: keep its bytes aside, then go on."""
        try:
            append_line(self._aside, value)
        except OSError as error:
            self.failed(f"record {position + 1} is too large, and cannot be kept in {self._aside}: {error.strerror}")
            return
        with self._changed:
            self._too_large += 1
            if len(self._refused) < LISTED_REFUSALS:
                self._refused.append((position, len(value)))
            self._settle(batch, 1)

    def failed(self, reason: str) -> None:
        """The broker refuses for good: nothing more can be sent by this client."""
        with self._changed:
            self._failure = self._failure or reason
            self._changed.notify_all()

    def wait_for_room(self, stopped: Callable[[], bool], room: int = IN_FLIGHT_BYTES) -> bool:
        """Block while more than `room` bytes are in flight; False if stopped or failed meanwhile."""
        with self._changed:
            while self._held > room and self._failure is None and not stopped():
                self._changed.wait(0.2)
            return self._failure is None and not stopped()

    def wait_until_empty(self, seconds: float) -> bool:
        """Block until nothing is in flight; False after `seconds`, or once the client has failed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._outstanding or self._failure is not None, seconds)
            return not self._outstanding and self._failure is None

    @property
    def failure(self) -> str | None:
        """Why nothing more can be sent, if so."""
        return self._failure

    def progress(self) -> Progress:
        """A consistent view of it all."""
        with self._changed:
            firsts = (batch.positions[0] for batch in self._outstanding.values())
            since = self._busy_since if self._outstanding else None
            return Progress(
                position=min([self._submitted, *firsts]),
                sent=self._sent,
                acked=self._acked,
                too_large=self._too_large,
                refused=tuple(self._refused),
                partitions=dict(self._partitions),
                sent_bytes=self._bytes,
                last_ack_at=self._last_ack_at,
                ack_s=self._ack_s,
                waiting_s=max(0.0, self._clock() - since) if since is not None else 0.0,
                failure=self._failure,
            )

    def _settle(self, batch: Tracked, count: int) -> None:
        batch.settled += count
        if batch.settled == len(batch.positions):
            del self._outstanding[id(batch)]
            self._held -= batch.bytes_held
        self._changed.notify_all()


def append_line(path: Path, value: bytes) -> None:
    """Add one record to a file of lines, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(value + b"\n")
