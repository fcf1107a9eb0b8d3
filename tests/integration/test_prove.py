"""The proof holds on a consistent pipeline; every kind of breakage is told by the right invariant, with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import running, small_world
from tests.lake import EqualTo
from tests.proofs import at, change, check, new_world, proof_of, violated, write_down_the_last_landing
from tests.small_world import SmallWorld
from twofold import database, ledger, serving, tables, windows
from twofold.lake import Lake
from twofold.settings import Settings
from twofold.table_state import Landed, Lost

ACCEPTED = {"outcome": tables.ACCEPTED, "reason": None, "payload": None}


def test_a_consistent_pipeline_holds_and_says_what_was_compared(world: SmallWorld) -> None:
    outcome = running.run(world.settings, "prove", world.pipeline.name, "--json", "--wait", "0")
    proof = json.loads(outcome.stdout)
    assert (proof["pipeline"], proof["ok"], proof["behind"], proof["proved"]) == (
        world.pipeline.name,
        True,
        False,
        True,
    )
    numbers = {one["id"]: one["numbers"] for one in proof["invariants"]}
    assert list(numbers) == ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"]
    assert numbers["I1"]["acknowledged"] == numbers["I2"]["records"] == 41
    assert numbers["I1"]["journals_of_other_topics"] == 1
    assert numbers["I3"]["unified_events"] == {"rows": 43, "ids": 43}
    assert numbers["I4"]["stream_log_rows_compared"] == {"accepted": 38, "filtered": 1, "rejected": 2}
    assert numbers["I4"]["batch_log_rows_compared"] == {"accepted": 9, "filtered": 1}
    assert (numbers["I4"]["files_recounted"], numbers["I4"]["file_rows"]) == (1, 10)
    assert numbers["I6"] == {"unified_events": 43, "from_scratch": 43, "lost": 0, "invented": 0}
    assert numbers["I7"]["files"] > 20
    for name in ("unified_by_kind", "unified_sliding"):
        assert numbers["I8"][name]["compared"] > 0 == numbers["I8"][name]["different"]
    for name, compared in numbers["I5"].items():
        assert compared["compared"] > 0, name
        # Two late duplicates, one of which disagrees with its first.
        assert bool(compared["exempt"]) == name.startswith("stream_"), name


def test_it_holds_on_an_s3_store_too_and_a_lost_object_is_named(minio_stack: Settings, pipelines_folder: Path) -> None:
    world = new_world(minio_stack, pipelines_folder)
    whole = proof_of(world)
    assert whole.ok, whole
    assert check(whole, "I4").numbers["files_recounted"] == 1
    # The catalog lost, and made again from what lies in the bucket.
    name = world.pipeline.name
    with database.connect(minio_stack) as connection:
        connection.execute("DELETE FROM iceberg_tables WHERE table_namespace = %s", (name,))
    running.run(minio_stack, "recatalog", name, "--yes")
    assert proof_of(world) == whole
    (task, *_) = world.table(tables.EVENTS).scan().plan_files()
    world.table(tables.EVENTS).io.delete(task.file.file_path)
    found = proof_of(world)
    assert violated(found) >= {"I3", "I4", "I6", "I7", "I8"}
    assert check(found, "I7").offenders == (f"{world.pipeline.name}.events: {task.file.file_path} is missing",)


def missing_offset(world: SmallWorld) -> str:
    world.table(tables.STREAM_LOG).delete(at(0, 3))
    return f"{world.pipeline.name}[0]@3: missing"


def lost_and_still_there(world: SmallWorld) -> str:
    """Said to be lost, though Kafka has it: what was let go is no way to hide a record that is missing."""
    world.table(tables.STREAM_LOG).delete(at(0, 3))
    lost = (Lost(0, 3, 4, datetime.now(UTC)),)
    world.append(
        tables.STREAM_LOG, [], Landed(world.pipeline.name, 2, world.topic_id, world.ends(world.rows), lost=lost)
    )
    return f"{world.pipeline.name}[0]@3"


def doubled_offset(world: SmallWorld) -> str:
    world.append(
        tables.STREAM_LOG, [row for row in world.rows if (row["kafka_partition"], row["kafka_offset"]) == (1, 4)]
    )
    return f"{world.pipeline.name}[1]@4: 2 times"


def another_topic(world: SmallWorld) -> str:
    world.append(tables.STREAM_LOG, [], Landed(world.pipeline.name, 3, "of-another-topic", world.ends(world.rows)))
    return f"{world.pipeline.name}: another topic of this name"


def marker_ahead_of_rows(world: SmallWorld) -> str:
    state = Landed(world.pipeline.name, 3, world.topic_id, {**world.ends(world.rows), 1: 25})
    world.append(tables.STREAM_LOG, [], state)
    return f"{world.pipeline.name}[1]@20–24: missing"


def event_twice(world: SmallWorld) -> str:
    change(world, tables.EVENTS, EqualTo("id", "b1"), lambda row: row)
    rows = world.table(tables.EVENTS).scan(row_filter=EqualTo("id", "b1")).to_arrow()
    world.table(tables.EVENTS).append(rows)
    return "events: id 'b1' 2 times, from may.jsonl:7 (landing 1), may.jsonl:7 (landing 1)"


def doubled_event(world: SmallWorld) -> str:
    event_twice(world)
    return "id 'b1' from may.jsonl:7 (landing 1): of unified_events not in the logs"


def wrong_payload(world: SmallWorld) -> str:
    change(
        world, tables.STREAM_LOG, EqualTo("outcome", "rejected") & at(1, 2), lambda row: {**row, "payload": b"not JSOn"}
    )
    return f"{world.pipeline.name}[1]@2: payload differs"


def wrong_id(world: SmallWorld) -> str:
    change(world, tables.STREAM_LOG, EqualTo("id", "s35"), lambda row: {**row, "id": "s-other"})
    return "id 's-other', sent 's35'"


def changed_value(world: SmallWorld) -> str:
    change(world, tables.STREAM_LOG, EqualTo("id", "s20"), lambda row: {**row, "value": 21})
    return f"{world.pipeline.name}[1]@10: value 21, sent 20"


def changed_moment(world: SmallWorld) -> str:
    """By a microsecond, which no view shows."""
    moved = small_world.START + timedelta(minutes=7 * 20, microseconds=1)
    change(world, tables.STREAM_LOG, EqualTo("id", "s20"), lambda row: {**row, "at": moved})
    return f"{world.pipeline.name}[1]@10: at {moved.isoformat()}, sent "


def lost_value(world: SmallWorld) -> str:
    change(world, tables.STREAM_LOG, EqualTo("id", "s20"), lambda row: {**row, "value": None})
    return f"{world.pipeline.name}[1]@10: value None, sent 20"


def changed_value_of_a_file(world: SmallWorld) -> str:
    change(world, tables.BATCH_LOG, EqualTo("id", "b3"), lambda row: {**row, "kind": "a"})
    return "may.jsonl:11 (landing 1): kind 'a', sent 'b'"


def cut_payload(world: SmallWorld) -> str:
    cut = (0, 15)
    change(world, tables.STREAM_LOG, at(*cut), lambda row: {**row, "payload": row["payload"][:-1]})
    return f"{world.pipeline.name}[{cut[0]}]@{cut[1]}: payload differs"


def rejected_for_nothing(world: SmallWorld) -> str:
    """With its exact bytes, and a reason that does not hold."""
    row = next(row for row in small_world.STREAMED if row["id"] == "s20")
    nothing = dict.fromkeys(row) | {"outcome": tables.REJECTED, "reason_kind": "out_of_range", "reason": "no"}
    payload = {"payload": small_world.as_json(row)}
    change(world, tables.STREAM_LOG, EqualTo("id", "s20"), lambda row: {**row, **nothing, **payload})
    return f"{world.pipeline.name}[1]@10: rejected (no), nothing is wrong"


def filtered_for_nothing(world: SmallWorld) -> str:
    change(world, tables.STREAM_LOG, EqualTo("id", "s20"), lambda row: {**row, "outcome": tables.FILTERED})
    return f"{world.pipeline.name}[1]@10: filtered, though the filter says otherwise"


def blank_for_nothing(world: SmallWorld) -> str:
    """One id was erased, and the row of another one is blank."""
    ledger.enter(Lake(world.settings, world.pipeline), ["nobody"], "", "")

    def blank(row: dict[str, Any]) -> dict[str, Any]:
        return {name: value if name in ledger.PLACE else None for name, value in row.items()} | {"outcome": "erased"}

    change(world, tables.STREAM_LOG, EqualTo("id", "s20"), blank)
    return f"{world.pipeline.name}[1]@10"


def erased_id_left(world: SmallWorld) -> str:
    lake = Lake(world.settings, world.pipeline)
    ledger.enter(lake, ["s7"], "", "")
    return f"hash {ledger.of(world.pipeline, world.table(tables.LEDGER)).hash_of('s7')[:16]}…"


def another_time_of_arrival(world: SmallWorld) -> str:
    later = timedelta(milliseconds=1)
    change(
        world,
        tables.STREAM_LOG,
        EqualTo("id", "s20"),
        lambda row: {**row, "kafka_timestamp": row["kafka_timestamp"] + later},
    )
    return f"{world.pipeline.name}[1]@10: kafka_timestamp "


def moved_row(world: SmallWorld) -> str:
    """To the place of another partition that holds no record."""
    change(
        world, tables.STREAM_LOG, EqualTo("id", "s20"), lambda row: {**row, "kafka_partition": 0, "kafka_offset": 21}
    )
    return f"{world.pipeline.name}[1]@10: missing"


def swapped_rows(world: SmallWorld) -> str:
    """Each at the place of the other: every offset is there once."""
    places = {"s20": (0, 10), "s19": (1, 10)}
    for key, (partition, offset) in places.items():
        place = {"kafka_partition": partition, "kafka_offset": offset}
        change(world, tables.STREAM_LOG, EqualTo("id", key), lambda row: {**row, **place})  # noqa: B023
    return f"{world.pipeline.name}[0]@10: id 's20', sent "


def accepted_though_not_one_object(world: SmallWorld) -> str:
    """As if it had held an event: @2 of partition 1 is `not JSON`."""
    change(world, tables.STREAM_LOG, at(1, 2), lambda row: {**row, **small_world.event("s200", 1), **ACCEPTED})
    return f"{world.pipeline.name}[1]@2: accepted, but not one JSON object"


def past_kafkas_end(world: SmallWorld) -> str:
    rows = [{**world.rows[-1], "kafka_partition": 0, "kafka_offset": 21}]
    state = Landed(world.pipeline.name, 3, world.topic_id, {**world.ends(world.rows), 0: 22})
    world.append(tables.STREAM_LOG, rows, state)
    return f"{world.pipeline.name}[0]@21: Kafka ends at 21"


def invented_event(world: SmallWorld) -> str:
    change(world, tables.EVENTS, EqualTo("id", "s4"), lambda row: {**row, "id": "ghost"})
    return f"events: id 'ghost' from {world.pipeline.name}[0]@2"


def file_not_whole(world: SmallWorld) -> str:
    world.table(tables.BATCH_LOG).delete(EqualTo("row", 5))
    return "may.jsonl (landing 1): 10 landed, 9 logged, 9 different"


def file_landed_twice(world: SmallWorld) -> str:
    first = write_down_the_last_landing(world)
    again = Landed(world.pipeline.name, 2, files=({**first, "landing": 2},))
    world.append(tables.BATCH_LOG, [{**row, "landing": 2} for row in world.batch], again)
    return "may.jsonl: landings 1 and 2"


def batch_view_changed(world: SmallWorld) -> str:
    name, where = "batch_by_kind", EqualTo("kind", "b") & EqualTo("window_start", small_world.START.isoformat())
    change(world, name, where, lambda row: {**row, "mean": row["mean"] * (1 + 1e-6)})
    return "batch_by_kind [2024-05-01T00:00:00Z, 2024-05-01T01:00:00Z) kind='b': mean is "


def stream_view_row_gone(world: SmallWorld) -> str:
    start = small_world.START + timedelta(hours=2)
    world.table("stream_sliding").delete(EqualTo("kind", "a") & EqualTo("window_start", start.isoformat()))
    return "stream_sliding [2024-05-01T02:00:00Z, 2024-05-01T03:00:00Z) kind='a': missing"


def view_row_of_nothing(world: SmallWorld) -> str:
    change(world, "batch_sliding", EqualTo("kind", "c"), lambda row: {**row, "kind": "z"})
    return "kind='z': nothing there to be counted"


def event_lost(world: SmallWorld) -> str:
    world.table(tables.EVENTS).delete(EqualTo("id", "s6"))
    return f"id 's6' from {world.pipeline.name}[1]@3: of the logs not in unified_events"


def withdrawn_event_back(world: SmallWorld) -> str:
    change(world, tables.EVENTS, EqualTo("id", "s2"), lambda row: {**row, "withdrawn": False})
    return "id 's2' from may.jsonl:3 (landing 1): of unified_events not in the logs"


def batch_view_changed_where_nothing_is_new(world: SmallWorld) -> str:
    """The second hour holds nothing of the tail, so `unified_by_kind` has these rows as they are."""
    start = small_world.START + timedelta(hours=1)
    where = EqualTo("kind", "b") & EqualTo("window_start", start.isoformat())
    change(world, "batch_by_kind", where, lambda row: {**row, "total": row["total"] + 1})
    return "unified_by_kind [2024-05-01T01:00:00Z, 2024-05-01T02:00:00Z) kind='b': total is "


def batch_view_row_gone(world: SmallWorld) -> str:
    world.table("batch_by_kind").delete(EqualTo("window_start", (small_world.START + timedelta(hours=1)).isoformat()))
    return "unified_by_kind [2024-05-01T01:00:00Z, 2024-05-01T02:00:00Z) kind='a': missing"


def event_lost_from_its_window(world: SmallWorld) -> str:
    """s18 is in the third hour, which the tail touches: it is folded from what `events` has."""
    world.table(tables.EVENTS).delete(EqualTo("id", "s18"))
    return "unified_by_kind [2024-05-01T02:00:00Z, 2024-05-01T03:00:00Z) kind='a': events is "


BREAKAGES = [
    ("I1", missing_offset),
    ("I2", missing_offset),
    ("I2", lost_and_still_there),
    ("I2", doubled_offset),
    ("I2", another_topic),
    ("I2", marker_ahead_of_rows),
    ("I3", event_twice),
    ("I4", wrong_payload),
    ("I4", wrong_id),
    ("I2", moved_row),
    ("I4", changed_value),
    ("I4", changed_moment),
    ("I4", lost_value),
    ("I4", changed_value_of_a_file),
    ("I4", cut_payload),
    ("I4", rejected_for_nothing),
    ("I4", filtered_for_nothing),
    ("I4", blank_for_nothing),
    ("I4", erased_id_left),
    ("I4", another_time_of_arrival),
    ("I4", swapped_rows),
    ("I6", doubled_event),
    ("I4", accepted_though_not_one_object),
    ("I4", past_kafkas_end),
    ("I4", invented_event),
    ("I4", file_not_whole),
    ("I4", file_landed_twice),
    ("I5", batch_view_changed),
    ("I5", stream_view_row_gone),
    ("I5", view_row_of_nothing),
    ("I6", event_lost),
    ("I6", withdrawn_event_back),
    ("I8", batch_view_changed_where_nothing_is_new),
    ("I8", batch_view_row_gone),
    ("I8", event_lost_from_its_window),
]


@pytest.mark.parametrize(("invariant", "break_it"), BREAKAGES, ids=lambda value: getattr(value, "__name__", value))
def test_a_breakage_is_told_by_its_invariant_with_the_place(
    world: SmallWorld, invariant: str, break_it: Callable[[SmallWorld], str]
) -> None:
    offender = break_it(world)
    found = check(proof_of(world), invariant)
    assert not found.ok
    assert any(offender in named for named in found.offenders), found


SINCE_THE_LAST_PROOF: dict[Callable[[SmallWorld], str], str] = {
    doubled_offset: "I4",
    moved_row: "I2",
    changed_value: "I4",
    changed_value_of_a_file: "I4",
    event_twice: "I3",
    withdrawn_event_back: "I6",
    batch_view_changed: "I5",
    batch_view_row_gone: "I8",
}


@pytest.mark.parametrize("break_it", SINCE_THE_LAST_PROOF, ids=lambda value: value.__name__)
def test_a_breakage_since_the_last_proof_is_told_without_looking_at_everything(
    world: SmallWorld, break_it: Callable[[SmallWorld], str]
) -> None:
    assert proof_of(world).ok
    break_it(world)
    found = proof_of(world, since_last=True)
    assert found.since and not check(found, SINCE_THE_LAST_PROOF[break_it]).ok, found
    # What is violated is nothing to build on: the next one finds it again.
    assert violated(proof_of(world, since_last=True)) == violated(found)


@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [
        (serving, "touched_times", lambda pipeline, found: []),
        (windows, "days_of", lambda view, starts: "SELECT 0"),
        (serving, "_without", lambda touched: ""),
        (serving, "past_offsets", lambda offsets: "kafka_offset > 15"),
    ],
    ids=["the tail is not looked at", "days are not read", "rows of both", "half of the tail"],
)
def test_a_wrong_serving_text_is_told_by_i8(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch, module: object, name: str, broken: object
) -> None:
    """The proof has none of the product's texts: what is wrong in these shows."""
    assert check(proof_of(world), "I8").ok
    monkeypatch.setattr(module, name, broken)
    found = check(proof_of(world), "I8")
    assert not found.ok and any("unified_by_kind [" in one for one in found.offenders), found


def test_a_violation_is_exit_code_1(world: SmallWorld) -> None:
    offender = event_lost(world)
    outcome = running.run(world.settings, "prove", world.pipeline.name, "--wait", "0", check=False)
    assert outcome.returncode == 1
    assert "I6 VIOLATED" in outcome.stdout
    assert offender in outcome.stdout
    assert "Traceback" not in outcome.stderr
