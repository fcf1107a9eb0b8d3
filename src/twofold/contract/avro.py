"""Avro bodies as the contract takes them: the writer's schema, records, and an array per declared field.

    Registered ─► reader(schema) ─► body ─► record (a dict) ─► path ─► values ─► an Arrow array of a natural type
                                        └─ does not fit: Unfit

Values of types that Arrow has are as in Parquet, so that the contract judges both alike; nested ones are JSON texts.
"""

from __future__ import annotations

import dataclasses
import operator
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_FLOOR, Context, Decimal
from functools import lru_cache, partial
from io import BytesIO
from types import NoneType
from typing import Any, cast
from uuid import UUID

import msgspec
import pyarrow as pa

from twofold.contract import reasons
from twofold.contract.literals import decimal_text, moment_text
from twofold.contract.reasons import Reason
from twofold.definition.field_source import Step
from twofold.definition.model import Field
from twofold.errors import first_line
from twofold.schema_registry import Registered

Record = Mapping[str, Any]
Read = Callable[[BytesIO], Any]
"""Takes a value off the rest of a body. Any error: the body does not fit."""
_Found = tuple[list[Any], dict[int, tuple[int, Any]]]
"""What the records have at a path; and the index of a record → after how many steps it has which other shape."""
_EXACT = Context(prec=500, Emax=10**6, Emin=-(10**6))
_SHIFTS = range(0, 64, 7)
"""Of the bytes of a number, in bits."""
_MOST_DECIMAL_BYTES = 128
_MOST_SCALE = 1000
_MOST_IN_NO_BYTES = 1000
_MIDNIGHT = datetime(1970, 1, 1, tzinfo=UTC)
_FINEST, _BEYOND_ANY_MOMENT = Decimal("1e-45"), 10**30
json_text = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode
"""A record, or a value of one, as JSON: bytes in base64, moments in ISO 8601, null for a number that JSON has not."""


class Unfit(Exception):
    """A body that the writer's schema does not describe, or a schema that describes no record."""


@lru_cache(maxsize=1024)
def reader(schema: Registered | None) -> Callable[[bytes], Record]:
    """Reads the bodies that a schema describes, or raises Unfit; None is the schema of an id that no registry has."""
    why = ""
    try:
        read = _of_schema(schema)
    except MemoryError:
        raise
    except Unfit as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001 - whatever a text that is no schema leads to
        why = f"it cannot be read: {type(error).__name__}: {first_line(error)}"

    def read_body(body: bytes) -> Record:
        if why:
            raise Unfit(why)
        rest = BytesIO(body)
        try:
            record = read(rest)
        except UnicodeDecodeError:
            raise
        except Exception as error:  # noqa: BLE001 - nothing is checked beforehand: hostile bytes give any error
            raise Unfit(f"the body does not fit: {type(error).__name__}: {first_line(error)}") from None
        if left := len(body) - rest.tell():
            raise Unfit(f"the body does not fit: {left} bytes are left")
        return cast(Record, record)

    return read_body


def _of_schema(schema: Registered | None) -> Read:
    if schema is None:
        raise Unfit("the registry knows no such id")
    if schema.kind != "AVRO":
        raise Unfit(f"it is {schema.kind.capitalize()}, not Avro")
    schemas = _Schemas()
    for text in dict.fromkeys(schema.references):  # several may refer to the same
        schemas.reading(msgspec.json.decode(text), "")
    whole = msgspec.json.decode(schema.text)
    if not isinstance(whole, dict) or whole["type"] not in ("record", "map"):
        raise Unfit("it describes no record")
    return schemas.reading(whole, "")[0]


@dataclasses.dataclass(frozen=True)
class _Schemas:
    """The named schemas met so far, by their full names."""

    named: dict[str, tuple[Read, int]] = dataclasses.field(default_factory=dict)

    def reading(self, schema: Any, space: str) -> tuple[Read, int]:  # noqa: ANN401
        """How values are read, and how many of them lie in no bytes at all; 0: they take some."""
        match schema:
            case str():
                return _PLAIN.get(schema) or self.named[_full(schema, space)]
            case list():
                branches = [self.reading(branch, space)[0] for branch in schema]
                return (lambda body: branches[_place(body)](body)), 0
            case {"type": "array", "items": items}:
                read, in_no_bytes = self.reading(items, space)
                if in_no_bytes:
                    raise Unfit("it has an array of values that take no bytes")
                return (lambda body: [read(body) for _ in _each(body)]), 0
            case {"type": "map", "values": values}:
                read, _ = self.reading(values, space)
                return (lambda body: {_string(body): read(body) for _ in _each(body)}), 0
            case {"type": "record" | "error" | "enum" | "fixed", "name": name}:
                return self._named(schema, _full(name, schema.get("namespace", space)))
            case {"type": str(kind)}:
                read, in_no_bytes = _PLAIN[kind]
                return _meant(schema, read), in_no_bytes
        raise ValueError(f"no schema: {reasons.shown(schema)}")

    def _named(self, schema: Mapping[str, Any], name: str) -> tuple[Read, int]:
        if name in self.named:
            raise Unfit(f"it declares {name} twice")
        # A record may hold itself: how it is read is looked up then.
        self.named[name] = (lambda body: self.named[name][0](body)), 0
        self.named[name] = self._of_kind(schema, name.rpartition(".")[0])
        return self.named[name]

    def _of_kind(self, schema: Mapping[str, Any], space: str) -> tuple[Read, int]:
        if schema["type"] == "enum":
            symbols = list(schema["symbols"])
            return (lambda body: symbols[_place(body)]), 0
        if schema["type"] == "fixed":
            size = operator.index(schema["size"])
            return _meant(schema, lambda body: _taken(body, size)), int(not size)
        fields = [(one["name"], *self.reading(one["type"], space)) for one in schema["fields"]]
        counts = [in_no_bytes for *_, in_no_bytes in fields]
        in_no_bytes = 1 + sum(counts) if all(counts) else 0
        if in_no_bytes > _MOST_IN_NO_BYTES:
            raise Unfit(f"it has a record of more than {_MOST_IN_NO_BYTES:,} values that take no bytes")
        return (lambda body: {name: read(body) for name, read, _ in fields}), in_no_bytes


def _full(name: str, space: str) -> str:
    return f"{space}.{name}" if space and "." not in name else name


def _long(body: BytesIO) -> int:
    """Zigzag, the lowest seven bits first."""
    number = 0
    for shift in _SHIFTS:
        byte = body.read(1)[0]
        number |= (byte & 0x7F) << shift
        if byte < 0x80 and not number >> 64:
            return number >> 1 ^ -(number & 1)
    raise ValueError("a number of more than 64 bits")


def _int(body: BytesIO) -> int:
    number = _long(body)
    if not -(1 << 31) <= number < 1 << 31:
        raise ValueError(f"{number} is no int")
    return number


def _place(body: BytesIO) -> int:
    """Of a symbol in an enum, or of a branch in a union."""
    place = _long(body)
    if place < 0:
        raise IndexError(f"{place} of a union or an enum")
    return place


def _boolean(body: BytesIO) -> bool:
    byte = body.read(1)[0]
    if byte > 1:
        raise ValueError(f"a boolean {byte}")
    return byte == 1


def _taken(body: BytesIO, size: int) -> bytes:
    found = body.read(size)
    if len(found) != size:
        raise EOFError(f"{len(found)} bytes where {size} are expected")
    return found


def _string(body: BytesIO) -> str:
    return _taken(body, _long(body)).decode()


def _each(body: BytesIO) -> Iterator[int]:
    """A number for each value of an array or a map, which come in blocks."""
    while count := _long(body):
        if count < 0:
            _long(body)  # how many bytes the block has
        yield from range(abs(count))


_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
_PLAIN: Mapping[str, tuple[Read, int]] = {
    "null": (lambda _: None, 1),
    "boolean": (_boolean, 0),
    "int": (_int, 0),
    "long": (_long, 0),
    "float": (lambda body: _FLOAT.unpack(body.read(4))[0], 0),
    "double": (lambda body: _DOUBLE.unpack(body.read(8))[0], 0),
    "bytes": (lambda body: _taken(body, _long(body)), 0),
    "string": (_string, 0),
}
"""How values are read, and how many of them lie in no bytes."""


def _meant(schema: Mapping[str, Any], read: Read) -> Read:
    """Values by the logical type of their schema; one that is unknown, or not as Avro has it, counts as none."""
    match schema["type"], schema.get("logicalType"):
        case "bytes" | "fixed", "decimal" if type(scale := schema.get("scale", 0)) is int and 0 <= scale <= _MOST_SCALE:
            return lambda body: _decimal(read(body), scale)
        case "fixed", "uuid" if schema["size"] == 16:
            return lambda body: str(UUID(bytes=read(body)))
        case kind, str(name) if meaning := _MEANINGS.get(f"{kind}-{name}"):
            return lambda body: meaning(read(body))
    return read


def _decimal(data: bytes, scale: int) -> Decimal:
    if len(data) > _MOST_DECIMAL_BYTES:
        raise ValueError(f"a decimal of {len(data)} bytes")
    return Decimal(int.from_bytes(data, signed=True)).scaleb(-scale, _EXACT)


def _after(start: date, unit: timedelta, number: int) -> date | int:
    """A moment or day that Python's calendar does not have stays a number, which no declared moment is."""
    try:
        return start + unit * number
    except OverflowError:
        return number


def _time(unit: timedelta, number: int) -> time | int:
    moment = _after(_MIDNIGHT, unit, number)
    return moment.time() if isinstance(moment, datetime) and moment.date() == _MIDNIGHT.date() else number


_MILLI, _MICRO = timedelta(milliseconds=1), timedelta(microseconds=1)
_MEANINGS: Mapping[str, Callable[[int], Any]] = {
    "int-date": partial(_after, _MIDNIGHT.date(), timedelta(days=1)),
    "int-time-millis": partial(_time, _MILLI),
    "long-time-micros": partial(_time, _MICRO),
    "long-timestamp-millis": partial(_after, _MIDNIGHT, _MILLI),
    "long-timestamp-micros": partial(_after, _MIDNIGHT, _MICRO),
    "long-local-timestamp-millis": partial(_after, _MIDNIGHT.replace(tzinfo=None), _MILLI),
    "long-local-timestamp-micros": partial(_after, _MIDNIGHT.replace(tzinfo=None), _MICRO),
}


def columns(fields: Sequence[Field], records: Sequence[Record]) -> tuple[dict[str, pa.Array], dict[int, Reason]]:
    """An array per field, of the values at its path; and the records in which a path meets another shape."""
    shapes: dict[int, list[Reason]] = {}
    places: dict[tuple[Step, ...], _Found] = {(): (list(records), {})}
    arrays = {}
    for field in fields:
        values, ends = _at(places, field.source.steps)
        arrays[field.name] = _column(values, field)
        for index, (taken, value) in ends.items():
            shape = reasons.wrong_shape(field.label, field.source, taken, json_text(value).decode())
            shapes.setdefault(index, []).append(shape)
    return arrays, {index: reasons.joined(listed) for index, listed in shapes.items()}


def _at(places: dict[tuple[Step, ...], _Found], steps: tuple[Step, ...]) -> _Found:
    """What lies at a path, each place on the way looked up once."""
    if steps not in places:
        taken = len(steps) - 1
        (holders, ends), step = _at(places, steps[:taken]), steps[taken]
        kind = dict if isinstance(step, str) else list
        if {*map(type, holders)} - {kind, NoneType}:
            ends = ends | {at: (taken, one) for at, one in enumerate(holders) if not isinstance(one, kind | None)}
            holders = [None if at in ends else one for at, one in enumerate(holders)]
        if isinstance(step, str):
            values = [holder.get(step) if holder else None for holder in holders]
        else:
            values = [holder[step] if holder and step < len(holder) else None for holder in holders]
        places[steps] = values, ends
    return places[steps]


def _column(values: list[Any], field: Field) -> pa.Array:
    if field.type.name == "json":
        return pa.array([None if value is None else json_text(value) for value in values], pa.binary())
    is_moment = field.type.name in ("timestamp", "date")
    if is_moment:
        values = [_bounded(value) if isinstance(value, Decimal) else value for value in values]
    kinds = {*map(type, values)} - {NoneType}
    if is_moment and len(kinds) > 1:
        return _by_kind(values, field)
    if len(kinds) <= 1 and not kinds & {dict, list}:
        with suppress(pa.ArrowException, OverflowError):
            return pa.array(values)
    return pa.array([None if value is None else _text(value) for value in values], pa.binary())


def _bounded(number: Decimal) -> Decimal | str:
    """The same moment, if it is one, as a number that fits into a column whatever its neighbours are."""
    return number.quantize(_FINEST, ROUND_FLOOR, _EXACT) if abs(number) < _BEYOND_ANY_MOMENT else decimal_text(number)


def _by_kind(values: list[Any], field: Field) -> pa.Array:
    """Each value by its own type: moments, texts and numbers are read otherwise, as a pattern is of texts alone."""
    kinds = list({*map(type, values)})
    which = pa.array([kinds.index(type(value)) for value in values], pa.int8())
    children = [[value if type(value) is kind else None for value in values] for kind in kinds]
    return pa.UnionArray.from_sparse(which, [_column(child, field) for child in children])


def _text(value: Any) -> bytes:  # noqa: ANN401
    """A value among others of other types, as a text that means the same."""
    match value:
        case bytes():
            return value
        case str():
            return value.encode()
        case datetime():
            return moment_text(value if value.tzinfo else value.replace(tzinfo=UTC)).encode()
        case float():
            return repr(value).encode()
        case Decimal():
            return decimal_text(value).encode()
    return json_text(value).strip(b'"')
