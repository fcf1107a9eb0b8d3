"""Reads single records and stretches of a topic as a reader of committed transactions gets them.

    wanted offsets ─► spans (near ones in one) ─► one pass per partition ─► records within the spans

Offsets without a record are markers of transactions, or belong to aborted ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaTimeoutError

from producer import kafka_client
from twofold.settings import Settings
from twofold.topic import Range

_NEAR = 5_000
"""What lies between two spans is read along where it is so short: dearer is another request, as each reads ahead."""
_STEP_MS = 100
"""So long at most is waited for a record that may not be there; then the reader's own place is looked at."""
_RECORDS_A_STEP = 5_000


def records(
    settings: Settings, name: str, offsets: Mapping[int, Sequence[int]], timeout_s: float
) -> list[tuple[int, int, bytes | None]]:
    """Fetch single records as (partition, offset, value); offsets that are gone, or hold none, are left out."""
    with closing(_consumer(settings, timeout_s)) as consumer:
        return [
            (number, record.offset, record.value)
            for number, wanted in offsets.items()
            for record in _each(consumer, TopicPartition(name, number), sorted(wanted), timeout_s)
        ]


def filled(
    settings: Settings, name: str, ranges: Mapping[int, Sequence[Range]], timeout_s: float
) -> dict[int, tuple[int, int, list[Range]]]:
    """Partition → first offset still there, last stable offset, and the ranges of those wanted that hold records.

    `ranges` are in order per partition, and do not meet.
    """
    with closing(_consumer(settings, timeout_s)) as consumer:
        return {
            number: _filled(consumer, TopicPartition(name, number), wanted, timeout_s)
            for number, wanted in ranges.items()
        }


def _consumer(settings: Settings, timeout_s: float) -> KafkaConsumer:
    return KafkaConsumer(
        **kafka_client.connection(settings, timeout_s),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )


def _each(
    consumer: KafkaConsumer, partition: TopicPartition, offsets: Iterable[int], timeout_s: float
) -> Iterator[ConsumerRecord]:
    """One seek each: samples lie far apart."""
    begin, end = _ends(consumer, partition)
    for offset in offsets:
        if begin <= offset < end:
            yield from _read(consumer, partition, (offset, offset + 1), timeout_s, most=1)


def _filled(
    consumer: KafkaConsumer, partition: TopicPartition, wanted: Sequence[Range], timeout_s: float
) -> tuple[int, int, list[Range]]:
    begin, end = _ends(consumer, partition)
    there = [(max(low, begin), min(high, end)) for low, high in wanted]
    there = [(low, high) for low, high in there if low < high]
    read = (
        record.offset
        for span in merged(there, _NEAR)
        for record in _read(consumer, partition, span, timeout_s, most=_RECORDS_A_STEP)
    )
    # An offset may have gone between the two questions; so what is there is said as of the end.
    found = joined(within(read, there))
    return max(begin, _ends(consumer, partition)[0]) if there else begin, end, found


def _ends(consumer: KafkaConsumer, partition: TopicPartition) -> Range:
    consumer.assign([partition])
    return consumer.beginning_offsets([partition])[partition], consumer.end_offsets([partition])[partition]


def _read(
    consumer: KafkaConsumer, partition: TopicPartition, span: Range, timeout_s: float, most: int
) -> Iterator[ConsumerRecord]:
    """The records of a span, which ends at the last stable offset at the latest; KafkaTimeoutError without progress."""
    at, end = span
    consumer.seek(partition, at)
    deadline = time.monotonic() + timeout_s
    while at < end:
        for record in consumer.poll(timeout_ms=_STEP_MS, max_records=most).get(partition, []):
            if record.offset < end:
                yield record
        # Past records, markers and aborted ones alike.
        before, at = at, consumer.position(partition)
        if at > before:
            deadline = time.monotonic() + timeout_s
        elif time.monotonic() > deadline:
            raise KafkaTimeoutError(f"{partition.topic}[{partition.partition}]@{at}")


def merged(ranges: Sequence[Range], near: int) -> list[Range]:
    """Ranges with those that lie near each other made one.

    >>> merged([(1, 2), (4, 5), (20, 30)], 3)
    [(1, 5), (20, 30)]
    >>> merged([], 3)
    []
    """
    found: list[Range] = []
    for low, high in ranges:
        if found and low - found[-1][1] <= near:
            found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
    return found


def within(offsets: Iterable[int], ranges: Sequence[Range]) -> Iterator[int]:
    """Those of the offsets, which ascend, that lie in one of the ranges, which are in order.

    >>> list(within([1, 2, 3, 7, 9, 12, 13], [(2, 4), (9, 10)]))
    [2, 3, 9]
    """
    left = iter(ranges)
    low, high = 0, 0
    for offset in offsets:
        while high <= offset:
            low, high = next(left, (sys.maxsize, sys.maxsize))
        if low <= offset:
            yield offset


def joined(offsets: Iterable[int]) -> list[Range]:
    """Ascending offsets as ranges.

    >>> joined([2, 3, 4, 9])
    [(2, 5), (9, 10)]
    """
    found: list[Range] = []
    for offset in offsets:
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found
