"""Avro bodies, read by the proof's own decoder from the writer's schema: a second opinion on what the contract accepts.

    id ─► registry ─► schema ─► reader ─► body ─► dict, list, str, int, Decimal, datetime … ─► at(path), of_avro
                                            └─ not of the schema: NotAvro

After the specification of Avro 1.12. `Untold`: this reader cannot say what a schema, or a body, means.
"""

from __future__ import annotations

import json
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from twofold.definition.field_source import Step
from twofold.definition.model import Field
from twofold.errors import TwofoldError
from twofold.proof import typed_values
from twofold.proof.json_text import NoWay
from twofold.proof.typed_values import NoValue, Untold
from twofold.schema_registry import Registered, UnknownSchema

_LONGEST_NUMBER = 10
"""Bytes."""
_LONGEST_DECIMAL, _LARGEST_SCALE = 128, 1000
"""Bytes, and digits after the point; the contract takes no more."""
_MOST_IN_NO_BYTES = 1000
"""Values that a record may have without any byte of its body; as in the contract."""
_MOST_LEVELS = 100
"""Values within values of the same schema."""


class NotAvro(ValueError):
    """The bytes are none that the schema describes, or the schema describes no record."""


class AvroBodies:
    """Reads bodies by the schemas of a registry, each asked for once."""

    def __init__(self, ask: Callable[[int], Registered]) -> None:
        self._ask = ask
        self._readers: dict[int, Callable[[bytes], Any] | Exception] = {}
        self._away: Untold | None = None

    def read(self, number: int, body: bytes) -> Any:  # noqa: ANN401
        """The value. Raises NotAvro, UnicodeDecodeError, UnknownSchema, Untold."""
        if number not in self._readers:
            self._readers[number] = self._reader(number)
        found = self._readers[number]
        if isinstance(found, Exception):
            raise found.with_traceback(None)  # else it grows by each record
        return found(body)

    def _reader(self, number: int) -> Callable[[bytes], Any] | Exception:
        if self._away is not None:
            return self._away
        try:
            schema = self._ask(number)
            if schema.kind != "AVRO":
                return NotAvro(f"schema {number} is {schema.kind}")
            return reader(schema.text, schema.references)
        except (UnknownSchema, NotAvro, Untold) as error:
            return error
        except TwofoldError as error:
            # Asked once: each answer that does not come is waited for.
            self._away = Untold(f"values in Avro: {error.message}")
            return self._away
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return Untold(f"schema {number}: {type(error).__name__}: {error}")


@dataclass
class _Body:
    data: bytes
    at: int = 0
    levels: int = 0

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            raise NotAvro(f"{count} bytes where {len(self.data) - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, bits: int = 64) -> int:
        """Zigzag, the lowest seven bits first."""
        found = 0
        for place in range(_LONGEST_NUMBER):
            (byte,) = self.take(1)
            found |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                value = found >> 1 if found % 2 == 0 else -(found >> 1) - 1
                if not -(1 << bits - 1) <= value < 1 << bits - 1:
                    raise NotAvro(f"{value} has more than {bits} bits")
                return value
        raise NotAvro(f"a number of more than {_LONGEST_NUMBER} bytes")

    def place(self, count: int) -> int:
        number = self.number()
        if not 0 <= number < count:
            raise NotAvro(f"the {number}th of {count}")
        return number


Read = Callable[[_Body], Any]


def reader(text: str, references: Sequence[str]) -> Callable[[bytes], Any]:
    r"""Reads bodies of a schema, given those that it refers to, each after those it needs itself.

    >>> schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": ["null", "long"]}]}
    >>> read = reader(json.dumps(schema), ())
    >>> read(b"\x02\x03"), read(b"\0")
    ({'v': -2}, {'v': None})
    """
    schemas = _Schemas({})
    *others, schema = map(json.loads, (*dict.fromkeys(references), text))
    json.dumps([*others, schema], ensure_ascii=False).encode()  # fails on halves of surrogate pairs
    for one in others:
        schemas.reading(one, "")
    if not isinstance(schema, dict) or schema.get("type") not in ("record", "map"):
        raise NotAvro("the schema describes no record")
    read, _ = schemas.reading(schema, "")

    def whole(data: bytes) -> Any:  # noqa: ANN401
        body = _Body(data)
        value = read(body)
        if left := len(data) - body.at:
            raise NotAvro(f"{left} bytes are left")
        return value

    return whole


@dataclass(frozen=True)
class _Schemas:
    """The named schemas met so far: full name → what `reading` gives."""

    named: dict[str, tuple[Read, int]]

    def reading(self, schema: Any, namespace: str) -> tuple[Read, int]:  # noqa: ANN401
        """How a value is read, and how many it is, those within it counted, if all of them take no bytes; or 0."""
        if isinstance(schema, list):
            branches = [self.reading(branch, namespace)[0] for branch in schema]
            return (lambda body: branches[body.place(len(branches))](body)), 0
        if isinstance(schema, str):
            if found := _PRIMITIVES.get(schema) or self.named.get(_full(schema, namespace)):
                return found
            raise Untold(f"a schema of the type {schema}")
        # Of other types an attribute `name` says nothing.
        is_named = schema["type"] in ("record", "error", "enum", "fixed")
        name = _full(schema["name"], schema.get("namespace", namespace)) if is_named else ""
        if name in self.named:
            raise NotAvro(f"{name} is declared twice")
        found = self._of_kind(schema, name, namespace)
        if name:
            self.named[name] = found
        return found

    def _of_kind(self, schema: Mapping[str, Any], name: str, namespace: str) -> tuple[Read, int]:
        match schema["type"]:
            case "record" | "error":
                return self._record(schema, name)
            case "array":
                read, in_no_bytes = self.reading(schema["items"], namespace)
                if in_no_bytes:
                    raise NotAvro("the schema has an array of values that take no bytes")
                return (lambda body: [read(body) for count in _blocks(body) for _ in range(count)]), 0
            case "map":
                read, _ = self.reading(schema["values"], namespace)
                return (lambda body: {_string(body): read(body) for n in _blocks(body) for _ in range(n)}), 0
            case "enum":
                symbols = list(schema["symbols"])
                return (lambda body: symbols[body.place(len(symbols))]), 0
            case "fixed":
                size = operator.index(schema["size"])
                return _meaning(schema, lambda body: body.take(size)), 0 if size else 1
            case str() as kind if kind in _PRIMITIVES:
                return _meaning(schema, _PRIMITIVES[kind][0]), _PRIMITIVES[kind][1]
        raise Untold(f"a schema of the type {schema['type']}")

    def _record(self, schema: Mapping[str, Any], name: str) -> tuple[Read, int]:
        namespace = name.rpartition(".")[0]
        # A field may hold a record of the same name.
        self.named[name] = (lambda body: self._again(name, body)), 0
        fields = [(str(one["name"]), *self.reading(one["type"], namespace)) for one in schema["fields"]]
        counts = [in_no_bytes for *_, in_no_bytes in fields]
        if all(counts) and sum(counts) >= _MOST_IN_NO_BYTES:
            raise NotAvro(f"{name} has more than {_MOST_IN_NO_BYTES} values that take no bytes")
        return (lambda body: {key: read(body) for key, read, _ in fields}), sum(counts) + 1 if all(counts) else 0

    def _again(self, name: str, body: _Body) -> Any:  # noqa: ANN401
        if body.levels == _MOST_LEVELS:
            raise Untold(f"values of {name} within each other, more than {_MOST_LEVELS} times")
        body.levels += 1
        value = self.named[name][0](body)
        body.levels -= 1
        return value


def _full(name: str, namespace: str) -> str:
    return f"{namespace}.{name}" if namespace and "." not in name else name


def _blocks(body: _Body) -> Any:  # noqa: ANN401
    """How many values follow, and follow then, up to none."""
    while count := body.number():
        if count < 0:
            body.number()  # how many bytes they have
        yield abs(count)


def _boolean(body: _Body) -> bool:
    (byte,) = body.take(1)
    if byte > 1:
        raise NotAvro(f"a boolean {byte}")
    return byte == 1


def _string(body: _Body) -> str:
    return body.take(body.number()).decode()


_PRIMITIVES: dict[str, tuple[Read, int]] = {
    "null": (lambda body: None, 1),
    "boolean": (_boolean, 0),
    "int": (lambda body: body.number(32), 0),
    "long": (lambda body: body.number(), 0),
    "float": (lambda body: struct.unpack("<f", body.take(4))[0], 0),
    "double": (lambda body: struct.unpack("<d", body.take(8))[0], 0),
    "bytes": (lambda body: body.take(body.number()), 0),
    "string": (_string, 0),
}


# ---- what values mean by their logical type ----


def _meaning(schema: Mapping[str, Any], read: Read) -> Read:
    match schema["type"], schema.get("logicalType"):
        case "bytes" | "fixed", "decimal":
            scale = schema.get("scale", 0)
            is_scale = type(scale) is int and 0 <= scale <= _LARGEST_SCALE
            return (lambda body: _decimal(read(body), scale)) if is_scale else read
        case "fixed", "uuid" if schema["size"] == 16:
            return lambda body: str(UUID(bytes=read(body)))
        case "int", "date":
            return lambda body: _or_number(lambda days: date(1970, 1, 1) + timedelta(days=days), read(body))
        case "int", "time-millis":
            return lambda body: _or_number(lambda number: _time(number * 1000), read(body))
        case "long", "time-micros":
            return lambda body: _or_number(_time, read(body))
        case "long", (
            "timestamp-millis" | "local-timestamp-millis" | "timestamp-micros" | "local-timestamp-micros"
        ) as at:
            zone = None if at.startswith("local") else UTC
            unit = 1000 if at.endswith("millis") else 1
            start = datetime(1970, 1, 1, tzinfo=zone)
            return lambda body: _or_number(lambda n: start + timedelta(microseconds=n * unit), read(body))
    return read


def _decimal(data: bytes, scale: int) -> Decimal:
    if len(data) > _LONGEST_DECIMAL:
        raise NotAvro(f"a decimal of {len(data)} bytes")
    unscaled = int.from_bytes(data, "big", signed=True)
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))


def _time(microseconds: int) -> time:
    seconds, micro = divmod(microseconds, 10**6)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, micro)


def _or_number(meaning: Callable[[int], Any], number: int) -> Any:  # noqa: ANN401
    """What no calendar of ours has stays a number."""
    try:
        return meaning(number)
    except (ValueError, OverflowError):
        return number


# ---- values within others ----


def at(value: Any, steps: Sequence[Step]) -> Any:  # noqa: ANN401
    """The value that a path leads to; None where there is none. NoWay, where it cannot be followed.

    >>> at({"a": [{"b": 7}]}, ("a", 0, "b")), at({"a": None}, ("a", "b"))
    (7, None)
    """
    for step in steps:
        if value is None:
            return None
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list):
            value = value[step] if step < len(value) else None
        else:
            raise NoWay(f"no way to {step!r} in {typed_values.as_json(value)[:40]}")
    return value


def of_avro(field: Field, value: Any) -> Any:  # noqa: ANN401
    """What a value that is not None means as a field's type.

    >>> from twofold.definition.types import FieldType
    >>> of_avro(Field("s", FieldType("string")), {"a": 1}), of_avro(Field("n", FieldType("long")), 5.0)
    ('{"a":1}', 5)
    """
    if field.type.name == "json":
        text = typed_values.as_json(value)
        return None if text == "null" else text
    if isinstance(value, dict | list):
        return typed_values.of_text(field, typed_values.as_json(value))
    if isinstance(value, bytes):
        try:
            return typed_values.of_text(field, value.decode())
        except UnicodeDecodeError:
            raise NoValue("no UTF-8") from None
    return typed_values.of_value(field, value)
