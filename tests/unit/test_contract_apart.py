"""Records at which the process that judges them ends: found by halving, each half in a process of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from tests.bomb import Bomb
from tests.conftest import write_definition
from twofold.contract import judge as judge_module
from twofold.contract import reasons
from twofold.contract.judge import Crashed, Judge
from twofold.contract.records import CellRecords, JsonRecords

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def good(key: str) -> bytes:
    return b'{"id": "%s", "at": "2026-02-01T00:00:00Z", "kind": "a"}' % key.encode()


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(write_definition(tmp_path))


def test_only_the_record_that_ends_the_process_is_out(judge: Judge) -> None:
    bomb = Bomb(b"{}")
    values = [good("a"), good("b"), bomb, good("d"), b"no JSON"]
    rows = judge.judge(JsonRecords(values, range(1, 6)), NOW, apart=True).rows.to_pylist()
    assert [row["id"] for row in rows] == ["a", "b", None, "d", None]
    assert [row["reason_kind"] for row in rows] == [None, None, reasons.NOT_JUDGED, None, reasons.NOT_JSON]
    assert (rows[2]["payload"], rows[4]["payload"]) == (bomb, b"no JSON")
    assert "-9" in rows[2]["reason"]


def test_rows_of_cells_keep_what_they_came_with(judge: Judge) -> None:
    columns = {
        "id": pa.array([b"a", b"b"]),
        "at": pa.array([b"2026-02-01T00:00:00Z", b"never"]),
        "kind": pa.array([b"a", b"a"]),
    }
    records = CellRecords(columns, range(1, 3), lambda index: b"row %d" % index)
    rows = judge.judge(records, pa.array([NOW, NOW], pa.timestamp("us", "UTC")), apart=True).rows
    assert rows.to_pylist() == judge.judge(records, NOW).rows.to_pylist()
    assert rows["payload"].to_pylist() == [None, b"row 1"]


def test_a_row_whose_bytes_cannot_be_had_is_out_alone(judge: Judge) -> None:
    def payload(index: int) -> bytes:
        raise LookupError(index)

    columns = {
        "id": pa.array(["a", "b"]),
        "at": pa.array(["2026-02-01T00:00:00Z", "never"]),
        "kind": pa.array(["a"] * 2),
    }
    records = CellRecords(columns, [1, 2], payload)
    rows = judge.judge(records, NOW, apart=True).rows.to_pylist()
    assert rows == judge.judge(records, NOW).rows.to_pylist()
    assert [row["reason_kind"] for row in rows] == [None, reasons.NOT_JUDGED]


def test_a_child_that_ends_over_no_records_ends_the_task(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "_CHILD", "raise SystemExit(3)")
    with pytest.raises(Crashed, match="ended with 3"):
        judge.judge(JsonRecords([], []), NOW, apart=True)


def test_nanoseconds_are_judged_as_in_a_process_that_could_import_pandas(tmp_path: Path) -> None:
    judge = Judge(write_definition(tmp_path, event={"fields": {"kind": {"type": "string", "one_of": None}}}))
    columns = {
        "id": pa.array(["a", "b"]),
        "at": pa.array(["2026-02-01T00:00:00Z"] * 2),
        "kind": pa.array([3723000001999, 1], pa.time64("ns")),
    }
    records = CellRecords(columns, [1, 2], lambda index: b"row %d" % index)
    rows = judge.judge(records, NOW, apart=True).rows.to_pylist()
    assert rows == judge.judge(records, NOW).rows.to_pylist()
    assert [row["kind"] for row in rows] == ["01:02:03.000001", "00:00:00"]


def test_a_filter_decides_as_in_the_same_process(tmp_path: Path) -> None:
    filtering = Judge(write_definition(tmp_path, filter="kind = 'a'", event={"fields": {"kind": {"type": "string"}}}))
    records = JsonRecords([good("a"), good("b").replace(b'"a"}', b'"b"}')], range(1, 3))
    rows = filtering.judge(records, NOW, apart=True).rows.to_pylist()
    assert rows == filtering.judge(records, NOW).rows.to_pylist()
    assert [row["outcome"] for row in rows] == ["accepted", "filtered"]
