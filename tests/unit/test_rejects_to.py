"""What `rejects --to` writes goes through again, once it is fixed, as what it was meant to be, and as nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import lake as by_hand
from tests import small_world
from tests.conftest import write_definition
from twofold import catalog, readers, schemas, tables
from twofold.catalog import LakeCatalog
from twofold.contract.judge import Judge
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.reader import Reader, sendable
from twofold.reader.rejects import Rejects
from twofold.settings import Settings

Rows = list[dict[str, Any]]
AT = {"type": "timestamp", "required": True, "from": "$.at"}


def judged(pipeline: Pipeline, name: str, content: bytes) -> Rows:
    """The rows of a file, as they are landed."""
    judge, rows = Judge(pipeline), Rows()
    for records in readers.read(io.BytesIO(content), name, pipeline):
        one = judge.judge(records, small_world.START)
        numbers = [records.numbers[parent] for parent in one.parents.to_pylist()]
        rows += [{**row, "row": number} for row, number in zip(one.rows.to_pylist(), numbers, strict=True)]
    return rows


@pytest.fixture
def written(lake: LakeCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Pipeline, str, Rows], str]:
    """What is written of the rows of a file that was landed."""
    monkeypatch.setattr(catalog, "load", lambda _: lake)

    def write(pipeline: Pipeline, name: str, rows: Rows) -> str:
        made = schemas.ensure_tables(lake, pipeline)
        place = {"landing": 1, "file": name, "landed_at": small_world.START}
        by_hand.append(made[tables.BATCH_LOG], [{**row, **place} for row in rows])
        lines = io.BytesIO()
        with Reader(Settings(home=tmp_path), {pipeline.name: pipeline}) as reader:
            Rejects(reader, pipeline).write(lines, tmp_path / "fix.apart")
        return lines.getvalue().decode()

    return write


def test_of_a_record_with_several_events_the_rejected_ones_are_written_once(
    tmp_path: Path, written: Callable[[Pipeline, str, Rows], str]
) -> None:
    """The whole record was written for each of them: of these four events ten were there in the end."""
    fields = {"id": None, "kind": None, "at": AT, "value": {"type": "int", "required": True}}
    event = {"id": "none", "each": "a.items", "fields": fields}
    pipeline = write_definition(tmp_path, name="p", event=event, views=None, filter=None)
    record = b'{"at": "2024-02-01", "a": {"items": [{"value": 1}, {"value": "x"}, {"value": 2}, {"value": "y"}]}}\n'
    rows = judged(pipeline, "f.json", record + b'{"at": "2024-02-01"\n')
    text = written(pipeline, "f.json", rows)
    assert text == ('{"at":"2024-02-01","a":{"items":[{"value": "x"}, {"value": "y"}]}}\n{"at": "2024-02-01"\n')
    fixed = judged(pipeline, "fix.jsonl", text.replace('"x"', "7").replace('"y"', "8").encode())
    accepted = [row["value"] for row in (*rows, *fixed) if row["outcome"] == tables.ACCEPTED]
    assert accepted == [1, 2, 7, 8]


def test_what_stands_before_a_json_text_goes_and_other_shapes_are_refused(tmp_path: Path) -> None:
    fields = {"at": AT, "id": {"type": "string", "required": True}}
    pipeline = write_definition(tmp_path, name="p", event={"each": "n", "fields": fields})
    avro, confluent = (
        replace(pipeline, topic=replace(pipeline.topic, format=form)) for form in ("avro", "confluent-json")
    )
    assert sendable.text_of(confluent, b'\0\0\0\0\n{"n": [1, 2]}', [2]) == b'{"n":[2]}'
    assert sendable.text_of(avro, b"\0\0\0\0\n{", [2, 3]) == b"\0\0\0\0\n{"
    assert sendable.text_of(pipeline, b'{"n": 1}', [0]) == b'{"n": 1}'
    for other in (b'{"m": []}', b'{"n": [1]}', b'{"n": {}}'):
        with pytest.raises(TwofoldError, match=r"not found at event\.each, n"):
            sendable.text_of(pipeline, other, [2])


FILES = {
    "null_values": ["-"],
    "true_values": ["yes"],
    "false_values": ["no"],
    "decimal": ",",
}
FIELDS: dict[str, Any] = {
    "kind": None,
    "value": {"type": "int", "required": True},
    "price": {"type": "decimal(9,2)"},
    "paid": {"type": "boolean"},
    "state": {"type": "string"},
    "country": {"type": "string", "from": "geo.country", "default": "XX"},
    "sku": {"type": "string", "from": "items[1].sku"},
    "more": {"type": "json"},
    "since": {"type": "date", "format": "epoch_s"},
}
COLUMNS = "id,at,value,price,paid,state,geo.country,items[1].sku,more,since,note,geo"


def in_csv(*rows: str) -> bytes:
    return "\n".join((COLUMNS.replace(",", ";"), *rows, "")).encode()


@pytest.mark.parametrize(
    "row",
    [
        "a;2024-02-01;VALUE;1,50;yes;-;DE;s;;86400,0;-;x",
        'a;2024-02-01;VALUE;-;no;"a ""b"", c";;;"{""a"": [1.50, ""-""]}";-;-;-',
        'a;2024-02-01;VALUE;2;TRUE;yes;-;"";null;0;"1,5";',
        "a;2024-02-01;VALUE;;-;;XX;ä;1.50;;;",
    ],
)
def test_a_row_of_csv_that_is_fixed_has_the_values_of_its_file(
    tmp_path: Path, written: Callable[[Pipeline, str, Rows], str], row: str
) -> None:
    """A null became `-`, a path was lost and its default taken, and JSON became a text."""
    pipeline = write_definition(tmp_path, name="p", event={"fields": FIELDS}, files=FILES, views=None)
    text = written(pipeline, "f.csv", judged(pipeline, "f.csv", in_csv(row.replace("VALUE", "x5"))))
    (fixed,) = judged(pipeline, "fix.jsonl", text.replace('"x5"', "5").encode())
    (wanted,) = judged(pipeline, "f.csv", in_csv(row.replace("VALUE", "5")))
    assert fixed == wanted
    assert fixed["outcome"] == tables.ACCEPTED


@pytest.mark.parametrize(
    ("row", "fix"),
    [
        ("a;2024-02-01;5;1.500;;;;;;;;", ('?"1.500"', '"1500"')),
        ("a;2024-02-01;5;1.234,50;;;;;;;;", ('?"1.234,50"', "1234.50")),
        ('a;2024-02-01;5;;;;;;"1, ""value"": 6";;;', ('?"1, \\"value\\": 6"', "[1]")),
        ("a;2024-02-01;5;;;;;;;86400.0;;", ('?"86400.0"', "86400")),
    ],
)
def test_what_a_row_of_csv_may_not_have_is_not_accepted_as_json_before_it_is_fixed(
    tmp_path: Path, written: Callable[[Pipeline, str, Rows], str], row: str, fix: tuple[str, str]
) -> None:
    pipeline = write_definition(tmp_path, name="p", event={"fields": FIELDS}, files=FILES, views=None)
    (rejected,) = judged(pipeline, "f.csv", in_csv(row))
    assert rejected["outcome"] == tables.REJECTED
    text = written(pipeline, "f.csv", [rejected])
    assert fix[0] in text
    assert [one["reason_kind"] for one in judged(pipeline, "fix.jsonl", text.encode())] == ["not_json"]
    assert [one["outcome"] for one in judged(pipeline, "fix.jsonl", text.replace(*fix).encode())] == ["accepted"]


def test_cells_of_other_rows(tmp_path: Path) -> None:
    """Malformed ones; with one path within another; and of Parquet, whose columns may hold values within them."""
    event = {"fields": {**FIELDS, "geo": {"type": "json"}}}
    pipeline = write_definition(tmp_path, name="p", event=event, files=FILES, views=None)

    def text(payload: str, file: str) -> str:
        return (sendable.text_of(pipeline, payload.encode(), [0], file) or b"").decode()

    assert text("a;-;5", "f.csv.gz") == "a;-;5"
    both = '{"geo": "{}", "geo.country": "DE"}'
    assert text(both, "f.csv") == f"?{both}"
    assert text('{"geo.country": "DE", "geo": "{}"}', "f.csv") == '?{"geo.country": "DE", "geo": "{}"}'
    assert text('{"geo": {"country": "-"}, "geo.country": "x"}', "f.parquet") == '{"geo": {"country": "-"}}'
    assert text('{"geo.country": "-", "price": 1.5, "more": "[1]"}', "f.parquet") == (
        '{"geo": {"country": "-"}, "price": 1.5, "more": [1]}'
    )
    assert text('{"state": "-"}', "f.json") == '{"state": "-"}'
