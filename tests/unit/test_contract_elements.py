"""An event in each element: what lies around the elements costs once, and what their rows keep is bounded."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.test_contract_places import AT, pipeline
from twofold.contract import judge as judge_module
from twofold.contract import reference as reference_module
from twofold.contract.judge import Judge, Judged, whole
from twofold.contract.records import JsonRecords
from twofold.definition.model import Field, Pipeline

__all__ = ["pipeline"]  # the fixture

NOW = datetime(2026, 3, 2, tzinfo=UTC)
EACH = "each: items"
ELEMENTS = 200


def record(elements: str, id_: str = '"1"', count: int = ELEMENTS) -> bytes:
    return f'{{"id": {id_}, {AT}, "items": [{", ".join([elements] * count)}]}}'.encode()


CAREFUL = [
    ("type: long", '{"v": 1}', "7", "accepted"),  # a number in a field for texts: right, and not plainly so
    ("type: long", '{"v": "x"}', '"1"', "rejected"),
    ("type: long", '{"v": "x"}', "7", "rejected"),
    ('type: string, from: "$.items[0].v"', '{"v": 1}', "7", "accepted"),
    ('type: long, from: "$.items.v"', '{"v": 1}', "7", "rejected"),
    ('type: long, from: "$.items[0].w", required: true', '{"v": 1}', '"1"', "rejected"),
]


@pytest.mark.parametrize(("declared", "elements", "id_", "outcome"), CAREFUL)
def test_what_lies_around_elements_is_followed_once(
    pipeline: Callable[..., Pipeline],
    monkeypatch: pytest.MonkeyPatch,
    declared: str,
    elements: str,
    id_: str,
    outcome: str,
) -> None:
    value, followed = record(elements, id_), Counter[str]()
    follow, is_deep = reference_module.follow, reference_module.is_deep  # type: ignore[attr-defined]

    def following(text: bytes, *path: Any) -> bytes:  # noqa: ANN401
        followed["bytes"] += len(text)
        return bytes(follow(text, *path))

    def looking(text: bytes) -> bool:
        followed["validated"] += 1
        return bool(is_deep(text))

    monkeypatch.setattr(reference_module, "follow", following)
    monkeypatch.setattr(reference_module, "is_deep", looking)
    judged = Judge(pipeline(declared, EACH)).judge(JsonRecords([value], [1]), NOW)
    assert judged.counts()[outcome] == ELEMENTS
    # Once for the array, once for each of the three fields at most, and each element once for each field.
    assert followed["bytes"] <= 7 * len(value)
    assert followed["validated"] <= 2


def test_rules_of_what_lies_around_elements_are_held_against_each_record_once(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Counter[str]()
    kept_rules = judge_module.kept_rules  # type: ignore[attr-defined]

    def counting(declared: Pipeline, field: Field, array: pa.Array) -> list[pa.Array]:
        held[field.name] += len(array)
        return list(kept_rules(declared, field, array))

    monkeypatch.setattr(judge_module, "kept_rules", counting)
    values = [record('{"v": 1}'), record('{"v": "x"}', "7")]
    Judge(pipeline("type: long", EACH)).judge(JsonRecords(values, [1, 2]), NOW)
    assert held == {"id": 2, "at": 2, "v": 2 * ELEMENTS}


def test_where_columns_fail_around_elements_each_record_is_read_once(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()
    kept_rules = judge_module.kept_rules  # type: ignore[attr-defined]

    def failing(declared: Pipeline, field: Field, array: pa.Array) -> list[pa.Array]:
        calls[field.name] += 1
        if field.name == "id":
            raise RuntimeError("a fault of ours")
        return list(kept_rules(declared, field, array))

    monkeypatch.setattr(judge_module, "kept_rules", failing)
    judged = Judge(pipeline("type: long", EACH)).judge(JsonRecords([record('{"v": 1}')], [1]), NOW)
    assert judged.counts() == {"accepted": ELEMENTS}
    assert calls["id"] == 1


def test_only_the_elements_that_the_code_fails_on_are_out(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[str]()
    kept_rules = judge_module.kept_rules  # type: ignore[attr-defined]

    def failing(declared: Pipeline, field: Field, array: pa.Array) -> list[pa.Array]:
        calls[field.name] += 1
        if field.name == "v" and 7 in array.to_pylist():
            raise RuntimeError("a fault of ours")
        return list(kept_rules(declared, field, array))

    monkeypatch.setattr(judge_module, "kept_rules", failing)
    values = [record('{"v": 1}, {"v": 7}', count=20), record('{"v": 2}', count=5)]
    (part,) = Judge(pipeline("type: long", EACH)).parts(JsonRecords(values, [1, 2]), NOW)
    rows = part.rows.to_pylist()
    assert [row["v"] for row in rows] == [1, None] * 20 + [2] * 5
    assert part.parents.to_pylist() == [0] * 40 + [1] * 5
    assert {row["payload"] for row in rows if row["reason_kind"] == "not_judged"} == {values[0]}
    assert calls["id"] == 1


PARTS = [
    ("type: long", '{"v": "x"}', "v is not a long: x"),
    ("type: json, from: $", '{"v": "x"}', None),
]


@pytest.mark.parametrize(("declared", "elements", "reason"), PARTS)
@pytest.mark.parametrize("id_", ['"1"', "7"])
def test_rows_that_hold_their_whole_record_come_in_parts(
    pipeline: Callable[..., Pipeline],
    monkeypatch: pytest.MonkeyPatch,
    declared: str,
    elements: str,
    reason: str | None,
    id_: str,
) -> None:
    values = [record('{"v": 0}', count=3), record(elements, id_), b"{", record(elements)]
    judge, records = Judge(pipeline(declared, EACH)), JsonRecords(values, range(1, 5))
    expected = judge.judge(records, NOW)
    most = 20 * len(values[1])
    monkeypatch.setattr(judge_module, "HELD_BYTES", most)
    parts = list(judge.parts(records, NOW))
    assert len(parts) >= ELEMENTS * len(values[1]) // most
    assert max(part.rows.nbytes for part in parts) <= 2 * most
    assert whole(parts).rows.equals(expected.rows)
    assert pa.concat_arrays([part.parents for part in parts]).equals(expected.parents)
    rows = [row for part in parts for row in part.rows.to_pylist() if row["reason"] == reason]
    kept = [row["payload"] if reason else row["v"].encode() for row in rows]
    assert kept.count(values[3]) == ELEMENTS * (1 + (values[1] == values[3]))


def test_a_child_may_answer_in_parts(pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch) -> None:
    child = "from twofold.contract import judge; judge.HELD_BYTES = 1; judge.judge_stdin()"
    monkeypatch.setattr(judge_module, "_CHILD", child)
    judge, records = Judge(pipeline("type: long", EACH)), JsonRecords([record('{"v": "x"}', count=9)], [1])
    assert judge.judge(records, NOW, apart=True).rows.equals(judge.judge(records, NOW).rows)


def test_what_no_array_can_hold_is_never_cut() -> None:
    # Never written, so the system gives no memory for it.
    buffer = pa.allocate_buffer(3 << 29)
    offsets = pa.py_buffer(struct.pack("<4i", 0, 1 << 29, 1 << 30, 3 << 29))
    payload = pa.Array.from_buffers(pa.binary(), 3, [None, offsets, buffer])
    part = Judged(pa.RecordBatch.from_arrays([payload], ["payload"]), pa.array([0, 1, 2]))
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        whole([part, part])
