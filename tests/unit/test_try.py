"""`twofold try`: the records of a file judged without any service."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from twofold.cli import cli
from twofold.errors import UsageError

DEFINITION = """
name: orders
topic: orders
event:
  id: order_id
  time: placed_at
  fields:
    order_id: {type: long, required: true}
    placed_at: {type: timestamp, required: true}
    kind: {type: string, one_of: [web, shop]}
    amount: {type: "decimal(20,18)"}
    paid_on: {type: date}
filter: "kind = 'web'"
lateness: 1 minute
"""
WEB = {"order_id": 1, "placed_at": "2026-03-01T10:00:00+01:00", "kind": "web", "amount": "0.000000000000000001"}
LINES = [
    json.dumps(WEB),
    json.dumps({**WEB, "order_id": "2", "kind": "shop", "paid_on": "2026-03-02"}),
    "",
    json.dumps({**WEB, "order_id": "x", "kind": "else"}),
    "{",
]


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    path = tmp_path / "pipelines" / "orders.yaml"
    path.parent.mkdir()
    path.write_text(DEFINITION)
    return path


def tried(*arguments: object, given: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["try", *map(str, arguments)], input=given)


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_counts_and_reasons_with_samples(definition: Path, tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text("\n".join(LINES))
    result = tried(definition, file)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{file}: 4 records: 1 accepted, 1 filtered, 2 rejected",
        "        1  wrong_type",
        f"           row 4: order_id is not a long: x; kind not one of web, shop: else  {LINES[3]}",
        "        1  not_json",
        "           row 5: not JSON: expected one object; input data was truncated  {",
    ]
    assert "row 4" not in tried(definition, file, "--samples", 0).stdout


def test_one_object_a_record_in_order(definition: Path) -> None:
    result = tried(definition, "-", "--format", "json", given="\n".join(LINES))
    rows = objects(result)
    assert result.exit_code == 1
    assert list(rows[0]) == [
        "row", "outcome", "kind", "reason", "order_id", "placed_at", "event.kind", "amount", "paid_on",
    ]  # fmt: skip
    assert [(row["row"], row["outcome"], row["kind"]) for row in rows] == [
        (1, "accepted", None), (2, "filtered", None), (4, "rejected", "wrong_type"), (5, "rejected", "not_json"),
    ]  # fmt: skip
    assert (rows[0]["placed_at"], rows[0]["amount"]) == ("2026-03-01T09:00:00Z", "0.000000000000000001")
    assert (rows[1]["order_id"], rows[1]["event.kind"], rows[1]["paid_on"]) == (2, "shop", "2026-03-02")
    assert rows[2]["reason"].startswith("order_id is not a long")
    assert rows[3]["order_id"] is None


def test_every_format_that_the_inbox_takes(definition: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("order_id,placed_at,kind,amount\n1,2026-03-01T10:00:00+01:00,web,1e-18\n")
    (tmp_path / "a.json").write_text(f"[{LINES[0]}]")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES[0].encode()))
    pq.write_table(pa.Table.from_pylist([WEB]), tmp_path / "a.parquet")
    found = {}
    for name in ("a.csv", "a.json", "a.jsonl.gz", "a.parquet"):
        result = tried(definition, tmp_path / name, "--format", "json")
        assert result.exit_code == 0, result.output
        found[name] = objects(result)
    assert found == dict.fromkeys(found, found["a.json"])


def test_a_name_tells_the_format_of_the_standard_input(definition: Path) -> None:
    given = "order_id;placed_at;kind\n1;2026-03-01;web\n"
    assert tried(definition, "-", "--as", "rows.csv", given=given).exit_code == 0
    assert tried(definition, "-", given=given).exit_code == 1


def test_a_file_that_would_be_set_aside_gives_no_rows(definition: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(f"[{LINES[0]}, {LINES[0]}")
    result = tried(definition, file, "--format", "json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the whole file would be set aside: " in result.stderr
    assert "the whole file would be set aside: " in tried(definition, file).stdout
    assert "unknown ending" in tried(definition, file, "--as", "a.txt").stdout


def test_a_pipeline_by_its_name(definition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_PIPELINES", str(definition.parent))
    assert tried("orders", "-", given=LINES[0]).exit_code == 0
    assert isinstance(tried("others", "-", given=LINES[0]).exception, UsageError)


def test_no_records_are_no_fault(definition: Path) -> None:
    result = tried(definition, "-", given="")
    assert (result.exit_code, result.stdout) == (0, "standard input: 0 records: 0 accepted, 0 filtered, 0 rejected\n")
