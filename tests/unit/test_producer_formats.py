"""What the producer writes in each format: the contract reads it back, and rejects what is spoiled on purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from producer.generator import Generated
from producer.query_source import Table
from producer.sources import Lines, Request, Shares, key_finder
from producer.wire import RecordWriter, writer
from twofold.contract import kafka_records
from twofold.contract.judge import Judge
from twofold.definition.field_source import KEY, parse_path
from twofold.definition.load import load_file
from twofold.definition.model import FORMATS, Pipeline, Replay
from twofold.errors import TwofoldError, UsageError
from twofold.schema_registry import Registered, UnknownSchema

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIELDS = {
    "session": "{type: string, required: true, from: payload.session.id}",
    "number": "{type: long, required: true, from: payload.seq}",
    "at": "{type: timestamp, required: true, from: ts, format: epoch_ms}",
    "day": '{type: date, from: payload.day, format: "%d.%m.%Y"}',
    "seen": "{type: timestamp, from: payload.seen}",
    "born": "{type: date, from: payload.born}",
    "total": '{type: "decimal(12,2)", from: payload.total, min: 0}',
    "share": "{type: double, from: payload.share}",
    "ok": "{type: boolean, from: payload.ok}",
    "second": '{type: string, from: "payload.items[1].sku"}',
    "more": "{type: json, from: payload.more}",
}
EVENTS = {
    "nested": ("id: [session, number]", FIELDS),
    "flat": ("id: k", {"k": "{type: string, required: true}", "at": "{type: timestamp, required: true}"}),
    "no id": ("id: none", {"at": "{type: timestamp, required: true}", "v": "{type: long, required: true}"}),
    "elements": (
        "id: none\n  each: payload.items",
        {"at": '{type: timestamp, required: true, from: "$.at"}', "sku": "{type: long, required: true, from: a.sku}"},
    ),
    "a key": ("id: k", {"k": "{type: string, required: true, from: {key: true}}", "at": FIELDS["at"]}),
}


def declared(folder: Path, form: str, name: str) -> Pipeline:
    number, fields = EVENTS[name]
    path = folder / "p.yaml"
    listed = "".join(f"    {field}: {kind}\n" for field, kind in fields.items())
    path.write_text(
        f"name: p\ntopic: {{name: p, format: {form}}}\nlateness: 1 minute\n"
        f"event:\n  {number}\n  time: at\n  fields:\n{listed}"
    )
    return load_file(path)


class Memory:
    """The registry's part in it: what was registered."""

    def __init__(self) -> None:
        self.texts: list[Registered] = []

    def register(self, subject: str, kind: str, text: str) -> int:
        assert subject == "p-value"
        self.texts.append(Registered(kind, text))
        return len(self.texts)

    def schema(self, number: int) -> Registered:
        if not 0 < number <= len(self.texts):
            raise UnknownSchema
        return self.texts[number - 1]


def landed(write: RecordWriter, memory: Memory, values: list[bytes], keys: list[bytes | None]) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pydict({"value": pa.array(values, pa.binary()), "key": pa.array(keys, pa.binary())})
    records = kafka_records.of(write.pipeline, batch, memory.schema)
    rows: list[dict[str, Any]] = Judge(write.pipeline).judge(records, NOW).rows.to_pylist()
    return rows


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("form", FORMATS)
def test_generated_events_are_accepted_and_spoiled_ones_rejected(tmp_path: Path, form: str, name: str) -> None:
    memory = Memory()
    write = writer(declared(tmp_path, form, name), memory.register)
    good, bad = (
        next(Generated(Request(generate=500, seed=3, shares=shares), NOW, write).chunks(0))
        for shares in (Shares(), Shares(malformed=1))
    )
    rows = landed(write, memory, good.values, good.keys)
    assert [row["reason"] for row in rows if row["outcome"] != "accepted"] == []
    for field in write.pipeline.event.fields.values():
        # One in ten of what is not required is left out.
        found = sum(row[field.name] is not None for row in rows)
        assert (found == 500) if field.required else (400 < found < 500)
    keyed = [found["reason_kind"] for found in landed(write, memory, bad.values, bad.keys)]
    assert None not in keyed


@pytest.mark.parametrize("form", FORMATS)
def test_a_replay_is_written_at_the_paths(tmp_path: Path, form: str) -> None:
    (tmp_path / "t.csv").write_text("s,n\na,1\nb,2\n")
    query = (
        "SELECT s AS session, n AS number, TIMESTAMP '2026-03-01 00:00:00.007' AS at, DATE '2026-03-02' AS day, "
        "DATE '2026-03-03' AS born, 12.5 AS total, NULL AS share, 'x' AS second FROM source"
    )
    pipeline = replace(
        declared(tmp_path, form, "nested"), replay=Replay("t.csv", query), source_file=str(tmp_path / "p.yaml")
    )
    memory = Memory()
    write = writer(pipeline, memory.register)
    chunk = next(Table(pipeline, Request(), write).chunks(0))
    row, _ = landed(write, memory, chunk.values, chunk.keys)
    assert (row["reason"], row["session"], row["number"], row["total"]) == (None, "a", 1, Decimal("12.50"))
    assert (row["at"], row["day"], row["born"]) == (
        datetime(2026, 3, 1, 0, 0, 0, 7000, UTC),
        date(2026, 3, 2),
        date(2026, 3, 3),
    )
    assert (row["second"], row["share"], chunk.keys) == ("x", None, [b'["a",1]', b'["b",2]'])


@pytest.mark.parametrize("form", FORMATS)
def test_a_struct_of_a_replay_is_json_and_what_cannot_be_written_is_told(tmp_path: Path, form: str) -> None:
    """Both ended with a stack trace; in Avro a struct was written as Python prints it."""
    memory = Memory()
    write = writer(declared(tmp_path, form, "nested"), memory.register)
    event = {"session": "a", "number": 1, "at": NOW}
    text = write.write({**event, "more": {"b": [1, Decimal("1.50")]}})
    (row,) = landed(write, memory, [text], [None])
    wanted = '{"b":[1,1.50]}'
    # Avro has no JSON: there the field is a text.
    assert (row["reason"], row["more"]) == (None, json.dumps(wanted) if form == "avro" else wanted)
    in_avro: list[dict[str, Any]] = [{"number": 2**70}, {"total": "much"}]
    unwritten = in_avro if form == "avro" else [{"more": {"b": 2**70}}]
    for wrong in unwritten:
        with pytest.raises(TwofoldError, match="a record does not fit into the schema that p declares"):
            write.write({**event, **wrong})


def test_json_is_nested_as_declared(tmp_path: Path) -> None:
    write = writer(declared(tmp_path, "json", "nested"))
    text = write.write({"session": "a", "number": 7, "at": NOW, "second": "x", "more": '{"n": 1.50}', "ok": None})
    assert text == (
        b'{"payload":{"session":{"id":"a"},"seq":7,"items":[null,{"sku":"x"}],"more":{"n": 1.50}},"ts":1772366400000}'
    )
    assert key_finder(write.pipeline.event)(text) == write.key({"session": "a", "number": 7}) == b'["a",7]'


@pytest.mark.parametrize(
    ("unit", "moment", "written"),
    [
        ("epoch_s", datetime(2026, 1, 1, 0, 0, 0, 750_000), b"1767225600.75"),
        ("epoch_ms", datetime(1969, 12, 31, 23, 59, 59, 999_500, UTC), b"-0.5"),
        ("epoch_us", datetime(9999, 12, 31, 23, 59, 59, 999_999), b"253402300799999999"),
        ("epoch_ns", datetime(2026, 1, 1, 0, 0, 0, 1), b"1767225600000001000"),
    ],
)
def test_epochs_keep_their_fraction(tmp_path: Path, unit: str, moment: datetime, written: bytes) -> None:
    pipeline = declared(tmp_path, "json", "flat")
    at = replace(pipeline.event.fields["at"], format=unit, min=datetime(1960, 1, 1, tzinfo=UTC))
    fields = {**pipeline.event.fields, "at": at}
    pipeline = replace(pipeline, event=replace(pipeline.event, fields=fields))
    write = writer(pipeline)
    text = write.write({"k": "a", "at": moment})
    assert text == b'{"k":"a","at":' + written + b"}"
    (row,) = landed(write, Memory(), [text], [b"a"])
    if moment.year < 9999:
        assert row["reason"] is None
        assert row["at"] == moment.replace(tzinfo=UTC)
    avro = replace(pipeline, topic=replace(pipeline.topic, format="avro"))
    if b"." in written:
        with pytest.raises(TwofoldError, match=r"at.* is .*, and whole numbers"):
            writer(avro, Memory().register).write({"k": "a", "at": moment})


def test_lines_are_sent_as_they_are_and_not_to_a_topic_in_avro(tmp_path: Path) -> None:
    memory = Memory()
    assert writer(declared(tmp_path, "json", "flat")).line(b"x") == b"x"
    assert writer(declared(tmp_path, "confluent-json", "flat"), memory.register).line(b"x") == b"\0\0\0\0\1x"
    with pytest.raises(UsageError, match="in Avro"):
        writer(declared(tmp_path, "avro", "flat"), memory.register).line(b"x")
    assert [json.loads(one.text)["type"] for one in memory.texts] == ["object", "record"]


def test_no_id_is_put_where_a_field_is_read_from(tmp_path: Path) -> None:
    pipeline = declared(tmp_path, "json", "flat")
    tenant = replace(pipeline.event.fields["k"], name="tenant", required=False, from_=KEY)
    pipeline = replace(pipeline, event=replace(pipeline.event, fields={**pipeline.event.fields, "tenant": tenant}))
    (tmp_path / "a.jsonl").write_text('{"k":"order-7","at":"2026-02-01T00:00:00Z"}\n')
    write = writer(pipeline)
    (chunk,) = Lines(tmp_path / "a.jsonl", write).chunks(0)
    (row,) = landed(write, Memory(), chunk.values, chunk.keys)
    assert (row["outcome"], row["k"], row["tenant"]) == ("accepted", "order-7", None)


def test_names_that_avro_does_not_have_are_told(tmp_path: Path) -> None:
    pipeline = declared(tmp_path, "avro", "flat")
    fields = {**pipeline.event.fields, "at": replace(pipeline.event.fields["at"], from_=parse_path(["@at"]))}
    with pytest.raises(UsageError, match="'@at'"):
        writer(replace(pipeline, event=replace(pipeline.event, fields=fields)), Memory().register)
