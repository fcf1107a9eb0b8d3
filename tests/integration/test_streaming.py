"""The streaming job on real Kafka records: what any bytes come to, and what it refuses before anything is written."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from confluent_kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from pyspark.sql import SparkSession

from spark_jobs import stream_log
from spark_jobs.checkpoints import Checkpoint
from tests import at_work, conftest, overhear, running, small_world
from tests.at_work import Work
from twofold import catalog as catalogs
from twofold import commits, database, kafka, tables
from twofold.commands import recovery
from twofold.contract import reasons
from twofold.definition.model import Pipeline
from twofold.errors import BoundaryError, Busy, IncompatibleDefinition, TwofoldError
from twofold.proof.prover import prove
from twofold.settings import Settings

Define = Callable[..., Pipeline]
Capture = pytest.CaptureFixture[str]

EVERY_TYPE: dict[str, Any] = {
    "id": {"max_length": 20},
    "code": {"type": "string", "pattern": "[A-Z]{3}"},
    "amount": {"type": "decimal(10,2)", "min": 0},
    "ratio": {"type": "double"},
    "day": {"type": "date"},
    "count": {"type": "long"},
}
TOPIC = {"settings": {"max.message.bytes": str(12 << 20)}}


# ---- any bytes ----


def record(**fields: object) -> bytes:
    """A record that is accepted, but for `fields`; None takes one away."""
    whole = {"id": "x", "at": "2024-05-01T00:00:00Z", "kind": "a", **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


def deep(levels: int) -> bytes:
    """An accepted record with an unknown field of so many levels."""
    return record(id="deep")[:-1] + b', "x": ' + b'{"y":' * levels + b"1" + b"}" * levels + b"}"


REJECTED: list[tuple[bytes | None, str]] = [
    (None, "empty: the record has no value"),
    (b"", "empty"),
    (b" \t\r\n", "empty"),
    (record(id="x" * (10 << 20)), "too large: 10485"),
    (b"\xff\xfe{}", "unknown encoding: not UTF-8"),
    (record(id="u").decode().encode("utf-16"), "unknown encoding"),
    (record(id="z")[:-1] + b',"x":"\xed\xa0\x80"}', "unknown encoding"),
    (b"no JSON", "not JSON"),
    (b"null", "not JSON"),
    (b'"text"', "not JSON"),
    (b"{", "not JSON"),
    (record()[:-9], "not JSON"),
    (b"[" + record() + b"]", "not JSON"),
    (record() + b" trailing", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b'{"x":' * 50_000 + b"1" + b"}" * 50_000, "not JSON"),
    (b"{'id': 'x'}", "not JSON"),
    (b"{}", "missing at; missing id; missing kind"),
    (record(id=None), "missing id"),
    (b'{"id": null, "at": "2024-05-01T00:00:00Z", "kind": "a"}', "missing id"),
    (b'{"ID": "x", "at": "2024-05-01T00:00:00Z", "kind": "a"}', "missing id"),
    (record(id="x" * 21), "id too long: 21 > 20 characters"),
    (record(kind={"a": 1}), 'kind not one of a, b, c: {"a": 1}'),
    (record(kind="d", value=1001), "kind not one of a, b, c: d; value out of range: 1001 > 1000"),
    (record(value=-1001), "value out of range: -1001 < -1000"),
    (record(value="many"), "value is not an int: many"),
    (record(value=[1]), "value is not an int: [1]"),
    (record(value=1.5), "value is not an int: 1.5"),
    (record(value=True), "value is not an int: true"),
    (record(value=99999999999), "value is not an int: 99999999999"),
    (record(count=2**63), f"count is not a long: {2**63}"),
    (record(hidden=1), "hidden is not a boolean: 1"),
    (record(code="ABCD"), "code does not match [A-Z]{3}: ABCD"),
    (record(code="ABC\n"), "code does not match"),
    (record(day="2024-02-30"), "day is not a date: 2024-02-30"),
    (record(amount="1.234"), "amount is not a decimal(10,2)"),
    (record(amount=-0.01), "amount out of range: -0.01 < 0"),
    (record(ratio="Infinity"), "ratio is not a double: Infinity"),
    (record()[:-1] + b', "ratio": 1e999}', "ratio is not a double"),
    (record()[:-1] + b', "ratio": NaN}', ""),
    (record()[:-1] + b', "count": ' + b"9" * 100_000 + b"}", ""),
    (record(at=1714521600), "at is not a timestamp: 1714521600"),
    (record(at="yesterday"), "at is not a timestamp: yesterday"),
    (record(at=(datetime.now(UTC) + timedelta(days=2)).isoformat()), "from the future: at is "),
    (record(at="9999-12-31T23:59:59Z"), "from the future"),
    (record(at="1969-12-31T23:59:59Z"), "at out of range: 1969-12-31T23:59:59Z < 1970-01-01T00:00:00Z"),
    (record(at="0001-01-01T00:00:00Z"), "at out of range"),
    (record() + record(), "not JSON"),
    (record(id="cut")[:-1] + rb', "x": "\d"}', "not JSON"),
    (record(id="half")[:-1] + rb', "x": "\ud83d"}', "not JSON"),
]
"""(bytes, how the reason begins)"""

ACCEPTED: list[tuple[bytes, dict[str, Any]]] = [
    (record(id="plain"), {"id": "plain", "value": None}),
    (record(id="unknown", x=[1, {"y": None}], y="z"), {"id": "unknown"}),
    (b" \n" + record(id="blanks") + b" \r\n", {"id": "blanks"}),
    (record(id="nul\0in it"), {"id": "nul\0in it"}),
    (record(id="ü😀"), {"id": "ü😀"}),
    (record(id=""), {"id": ""}),
    (record(id=7, value="12", hidden="FALSE"), {"id": "7", "value": 12, "hidden": False}),
    (record(id="big", count=2**63 - 1, ratio=1e308), {"count": 2**63 - 1, "ratio": 1e308}),
    (deep(900), {"id": "deep"}),
    (record(id="zone", at="2024-05-01T02:00:00.5+02:00"), {"at": datetime(2024, 5, 1, 0, 0, 0, 500_000, UTC)}),
    (record(id="old", at="1970-01-01T00:00:00Z"), {"id": "old"}),
]
FILTERED = [record(id="hidden", hidden=True)]


def test_any_bytes_get_their_outcome_and_nothing_stops_the_path(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    work = Work(spark, stack, define(event={"fields": EVERY_TYPE}, topic=TOPIC))
    values = [*(value for value, _ in REJECTED), *(value for value, _ in ACCEPTED), *FILTERED]
    state = kafka.ensure(stack, work.pipeline)
    with at_work.producing(stack) as producer:
        for number, value in enumerate(values):
            producer.send(state.name, value, key=b"k", partition=number % 2).get(timeout=60)
    with overhear.statsd_lines(stack) as lines:
        work.drain()
    table = catalogs.load(stack).load_table((work.pipeline.name, tables.STREAM_LOG))
    landed = table.scan().to_arrow().sort_by([("kafka_offset", "ascending"), ("kafka_partition", "ascending")])
    found = landed.to_pylist()
    assert len(found) == len(values)

    outcomes = [
        (row["outcome"], row["reason"], row["payload"], *(row[name] for name in work.pipeline.columns)) for row in found
    ]
    wrong = [
        ((value or b"")[:60], outcome[:2])
        for outcome, (value, reason) in zip(outcomes, REJECTED, strict=False)
        if outcome[0] != tables.REJECTED
        or not outcome[1].startswith(reason)
        or outcome[2] != value
        or any(column is not None for column in outcome[3:])
    ]
    assert not wrong
    for row, (value, columns) in zip(found[len(REJECTED) :], ACCEPTED, strict=False):
        assert (row["outcome"], row["reason"], row["payload"]) == (tables.ACCEPTED, None, None), (value, row)
        assert {name: row[name] for name in columns} == columns
    assert [row["outcome"] for row in found[-len(FILTERED) :]] == [tables.FILTERED]
    # Whatever a record holds, the reason that is counted is one of a few words.
    kinds = Counter(row["reason_kind"] for row in found if row["reason_kind"])
    assert kinds.total() == len(REJECTED)
    assert kinds.keys() == set(reasons.KINDS) - {reasons.MALFORMED, reasons.NOT_JUDGED}
    tags = f"twofold_stream_rejected_total,pipeline={work.pipeline.name},reason="
    assert {name: count for name, count in overhear.counted(lines).items() if name.startswith(tags)} == {
        tags + kind: kinds[kind] for kind in reasons.KINDS
    }

    work.union()
    work.holds()
    assert work.query("SELECT count(*) FROM unified_events") == [(len(ACCEPTED),)]
    assert work.query("SELECT sum(events) FROM unified_by_kind") == [(len(ACCEPTED),)]


def test_a_stream_that_is_behind_tells_the_age_of_the_newest_landed_from_its_first_batch(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    work = Work(spark, stack, define(stream={"max_offsets_per_trigger": 4}))
    for start in ("first", "second"):
        # The second partition has the older records and is done first: from then on its age must not count. What is
        # sent at once has one time stamp.
        work.send(*(small_world.event(f"{start}-p1-{i}", i) for i in range(2)), partition=1)
        for some in (range(6), range(6, 10)):
            work.send(*(small_world.event(f"{start}-p0-{i}", i) for i in some), partition=0)
        began = time.time()
        with overhear.statsd_lines(stack) as lines:
            work.drain()
        name = f"twofold_stream_fresh_timestamp_seconds,pipeline={work.pipeline.name}:"
        told = [float(line.removeprefix(name).split("|")[0]) for line in lines if line.startswith(name)]
        batches = newest_by_batch(work, start)
        assert len(batches) == 3
        assert told[:2] == [min(batches[0].values()), batches[1][0]]
        assert told[1] < max(batches[2].values()) <= began <= max(told[2:])


def test_a_checkpoint_older_than_its_table_lands_nothing_twice(
    stack: Settings, spark: SparkSession, define: Define, tmp_path: Path
) -> None:
    """A restored copy, or a file system rolled back: where one partition goes on, another must not go back."""
    work = Work(spark, stack, define(stream={"max_offsets_per_trigger": 100}, views=None))
    checkpoint = Path(stack.checkpoint(work.pipeline.name, stream_log.QUERY).removeprefix("file://"))
    work.send(*(small_world.event(f"a{i}", i) for i in range(50)), partition=0)
    work.send(*(small_world.event(f"b{i}", i) for i in range(5)), partition=1)
    work.drain()
    shutil.copytree(checkpoint, tmp_path / "old")
    work.send(*(small_world.event(f"c{i}", i) for i in range(300)), partition=0)
    work.drain()
    shutil.rmtree(checkpoint)
    shutil.copytree(tmp_path / "old", checkpoint)
    work.send(*(small_world.event(f"d{i}", i) for i in range(300)), partition=1)
    work.drain()
    counted = "SELECT kafka_partition, count(*), count(DISTINCT kafka_offset) FROM stream_log GROUP BY 1 ORDER BY 1"
    assert work.query(counted) == [(0, 350, 350), (1, 305, 305)]
    work.union()
    work.holds()


def test_a_clock_set_back_stops_neither_landing_nor_union_and_is_told(
    stack: Settings, spark: SparkSession, define: Define, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    work = Work(spark, stack, define(views=None))
    work.send(small_world.event("a", 1))
    work.drain()
    work.union()
    ahead(work, tables.STREAM_LOG, monkeypatch)
    work.send(small_world.event("b", 2))
    work.drain()
    assert "clock is 3" in capsys.readouterr().err
    assert work.query("SELECT count(*) FROM unified_events") == [(2,)]

    ahead(work, tables.EVENTS, monkeypatch)
    assert "clock is 3" in running.run(stack, "union", work.pipeline.name).stderr
    assert work.query("SELECT count(*) FROM events") == [(2,)]
    assert work.query("SELECT count(*) FROM unified_events") == [(2,)]


def ahead(work: Work, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit nothing to a table, an hour from now: as before the clock was set back."""
    now = time.time()
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: now + 3600)
        commits.append(catalogs.load(work.settings).load_table((work.pipeline.name, table)), (), {})


def newest_by_batch(work: Work, start: str) -> list[dict[int, float]]:
    """Per batch that landed such ids: partition → Kafka's newest time stamp, in Unix seconds."""
    log = catalogs.load(work.settings).load_table((work.pipeline.name, tables.STREAM_LOG)).scan().to_arrow()
    found: dict[int, dict[int, float]] = {}
    for row in log.sort_by("kafka_offset").to_pylist():
        if row["id"].startswith(start):
            found.setdefault(row["landing"], {})[row["kafka_partition"]] = row["kafka_timestamp"].timestamp()
    return [found[landing] for landing in sorted(found)]


# ---- ways out ----


def said_by(command: click.Command, settings: Settings, *arguments: str) -> str:
    """What a command says, in this process, where nothing goes wrong."""
    outcome = CliRunner().invoke(command, arguments, obj=settings, catch_exceptions=False)
    assert not outcome.exit_code
    return outcome.stdout


def test_what_kafka_deleted_before_it_landed_is_let_go_and_told_for_good(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    work = Work(spark, stack, define())
    name, topic = work.pipeline.name, work.pipeline.topic.name
    for partition in (0, 1):
        work.send(*(small_world.event(f"{partition}-{i}", i) for i in range(10)), partition=partition)
    work.drain()
    work.send_values(*[record(id="lost")] * 5)
    work.send(small_world.event("after", 11))
    with kafka.admin(stack) as client:
        client.delete_records([TopicPartition(topic, 0, 15)])[TopicPartition(topic, 0)].result(30)
    lost = f"{topic}[0]@10–14"
    with pytest.raises(BoundaryError, match="records that were never landed") as refused:
        work.drain()
    assert lost in refused.value.message
    assert f"twofold accept-loss {name}" in refused.value.remedy
    (whole,) = (check for check in prove(work.lake, 0, lambda line: None).checks if check.id == "I2")
    assert (whole.state, whole.offenders) == ("violated", (lost,))
    before = work.snapshots()
    said = said_by(recovery.accept_loss, stack, name)
    assert f"{lost}: 5 offsets, sent after" in said
    assert "nothing was done" in said
    with (
        at_work.hold(stack, work.pipeline, tables.STREAM_LOG) as held,
        at_work.running(stack, "accept-loss", name, "--yes") as command,
    ):
        held.wait_for_commit(command)
        command.kill()
        held.lose_commits()
    assert work.snapshots() == before
    said_by(recovery.accept_loss, stack, name, "--yes")
    # With the checkpoint of before, whose next batch would begin in what is lost.
    with overhear.statsd_lines(stack) as lines:
        work.drain()
    assert any(line.startswith(f"twofold_stream_lost_offsets,pipeline={name}:5|") for line in lines)
    work.union()
    offsets = work.holds().checks[1]
    assert (offsets.id, offsets.state, offsets.numbers["lost"]) == ("I2", "holds", 5)
    assert f"5 offsets lost, deleted by Kafka before they landed: {lost}" in offsets.text
    assert work.unified() == work.expected()


def test_after_a_lost_catalog_everything_goes_on(stack: Settings, spark: SparkSession, define: Define) -> None:
    work = Work(spark, stack, define())
    name = work.pipeline.name
    work.send(small_world.event("a", 1), small_world.event("b", 2))
    work.drain()
    work.land("one.json", small_world.event("b", 2, "b", 7))
    work.union()
    work.send(small_world.event("c", 3))
    work.drain()
    with database.connect(stack) as connection:
        lost = connection.execute("DELETE FROM iceberg_tables WHERE table_namespace = %s", (name,)).rowcount
        connection.execute("DELETE FROM iceberg_namespace_properties WHERE namespace = %s", (name,))
    # A table made beside the forgotten one would begin again from the first record.
    with pytest.raises(TwofoldError, match="that the catalog does not know"):
        work.drain()
    assert f"{lost} to be named; nothing was done" in said_by(recovery.recatalog, stack, name)
    assert f"{lost} named" in said_by(recovery.recatalog, stack, name, "--yes")
    assert f"{lost} there already" in said_by(recovery.recatalog, stack, name)
    assert work.unified() == work.expected()
    work.send(small_world.event("d", 4))
    work.drain()
    work.union()
    work.holds(proved=True)
    assert work.unified() == work.expected()


# ---- a job that runs ----


def test_a_second_driver_is_refused_partitions_are_added_and_a_new_topic_ends_the_job(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    work = Work(spark, stack, define())
    name = work.pipeline.name
    work.send(*(small_world.event(f"a{i}", i) for i in range(20)))
    with at_work.running(stack, "stream", name) as job:
        at_work.health_port(stack, work.pipeline, job)
        with at_work.running(stack, "stream", name) as second:
            work.pipeline = define(name=name, topic={"name": name, "partitions": 4})
            work.send(*(small_world.event(f"b{i}", i) for i in range(20)), partition=3)
            work.holds(behind=True)
            assert work.unified() == work.expected()
            assert second.ends() == 1
            assert f"another stream job of pipeline '{name}' is running" in second.said
            assert "Traceback" not in second.said
        # Paused: between its deletion and the last record it is to the job a topic that lost some, which ends it, too.
        job.pause()
        made_anew(stack, work.pipeline)
        before = work.snapshots()
        job.resume()
        assert job.ends() == 1
        assert "remedy:" in job.said
        assert "new pipeline name" in job.said
        assert "Traceback" not in job.said.splitlines()[-1]
    with pytest.raises(BoundaryError, match="the topic was deleted and created again") as refused:
        work.drain()
    assert "new pipeline name" in refused.value.remedy
    assert work.snapshots() == before
    assert work.unified() == work.expected()


def made_anew(settings: Settings, pipeline: Pipeline) -> None:
    """Delete the topic, create it again, and send more than it held before."""
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    admin.delete_topics([pipeline.topic.name])
    admin.close()
    at_work.eventually(lambda: kafka.describe(settings, pipeline.topic.name) is None)
    kafka.ensure(settings, pipeline)
    with at_work.producing(settings) as producer:
        events = [small_world.as_json(small_world.event(f"new{number}", number)) for number in range(200)]
        # Soon: a job that is paused for longer than its lock is kept for ends by that.
        sent = [producer.send(pipeline.topic.name, event, partition=n % 4) for n, event in enumerate(events)]
        for future in sent:
            future.get(timeout=60)


# ---- a changed definition ----


def test_a_changed_definition_works_or_is_refused_before_anything_is_written(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    work = Work(spark, stack, define())
    name = work.pipeline.name
    work.send(*(small_world.event(f"a{i}", i) for i in range(5)))
    work.drain()
    work.union()

    changes: list[tuple[dict[str, Any], str, str]] = [
        ({"event": {"fields": {"value": {"type": "double"}}}}, "event.fields.value.type: was int", "undo"),
        ({"event": {"fields": {"extra": {"type": "int", "required": True}}}}, "must be optional", "undo"),
        ({"event": {"id": ["id", "kind"]}}, "event.id: was 'id'", "undo"),
        ({"views": {"by_kind": {"window": "2 hours"}}}, "views.by_kind is not what", f"twofold rebuild {name}"),
        ({"lateness": "1 hour"}, "views.by_kind is not what", f"twofold rebuild {name}"),
    ]
    work.send(small_world.event("a5", 5))
    before = work.snapshots()
    for change, message, remedy in changes:
        changed = replace(work, pipeline=define(name=name, topic={"name": name}, **change))
        for step in (changed.drain, changed.union):
            with pytest.raises(IncompatibleDefinition) as refused:
                step()
            assert message in refused.value.message
            assert remedy in refused.value.remedy
    assert work.snapshots() == before

    measures = {**conftest.DEFINITION["views"]["by_kind"]["measures"], "extras": "sum(extra)"}
    added = {"views": {"daily": {"window": "1 day", "by": ["kind"], "measures": measures}}}
    work.pipeline = define(name=name, topic={"name": name}, event={"fields": {"extra": {"type": "int"}}}, **added)
    work.send({**small_world.event("a6", 6), "extra": 6}, {**small_world.event("a0", 0), "extra": 7})
    assert work.unified() == work.expected()[:-2]
    work.drain()
    assert work.unified() == work.expected()
    work.holds(behind=True)
    work.union()
    work.holds()
    assert work.query("SELECT id, extra FROM unified_events WHERE extra IS NOT NULL") == [("a6", 6)]
    assert work.query("SELECT events, extras FROM batch_daily") == [(7, 6)]
    # A view added later starts from the first record ever landed.
    assert work.query("SELECT events, extras FROM stream_daily") == [(7, 6)]


def test_a_lost_lock_stops_the_job_before_it_writes(stack: Settings, spark: SparkSession, define: Define) -> None:
    """The lock is freed with its connection: another job may have taken over by the time of the next commit."""
    work = Work(spark, stack, define())
    work.send(small_world.event("a", 0))
    with ThreadPoolExecutor() as pool:
        job = pool.submit(work.stream, threading.Event(), until_caught_up=False)
        at_work.eventually(lambda: work.landed() == 1)
        with database.connect(stack) as connection:
            query = """SELECT pg_terminate_backend(pid, 10000) FROM pg_locks
                       WHERE locktype = 'advisory' AND classid = %s::bigint AND objid = %s::bigint"""
            assert connection.execute(
                query, (database.LOCK_NAMESPACE, database.lock_key(work.pipeline.name, "stream"))
            ).fetchone()
        work.send(small_world.event("b", 0))
        with pytest.raises(Busy, match=r"the lock .* was lost"):
            job.result(timeout=at_work.WITHIN_S)
    assert work.landed() == 1
    work.drain()
    work.holds(behind=True)
    assert work.unified() == work.expected()


def test_a_view_whose_first_batch_was_cut_short_is_whole_after_a_drain(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    """Its query was started on an empty log: a drain can begin neither before the first snapshot nor behind it."""
    work = Work(spark, stack, define())
    work.send(small_world.event("a", 0))
    work.drain()
    # What the query of a killed driver leaves: a batch that was begun, and not ended.
    checkpoint = Checkpoint.of(work.job, "by_kind")
    checkpoint.discard()
    offset = {"version": 1, "snapshot_id": -1, "position": -1, "scan_all_files": False}
    checkpoint.begin_at(offset)
    landed = {**offset, "snapshot_id": work.snapshots()[tables.STREAM_LOG], "position": 1}
    checkpoint.end_first_batch_at(landed, int(time.time() * 1000))
    work.send(small_world.event("b", 1))
    work.drain()
    work.holds(behind=True)
    assert work.query("SELECT sum(events) FROM stream_by_kind") == [(2,)]
