"""What is in flight and what is acknowledged, and librdkafka, which carries it (or `kafka_python_client`).

    records, in order ─► Ledger.hand_over ─► client ─► broker
    position, counts  ◄─ Ledger ◄─ one report per record, in order per partition ◄─┘

Both clients are idempotent, wait for all replicas, compress by lz4, and never give up on a broker that is away.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producer.reporting import Progress
from twofold import kafka
from twofold.journal import Delivered
from twofold.settings import Settings

BATCH_BYTES = 256 * 1024
LINGER_MS = 20
LARGEST_REQUEST_BYTES = 100 << 20
"""Kafka's own default (`socket.request.max.bytes`): a broker cuts the connection above it."""
_DROPPED = (
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._DESTROY,
)
"""How librdkafka says that it holds a record no more: a broker says of a topic that it does not know it. One that has
just started takes connections some 0.3 s before it knows its topics. The last is said of what was being sent then."""
RECORD_OVERHEAD_BYTES = 128
"""What a client keeps per record in flight besides its key and value, and at least what Kafka adds to one."""
LISTED_REFUSALS = 100
Record = tuple[int, bytes | None, bytes]
"""(position in the source, key, value)"""


@dataclass
class Group:
    """Records of one partition, handed over together."""

    records: Sequence[Record]
    size: int
    handed_over_at: float
    settled: int = 0
    """How many from the first on are acknowledged, or set aside."""


@dataclass
class Lane:
    """One partition's records in flight, in order, and what it has acknowledged."""

    groups: deque[Group] = field(default_factory=deque)
    delivered: Delivered = field(default_factory=Delivered)


class Ledger:
    """Deliveries of a run, from position `start` on.

    One thread hands over, one at a time reports, any may ask for the progress: each count has a single writer.
    """

    def __init__(
        self, start: int, partitions: int, aside: Path, limit: int, clock: Callable[[], float] = time.time
    ) -> None:
        """`limit`: the bytes that the topic takes at once; a record too large for it is kept in the file `aside`."""
        self.batch_bytes = max(1, min(BATCH_BYTES, limit * 9 // 10))
        self._alone_from = limit * 9 // 10 - RECORD_OVERHEAD_BYTES
        self.lanes = [Lane() for _ in range(partitions)]
        self.failure: str | None = None
        """Why nothing more can be sent; empty while sending is possible."""
        self._aside, self._clock = aside, clock
        self._submitted = start
        self._sent = self._sent_bytes = self._handed_over = self._settled_bytes = 0
        self._refused: list[tuple[int, int]] = []
        self._too_large = 0
        self._ack_s: float | None = None
        self._last_ack_at: float | None = None
        self._seen_settled = 0
        self._busy_since: float | None = None

    def hand_over(self, partition: int, records: Sequence[Record]) -> None:
        """Note records before they are sent, so that their reports find them."""
        if not records:
            return
        payload = sum(len(value) for _, _, value in records)
        size = payload + RECORD_OVERHEAD_BYTES * len(records)
        self._handed_over += size
        self.lanes[partition].groups.append(Group(records, size, self._clock()))
        self._sent += len(records)
        self._sent_bytes += payload

    def parted(self, records: Sequence[Record]) -> Iterator[tuple[Sequence[Record], bool]]:
        """Records in parts, and whether a part is one record that may be refused for its size.

        Kafka refuses a batch whole, so such a record must have one of its own.
        """
        # A key is no longer than its value.
        if 2 * max((len(value) for _, _, value in records), default=0) < self._alone_from:
            yield records, False
            return
        low = 0
        for index, (_, key, value) in enumerate(records):
            if self._may_be_refused(key, value):
                yield records[low:index], False
                yield records[index : index + 1], True
                low = index + 1
        yield records[low:], False

    def _may_be_refused(self, key: bytes | None, value: bytes) -> bool:
        return len(value) + len(key or b"") >= self._alone_from

    def submitted(self, position: int) -> None:
        """All records before `position` are handed over."""
        self._submitted = position

    def delivered(self, partition: int, count: int, highest: int) -> None:
        """The next `count` records of a partition are acknowledged; offset -1: the broker did not say where."""
        lane = self.lanes[partition]
        lane.delivered = lane.delivered.plus(Delivered(count, highest))
        # A refused record stays the first one that is not settled.
        while count and self.failure is None:
            group = lane.groups[0]
            taken = min(count, len(group.records) - group.settled)
            group.settled += taken
            count -= taken
            if group.settled == len(group.records):
                self._settle(lane, group)

    def refused(self, partition: int, reason: str, too_large: bool) -> None:
        """The broker will never take the next record of a partition: one too large is kept aside, else the run ends."""
        lane = self.lanes[partition]
        group = lane.groups[0]
        position, key, value = group.records[group.settled]
        if not (too_large and self._may_be_refused(key, value)):
            self.failed(f"Kafka refuses: {reason}")
            return
        try:
            self._aside.parent.mkdir(parents=True, exist_ok=True)
            with self._aside.open("ab") as file:
                file.write(value + b"\n")
        except OSError as error:
            self.failed(f"record {position + 1} is too large, and cannot be kept in {self._aside}: {error.strerror}")
            return
        self._too_large += 1
        if len(self._refused) < LISTED_REFUSALS:
            self._refused.append((position, len(value)))
        self._settle(lane, group)

    def failed(self, reason: str) -> None:
        """Nothing more can be sent; the first reason counts."""
        self.failure = self.failure or reason

    @property
    def held_bytes(self) -> int:
        """How much is in flight."""
        return self._handed_over - self._settled_bytes

    def progress(self) -> Progress:
        """A view that never claims too much: read in the order opposite to that of writing."""
        position, sent = self._submitted, self._sent
        for lane in self.lanes:
            position = min(position, first_open(lane, position))
        partitions = {number: lane.delivered for number, lane in enumerate(self.lanes) if lane.delivered.acked}
        acked = sum(delivered.acked for delivered in partitions.values())
        now = self._clock()
        if acked + self._too_large > self._seen_settled or not self.held_bytes:
            self._busy_since = now if self.held_bytes else None
            self._last_ack_at = now if acked + self._too_large > self._seen_settled else self._last_ack_at
            self._seen_settled = acked + self._too_large
        elif self._busy_since is None:
            self._busy_since = now
        return Progress(
            position=position,
            sent=max(sent, acked + self._too_large),
            acked=acked,
            too_large=self._too_large,
            refused=tuple(self._refused),
            partitions=partitions,
            sent_bytes=self._sent_bytes,
            last_ack_at=self._last_ack_at,
            ack_s=self._ack_s,
            waiting_s=0.0 if self._busy_since is None else max(0.0, now - self._busy_since),
            failure=self.failure,
        )

    def _settle(self, lane: Lane, group: Group) -> None:
        lane.groups.popleft()
        self._settled_bytes += group.size
        self._ack_s = max(0.0, self._clock() - group.handed_over_at)


def first_open(lane: Lane, default: int) -> int:
    """Position of the first record that is not settled."""
    while lane.groups:
        with suppress(IndexError):  # another thread ends this group just now
            group = lane.groups[0]
            return group.records[group.settled][0]
    return default


class Client(Protocol):
    """A Kafka producer for one topic, which reports the result of each record to the ledger."""

    def send(self, partition: int, records: Sequence[Record]) -> None:
        """Send records, in order; returns before they are delivered."""

    def poll(self, seconds: float) -> None:
        """Let reports in, waiting for one for this long at most; any thread may ask."""

    def close(self) -> None:
        """Stop at once. What is in flight stays unacknowledged: wait for the ledger first."""


class Confluent:
    """librdkafka. Reports come in by `poll`, mostly by the sending thread's: another one fights it for the GIL."""

    def __init__(self, settings: Settings, topic: str, ledger: Ledger, seen_at: Callable[[], float]) -> None:
        """`seen_at`: when (`time.monotonic`) a look at the topic began that found it there, the last time."""
        self._topic, self._ledger, self._seen_at = topic, ledger, seen_at
        self._sending, self._polling = Lock(), Lock()
        self._partition, self._acks = 0, 0
        self._offset: int | None = None
        self._dropped_at: float | None = None
        self._broken: set[int] = set()
        """Partitions in which a record was dropped: what is acknowledged after it is sent again all the same."""
        self._sent_again: dict[int, Sequence[Record]] = {}
        self._conf: dict[str, Any] = {
            **kafka.librdkafka(settings),
            "client.id": "twofold",
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "linger.ms": LINGER_MS,
            "batch.size": ledger.batch_bytes,
            "batch.num.messages": 1_000_000,
            "message.max.bytes": LARGEST_REQUEST_BYTES,
            # The ledger bounds what is in flight.
            "queue.buffering.max.messages": 0,
            "queue.buffering.max.kbytes": 2**31 - 1,
            # No time limit: a missing broker is waited for, records are never dropped.
            "message.timeout.ms": 0,
            # As long as it may be: for the first hour, what a starting broker does not know yet is waited for.
            "topic.metadata.propagation.max.ms": 3_600_000,
            # A broker that comes back is found within a second, however long it was away.
            "reconnect.backoff.max.ms": 1000,
            "error_cb": self._met,
        }
        self._producer = self._started()

    def _started(self) -> Producer:
        return Producer(self._conf, logger=logging.getLogger("kafka.librdkafka"))

    def send(self, partition: int, records: Sequence[Record]) -> None:
        """Send records, in order; returns before they are delivered."""
        with self._sending:
            if self._sent_again.pop(partition, None) is not records:
                self._send(partition, records)

    def _send(self, partition: int, records: Sequence[Record]) -> None:
        produce, topic, reported = self._producer.produce, self._topic, self._reported
        if self._dropped_at is not None:  # the ledger holds them: they are sent again with all others
            return
        for _, key, value in records:
            while True:
                try:
                    produce(topic, value, key, partition, reported)
                except BufferError:
                    self.poll(0.1)
                    continue
                except KafkaException as error:
                    self._refused(partition, error.args[0])
                    if self._dropped_at is not None:
                        return
                break

    def poll(self, seconds: float) -> None:
        """Let reports in: one thread at a time, so that they stay in order."""
        if self._polling.acquire(timeout=seconds):
            try:
                self._producer.poll(seconds)
                self._count()
                self._send_again()
            finally:
                self._polling.release()

    def close(self) -> None:
        """Stop at once."""
        with self._polling:
            self._producer.purge()

    def _send_again(self) -> None:
        """What was dropped, and all after it, goes by another client, once a look has found the topic."""
        if self._dropped_at is None or self._seen_at() < self._dropped_at or not self._sending.acquire(blocking=False):
            return
        try:
            self._producer.purge()
            while len(self._producer):
                self._producer.poll(0.1)
            self._count()
            self._producer, self._dropped_at, self._broken = self._started(), None, set()
            for partition, lane in enumerate(self._ledger.lanes):
                for group in tuple(lane.groups):
                    self._send(partition, group.records[group.settled :])
                    # The last one may have been handed over, and `send` be about to be called.
                    self._sent_again[partition] = group.records
        finally:
            self._sending.release()

    def _reported(self, error: KafkaError | None, message: Message) -> None:
        partition: Any = message.partition()
        if partition != self._partition or error is not None:
            self._count()
            self._partition = partition
        if error is None:
            self._acks += 1
            self._offset = message.offset()
        elif error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            if error.code() in _DROPPED:
                self._broken.add(partition)
            self._refused(partition, error)

    def _count(self) -> None:
        """Pass on what has been acknowledged of one partition since the last time."""
        if self._acks and self._partition not in self._broken:
            self._ledger.delivered(self._partition, self._acks, -1 if self._offset is None else self._offset)
        self._acks = 0

    def _refused(self, partition: int, error: KafkaError) -> None:
        if error.code() in _DROPPED:
            self._dropped_at = self._dropped_at or time.monotonic()
            return
        self._ledger.refused(partition, f"{error.name()}: {error.str()}", error.code() == KafkaError.MSG_SIZE_TOO_LARGE)

    def _met(self, error: KafkaError) -> None:
        if error.fatal():
            self._ledger.failed(f"Kafka refuses: {error.name()}: {error.str()}")
