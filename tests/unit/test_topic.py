"""A topic of ours and one of somebody else: what is refused, what arrival means, what the log says of its start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException

from tests.conftest import write_definition
from twofold import commits, evolution, schemas, table_state, tables, topic
from twofold.catalog import LakeCatalog
from twofold.contract import kafka_records
from twofold.contract.judge import Judge
from twofold.definition import fingerprint
from twofold.definition.load import load_file
from twofold.definition.model import REQUIRED_SETTINGS, Pipeline, Topic
from twofold.errors import IncompatibleDefinition, TwofoldError
from twofold.schema_registry import Registered
from twofold.table_state import Landed

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OURS, OTHERS = Topic("t", 4), Topic("t", managed=False)


def of_others(folder: Path, name: str = "p", **more: Any) -> Pipeline:  # noqa: ANN401
    """The usual pipeline, on a topic of somebody else."""
    return write_definition(folder, name=name, topic={"managed": False, "partitions": None, **more})


@pytest.mark.parametrize(
    ("declared", "settings", "fault", "remedy"),
    [
        (OURS, {}, "", ""),
        (
            OURS,
            {"message.timestamp.type": "CreateTime"},
            "type is CreateTime, not LogAppendTime",
            "`twofold topic p --",
        ),
        (OURS, {"cleanup.policy": "compact"}, "cleanup.policy is compact, not delete", "`twofold topic p --repair`"),
        (OTHERS, {}, "", ""),
        (OTHERS, {"message.timestamp.type": "CreateTime"}, "", ""),
        (OTHERS, {"cleanup.policy": "compact,delete"}, "cleanup.policy is compact,delete, not delete", "its owner"),
    ],
)
def test_what_cannot_be_counted_exactly_is_refused(
    declared: Topic, settings: dict[str, str], fault: str, remedy: str
) -> None:
    found = topic.drift(declared, 4, {**REQUIRED_SETTINGS, **settings})
    refused = topic.refusal("p", declared, found)
    assert bool(refused) == bool(fault)
    if refused:
        assert fault in refused.message
        assert remedy in (refused.remedy or "")


def test_only_our_own_topic_is_changed_or_made_by_us() -> None:
    topic.require_managed(OURS, "is not changed")
    with pytest.raises(TwofoldError, match=r"topic t belongs to somebody else.*, and is not changed"):
        topic.require_managed(OTHERS, "is not changed")
    remedies = [topic.not_there(one).remedy or "" for one in (OURS, OTHERS)]
    assert ["makes it" in one for one in remedies] == [True, True]
    assert ["its owner" in one for one in remedies] == [False, True]


RECORD = b'{"id": "a", "at": "2026-03-02T11:00:00Z", "kind": "a"}'
"""A day ahead of noon, less an hour: as far as the pipeline lets it be."""


@pytest.mark.parametrize(
    ("stamped", "landed", "outcomes"),
    [
        # Of a topic of ours only Kafka's time stamp counts; of somebody else's only the landing.
        (NOON, None, ["accepted"]),
        (NOON - timedelta(hours=2), None, ["rejected"]),
        (NOON - timedelta(days=9), NOON, ["accepted"]),
        (NOON + timedelta(days=9), NOON - timedelta(hours=2), ["rejected"]),
    ],
)
def test_the_future_is_what_lies_ahead_of_the_arrival(
    tmp_path: Path, stamped: datetime, landed: datetime | None, outcomes: list[str]
) -> None:
    pipeline = write_definition(tmp_path) if landed is None else of_others(tmp_path)
    batch = kafka_batch(stamped)
    judged = Judge(pipeline).judge(kafka_records.of(pipeline, batch, nothing), landed or batch["timestamp"])
    assert judged.rows.column(tables.OUTCOME).to_pylist() == outcomes


@pytest.mark.parametrize(("stamped", "at"), [(NOON - timedelta(days=3), NOON - timedelta(days=3)), (None, NOON)])
def test_an_event_without_a_time_has_that_of_its_record_or_of_its_landing(
    tmp_path: Path, stamped: datetime | None, at: datetime
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "name: p\ntopic: {name: t, managed: false}\n"
        "event: {id: none, time: arrival, fields: {kind: {type: string}}}\nlateness: 1 minute\n"
    )
    pipeline = load_file(path)
    # Kafka says -1 where there is no time stamp.
    batch = kafka_batch(stamped or datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC))
    judged = Judge(pipeline).judge(kafka_records.of(pipeline, batch, nothing), NOON)
    assert judged.rows.to_pylist()[0]["arrived_at"] == at
    assert judged.counts() == {"accepted": 1}


def nothing(number: int) -> Registered:
    """No record here has a schema."""
    raise AssertionError(number)


def kafka_batch(stamped: datetime) -> pa.RecordBatch:
    """One record, as Spark's source gives it."""
    return pa.RecordBatch.from_pydict({
        "value": [RECORD],
        "partition": pa.array([0], pa.int32()),
        "offset": pa.array([0], pa.int64()),
        "timestamp": pa.array([stamped], pa.timestamp("us", "UTC")),
    })  # fmt: skip


def test_the_days_of_the_log_go_by_the_arrival(lake: LakeCatalog, tmp_path: Path) -> None:
    for name, declared, day_of in (
        ("ours", write_definition(tmp_path, name="ours"), "kafka_timestamp"),
        ("others", of_others(tmp_path, "others"), "landed_at"),
    ):
        log = schemas.ensure_tables(lake, declared)[tables.STREAM_LOG]
        assert log.schema().find_column_name(log.spec().fields[0].source_id) == day_of, name
        assert tables.arrival(declared) == day_of


@pytest.mark.parametrize("first_ours", [True, False])
def test_a_log_keeps_the_owner_of_its_topic(lake: LakeCatalog, tmp_path: Path, first_ours: bool) -> None:
    """Refused with the one reason before anything is written; the outcomes differ, so the fingerprints do."""
    before, after = write_definition(tmp_path, name="p"), of_others(tmp_path)
    if not first_ours:
        before, after = after, before
    assert fingerprint.event(before) != fingerprint.event(after)
    made = schemas.ensure_tables(lake, before)
    places = {name: table.metadata_location for name, table in made.items()}
    with pytest.raises(IncompatibleDefinition, match=r"topic\.managed: was '(true|false)', is now") as refused:
        schemas.ensure_tables(lake, after)
    assert "event.fields" not in refused.value.message
    assert {name: lake.load_table(("p", name)).metadata_location for name in made} == places


def test_where_the_stream_began_is_the_logs_own_state_for_good(lake: LakeCatalog, tmp_path: Path) -> None:
    """Set once, on the snapshot that was read, and carried by every commit."""
    log = schemas.ensure_tables(lake, of_others(tmp_path))[tables.STREAM_LOG]
    first = Landed("p", offsets={0: 7, 1: 0}, topic_id="t", start={0: 7, 1: 0}, declared_start="latest")
    never = [commits.AssertProperty(key=table_state.START)]
    begun = schemas.commit_state(log, first, never)
    assert begun.current_snapshot() is None, "without rows, there is none to begin at"
    assert table_state.begun(Landed("p"), begun.properties) == first
    for stale in (log, begun):
        with pytest.raises(CommitFailedException):
            schemas.commit_state(stale, Landed("p", offsets={0: 9}), never)
    later = Landed("p", 1, "t", {0: 8, 1: 0}, start=first.start, declared_start="latest")
    landed = commits.append(begun, [], table_state.encode(later))
    assert table_state.begun(table_state.landed(table_state.history_of(landed), "p"), landed.properties) == later
    with pytest.raises(CommitFailedException):
        commits.set_properties(begun, {"another": "1"})


@pytest.mark.parametrize(
    ("known", "declared", "said"),
    [
        (Landed("p"), "latest", ""),
        (Landed("p", 1, offsets={0: 5}), "earliest", ""),
        (Landed("p", 1, offsets={0: 5}), "latest", "topic.start: latest has no effect: the stream began with earliest"),
        (Landed("p", offsets={0: 5}, declared_start="latest"), "latest", ""),
        (Landed("p", offsets={0: 5}, declared_start="latest"), NOON, f"{NOON.isoformat()} has no effect"),
        (Landed("p", offsets={0: 5}, declared_start=NOON.isoformat()), NOON, ""),
    ],
)
def test_another_start_than_the_first_is_said_to_have_no_effect(
    known: Landed, declared: str | datetime, said: str
) -> None:
    found = [str(one) for one in evolution.of_start(Topic("t", start=declared), known)]
    assert (said in found[0]) if said else not found
