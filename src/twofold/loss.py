"""Records that Kafka deleted before they landed: what is lost, and how the stream continues after it.

    landed ends of stream_log ─┬─► lost, per partition [landed end, first offset there) ─► accept: one commit that
    first offsets of Kafka ────┘      moves the landed ends past it, and names it for good in `twofold.landed`

The streaming job refuses to begin while anything is lost that nobody has accepted. Where Kafka has less than was
landed, nothing can be accepted as lost: its offsets would be given out a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from twofold import database, kafka, schemas, table_state, tables
from twofold.commits import AssertProperty
from twofold.errors import BoundaryError, Busy, TwofoldError
from twofold.lake import Lake
from twofold.table_state import START, Landed, Lost
from twofold.text import counted
from twofold.topic import TopicState, not_there, place
from twofold.windows import EPOCH

_NEAR = 1_000
"""Offsets in which the nearest record is looked for: those beside a gap may be markers of transactions."""


@dataclass(frozen=True)
class Loss:
    """What is lost now, as of one snapshot of `stream_log`."""

    table: Table
    landed: Landed
    lost: tuple[Lost, ...]
    landed_at: datetime | None
    """When the stream last landed anything; None where it never did."""


def find(landed: Landed, topic: TopicState, now: datetime) -> tuple[Lost, ...]:
    """What Kafka has deleted since the stream landed up to there; BoundaryError where Kafka has less than was landed.

    A stream that has landed nothing begins with the first record that Kafka has, so that nothing is lost.

    >>> kafka = TopicState("t", "id", {0: (7, 9), 1: (0, 4)}, {})
    >>> [(one.partition, one.start, one.end) for one in find(Landed("p", offsets={0: 5, 1: 4}), kafka, datetime.now())]
    [(0, 5, 7)]
    >>> find(Landed("p"), kafka, datetime.now())
    ()
    """
    table_state.refuse_other_topic(landed, topic.topic_id, tables.STREAM_LOG)
    if not landed.offsets:
        return ()
    held = [(partition, landed.offsets.get(partition, 0), *there) for partition, there in topic.partitions.items()]
    if short := [(partition, at, end) for partition, at, _, end in held if end < at]:
        listed = ", ".join(f"{topic.name}[{number}] ends at {end}, landed up to {at}" for number, at, end in short)
        raise BoundaryError(
            f"Kafka has less than {landed.pipeline}.{tables.STREAM_LOG} has: {listed}: its data was lost, or set back",
            "bring Kafka's data back; else declare the stream under a new pipeline name (the old tables stay readable)",
        )
    return tuple(Lost(partition, at, begin, now) for partition, at, begin, _ in held if at < begin)


def around(lake: Lake, before: TopicState) -> TopicState:
    """Kafka's first offsets as of `before`, asked before the log was read, and its ends as of now, after that.

    Asked otherwise, a job that lands meanwhile would look as if Kafka had lost something.
    """
    now = kafka.describe(lake.settings, before.name)
    ends = now.ends if now else {}
    return replace(
        before, partitions={part: (low, ends.get(part, end)) for part, (low, end) in before.partitions.items()}
    )


def require_none(landed: Landed, topic: TopicState) -> None:
    """BoundaryError, with the remedy, where anything is lost that nobody has accepted."""
    if lost := find(landed, topic, datetime.now(UTC)):
        listed = ", ".join(place(topic.name, one.partition, (one.start, one.end)) for one in lost)
        raise BoundaryError(
            f"Kafka no longer has records that were never landed: {listed}",
            f"`twofold accept-loss {landed.pipeline}` says what is lost, and lets the stream continue after it; "
            "raise the topic's retention.ms",
        )


def look(lake: Lake) -> Loss:
    """What is lost now, and between which times it was sent."""
    name = lake.pipeline.topic.name
    topic = kafka.describe(lake.settings, name)
    if topic is None:
        raise not_there(lake.pipeline.topic)
    table = lake.find(tables.STREAM_LOG)
    if table is None:
        raise TwofoldError(f"{lake.name} has landed nothing yet, so that nothing is lost")
    landed, last = table_state.streamed(table, lake.name), table_state.history_of(table).nearest(Landed.KEY)
    lost = find(landed, around(lake, topic), datetime.now(UTC))
    return Loss(table, landed, tuple(_dated(lake, table, one) for one in lost), last.at if last else None)


def _dated(lake: Lake, table: Table, lost: Lost) -> Lost:
    landed_near = f"kafka_partition = {lost.partition} AND kafka_offset >= {lost.start - _NEAR}"
    stamps = table.scan(row_filter=landed_near, selected_fields=("kafka_timestamp",)).to_arrow()["kafka_timestamp"]
    near = {lost.partition: [(lost.end, lost.end + _NEAR)]}
    first = next(islice(kafka.read(lake.settings, lake.pipeline.topic.name, near), 1), None)
    # As numbers: a sender's may lie beyond any calendar.
    newest = pc.max(stamps.cast(pa.int64())).as_py()
    after = None if newest is None else _moment(newest // 1000)
    return replace(lost, after=after, before=_moment(first.at_ms) if first else None)


def _moment(at_ms: int) -> datetime | None:
    """Kafka's time stamp as a moment; None of a record without one (-1), and of one that is beyond any calendar."""
    if at_ms < 0:
        return None
    try:
        return EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        return None


def accept(lake: Lake, found: Loss) -> None:
    """Let it go: one commit, only on top of the snapshot that was looked at; Busy while the streaming job runs."""
    if database.is_held(lake.settings, lake.name, "stream"):
        raise Busy(
            f"the streaming job of {lake.name} runs",
            f"stop it (`twofold services {lake.name} stream --stop`), and run this again",
        )
    try:
        record(found.table, found.landed, found.lost)
    except CommitFailedException as error:
        what = f"{lake.name}.{tables.STREAM_LOG} was changed meanwhile: {error}"
        raise TwofoldError(what, "run it again; nothing was changed") from None


def record(table: Table, landed: Landed, lost: Sequence[Lost]) -> Table:
    """Commit the loss to `stream_log`, whose state is `landed`; CommitFailedException where that has changed."""
    ends = {one.partition: one.end for one in lost}
    state = replace(landed, offsets={**landed.offsets, **ends}, lost=(*landed.lost, *lost))
    unchanged = [AssertProperty(key=START, value=table.properties.get(START))]
    return schemas.commit_state(table, state, unchanged)


def sentence(topic: str, lost: Lost) -> str:
    """What is lost of a partition, and when it was sent, as far as known.

    >>> at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> sentence("flights", Lost(0, 100, 150, at, after=at))
    'flights[0]@100–149: 50 offsets, sent after 2026-03-01 12:00:00 UTC'
    """
    # Version 0.2.0 kept a moment before 1970 of records without a time stamp.
    times = [(word, at) for word, at in (("after", lost.after), ("before", lost.before)) if at and at >= EPOCH]
    sent = " and ".join(f"{word} {at:%Y-%m-%d %H:%M:%S} UTC" for word, at in times)
    span = place(topic, lost.partition, (lost.start, lost.end))
    return f"{span}: {counted(lost.end - lost.start, 'offset')}" + (f", sent {sent}" if sent else "")
