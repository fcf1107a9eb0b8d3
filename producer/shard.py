"""One worker: its share of the source, from where it stopped, to Kafka.

source ─► slices when due ─► share and partition by hash of the id ─► BulkProducer ─► Ledger ─► report (4 a second)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from zlib import crc32

from kafka.errors import KafkaError

from producer.bulk import BulkProducer, Record
from producer.ledger import Ledger
from producer.pace import Pace
from producer.progress import Progress
from producer.sources import Chunk, Source
from twofold.errors import TwofoldError
from twofold.settings import Settings

REPORT_EVERY_S = 0.25
CONNECT_S = 5.0
"""One attempt to reach the broker; attempts go on until it answers."""
DRAIN_S = 8.0
"""How long a stopped run waits for what is in flight, less than a supervisor waits before it kills."""
KEYLESS_RUN = 512
"""Records without an id go to partitions in turn, so many to each."""


@dataclass(frozen=True)
class Share:
    """Which records are this worker's, and where they go. All of one id are one partition's, and, unless the source has
    divided itself, one worker's."""

    worker: int
    workers: int
    partitions: int

    def split(self, chunk: Chunk, low: int, high: int) -> list[list[Record]]:
        """This worker's records of the slice [low, high), by partition, in order."""
        groups: list[list[Record]] = [[] for _ in range(self.partitions)]
        if chunk.mine is False:
            return groups
        values, keys, all_mine = chunk.values, chunk.keys, chunk.mine or self.workers == 1
        for index in range(low, high):
            key, position = keys[index], chunk.first + index
            # CRC-32 of the key is librdkafka's consistent partitioner, and costs a tenth of Java's murmur2 here.
            number = crc32(key) if key is not None else position // KEYLESS_RUN
            if all_mine or number % self.workers == self.worker:
                groups[number % self.partitions].append((position, key, values[index]))
        return groups


@dataclass(frozen=True)
class Task:
    """One worker's order."""

    settings: Settings
    topic: str
    start: int
    limit: int | None
    rate: float | None
    speed_up: float | None
    worker: int
    workers: int
    aside: Path
    """Where records too large for the broker are kept."""


class Shard:
    """Runs one task until its source ends or `stop` is set."""

    def __init__(self, task: Task, source: Source, stop: Event, report: Callable[[Progress], None]) -> None:
        self._task, self._source, self._stop, self._report = task, source, stop, report
        self._ledger = Ledger(task.start, task.aside)
        self._client: BulkProducer | None = None
        self._started = monotonic()

    def run(self) -> Progress:
        """Send everything; returns the last progress, which is also reported. Source errors are raised at the end."""
        ended = Event()
        Thread(target=self._keep_reporting, args=(ended,), daemon=True, name="report").start()
        exhausted = False
        try:
            exhausted = self._send_all()
        finally:
            drained = self._drain()
            ended.set()
            last = replace(self._progress(), exhausted=exhausted and drained, done=True)
            self._report(last)
        return last

    def _send_all(self) -> bool:
        """Whether the source was sent to its end, or to the limit."""
        if not self._connect() or self._client is None:
            return False
        share = Share(self._task.worker, self._task.workers, self._client.partitions)
        pace = Pace(self._task.rate, self._task.speed_up, self._stop.wait)
        for chunk in self._source.chunks(self._task.start):
            if not self._send(within(chunk, self._task.limit), share, pace):
                return False
            if self._task.limit is not None and chunk.first + len(chunk) >= self._task.limit:
                return False
        return not self._stop.is_set()

    def _connect(self) -> bool:
        """Try until the broker answers; False if stopped first."""
        while not self._stop.is_set():
            try:
                self._client = BulkProducer(self._task.settings, self._task.topic, CONNECT_S, self._ledger)
            except KafkaError:
                continue
            return True
        return False

    def _send(self, chunk: Chunk, share: Share, pace: Pace) -> bool:
        """Send one chunk; False if stopped or failed before its end."""
        for low, high in pace.slices(chunk):
            if self._client is None or not self._ledger.wait_for_room(self._stop.is_set):
                return False
            groups = share.split(chunk, low, high)
            for partition, records in enumerate(groups):
                if records:
                    self._client.append(partition, records)
            held = sum(len(value) for records in groups for _, _, value in records)
            self._ledger.submitted(chunk.first + high, sum(map(len, groups)), held)
        return not self._stop.is_set()

    def _drain(self) -> bool:
        """Wait for what is in flight, for as long as it takes; once stopped, for DRAIN_S at most."""
        until = None
        drained = False
        while not drained and self._ledger.failure is None and (until is None or monotonic() < until):
            if self._stop.is_set():
                until = until or monotonic() + DRAIN_S
            drained = self._ledger.wait_until_empty(REPORT_EVERY_S)
        if self._client is not None:
            self._client.close()
        return drained

    def _progress(self) -> Progress:
        progress = self._ledger.progress()
        if self._client is None:
            return replace(progress, waiting_s=monotonic() - self._started)
        return progress

    def _keep_reporting(self, ended: Event) -> None:
        while not ended.wait(REPORT_EVERY_S):
            if self._client is not None and self._client.topic_was_replaced():
                self._ledger.failed("the topic was deleted and made again while sending")
            try:
                self._report(self._progress())
            except TwofoldError as error:
                self._ledger.failed(error.message)
                return


def within(chunk: Chunk, limit: int | None) -> Chunk:
    """The chunk without records at or past `limit`."""
    keep = len(chunk) if limit is None else max(0, min(len(chunk), limit - chunk.first))
    if keep == len(chunk):
        return chunk
    send_at = chunk.send_at and chunk.send_at[:keep]
    return replace(chunk, values=chunk.values[:keep], keys=chunk.keys[:keep], send_at=send_at)


def failure_of(progress: Progress) -> TwofoldError | None:
    """The error that ended a worker, if one did."""
    if progress.failure is None:
        return None
    return TwofoldError(
        f"sending has stopped: {progress.failure}",
        "what was acknowledged is journaled; mend the cause and run the same command to go on from there",
    )
