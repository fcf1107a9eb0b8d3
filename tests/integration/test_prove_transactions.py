"""Offsets that hold no record: of transactions, open, committed and aborted, and of what Kafka has deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from tests import small_world
from tests.at_work import eventually
from tests.proofs import at, catch_up_views, check, new_world, proof_of
from tests.small_world import SmallWorld
from twofold import kafka, tables
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.proof.findings import Proof
from twofold.proof.offsets import Ranges
from twofold.proof.prover import prove
from twofold.settings import Settings
from twofold.table_state import Landed


class Transactions:
    """A transactional producer, and what a reader of committed records lands of it, in partition 0."""

    def __init__(self, world: SmallWorld) -> None:
        self.world, self.rows = world, list(world.rows)
        self.landing = 2
        self.producer = self.started()

    def started(self) -> KafkaProducer:
        producer = KafkaProducer(
            bootstrap_servers=self.world.settings.kafka_bootstrap,
            transactional_id=f"{self.world.pipeline.name}-t",
            # A proof goes on while one is open; Kafka aborts it after a minute otherwise.
            transaction_timeout_ms=600_000,
        )
        producer.init_transactions()
        return producer

    def send(self, *keys: str) -> list[dict[str, Any]]:
        """Within the transaction begun; the rows that it would have."""
        self.landing += 1
        events = [small_world.event(key, 251 + len(self.rows)) for key in keys]
        futures = [
            self.producer.send(self.world.pipeline.topic.name, small_world.as_json(row), partition=0) for row in events
        ]
        self.producer.flush()
        return [
            small_world.landed_row(row, tables.ACCEPTED, future.get(timeout=30), self.landing)
            for row, future in zip(events, futures, strict=True)
        ]

    def commit(self, *keys: str) -> list[dict[str, Any]]:
        self.producer.begin_transaction()
        rows = self.send(*keys)
        self.producer.commit_transaction()
        self.settle()
        self.rows += rows
        return rows

    def abort(self, *keys: str) -> list[dict[str, Any]]:
        self.producer.begin_transaction()
        rows = self.send(*keys)
        self.producer.abort_transaction()
        self.settle()
        return rows

    def settle(self) -> None:
        """Wait for the markers: the broker answers as soon as it has decided."""

        def decided() -> bool:
            state = kafka.describe(self.world.settings, self.world.pipeline.topic.name)
            return state is not None and state.stable_ends == state.ends

        eventually(decided)

    def land(self, rows: list[dict[str, Any]]) -> None:
        """As the job does: committed rows, and the last stable offsets as the ends; then the views."""
        state = kafka.describe(self.world.settings, self.world.pipeline.topic.name)
        assert state is not None
        ends = Landed(self.world.pipeline.name, self.landing, self.world.topic_id, dict(state.stable_ends))
        self.world.append(tables.STREAM_LOG, rows, ends)
        catch_up_views(self.world, self.rows)


@pytest.fixture
def transactions(stack: Settings, pipelines_folder: Path) -> Iterator[Transactions]:
    found = Transactions(new_world(stack, pipelines_folder))
    yield found
    found.producer.close()


def vacant(proof: Proof) -> int:
    number = check(proof, "I2").numbers["offsets_without_record"]
    assert isinstance(number, int)
    return number


def test_offsets_of_markers_and_aborted_records_are_no_loss(transactions: Transactions) -> None:
    """Partition 0 ends at 21: two committed (marker @23), two aborted (marker @26), one committed (marker @28)."""
    first = transactions.commit("t1", "t2")
    transactions.abort("aborted1", "aborted2")
    last = transactions.commit("t3")
    transactions.land([*first, *last])
    found = proof_of(transactions.world)
    assert (found.ok, found.behind, vacant(found)) == (True, False, 5), found
    assert "5 offsets hold no record: transactions" in check(found, "I2").text
    assert check(found, "I2").numbers["partitions"]["0"]["without_record"] == 5

    transactions.abort("aborted3")
    found = proof_of(transactions.world)
    assert (found.ok, check(found, "I2").numbers["behind"]) == (True, 2), found
    transactions.land([])
    found = proof_of(transactions.world)
    assert (found.ok, found.behind, vacant(found)) == (True, False, 7), found


def test_a_lost_record_among_transactions_is_still_missing(transactions: Transactions) -> None:
    """@22 is gone from the middle, @27 from the end, before the last marker."""
    first = transactions.commit("t1", "t2")
    transactions.abort("aborted1", "aborted2")
    last = transactions.commit("t3")
    transactions.land([*first, *last])
    transactions.world.table(tables.STREAM_LOG).delete(at(0, 22))
    name = transactions.world.pipeline.name
    assert check(proof_of(transactions.world), "I2").offenders == (f"{name}[0]@22: missing",)
    transactions.world.table(tables.STREAM_LOG).delete(at(0, 27))
    found = check(proof_of(transactions.world), "I2")
    assert found.offenders == (f"{name}[0]@22: missing", f"{name}[0]@27: missing")
    assert found.numbers["offsets_without_record"] == 5


def test_an_open_transaction_is_not_waited_for(transactions: Transactions) -> None:
    """Records after it, though acknowledged, cannot land yet; when it is committed they are behind."""
    transactions.producer.begin_transaction()
    waiting = transactions.send("t1", "t2")
    found = proof_of(transactions.world)
    assert (found.ok, found.behind) == (True, False), found
    assert "2 offsets of Kafka can land only when an open transaction has ended" in check(found, "I2").text
    transactions.producer.commit_transaction()
    transactions.settle()
    transactions.rows += waiting
    found = proof_of(transactions.world)
    assert (found.ok, check(found, "I2").numbers["behind"]) == (True, 3), found
    transactions.land(waiting)
    found = proof_of(transactions.world)
    assert (found.ok, found.behind, vacant(found)) == (True, False, 1), found


def test_what_kafka_deletes_while_it_is_compared_was_not_aborted(
    transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the gap Kafka was asked before, by I2."""
    transactions.land(transactions.commit("t1"))
    read = kafka.read

    def late(settings: Settings, name: str, ranges: Ranges, timeout_s: float) -> Iterator[kafka.KafkaRecord]:
        delete_records_before(transactions.world, 10)
        return read(settings, name, ranges, timeout_s)

    monkeypatch.setattr(kafka, "read", late)
    found = check(proof_of(transactions.world), "I4")
    assert (found.state, found.numbers["records_gone_from_kafka"]) == ("not proved", 10), found


def test_a_landed_record_of_an_aborted_transaction_was_never_sent(transactions: Transactions) -> None:
    aborted = transactions.abort("aborted1")
    transactions.rows += aborted
    transactions.land(aborted)
    found = check(proof_of(transactions.world), "I4")
    assert found.offenders == (f"{transactions.world.pipeline.name}[0]@21: of an aborted transaction",)


def test_gaps_that_kafka_has_deleted_are_said_where_it_still_shows_transactions(transactions: Transactions) -> None:
    first = transactions.commit("t1")
    second = transactions.commit("t2")
    transactions.land([*first, *second])
    delete_records_before(transactions.world, 23)
    found = proof_of(transactions.world)
    assert (found.ok, vacant(found), check(found, "I2").numbers["offsets_untold"]) == (True, 1, 1), found
    assert "not proved: of 1 offset without a row nobody can tell any more" in check(found, "I2").text
    assert (check(found, "I2").state, found.exit_code) == ("not proved", 3)
    assert check(found, "I4").numbers["records_gone_from_kafka"] == 22


def test_a_marker_that_kafka_has_deleted_is_no_loss_where_it_has_no_other_one_left(transactions: Transactions) -> None:
    world, rows = transactions.world, transactions.commit("t1")
    event = small_world.event("plain", 300)
    producer = KafkaProducer(bootstrap_servers=world.settings.kafka_bootstrap)
    sent = producer.send(world.pipeline.topic.name, small_world.as_json(event), partition=0).get(timeout=30)
    producer.close()
    row = small_world.landed_row(event, tables.ACCEPTED, sent, transactions.landing)
    transactions.rows.append(row)
    transactions.land([*rows, row])
    for first, untold in ((0, 0), (23, 1)):
        delete_records_before(world, first)
        found = proof_of(world)
        assert (found.ok, check(found, "I2").numbers["offsets_untold"]) == (True, untold), found


@pytest.mark.parametrize("seen", ["as a row", "in Kafka", "never"])
def test_a_lost_record_that_kafka_has_deleted_is_missing_where_an_earlier_proof_saw_it(
    stack: Settings, pipelines_folder: Path, seen: str
) -> None:
    world = new_world(stack, pipelines_folder)
    missing = (f"{world.pipeline.name}[0]@3: missing",)
    if seen == "as a row":
        assert proof_of(world).ok
    world.table(tables.STREAM_LOG).delete(at(0, 3))
    if seen == "in Kafka":
        assert check(proof_of(world), "I2").offenders == missing
    delete_records_before(world, 10)
    for _ in range(2):
        found = check(proof_of(world), "I2")
        assert (found.offenders, found.numbers["offsets_untold"]) == (((), 1) if seen == "never" else (missing, 0))


def test_of_a_transactional_topic_the_job_lands_what_was_committed(
    twofold: Callable[..., CompletedProcess[str]], stack: Settings, define: Callable[..., Pipeline]
) -> None:
    """Commit two, abort two, commit one: three records, and five offsets that hold none, the last marker among them."""
    pipeline = define(topic={"partitions": 1}, views=None)
    kafka.ensure(stack, pipeline)
    producer = KafkaProducer(bootstrap_servers=stack.kafka_bootstrap, transactional_id=pipeline.name)
    producer.init_transactions()
    commit, abort = producer.commit_transaction, producer.abort_transaction
    for keys, end in (("ab", commit), ("xy", abort), ("c", commit)):
        producer.begin_transaction()
        for key in keys:
            producer.send(pipeline.topic.name, small_world.as_json(small_world.event(key, 1)))
        producer.flush()
        end()
    producer.close()
    twofold("stream", pipeline.name, "--until-caught-up")
    rows = twofold("query", f"SELECT id FROM {pipeline.name}.unified_events ORDER BY id", "--format", "csv").stdout
    assert rows.split() == ["id", "a", "b", "c"]
    found = prove(Lake(stack, pipeline), 0, lambda line: None)
    assert (found.ok, vacant(found), check(found, "I2").numbers["behind"]) == (True, 5, 0), found


def delete_records_before(world: SmallWorld, offset: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=world.settings.kafka_bootstrap)
    admin.delete_records({TopicPartition(world.pipeline.topic.name, 0): offset})
    admin.close()
