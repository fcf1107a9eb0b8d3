"""kafka-python's producer, fed whole groups of records at once.

    group for one partition ──one lock──► open batch ──► client's own sender thread (idempotent, retries) ──► Ledger

`KafkaProducer.send` makes a future with a lock, several checks and two lock rounds per record, and that is two
thirds of its time. Here a lock is taken per group and a callback made per batch; encoding, compression, sequence
numbers, retries and the network are the library's. This reaches into its accumulator, so its version is pinned.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.transaction_manager import TransactionManager
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from producer import kafka_client
from producer.ledger import Ledger
from twofold.settings import Settings

BATCH_BYTES = 256 * 1024
LINGER_MS = 20
REQUEST_TIMEOUT_MS = 30_000
NEVER_MS = 10**12
"""Delivery has no time limit: a missing broker is waited for, records are never dropped."""
MAGIC = 2
Record = tuple[int, bytes | None, bytes]
"""(position in the source, key, value)"""
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class Batch(ProducerBatch):  # type: ignore[misc]
    """A batch that knows which records of the source it holds."""

    def __init__(self, topic_partition: TopicPartition, records: MemoryRecordsBuilder) -> None:
        super().__init__(topic_partition, records)
        self.partition: int = topic_partition.partition
        self.positions: list[int] = []
        self.bytes_held = 0
        self.settled = 0
        self.opened_at = 0.0


class BulkProducer:
    """Sends groups of records to one topic and tells the ledger what became of each."""

    def __init__(self, settings: Settings, topic: str, timeout_s: float, ledger: Ledger) -> None:
        """Connect; raises the client's KafkaError if no broker answers within `timeout_s`."""
        self._ledger = ledger
        self._client = KafkaProducer(
            **kafka_client.connection(settings, timeout_s),
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=NEVER_MS,
            max_block_ms=int(timeout_s * 1000),
            metrics_enabled=False,
            allow_auto_create_topics=False,
        )
        self._sender, self._accumulator = self._client._sender, self._client._accumulator
        self._cluster, self._topic = self._client._metadata, topic
        count = len(self._client._wait_on_metadata(topic, timeout_s * 1000))
        self._partitions = [TopicPartition(topic, number) for number in range(count)]
        self._topic_id = self._cluster.topic_id(topic)
        self._survive_large_records(self._client._transaction_manager)

    @property
    def partitions(self) -> int:
        """Number of partitions of the topic, as of the start."""
        return len(self._partitions)

    def topic_was_replaced(self) -> bool:
        """Whether the topic has been deleted and made again since the start, as far as the client has heard."""
        return self._cluster.topic_id(self._topic) not in (None, self._topic_id)

    def append(self, partition: int, records: Sequence[Record]) -> None:
        """Hand over records of one partition, in order; they are sent when a batch is full or LINGER_MS old."""
        place = self._partitions[partition]
        now_ms = int(time.time() * 1000)
        opened = False
        with self._accumulator._tp_lock(place):
            queue = self._accumulator._batches[place]
            batch = queue[-1] if queue and isinstance(queue[-1], Batch) else None
            add = batch.records.append if batch else None
            for position, key, value in records:
                if batch is None or add is None or add(now_ms, key, value) is None:
                    batch, opened = self._open(place, position), True
                    add = batch.records.append
                    add(now_ms, key, value)
                    queue.append(batch)
                else:
                    batch.positions.append(position)
                batch.bytes_held += len(value)
        if opened:
            self._sender.wakeup()

    def close(self) -> None:
        """Stop the client at once. What is still in flight stays unacknowledged: wait for the ledger first."""
        self._client._unregister_cleanup()
        self._sender.force_close()
        self._sender.join(timeout=1.0)

    def _open(self, place: TopicPartition, first: int) -> Batch:
        records = MemoryRecordsBuilder(MAGIC, self._accumulator.config["compression_attrs"], BATCH_BYTES)
        batch = Batch(place, records)
        batch.produce_future.add_callback(partial(self._settled, batch, 0, len))
        self._ledger.opened(batch, first)
        self._accumulator._incomplete.add(batch)
        return batch

    def _settled(self, batch: Batch, first: int, count: Any, result: tuple[int, int, Any]) -> None:  # noqa: ANN401
        """The client's verdict on `count` records of a batch (for a whole batch: all), from record `first` on."""
        base_offset, _, error_of = result
        records = count(batch.positions) if callable(count) else count
        if error_of is None:
            self._ledger.delivered(batch, records, base_offset)
        elif isinstance(error := error_of(0), _TOO_LARGE) and records == 1:
            self._ledger.too_large(batch, batch.positions[first], value_at(batch, first))
        else:
            self._ledger.failed(f"Kafka refuses: {_reason(error)}")

    def _survive_large_records(self, manager: TransactionManager) -> None:
        """Let the client go on after a record that is too large.

        The library splits a refused batch, but loses sight of whole-batch callbacks then, and it stops for good
        once a single record is refused. So each record of a split batch is followed, and a single refused one
        gives its sequence number back: it is alone in flight on its partition, so the next one takes its place.
        """
        split, classify = self._accumulator.split_and_reenqueue, manager.classify_batch_error

        def split_followed(batch: ProducerBatch, now: float | None = None) -> int:
            if isinstance(batch, Batch):
                batch._record_futures = [_Part(self, batch, index) for index in range(len(batch.positions))]
            return int(split(batch, now))

        def classify_kindly(error: BaseException, batch: ProducerBatch, log_start_offset: int = -1) -> str:
            if isinstance(error, _TOO_LARGE):
                manager.set_sequence_number(batch.topic_partition, batch.base_sequence)
                return str(manager.ERROR_CLASS_RETRIABLE)
            return str(classify(error, batch, log_start_offset=log_start_offset))

        self._accumulator.split_and_reenqueue = split_followed
        manager.classify_batch_error = classify_kindly


class _Part:
    """One record of a split batch: takes the place of the library's own future per record."""

    def __init__(self, owner: BulkProducer, batch: Batch, index: int) -> None:
        self._owner, self._batch, self._index = owner, batch, index

    def rebind(self, future: Any, index: int) -> None:  # noqa: ANN401
        """The record is now number `index` of the smaller batch behind `future`."""
        future.add_callback(partial(self._settled, index))

    def _settled(self, index: int, result: tuple[int, int, Any]) -> None:
        base_offset, timestamp, error_of = result
        mine = base_offset if error_of is not None or base_offset < 0 else base_offset + index
        self._owner._settled(self._batch, self._index, 1, (mine, timestamp, error_of))


def value_at(batch: Batch, index: int) -> bytes:
    """The bytes of one record of a closed batch, read back from it."""
    records = MemoryRecords(batch.records.buffer())
    decoded = (record for part in iter(records.next_batch, None) for record in part)
    return next(bytes(record.value) for number, record in enumerate(decoded) if number == index)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, KafkaError) else str(error)
