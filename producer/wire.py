"""How the producer writes a record: the fields' values at their paths, in the format of the topic.

    {"user": 7, "at": 12:00} ─► {"payload": {"user": 7}, "ts": 1772366400000} ─► JSON
                                                                             ├─► 0, schema id, JSON
                                                                             └─► 0, schema id, Avro
The schema is what the definition declares; it is registered under `<topic>-value`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from io import BytesIO
from typing import Any

import orjson

from twofold.definition.field_source import Step
from twofold.definition.model import AVRO, JSON, Event, Field, Pipeline
from twofold.definition.time_formats import EPOCHS, ISO
from twofold.errors import TwofoldError, UsageError, first_line
from twofold.windows import EPOCH

Register = Callable[[str, str, str], int]
"""(subject, AVRO or JSON, text of the schema) → its id, as `Registry.register`."""
Values = Mapping[str, Any]
"""Field → value: text, number, moment, day; what is null or left out is not written."""
_WIDE = 2**63
"""orjson writes no whole number of more than 64 bits."""
_JSON = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_MICROSECOND = timedelta(microseconds=1)
_AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AVRO_TYPES: dict[str, Any] = {
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
    "date": {"type": "int", "logicalType": "date"},
    "json": "string",
}
_JSON_TYPES = {"int": "integer", "long": "integer", "double": "number", "decimal": "number", "boolean": "boolean"}
NO_SCHEMA = b"\0\xff\xff\xff\xff"
"""The prefix of an id that no registry has given out."""


@dataclass
class Node:
    """A place in records: a field's, or one that others lie below."""

    here: Field | None = None
    below: dict[Step, Node] = field(default_factory=dict)

    @property
    def is_array(self) -> bool:
        """Whether what lies below lies in an array."""
        return any(isinstance(step, int) for step in self.below)


def tree(event: Event) -> Node:
    """The places of the fields that a record's value has. Of a place within another's the outer one is left out."""
    root = Node()
    each = (*event.each.steps, 0) if event.each else ()
    for one in event.fields.values():
        if one.is_arrival or one.source.kind == "key":
            continue
        if one.source.kind == "header":
            if one.required:
                raise UsageError(f"the producer writes no headers, and {one.label} is required", "send it otherwise")
            continue
        steps = one.source.steps if one.source.whole else (*each, *one.source.steps)
        node = root
        for step in steps:
            node = node.below.setdefault(step, Node())
        node.here = one
    return root


class RecordWriter:
    """Writes records as JSON, behind a schema id where the topic wants it."""

    is_avro = False

    def __init__(self, pipeline: Pipeline, register: Register | None = None) -> None:
        self.pipeline = pipeline
        self.tree = tree(pipeline.event)
        fields = pipeline.event.fields.values()
        self._json = {one.name for one in fields if one.type.name == "json"}
        self._is_flat = all(one.source.steps == (one.name,) and one.format == ISO for one in fields)
        self._is_flat = self._is_flat and not pipeline.event.each
        self._key = next((one.name for one in fields if one.source.kind == "key"), None)
        self.prefix = b""
        if pipeline.topic.format != JSON:
            assert register is not None
            number = register(f"{pipeline.topic.name}-value", "AVRO" if self.is_avro else "JSON", self.schema())
            self.prefix = b"\0" + number.to_bytes(4)

    def schema(self) -> str:
        """What the definition declares, as a JSON schema."""
        draft = {"$schema": "http://json-schema.org/draft-07/schema#", "title": self.pipeline.name}
        return json.dumps({**draft, **_json_schema(self.tree)})

    def write(self, values: Values) -> bytes:
        """The value of one record."""
        found = {name: value for name, value in values.items() if value is not None}
        for name in self._json.intersection(found):
            if isinstance(found[name], str):  # else a struct or a list of the query, which becomes JSON like all else
                found[name] = orjson.Fragment(found[name])
        shaped = found if self._is_flat else shape(self.tree, found)
        try:
            return self.prefix + orjson.dumps(shaped, default=_json, option=_JSON)
        except TypeError as error:
            wide = {name: value for name, value in found.items() if type(value) is int and not -_WIDE <= value < _WIDE}
            if not wide:
                raise _unwritten(self.pipeline, error) from error
            return self.write({**found, **{name: orjson.Fragment(str(value)) for name, value in wide.items()}})

    def line(self, text: bytes) -> bytes:
        """A JSON text as it is."""
        return self.prefix + text

    def key(self, values: Values) -> bytes | None:
        """Kafka's key: what the definition takes from it, else the event's id; None: neither."""
        if self._key is None:
            return identity([values.get(name) for name in self.pipeline.event.id])
        value = values.get(self._key)
        return None if value is None else str(value).encode()

    def spoiled(self, values: Values, way: int) -> bytes:
        """A record that breaks the contract, in one of six ways, whatever the contract."""
        whole = self.write(values)[len(self.prefix) :]
        if way == 0:
            return self.prefix + whole[: max(1, len(whole) * 3 // 5)]
        if way == 1:
            return b"no JSON at all"
        if way == 2:
            return self.prefix + b"[" + whole + b"]"
        without = {name: value for name, value in values.items() if name not in self.pipeline.event.id}
        if way == 3 and len(without) < len(values):
            return self.write(without)
        if way <= 4 and self.pipeline.event.time in values:
            return self.write({**values, self.pipeline.event.time: "no time"})
        return self.prefix + whole[:-1] + b',"\xff\xfe":"not UTF-8"}'


class AvroWriter(RecordWriter):
    """Writes records in Avro."""

    is_avro = True

    @cached_property
    def _parsed(self) -> Any:  # noqa: ANN401
        import fastavro  # only here: few topics are in Avro

        return fastavro.parse_schema(_avro_schema(self.tree, self.pipeline.name, required=True))

    def schema(self) -> str:
        """What the definition declares, as an Avro schema."""
        return json.dumps(_avro_schema(self.tree, self.pipeline.name, required=True))

    def write(self, values: Values) -> bytes:
        """The value of one record."""
        import fastavro

        stream = BytesIO()
        try:
            found = {name: _natural(self.pipeline, name, value) for name, value in values.items() if value is not None}
            fastavro.schemaless_writer(stream, self._parsed, shape(self.tree, found))
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error) as error:
            raise _unwritten(self.pipeline, error) from error
        return self.prefix + stream.getvalue()

    def line(self, text: bytes) -> bytes:
        """Lines are JSON, and sent as they are."""
        raise UsageError(
            f"topic {self.pipeline.topic.name} is in Avro, and --from sends lines as they are",
            "use --generate, or name the file as `replay.source`: its rows are written in Avro",
        )

    def spoiled(self, values: Values, way: int) -> bytes:
        """A record that is none, in one of six ways."""
        whole = self.write(values)
        ways = (whole[:-1], b"no Avro at all", whole + b"\0", NO_SCHEMA + whole[5:], whole[5:], self.prefix)
        return ways[way]


def _unwritten(pipeline: Pipeline, error: Exception) -> TwofoldError:
    return TwofoldError(
        f"a record does not fit into the schema that {pipeline.name} declares: {first_line(error)}",
        "have `replay.query` give every required field, with values of the declared types",
    )


def writer(pipeline: Pipeline, register: Register | None = None) -> RecordWriter:
    """How the records of a pipeline's topic are written; registers the schema where there is one."""
    return (AvroWriter if pipeline.topic.format == AVRO else RecordWriter)(pipeline, register)


def identity(values: list[Any]) -> bytes | None:
    """Key bytes of the values of an id; None where there is none."""
    if len(values) == 1:
        return str(values[0]).encode() if type(values[0]) in (str, int) else None
    return orjson.dumps(values, default=_json, option=_JSON) if values and None not in values else None


def shape(node: Node, values: Values) -> Any:  # noqa: ANN401
    """The value of a place: a field's own, or an object or array of what lies below; None where there is nothing."""
    if not node.below:
        return None if node.here is None else _formatted(node.here, values.get(node.here.name))
    found = {step: shape(below, values) for step, below in node.below.items()}
    if node.is_array:
        places = [step for step, value in found.items() if isinstance(step, int) and value is not None]
        return [found.get(step) for step in range(max(places) + 1)] if places else None
    present = {step: value for step, value in found.items() if value is not None}
    return present or None


def _formatted(one: Field, value: Any) -> Any:  # noqa: ANN401
    """A moment or a day as the definition has it written; any other value as it is."""
    if one.format == ISO or not isinstance(value, date):
        return value
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if one.format not in EPOCHS:
        return moment.strftime(one.format)
    number = Decimal((moment - EPOCH) // _MICROSECOND) / EPOCHS[one.format]
    return int(number) if number == int(number) else number


def _natural(pipeline: Pipeline, name: str, value: Any) -> Any:  # noqa: ANN401
    """A value as its Avro type wants it."""
    one = pipeline.event.fields.get(name)
    if one is not None and (one.format in EPOCHS or one.type.name in ("int", "long")):
        number = _formatted(one, value)
        # fastavro cuts it off.
        if isinstance(number, float | Decimal) and number != int(number):
            raise ValueError(f"{one.label} is {number}, and whole numbers are what its schema has")
    if one is None or isinstance(value, date):
        return value if not isinstance(value, datetime) or value.tzinfo else value.replace(tzinfo=UTC)
    match one.type.name:
        case "json" if not isinstance(value, str):
            return orjson.dumps(value, default=_json, option=_JSON).decode()
        case "string" | "json":
            return value if isinstance(value, str) else str(value)
        case "decimal":
            return Decimal(str(value))
        case "double":
            return float(value)
    return value


def _json(value: object) -> Any:  # noqa: ANN401
    """Values that orjson does not know: exact decimals stay exact, anything else becomes text."""
    return orjson.Fragment(str(value)) if isinstance(value, Decimal) else str(value)


def _json_schema(node: Node) -> dict[str, Any]:
    if node.is_array:
        return {"type": "array"}
    if node.below:
        return {"type": "object", "properties": {str(step): _json_schema(below) for step, below in node.below.items()}}
    return {"type": _JSON_TYPES.get(node.here.type.name, "string")} if node.here and node.here.format == ISO else {}


def _avro_schema(node: Node, name: str, *, required: bool = False) -> Any:  # noqa: ANN401
    """A place's type; `name` is that of a record there, made from the path to it."""
    if not node.below:
        return _optional(_avro_type(node.here), required or bool(node.here and node.here.required))
    if node.is_array:
        (first, *_) = node.below.values()
        merged = Node(first.here, {step: one for part in node.below.values() for step, one in part.below.items()})
        return _optional({"type": "array", "items": _avro_schema(merged, f"{name}_item")}, required)
    fields = []
    for step, below in node.below.items():
        if not _AVRO_NAME.fullmatch(str(step)):
            raise UsageError(f"Avro has no field that is called {step!r}", "name it otherwise in `from`, or send JSON")
        kind = _avro_schema(below, f"{name}_{step}")
        fields.append({"name": step, "type": kind, **({"default": None} if isinstance(kind, list) else {})})
    return _optional({"type": "record", "name": name, "fields": fields}, required)


def _optional(kind: object, required: bool) -> object:
    return kind if required else ["null", kind]


def _avro_type(one: Field | None) -> object:
    if one is None:
        return "string"
    if one.format != ISO:
        return "long" if one.format in EPOCHS else "string"
    if one.type.name == "decimal":
        scale = {"precision": one.type.precision, "scale": one.type.scale}
        return {"type": "bytes", "logicalType": "decimal", **scale}
    return _AVRO_TYPES.get(one.type.name, one.type.name)
