"""Kafka's values in each format: bytes in, outcome out, whatever the bytes are."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pyarrow as pa
import pytest

from twofold.contract import avro, kafka_records
from twofold.contract.judge import Judge
from twofold.definition.load import check_file, load_file
from twofold.definition.model import Pipeline
from twofold.schema_registry import Registered, RegistryAway, UnknownSchema

NOW = datetime(2026, 3, 2, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
AT = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
FIELDS = "{at: {type: timestamp, required: true}, v: {type: string}}"


def pipeline(folder: Path, form: str, v: str = "{type: string}", event: str = "") -> Pipeline:
    """A pipeline of `at` and a field `v`."""
    at = "{type: timestamp, required: true" + (', from: "$.at"}' if event else "}")
    path = folder / "p.yaml"
    path.write_text(
        f"name: p\ntopic: {{name: p, format: {form}}}\nlateness: 1 minute\n"
        f"event:\n  id: none\n  time: at\n  {event}\n  fields:\n    at: {at}\n    v: {v}\n"
    )
    return load_file(path)


def record(*fields: object) -> dict[str, Any]:
    """A schema with the event time and more fields."""
    return {"type": "record", "name": "R", "fields": [AT, *fields]}


def body(schema: dict[str, Any], value: object) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return stream.getvalue()


def behind(number: int, payload: bytes) -> bytes:
    return b"\0" + number.to_bytes(4) + payload


def judged(declared: Pipeline, *values: bytes | None, schemas: dict[int, object] | None = None) -> list[dict[str, Any]]:
    """The rows of some values; `schemas` is what the registry has."""

    def schema(number: int) -> Registered:
        if number not in (schemas or {}):
            raise UnknownSchema
        found = (schemas or {})[number]
        return found if isinstance(found, Registered) else Registered("AVRO", json.dumps(found))

    batch = pa.RecordBatch.from_pydict({"value": pa.array(values, pa.binary())})
    records = kafka_records.of(declared, batch, schema)
    rows: list[dict[str, Any]] = Judge(declared).judge(records, NOW).rows.to_pylist()
    return rows


JSON = b'{"at": "2026-03-01T00:00:00Z", "v": "x"}'
CONFLUENT_JSON = [
    (behind(10, JSON), None),
    (behind(0xFFFFFFFF, b"  " + JSON), None),
    (JSON, "malformed"),
    (b"\1" + behind(1, JSON)[1:], "malformed"),
    (b"", "malformed"),
    (b"\0\0\0\0", "malformed"),
    (behind(1, b""), "empty"),
    (None, "empty"),
    (behind(1, b"[]"), "not_json"),
    (behind(1, b"\xff"), "encoding"),
    (behind(1, behind(1, JSON)), "not_json"),
]


@pytest.mark.parametrize(("value", "kind"), CONFLUENT_JSON, ids=range(len(CONFLUENT_JSON)))
def test_json_behind_a_schema_id(tmp_path: Path, value: bytes | None, kind: str | None) -> None:
    (row,) = judged(pipeline(tmp_path, "confluent-json"), value)
    assert (row["reason_kind"], row["v"]) == (kind, None if kind else "x")
    assert row["payload"] == (value if kind else None), "a rejected record keeps all its bytes"


def logical(kind: str, meaning: str, **more: object) -> dict[str, object]:
    return {"type": kind, "logicalType": meaning, **more}


NESTED = {"type": "record", "name": "N", "fields": [{"name": "k", "type": ["null", "string"]}]}
DECIMAL = logical("bytes", "decimal", precision=12, scale=2)
VALUES = [
    ("string", "x", "type: string", "x"),
    ("string", "", "type: string", ""),
    (["null", "string"], None, "type: string", None),
    (["null", "string"], None, "type: string, required: true", "missing v"),
    (["null", "string"], None, "type: string, default: none", "none"),
    ("int", 7, "type: long", 7),
    ("int", 7, "type: string", "7"),
    ("long", -(1 << 63), "type: long", -(1 << 63)),
    ("long", 1 << 40, "type: int", "v is not an int: 1099511627776"),
    ("long", 1_772_323_200_000, "type: timestamp, format: epoch_ms", MARCH),
    ("long", 1 << 62, "type: timestamp, format: epoch_ms", "v is not a timestamp: 4611686018427387904"),
    ("float", 0.5, "type: double", 0.5),
    ("double", float("nan"), "type: double", "v is not a double: nan"),
    ("double", 5.0, "type: long", 5),
    ("double", 1.1, 'type: "decimal(5,2)"', Decimal("1.10")),
    ("boolean", True, "type: boolean", True),
    ("boolean", True, "type: long", "v is not a long: true"),
    ("bytes", b"text", "type: string", "text"),
    ("bytes", b"\xff", "type: string", "unknown encoding: not UTF-8"),
    ({"type": "enum", "name": "E", "symbols": ["new", "old"]}, "old", "type: string, one_of: [old]", "old"),
    (DECIMAL, Decimal("-12.50"), 'type: "decimal(12,2)"', Decimal("-12.50")),
    (DECIMAL, Decimal("12.55"), 'type: "decimal(12,1)"', "v is not a decimal(12,1): 12.55"),
    (logical("fixed", "decimal", name="F", size=4, precision=8, scale=2), Decimal("1.25"), "type: double", 1.25),
    (logical("long", "timestamp-millis"), MARCH, "type: timestamp", MARCH),
    (logical("long", "timestamp-micros"), MARCH.replace(microsecond=7), "type: string", "2026-03-01T00:00:00.000007Z"),
    (logical("long", "timestamp-micros"), MARCH, "type: date", date(2026, 3, 1)),
    (logical("long", "local-timestamp-millis"), datetime(2026, 3, 1), "type: timestamp", MARCH),
    (logical("long", "timestamp-nanos"), 1_772_323_200_000_000_000, "type: timestamp, format: epoch_ns", MARCH),
    (logical("int", "date"), date(2026, 3, 1), "type: date", date(2026, 3, 1)),
    (logical("long", "time-micros"), time(12, 30), "type: string", "12:30:00"),
    (logical("int", "time-millis"), time(12, 30, 0, 7000), "type: string", "12:30:00.007000"),
    (logical("int", "time-millis"), -1, "type: string", "-1"),
    (logical("string", "uuid"), UUID(int=7), "type: string", str(UUID(int=7))),
    (logical("fixed", "uuid", name="U", size=16), UUID(int=7).bytes, "type: string", str(UUID(int=7))),
    (logical("fixed", "uuid", name="U", size=2), b"ab", "type: string", "ab"),
    (["null", "string", "long"], 7, "type: long", 7),
    (["null", "string", "long"], "7", "type: long", 7),
    (NESTED, {"k": "x"}, "type: string, from: v.k", "x"),
    (NESTED, {"k": None}, "type: string, from: v.k", None),
    (["null", NESTED], None, "type: string, from: v.k", None),
    (NESTED, {"k": "x"}, "type: string, from: v.none", None),
    (NESTED, {"k": "x"}, "type: string, from: v.k.l", 'v (v.k.l): v.k is not an object: "x"'),
    (NESTED, {"k": "x"}, 'type: string, from: "v[0]"', 'v (v[0]): v is not an array: {"k":"x"}'),
    (NESTED, {"k": "x"}, "type: string", '{"k":"x"}'),
    (NESTED, {"k": "x"}, "type: long", 'v is not a long: {"k":"x"}'),
    ({"type": "map", "values": "long"}, {"a.b": 7}, 'type: long, from: ["v", "a.b"]', 7),
    ({"type": "array", "items": NESTED}, [{"k": "x"}], 'type: string, from: "v[0].k"', "x"),
    ({"type": "array", "items": NESTED}, [], 'type: string, from: "v[0].k"', None),
    (NESTED, {"k": "é"}, "type: json", '{"k":"é"}'),
    ({"type": "array", "items": DECIMAL}, [Decimal("1.50")], "type: json", "[1.50]"),
    ("string", "x", "type: json", '"x"'),
    ("string", "x", "type: string, from: other", None),
]


@pytest.mark.parametrize(("kind", "value", "declared", "expected"), VALUES)
def test_avro(tmp_path: Path, kind: object, value: object, declared: str, expected: object) -> None:
    schema = record({"name": "v", "type": kind})
    sent = behind(7, body(schema, {"at": MARCH, "v": value}))
    (row,) = judged(pipeline(tmp_path, "avro", f"{{{declared}}}"), sent, schemas={7: schema})
    assert (row["reason"] or row["v"]) == expected
    assert row["payload"] == (sent if row["reason"] else None)


SOUND = record({"name": "v", "type": "string"})
GOOD = body(SOUND, {"at": MARCH, "v": "x"})
LIST: dict[str, Any] = {"type": "record", "name": "L", "fields": [AT, {"name": "next", "type": ["null", "L"]}]}
TIME = GOOD[:6]
NULLS = record({"name": "v", "type": {"type": "array", "items": "null"}})
COLOURS = {"type": "enum", "name": "E", "symbols": ["red", "blue"]}


def doubled(depth: int, leaf: str) -> dict[str, Any]:
    """A schema of 2^depth values in a text that grows by one record for each level."""
    schema: dict[str, Any] = {"type": "record", "name": f"D{depth}", "fields": [{"name": "x", "type": leaf}]}
    for level in reversed(range(depth)):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": f"D{level + 1}"}]
        schema = {"type": "record", "name": f"D{level}", "fields": fields}
    return schema


STRANGE = [
    (kind, sent, f"malformed value: schema 7: the body does not fit: {why}")
    for kind, sent, why in (
        (["null", "string"], b"\x01", "IndexError"),
        (["null", "string"], b"\x03\x02x", "IndexError"),
        (COLOURS, b"\x01", "IndexError"),
        (COLOURS, b"\x04", "IndexError"),
        ("boolean", b"\x02", "ValueError: a boolean 2"),
        ({"type": "boolean"}, b"\xff", "ValueError: a boolean 255"),
        ("int", b"\x80\x80\x80\x80\x10", "ValueError: 2147483648 is no int"),
        (logical("int", "date"), b"\x80\x80\x80\x80\x10", "ValueError: 2147483648 is no int"),
        ("long", b"\xff" * 9 + b"\x02", "ValueError: a number of more than 64 bits"),
        ("long", b"\x80" * 10 + b"\x00", "ValueError: a number of more than 64 bits"),
        ("long", b"\x81" * 3000 + b"\x01", "ValueError: a number of more than 64 bits"),
        (["null", "string"], b"\x80" * 9 + b"\x02", "ValueError: a number of more than 64 bits"),
        (COLOURS, b"\x80" * 9 + b"\x02", "ValueError: a number of more than 64 bits"),
        ({"type": "array", "items": "int"}, b"\xff" * 9 + b"\x01\0\0", "IndexError"),
        ({"type": "map", "values": "int"}, b"\xff" * 9 + b"\x01\0\0", "IndexError"),
    )
]
"""What readers of other languages refuse, and the library takes."""
HOSTILE: list[tuple[object, bytes | None, str]] = [
    (SOUND, GOOD, "malformed value: expected the byte 0"),
    (SOUND, b"", "malformed value: expected the byte 0"),
    (SOUND, None, "empty"),
    (SOUND, behind(9, GOOD), "malformed value: schema 9: the registry knows no such id"),
    (SOUND, behind(7, b""), "malformed value: schema 7: the body does not fit"),
    (SOUND, behind(7, GOOD[:-1]), "malformed value: schema 7: the body does not fit"),
    (SOUND, behind(7, GOOD + b"\0"), "malformed value: schema 7: the body does not fit: 1 bytes are left"),
    (SOUND, behind(7, TIME + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"), "malformed value: schema 7: the body"),
    (SOUND, behind(7, TIME + b"\x01"), "malformed value: schema 7: the body does not fit"),
    (SOUND, behind(7, TIME + b"\x04\xff\xfe"), "unknown encoding"),
    (SOUND, behind(7, b"\0" * (1 << 20)), "too large"),
    (SOUND, behind(7, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x02x"), "at is not a timestamp: 4611686018427387903"),
    (record({"name": "v", "type": ["null", "string"]}), behind(7, TIME + b"\x04"), "malformed value: schema 7: the b"),
    (record({"name": "v", "type": DECIMAL}), behind(7, TIME + b"\x90\x03" + b"\x7f" * 200), "malformed value: schema"),
    (NULLS, behind(7, TIME + b"\x08\0"), "malformed value: schema 7: it has an array of values that take no bytes"),
    (record({"name": "v", "type": doubled(64, "null")}), behind(7, TIME),
     "malformed value: schema 7: it has a record of more than 1,000 values that take no bytes"),
    (record({"name": "v", "type": COLOURS}, {"name": "w", "type": COLOURS}), behind(7, TIME + b"\0\0"),
     "malformed value: schema 7: it declares E twice"),
    (record({"name": "\ud800", "type": "string"}), behind(7, GOOD), "malformed value: schema 7: it cannot be read"),
    (LIST, behind(7, (TIME + b"\x02") * 100_000), "malformed value: schema 7: the body does not fit: RecursionError"),
    ("string", behind(7, b"\x02x"), "malformed value: schema 7: it describes no record"),
    *((record({"name": "v", "type": kind}), behind(7, TIME + sent), why) for kind, sent, why in STRANGE),
    *(({**LIST, "fields": [AT, {"name": "v", "type": kind}, *LIST["fields"][1:]]}, behind(7, TIME + sent + b"\0"), why)
      for kind, sent, why in STRANGE),
    (Registered("PROTOBUF", 'syntax = "proto3";'), behind(7, GOOD), "malformed value: schema 7: it is Protobuf"),
    (Registered("AVRO", "{"), behind(7, GOOD), "malformed value: schema 7: it cannot be read"),
    (Registered("AVRO", '{"type": "record", "name": "R", "fields": [{"name": "v", "type": "S"}]}'), behind(7, GOOD),
     "malformed value: schema 7: it cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "value", "reason"), HOSTILE, ids=range(len(HOSTILE)))
def test_avro_that_is_none(tmp_path: Path, schema: object, value: bytes | None, reason: str) -> None:
    good = behind(8, GOOD)
    first, row, last = judged(pipeline(tmp_path, "avro"), good, value, good, schemas={7: schema, 8: SOUND})
    assert (first["v"], last["v"]) == ("x", "x"), "the records around it are as they were"
    assert row["reason"].startswith(reason)
    assert row["payload"] == value


def test_a_process_of_its_own_judges_alike(tmp_path: Path) -> None:
    declared = pipeline(tmp_path, "avro")
    batch = pa.RecordBatch.from_pydict({"value": pa.array([behind(7, GOOD), behind(7, b"")], pa.binary())})
    records = kafka_records.of(declared, batch, lambda _: Registered("AVRO", json.dumps(SOUND)))
    assert Judge(declared).judge(records, NOW, apart=True).rows.equals(Judge(declared).judge(records, NOW).rows)


def test_schemas_change_within_a_batch(tmp_path: Path) -> None:
    older, newer = record({"name": "v", "type": "int"}), record({"name": "v", "type": ["null", "double"]})
    values = [
        behind(1, body(older, {"at": MARCH, "v": 1})),
        behind(2, body(newer, {"at": MARCH, "v": 2.5})),
        behind(2, body(newer, {"at": MARCH, "v": None})),
        behind(1, body(older, {"at": MARCH, "v": 3})),
    ]
    rows = judged(pipeline(tmp_path, "avro", "{type: double}"), *values, schemas={1: older, 2: newer})
    assert [row["v"] for row in rows] == [1.0, 2.5, None, 3.0]


DIGITS = {"type": "bytes", "logicalType": "decimal"}
ITEM = {"type": "record", "name": "I", "fields": [{"name": "x", "type": "int"}]}


def pair(a: object, b: object) -> dict[str, object]:
    """A record of two values."""
    return {"type": "record", "name": "P", "fields": [{"name": "a", "type": a}, {"name": "b", "type": b}]}


AS_WRITTEN: list[tuple[object, bytes, str | None]] = [
    ("long", b"\xff" * 9 + b"\x01", str(-(1 << 63))),
    ("long", b"\x82" + b"\x80" * 8 + b"\0", "1"),
    ({**DIGITS, "precision": 1, "scale": 2}, b"\x04\x00\x96", "1.5"),
    ({**DIGITS, "precision": "4", "scale": 2}, b"\x04\x00\x96", "1.5"),
    (logical("fixed", "decimal", name="F", size=2, precision=30, scale=2), b"\x00\x96", "1.5"),
    *(({**DIGITS, "precision": 4, "scale": scale}, b"\x04ab", "ab") for scale in (-2, 2.0, "2", None, True, 1001)),
    (logical("fixed", "boolean", name="F", size=2), b"ab", "ab"),
    ({"type": "record", "name": "_tw_whole", "fields": [{"name": "a", "type": "int"}]}, b"\x0a", '{"a":5}'),
    ({"type": "enum", "name": "E", "symbols": ["a-b", "c"], "default": "d"}, b"\0", "a-b"),
    (["null", doubled(64, "string")], b"\0", None),
    # Of a text or an array the attribute `name` says nothing.
    (pair({"type": "string", "name": "v"}, {"type": "string", "name": "v"}), b"\x02a\x02b", '{"a":"a","b":"b"}'),
    (pair({"type": "array", "name": "I", "items": ITEM}, "I"), b"\0\0", '{"a":[],"b":{"x":0}}'),
]
"""What the library's own writer refuses, or takes years to write."""


@pytest.mark.parametrize(("kind", "sent", "expected"), AS_WRITTEN, ids=range(len(AS_WRITTEN)))
def test_unusual_schemas_and_numbers(tmp_path: Path, kind: object, sent: bytes, expected: str | None) -> None:
    schema = record({"name": "v", "type": kind})
    (row,) = judged(pipeline(tmp_path, "avro"), behind(7, TIME + sent), schemas={7: schema})
    assert (row["reason"], row["v"]) == (None, expected)


@pytest.mark.parametrize(("event", "v"), [("", "{type: json}"), ("\n  each: items", "{type: string, from: k}")])
def test_an_error_over_one_record_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str, v: str
) -> None:
    encode = avro.json_text

    def fails(value: Any) -> bytes:  # noqa: ANN401
        if (text := encode(value)).count(b"bad"):
            raise ArithmeticError("of a kind that nobody thought of")
        return text

    monkeypatch.setattr(avro, "json_text", fails)
    schema = record({"name": "v", "type": "string"}, {"name": "items", "type": {"type": "array", "items": NESTED}})
    values = [behind(7, body(schema, {"at": MARCH, "v": v, "items": [{"k": "x"}]})) for v in ("good", "bad", "good")]
    first, row, last = judged(pipeline(tmp_path, "avro", v, event), *values, schemas={7: schema})
    assert (first["outcome"], last["outcome"]) == ("accepted", "accepted")
    assert (row["reason"], row["payload"]) == (
        "not judged: ArithmeticError: of a kind that nobody thought of", values[1],
    )  # fmt: skip


NEIGHBOURS: list[tuple[str, list[tuple[object, object, object]]]] = [
    ("type: string", [
        ("double", 1e22, "1e+22"), (DECIMAL, Decimal("1.50"), "1.5"), ("boolean", True, "true"), ("string", "x", "x"),
    ]),
    ("type: date, default: 2026-01-01", [
        (logical("long", "timestamp-millis"), MARCH, date(2026, 3, 1)), ("string", "2026-03-02", date(2026, 3, 2)),
        ("null", None, date(2026, 1, 1)), (logical("int", "date"), date(2026, 3, 3), date(2026, 3, 3)),
    ]),
    ("type: timestamp, format: epoch_ms", [
        (logical("long", "local-timestamp-micros"), datetime(2026, 3, 1), MARCH), ("long", 1_772_323_200_000, MARCH),
        ("string", "1772323200000", MARCH), ("bytes", b"1772323200000.0", MARCH),
    ]),
    ("type: timestamp, format: '%d.%m.%Y'", [
        (logical("long", "timestamp-micros"), MARCH, MARCH), ("string", "01.03.2026", MARCH),
    ]),
    ("type: date, format: '%Y%m%d'", [
        ("int", 20260301, "v is not a date: 20260301"), ("string", "20260301", date(2026, 3, 1)),
        (logical("bytes", "decimal", precision=120), Decimal(20260301), "v is not a date: 20260301"),
        (logical("bytes", "decimal", precision=120), Decimal(10**100), f"v is not a date: {10**39}"),
        (logical("bytes", "decimal", precision=120, scale=80), Decimal("1e-80"), "v is not a date: 0"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("v", "kinds"), NEIGHBOURS)
def test_what_the_neighbours_are_changes_no_value(
    tmp_path: Path, v: str, kinds: list[tuple[object, object, object]]
) -> None:
    schemas = {n: record({"name": "v", "type": kind}) for n, (kind, _, _) in enumerate(kinds, 1)}
    values = [behind(n, body(schemas[n], {"at": MARCH, "v": value})) for n, (_, value, _) in enumerate(kinds, 1)]
    declared = pipeline(tmp_path, "avro", f"{{{v}}}")
    for some in ([values], [[value] for value in values]):
        rows = [row for one in some for row in judged(declared, *one, schemas=dict(schemas))]
        assert [row["reason"] or row["v"] for row in rows] == [expected for *_, expected in kinds]


def test_a_map_is_a_record_of_its_keys(tmp_path: Path) -> None:
    schema = {"type": "map", "values": ["boolean", "int", logical("long", "timestamp-millis"), "N"]}
    sent = b"\x06\x04at\x04" + TIME + b"\x02b\0\x01" + b"\x02v\x06\x02\x02x\0"
    found = {7: Registered("AVRO", json.dumps(schema), (json.dumps(NESTED),))}
    (row,) = judged(pipeline(tmp_path, "avro", "{type: string, from: v.k}"), behind(7, sent), schemas=dict(found))
    assert row["v"] == "x"


def test_a_schema_refers_to_others(tmp_path: Path) -> None:
    text = json.dumps(record({"name": "v", "type": "N"}))
    value = behind(7, GOOD[:6] + body(NESTED, {"k": "x"}))
    (row,) = judged(
        pipeline(tmp_path, "avro", "{type: string, from: v.k}"),
        value,
        schemas={7: Registered("AVRO", text, (json.dumps(NESTED),))},
    )
    assert row["v"] == "x"


def test_events_in_arrays(tmp_path: Path) -> None:
    schema = record({"name": "items", "type": {"type": "array", "items": NESTED}}, {"name": "n", "type": DECIMAL})
    sent = body(schema, {"at": MARCH, "items": [{"k": "x"}, {"k": "y"}], "n": Decimal("1.50")})
    declared = pipeline(tmp_path, "avro", "{type: string, from: k}", "each: items")
    rows = judged(declared, behind(7, sent), behind(9, sent), schemas={7: schema})
    assert [(row["element"], row["v"], row["reason_kind"]) for row in rows] == [
        (1, "x", None), (2, "y", None), (0, None, "malformed"),
    ]  # fmt: skip
    assert rows[2]["payload"] == behind(9, sent)


ITEMS = record({"name": "items", "type": {"type": "array", "items": NESTED}})
LARGER_AS_JSON = [("\n  each: items", "{type: string, from: k}", 200), ("", "{type: json, from: items}", 1)]


@pytest.mark.parametrize(("event", "v", "count"), LARGER_AS_JSON)
def test_the_size_that_counts_is_the_one_sent(tmp_path: Path, event: str, v: str, count: int) -> None:
    """As JSON the same record is larger than `max_bytes`."""
    sent = behind(7, body(ITEMS, {"at": MARCH, "items": [{"k": "x"}] * 200}))
    declared = pipeline(tmp_path, "avro", v, f"max_bytes: 1 KiB{event}")
    assert len(sent) < 1024
    rows = judged(declared, sent, schemas={7: ITEMS})
    assert (len(rows), {row["reason"] for row in rows}) == (count, {None})


def test_a_registry_that_is_away_rejects_nothing(tmp_path: Path) -> None:
    def away(_number: int) -> Registered:
        raise RegistryAway("it is away")

    batch = pa.RecordBatch.from_pydict({"value": pa.array([behind(7, GOOD)], pa.binary())})
    with pytest.raises(RegistryAway):
        kafka_records.of(pipeline(tmp_path, "avro"), batch, away)


def sent_as(value: bytes) -> dict[str, object]:
    return {"key": "trace-id", "value": value}


def test_key_headers_and_arrival_lie_beside_every_format(tmp_path: Path) -> None:
    fields = {
        "at": "{type: timestamp, required: true}",
        "user": "{type: long, from: {key: true}}",
        "trace": "{type: string, from: {header: trace-id}}",
    }
    sent = {"json": JSON, "confluent-json": behind(1, JSON), "avro": behind(7, GOOD)}
    for form, value in sent.items():
        path = tmp_path / "p.yaml"
        listed = "".join(f"    {name}: {declared}\n" for name, declared in fields.items())
        path.write_text(
            f"name: p\ntopic: {{name: p, format: {form}}}\nlateness: 1 minute\n"
            f"event:\n  id: none\n  time: at\n  fields:\n{listed}"
        )
        declared = load_file(path)
        assert kafka_records.columns_beside(declared) == ["key", "headers"]
        kind = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
        batch = pa.RecordBatch.from_pydict({
            "value": pa.array([value] * 3, pa.binary()),
            "key": pa.array([b"7", None, b"\xff"], pa.binary()),
            "headers": pa.array([[sent_as(b"a"), sent_as(b"b")], None, []], kind),
        })  # fmt: skip
        records = kafka_records.of(declared, batch, lambda _: Registered("AVRO", json.dumps(SOUND)))
        rows = Judge(declared).judge(records, NOW).rows.to_pylist()
        found = [(row["user"], row["trace"], row["reason_kind"]) for row in rows]
        assert found == [(7, "b", None), (None, None, None), (None, None, "encoding")], form


def test_protobuf_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        f"name: p\ntopic: {{name: p, format: protobuf}}\nlateness: 1 minute\n"
        f"event: {{id: none, time: at, fields: {FIELDS}}}\n"
    )
    _, (fault,) = check_file(path)
    assert (fault.line, fault.path, fault.found) == (2, "topic.format", '"protobuf"')
    assert "Avro or JSON" in fault.hint


def test_decimals_keep_all_their_digits() -> None:
    read = avro.reader(Registered("AVRO", json.dumps(record({"name": "v", "type": {**DECIMAL, "precision": 4}}))))
    assert read(TIME + b"\x0a\x7f\xff\xff\xff\xff")["v"] == Decimal("5497558138.87")
