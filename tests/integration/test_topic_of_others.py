"""A topic of somebody else, with the time stamps that its senders choose; and a stream that starts somewhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from subprocess import CompletedProcess
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]
from pyspark.sql import SparkSession

from spark_jobs import erase_job, rebuild_job
from spark_jobs.checkpoints import Checkpoint
from spark_jobs.erase import Wanted
from tests import at_work, small_world
from tests.at_work import Work
from tests.lake import EqualTo
from tests.small_world import event
from twofold import journal, kafka, loss, table_state, tables
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.proof.prover import prove
from twofold.settings import Settings

Define = Callable[..., Pipeline]
Twofold = Callable[..., CompletedProcess[str]]
THEN = datetime(2001, 9, 9, tzinfo=UTC)
"""What a clock says that has gone wrong; and long after, a sender's clock that is right again."""
SINCE = datetime(2024, 5, 1, 12, 0, 0, 500, tzinfo=UTC)


def others(spark: SparkSession, settings: Settings, define: Define, **topic: Any) -> Work:  # noqa: ANN401
    """A pipeline on a topic of two partitions that somebody else has made."""
    work = Work(spark, settings, define(topic={"managed": False, "partitions": None, **topic}))
    wanted = NewTopic(work.pipeline.topic.name, 2, 1, config={"message.timestamp.type": "CreateTime"})
    client = AdminClient(kafka.librdkafka(settings))
    client.create_topics([wanted])[work.pipeline.topic.name].result(30)
    at_work.eventually(lambda: kafka.describe(settings, work.pipeline.topic.name))
    return work


def send(work: Work, *values: bytes, at: datetime | int, partition: int = 0, commit: bool | None = None) -> list[int]:
    """Append records stamped by a sender's clock, in a transaction if `commit` says how it ends; their offsets."""
    transaction = {} if commit is None else {"transactional.id": f"{work.pipeline.name}-{partition}"}
    producer = Producer({**kafka.librdkafka(work.settings), **transaction})
    offsets: list[int] = []
    if commit is not None:
        producer.init_transactions(30)
        producer.begin_transaction()
    for value in values:
        producer.produce(
            work.pipeline.topic.name,
            value,
            partition=partition,
            timestamp=at if isinstance(at, int) else round(at.timestamp() * 1000),
            on_delivery=lambda error, message: offsets.append(message.offset() or 0),
        )
    assert producer.flush(30) == 0
    if commit is not None:
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)
    return offsets


def send_events(work: Work, *events: small_world.Row, at: datetime | int, partition: int = 0) -> None:
    """Append events, and remember the rows that they must become."""
    offsets = send(work, *map(small_world.as_json, events), at=at, partition=partition)
    for row, offset in zip(events, offsets, strict=True):
        place = {"kafka_partition": partition, "kafka_offset": offset, "kafka_timestamp": at, "landing": 0}
        work.rows.append({**row, "outcome": tables.ACCEPTED, **place})


def several(name: str, count: int = 10, minutes: float = 0) -> list[small_world.Row]:
    """Events of one name, some minutes apart."""
    return [event(f"{name}{number}", minutes + number, "abc"[number % 3], number) for number in range(count)]


def test_the_clocks_of_senders_decide_nothing(
    stack: Settings, spark: SparkSession, define: Define, twofold: Twofold
) -> None:
    work = others(spark, stack, define)
    before = kafka.describe(stack, work.pipeline.topic.name)
    now = datetime.now(UTC)
    send_events(work, *several("old"), at=THEN)
    send_events(work, *several("ahead", minutes=30), at=now + timedelta(days=400), partition=1)
    # By its sender's clock it is of the present; by ours of the day after tomorrow.
    future = small_world.as_json({**event("x", 0), "at": now + timedelta(days=2)})
    send(work, future, at=now + timedelta(days=2))
    # Microseconds taken for milliseconds: a moment that no calendar of ours has.
    send(work, future, at=1_772_323_200_007_000)
    send(work, small_world.as_json(event("never", 1)), at=THEN, commit=False)

    work.lake.ensure()
    with (
        at_work.running(stack, "stream", work.pipeline.name) as job,
        at_work.hold(stack, work.pipeline, tables.STREAM_LOG) as held,
    ):
        held.wait_for_commit(job)
        job.kill()
        held.lose_commits()
    work.drain()
    # A correct clock, and an earlier duplicate of an id by a later record.
    send_events(work, *several("new", minutes=90), event("new1", 91, "b", 1), at=THEN + timedelta(days=1))
    work.drain()
    assert work.query("SELECT outcome, reason_kind, count(*) FROM stream_log GROUP BY ALL ORDER BY ALL") == [
        ("accepted", None, 31),
        ("rejected", "future", 2),
    ]
    # Each batch has one moment of landing; what the senders' clocks say is kept, and partitions nothing.
    moments = work.query(
        """SELECT count(DISTINCT landed_at), min(landed_at) >= to_timestamp($now), max(landed_at) < now()
           FROM stream_log GROUP BY landing ORDER BY landing""".replace("$now", str(now.timestamp()))
    )
    assert moments == [(1, True, True), (1, True, True)]
    assert work.query("SELECT count(DISTINCT year(kafka_timestamp)) FROM stream_log") == [(4,)]
    days = work.lake.table(tables.STREAM_LOG).inspect.partitions()["partition"].to_pylist()
    assert {day["_tw_day"] for day in days} <= {now.date(), datetime.now(UTC).date()}
    work.holds(behind=True)
    work.union()
    assert work.unified() == work.expected()
    work.holds()
    # Views are sealed up to what was seen, not up to a clock that is ahead.
    assert work.query("SELECT count(*) FILTER (final) < count(*) FROM unified_by_kind") == [(True,)]
    rebuild_job.rebuild(work.job)
    work.drain()
    assert work.unified() == work.expected()
    work.holds()
    # One of the records to be erased has the moment that no calendar of ours has.
    wanted = Wanted(work.pipeline, frozenset(["x"]))
    erased = erase_job.erase(work.job, wanted, "me", "")
    assert (erased["rows"][tables.STREAM_LOG], erased["in_kafka"]["records"]) == ({"rejected": 2}, 2)
    assert erase_job.look(work.lake, wanted)["in_kafka"]["records"] == 2

    after = kafka.describe(stack, work.pipeline.topic.name)
    assert before and after
    assert (after.settings, list(after.partitions)) == (before.settings, list(before.partitions))
    for command in (["topic", work.pipeline.name, "--repair"], ["produce", work.pipeline.name, "--generate", "1"]):
        refused = twofold(*command, check=False)
        assert (refused.returncode, "belongs to somebody else" in refused.stderr) == (1, True), refused.stderr
    assert "somebody else's" in twofold("topic", work.pipeline.name).stdout


def test_a_topic_that_begins_with_aborted_records(stack: Settings, spark: SparkSession, define: Define) -> None:
    work = others(spark, stack, define)
    send(work, *map(small_world.as_json, several("never")), at=SINCE, commit=False)
    work.drain()
    assert work.query("FROM stream_log") == []
    work.holds(proved=True)
    work.drain()
    send_events(work, *several("new"), at=SINCE)
    work.drain()
    for _ in range(2):
        assert work.unified() == work.expected()
        assert work.query("SELECT sum(events) FROM unified_by_kind") == [(10,)]
        work.union()
    work.holds(proved=True)


def test_a_time_stamp_beyond_spark_ends_the_stream_and_can_be_let_go(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    work = others(spark, stack, define)
    send_events(work, *several("a"), at=1_772_323_200_007_000)
    work.drain()
    # Nanoseconds taken for milliseconds.
    send(work, small_world.as_json(event("b", 1)), at=1_772_323_200_007_000_000)
    with pytest.raises(TwofoldError, match="time stamp past the year") as refused:
        work.drain()
    assert "twofold accept-loss" in refused.value.remedy
    topic = work.pipeline.topic.name
    with kafka.admin(stack) as client:
        client.delete_records([TopicPartition(topic, 0, 11)])[TopicPartition(topic, 0)].result(30)
    loss.accept(work.lake, loss.look(work.lake))
    send_events(work, *several("c"), at=THEN)
    work.drain()
    assert work.query("SELECT count(*) FROM unified_events") == [(20,)]
    work.holds(behind=True)


def test_a_topic_of_somebody_else_is_never_made(stack: Settings, define: Define, twofold: Twofold) -> None:
    pipeline = define(topic={"managed": False, "partitions": None})
    refused = twofold("stream", pipeline.name, "--until-caught-up", check=False)
    assert (refused.returncode, "its owner makes it" in refused.stderr) == (1, True), refused.stderr
    assert kafka.describe(stack, pipeline.topic.name) is None


@pytest.mark.parametrize("start", ["latest", SINCE.isoformat()])
def test_a_stream_begins_where_it_is_told_to_for_good(
    stack: Settings, spark: SparkSession, define: Define, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    work = others(spark, stack, define, start=start)
    send(work, *map(small_world.as_json, several("before")), at=SINCE - timedelta(milliseconds=1))
    send(work, *map(small_world.as_json, several("other")), at=THEN, partition=1)
    begins = {0: 10, 1: 10}
    if start != "latest":
        send_events(work, *several("since", 3), at=SINCE + timedelta(milliseconds=1))
    work.drain()
    assert work.query("SELECT count(*) FROM stream_log") == [(len(work.rows),)]
    log = work.lake.table(tables.STREAM_LOG)
    landed = table_state.landed(table_state.history_of(log), work.lake.name)
    assert table_state.begun(landed, log.properties).start == begins
    if start == "latest":
        work.holds()
    # What comes now counts, whatever its clock says.
    send_events(work, *several("late", minutes=20), at=THEN, partition=1)
    Checkpoint.of(work.job, "log").discard()
    work.drain()
    acknowledge(work, {0: 9, 1: 19})
    work.holds(behind=True)
    work.union()
    assert work.unified() == work.expected()
    work.holds()

    # Another start has no effect any more, nor has a rebuild, and a partition that is new begins at its beginning.
    work.pipeline = define(name=work.pipeline.name, topic={"managed": False, "partitions": None, "start": "earliest"})
    more_partitions(work, 3)
    send_events(work, *several("third", minutes=40), at=THEN, partition=2)
    rebuild_job.rebuild(work.job)
    work.drain()
    assert "topic.start: earliest has no effect" in capsys.readouterr().err
    work.union()
    assert work.unified() == work.expected()
    work.holds()

    # The first record past the start is missing, and found to be.
    log = work.lake.table(tables.STREAM_LOG)
    log.delete(EqualTo("kafka_partition", 1) & EqualTo("kafka_offset", 10))
    found = wrong(work)
    assert "acknowledged records are missing" in found["I1"]
    assert "1 offset missing in partition 1" in found["I2"]


def acknowledge(work: Work, highest: dict[int, int]) -> None:
    """A producer's journal, as if it had sent all that lies in the topic up to these offsets."""
    state = kafka.describe(work.settings, work.pipeline.topic.name)
    assert state
    name = work.pipeline.name
    acked = {p: journal.Delivered(offset + 1, offset) for p, offset in highest.items()}
    folder = journal.folder(work.settings, name)
    folder.mkdir(parents=True)
    entry = journal.Entry(name, state.name, state.topic_id, {}, {}, partitions=acked)
    (folder / "mine.json").write_text(entry.to_json())


def more_partitions(work: Work, count: int) -> None:
    """As the topic's owner does it."""
    with kafka.admin(work.settings) as client:
        client.create_partitions([NewPartitions(work.pipeline.topic.name, count)])[work.pipeline.topic.name].result(30)

    def there() -> bool:
        state = kafka.describe(work.settings, work.pipeline.topic.name)
        return state is not None and len(state.partitions) == count

    at_work.eventually(there)


def wrong(work: Work) -> dict[str, str]:
    """Invariant → what `twofold prove` says of it, where it is violated."""
    proof = prove(work.lake, 5, lambda line: None)
    return {check.id: check.text for check in proof.checks if not check.ok}
