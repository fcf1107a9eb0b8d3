"""What the status page shows of real tables, a real topic, and services that answer or do not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kafka import KafkaProducer

from tests import small_world
from tests.small_world import SmallWorld
from twofold import database, health, tables
from twofold.contract import reasons
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.proof.prover import prove
from twofold.settings import Settings
from twofold.status import gather
from twofold.status.facts import Rejected, Status
from twofold.status.gather import Gatherer
from twofold.table_state import Landed

Define = Callable[..., Pipeline]


@pytest.fixture(scope="module")
def world(stack: Settings, define: Define) -> SmallWorld:
    return small_world.build(stack, define())


@pytest.fixture
def status(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Status]:
    """Gathered again at every call, by the same gatherer."""
    monkeypatch.setattr(gather, "FRESH_S", 0.0)
    monkeypatch.setattr(gather, "KAFKA_EVERY_S", 0.0)
    return Gatherer(Lake(world.settings, world.pipeline)).status


def times(rows: list[dict[str, Any]]) -> tuple[datetime, datetime]:
    found = [row["at"] for row in rows if row.get("at")]
    return min(found), max(found)


def test_both_layers_are_told_from_metadata_as_they_are(world: SmallWorld, status: Callable[[], Status]) -> None:
    told = status().layers
    assert told is not None
    for log, rows in ((told.stream_log, world.rows), (told.batch_log, world.batch)):
        assert log.rows == len(rows)
        assert log.extent is not None
        assert (log.extent.first, log.extent.last) == times(rows)
    unioned = sum(row["landing"] == 1 for row in world.rows)
    assert (told.stream_past_boundary, told.landings_past_boundary) == (len(world.rows) - unioned, 0)


def test_rejected_records_are_added_up_as_they_land(world: SmallWorld, status: Callable[[], Status]) -> None:
    def rejected() -> list[Rejected]:
        outcomes = status().outcomes
        assert outcomes is not None
        return [kind for kind in outcomes.rejected if kind.kind == reasons.NOT_JSON]

    assert rejected() == rejected() == [Rejected("stream", reasons.NOT_JSON, 2)]
    at = datetime.now(UTC)
    row = {
        "outcome": tables.REJECTED,
        "reason_kind": reasons.NOT_JSON,
        "reason": "not JSON",
        "payload": b"<script>",
        "landing": 3,
    }
    place = {"kafka_partition": 0, "kafka_offset": 10**6, "kafka_timestamp": at}
    long_ago = {**place, "kafka_offset": 10**6 + 1, "kafka_timestamp": at - timedelta(days=30)}
    state = Landed(world.pipeline.name, 3, world.topic_id, world.ends(world.rows))
    world.append(tables.STREAM_LOG, [{**row, **place}, {**row, **long_ago}], state)
    assert rejected() == [Rejected("stream", reasons.NOT_JSON, 3)]


def test_what_waits_in_kafka_is_told_while_the_job_is_down(world: SmallWorld, status: Callable[[], Status]) -> None:
    def behind() -> int | None:
        speed = status().speed
        assert speed is not None
        return speed.offsets_behind

    assert behind() == 0
    producer = KafkaProducer(bootstrap_servers=world.settings.kafka_bootstrap, acks="all")
    producer.send(world.pipeline.topic.name, b"{}").get(timeout=30)
    producer.close()
    assert behind() == 1
    assert any("1 record in Kafka wait" in problem.text for problem in status().problems)


def test_a_service_that_answers_is_believed(world: SmallWorld, status: Callable[[], Status]) -> None:
    says = {
        "healthy": False,
        "state": "retrying",
        "problem": "<script>alert(1)</script>",
        "offsets_behind": 7,
        "late": 3,
    }
    name = world.pipeline.name
    with health.HealthServer(lambda: says) as server:
        server.announce(world.settings.home / "run" / f"{name}-stream.json")
        told = status()
    assert told.speed is not None
    assert told.outcomes is not None
    assert (told.speed.offsets_behind, told.outcomes.late) == (7, 3)
    assert told.problems[0].severity == "error"
    assert "<script>" in told.problems[0].text
    assert not status().services[-1].running


def test_the_last_proof_is_kept(world: SmallWorld, status: Callable[[], Status]) -> None:
    assert database.latest_result(world.settings, world.pipeline.name, "no such kind") is None
    before = datetime.now(UTC)
    proof = prove(Lake(world.settings, world.pipeline), 0, lambda line: None)
    proved = status().proved
    assert proved is not None
    assert proved.at >= before
    assert {check.id: check.text for check in proved.checks} == {check.id: check.text for check in proof.checks}


def test_nothing_landed_yet_is_no_error(stack: Settings, define: Define) -> None:
    told = Gatherer(Lake(stack, define())).status()
    assert told.layers is not None
    assert (told.layers.stream_log.rows, told.layers.sealed_through, told.proved) == (0, None, None)
    assert [problem.severity for problem in told.problems if problem.severity == "error"] == []


def test_without_the_catalog_what_is_away_and_what_to_do_is_told(stack: Settings, define: Define) -> None:
    away = stack.model_copy(update={"postgres_port": 1})
    told = Gatherer(Lake(away, define())).status()
    assert (told.layers, told.outcomes, told.proved) == (None, None, None)
    assert [service.name for service in told.services] == ["stream"]
    (problem,) = told.problems
    assert "does not answer at 127.0.0.1:1" in problem.text
    assert "`twofold up`" in problem.text


def test_without_the_bucket_so_it_is(world: SmallWorld) -> None:
    folder = world.settings.home / "bucket" / "tables" / world.pipeline.name
    hidden = folder.rename(folder.with_name(f".{folder.name}"))
    try:
        told = Gatherer(Lake(world.settings, world.pipeline)).status()
    finally:
        hidden.rename(folder)
    (problem,) = told.problems
    assert (told.layers, problem.severity) == (None, "error")
    assert "cannot be read" in problem.text
