"""The proof's own reading of Avro agrees with the contract: on each kind of value, and on whatever bytes are sent."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.test_second_reading import differences
from tests.unit.test_wire_formats import (
    AS_WRITTEN,
    HOSTILE,
    ITEMS,
    LARGER_AS_JSON,
    MARCH,
    NOW,
    TIME,
    VALUES,
    behind,
    body,
    judged,
    logical,
    pipeline,
    record,
)
from twofold.definition.model import Pipeline
from twofold.proof.expected import Expected, Expecting
from twofold.schema_registry import Registered, RegistryAway, UnknownSchema

MARCH_MS = 1_772_323_200_000


def found(declared: Pipeline, value: bytes | None, schema: object) -> tuple[list[dict[str, Any]], list[Expected]]:
    """The rows of a value of schema 7, and what the proof expects of it."""

    def ask(number: int) -> Registered:
        if number != 7:
            raise UnknownSchema
        return schema if isinstance(schema, Registered) else Registered("AVRO", json.dumps(schema))

    rows = judged(declared, value, schemas={7: schema})
    return rows, Expecting(declared, ask).of_kafka(value, None, {}, NOW, NOW)


@pytest.mark.parametrize(("kind", "value", "declared", "_expected"), VALUES)
def test_values_are_read_alike(tmp_path: Path, kind: object, value: object, declared: str, _expected: object) -> None:
    schema = record({"name": "v", "type": kind})
    sent = behind(7, body(schema, {"at": MARCH, "v": value}))
    of = pipeline(tmp_path, "avro", f"{{{declared}}}")
    rows, wanted = found(of, sent, schema)
    assert not differences(of, rows, wanted)
    if rows[0]["v"] is not None:
        assert differences(of, [{**rows[0], "v": None}], wanted), "a value that was changed since is seen"


@pytest.mark.parametrize(("kind", "sent", "expected"), AS_WRITTEN, ids=range(len(AS_WRITTEN)))
@pytest.mark.parametrize("v", ["{type: string}", "{type: json}"])
def test_unusual_schemas_are_read_alike(
    tmp_path: Path, v: str, kind: object, sent: bytes, expected: str | None
) -> None:
    of = pipeline(tmp_path, "avro", v)
    rows, wanted = found(of, behind(7, TIME + sent), record({"name": "v", "type": kind}))
    assert (wanted[0].untold, differences(of, rows, wanted)) == ((), [])
    assert v == "{type: json}" or wanted[0].values["v"] == expected


@pytest.mark.parametrize(("event", "v", "count"), LARGER_AS_JSON)
def test_the_size_as_sent_counts_for_both(tmp_path: Path, event: str, v: str, count: int) -> None:
    of = pipeline(tmp_path, "avro", v, f"max_bytes: 1 KiB{event}")
    rows, wanted = found(of, behind(7, body(ITEMS, {"at": MARCH, "items": [{"k": "x"}] * 200})), ITEMS)
    assert (len(wanted), differences(of, rows, wanted)) == (count, [])


@pytest.mark.parametrize(("schema", "value", "reason"), HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_avro_is_none_for_both(tmp_path: Path, schema: object, value: bytes | None, reason: str) -> None:
    of = pipeline(tmp_path, "avro")
    rows, wanted = found(of, value, schema)
    untold = "RecursionError" in reason or "cannot be read" in reason
    assert bool(wanted[0].untold) == untold, "what it cannot judge, it says"
    assert untold or not differences(of, rows, wanted)


def test_a_registry_that_is_away_is_asked_once(tmp_path: Path) -> None:
    asked = []

    def away(number: int) -> Registered:
        asked.append(number)
        raise RegistryAway("the schema registry does not answer")

    expecting = Expecting(pipeline(tmp_path, "avro"), away)
    for number in (7, 7, 8):
        [one] = expecting.of_kafka(behind(number, b"x"), None, {}, NOW, NOW)
        assert one.untold == ("values in Avro: the schema registry does not answer",)
    assert asked == [7]


def number(value: int) -> bytes:
    """As Avro writes int and long."""
    zigzag, written = (value << 1) ^ (value >> 63), b""
    while zigzag > 0x7F:
        written, zigzag = written + bytes([zigzag & 0x7F | 0x80]), zigzag >> 7
    return written + bytes([zigzag])


PLAIN = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
LOGICAL = [
    logical("bytes", "decimal", precision=12, scale=2),
    logical("bytes", "decimal", precision=40),
    logical("bytes", "decimal", precision=1, scale=2),
    logical("bytes", "decimal", precision=4, scale=-2),
    logical("int", "date"),
    logical("int", "time-millis"),
    logical("long", "time-micros"),
    logical("long", "timestamp-millis"),
    logical("long", "timestamp-micros"),
    logical("long", "local-timestamp-millis"),
    logical("string", "uuid"),
    logical("int", "timestamp-millis"),
    logical("long", "of-none"),
]


@st.composite
def schemas(draw: st.DrawFn, names: list[str], depth: int = 0) -> Any:  # noqa: ANN401
    """A schema; `names` has those of the named ones around and before it."""
    kind = draw(st.integers(0, 11 if depth < 3 else 5))
    inner = schemas(names, depth + 1)
    if kind < 4:
        return draw(st.sampled_from(PLAIN))
    if kind < 6:
        return draw(st.sampled_from(LOGICAL))
    if kind == 6 and names:
        return draw(st.sampled_from(names))
    if kind == 7:
        return [*draw(st.lists(st.sampled_from(PLAIN), max_size=2)), draw(inner)]
    if kind == 8:
        return {"type": "array", "items": draw(inner)}
    if kind == 9:
        return {"type": "map", "values": draw(inner)}
    name, space = f"n{len(names)}", draw(st.sampled_from(["", "a.b"]))
    names.append(f"{space}.{name}".removeprefix("."))
    named = {"name": name, "namespace": space}
    if kind == 10:
        return {
            "type": "record",
            **named,
            "fields": [{"name": key, "type": draw(inner)} for key in draw(st.sampled_from(["", "a", "ab"]))],
        }
    if draw(st.booleans()):
        return {"type": "enum", **named, "symbols": ["red", "blue"]}
    meaning: dict[str, Any] = draw(
        st.sampled_from([{}, {"logicalType": "uuid"}, {"logicalType": "decimal", "precision": 4, "scale": 2}])
    )
    return {"type": "fixed", **named, "size": draw(st.sampled_from([2, 16])), **meaning}


BITS = st.one_of(st.integers(-3, 3), st.integers(-(1 << 31), (1 << 31) - 1))
LONG = st.one_of(
    BITS, st.sampled_from([MARCH_MS * unit for unit in (1, 1000, 10**6)]), st.integers(-(1 << 63), (1 << 63) - 1)
)
TEXTS = st.one_of(
    st.text(max_size=5), st.sampled_from(["5", "1.50", "true", "2026-03-01T00:00:00Z", "2026-03-01", "null", "[1]"])
)


def encoded(draw: st.DrawFn, schema: Any, named: dict[str, Any], left: int = 6) -> bytes:  # noqa: ANN401
    """A value of a schema."""
    if isinstance(schema, list):
        place = draw(st.integers(0, len(schema) - 1))
        return number(place) + encoded(draw, schema[place], named, left)
    if isinstance(schema, str) and schema in named:
        return encoded(draw, named[schema], named, left - 1) if left else b"\0"
    match schema if isinstance(schema, str) else schema["type"]:
        case "null":
            return b""
        case "boolean":
            return draw(st.sampled_from([b"\0", b"\1", b"\1", b"\2"]))
        case "int":
            return number(draw(BITS))
        case "long":
            return number(draw(LONG))
        case "float":
            return struct.pack("<f", draw(st.floats(width=32)))
        case "double":
            return struct.pack("<d", draw(st.floats()))
        case "bytes" | "string":
            data = draw(TEXTS).encode() if draw(st.integers(0, 3)) else draw(st.binary(max_size=4))
            return number(len(data)) + data
        case "fixed":
            return draw(st.binary(min_size=schema["size"], max_size=schema["size"]))
        case "enum":
            return number(draw(st.integers(-1, 2)))
        case "record":
            name = f"{schema['namespace']}.{schema['name']}".removeprefix(".")
            named[name] = schema
            return b"".join(encoded(draw, one["type"], named, left) for one in schema["fields"])
        case "array" | "map" as kind:
            written = b""
            for _ in range(draw(st.integers(0, 2))):
                values = [
                    (number(1) + draw(st.sampled_from([b"a", b"b"])) if kind == "map" else b"")
                    + encoded(draw, schema["items" if kind == "array" else "values"], named, left)
                    for _ in range(draw(st.integers(1, 2)))
                ]
                block = b"".join(values)
                written += (
                    number(len(values)) if draw(st.booleans()) else number(-len(values)) + number(len(block))
                ) + block
            return written + b"\0"
    raise AssertionError(schema)


def all_named(schema: Any, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Full name → schema."""
    if isinstance(schema, list):
        for branch in schema:
            all_named(branch, found)
    elif isinstance(schema, dict):
        if "namespace" in schema:
            found[f"{schema['namespace']}.{schema['name']}".removeprefix(".")] = schema
        for inside in (schema.get("items"), schema.get("values"), *(one["type"] for one in schema.get("fields", ()))):
            all_named(inside, found)
    return found


@st.composite
def sent_bodies(draw: st.DrawFn) -> tuple[Any, bytes]:
    """A schema with `at` and `v`, and a body that is mostly of it."""
    schema = {**record({"name": "v", "type": draw(schemas([]))}), "namespace": "r"}
    data = TIME + encoded(draw, schema["fields"][1]["type"], all_named(schema["fields"][1]["type"], {}))
    if not draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=2)) + data[place + draw(st.integers(0, 2)) :]
    return schema, data


DECLARED = [
    "{type: string}",
    "{type: json}",
    "{type: long}",
    "{type: double}",
    "{type: boolean}",
    '{type: "decimal(12,2)"}',
    "{type: timestamp}",
    "{type: timestamp, format: epoch_ms}",
    "{type: date}",
    "{type: string, from: v.a}",
    '{type: json, from: "v[1]"}',
    "{type: json, from: $}",
]


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> list[Pipeline]:
    """A pipeline for each way to declare `v`, and one of the elements of `v`."""
    folder = tmp_path_factory.mktemp("avro")
    return [
        *(pipeline(folder, "avro", v) for v in DECLARED),
        pipeline(folder, "avro", "{type: string, from: a}", "each: v"),
    ]


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(sent_bodies(), st.integers(0, len(DECLARED)))
def test_whatever_bytes_are_read_alike(declared: list[Pipeline], sent: tuple[Any, bytes], which: int) -> None:
    schema, data = sent
    rows, wanted = found(declared[which], behind(7, data), schema)
    told = [one for one in wanted if not one.untold]
    assert not told or not differences(declared[which], rows, wanted), (schema, data)
