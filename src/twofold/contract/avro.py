"""Avro bodies as the contract takes them: the writer's schema, records, and an array per declared field.

    Registered ─► reader(schema) ─► body ─► record (a dict) ─► path ─► values ─► an Arrow array of a natural type
                                        └─ does not fit: Unfit

Values of types that Arrow has are as in Parquet, so that the contract judges both alike; nested ones are JSON texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from io import BytesIO
from types import NoneType
from typing import Any, cast
from uuid import UUID

import fastavro
import fastavro._read_py
import msgspec
import pyarrow as pa
from fastavro.read import LOGICAL_READERS

from twofold.contract import reasons
from twofold.contract.literals import OtherShape, decimal_text, moment_text
from twofold.contract.reasons import Reason
from twofold.definition.field_source import FieldSource, Step
from twofold.definition.model import Field
from twofold.errors import first_line
from twofold.schema_registry import Registered

careful: Any = fastavro._read_py  # noqa: SLF001
"""For schemas that hold themselves: the compiled reader follows hostile bytes until its process has no stack left."""
Record = Mapping[str, Any]
_EXACT = Context(prec=500, Emax=10**6, Emin=-(10**6))
_MOST_DECIMAL_BYTES = 128
_UUID_BYTES = 16
_DAY_S = 86_400
_MIDNIGHT = datetime(1970, 1, 1, tzinfo=UTC)
_JSON = msgspec.json.Encoder(enc_hook=str, decimal_format="number")
"""Of values within others: bytes in base64, moments in ISO 8601; a number that JSON does not have is null."""


class Unfit(Exception):
    """A body that the writer's schema does not describe, or a schema that describes no record."""


@lru_cache(maxsize=1024)
def reader(schema: Registered) -> Callable[[bytes], Record]:
    """Reads the bodies that a schema describes. Raises Unfit, here and from what it gives back."""
    if schema.kind != "AVRO":
        raise Unfit(f"it is {schema.kind.capitalize()}, not Avro")
    try:
        parsed, holds_itself = _parsed(schema)
    except Unfit:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a text that is no schema makes of the library
        raise Unfit(f"it cannot be read: {type(error).__name__}: {first_line(error)}") from None
    read: Any = careful.schemaless_reader if holds_itself else fastavro.schemaless_reader

    def read_body(body: bytes) -> Record:
        stream = BytesIO(body)
        try:
            record = read(stream, parsed, None)["it"]
        except UnicodeDecodeError:
            raise
        except Exception as error:  # noqa: BLE001 - it checks nothing beforehand: hostile bytes give any error
            raise Unfit(f"the body does not fit: {type(error).__name__}: {first_line(error)}") from None
        if left := len(body) - stream.tell():
            raise Unfit(f"the body does not fit: {left} bytes are left")
        return cast(Record, record)

    return read_body


def _parsed(schema: Registered) -> tuple[Any, bool]:
    """A record of one field `it`, which is what the schema describes; and whether that holds itself."""
    named: dict[str, Any] = {}
    # Defaults are for readers of other schemas, and the library knows too few of them.
    for text in schema.references:
        fastavro.parse_schema(json.loads(text), named, _ignore_default_error=True)
    # A schema that is no record is read again for each body, by the library and without what it refers to.
    whole = {"type": "record", "name": "_tw_whole", "fields": [{"name": "it", "type": json.loads(schema.text)}]}
    parsed: Any = fastavro.parse_schema(whole, named, _ignore_default_error=True)
    it = parsed["fields"][0]["type"]
    if not isinstance(it, dict) or it["type"] not in ("record", "map"):
        raise Unfit("it describes no record")
    holds_itself = _visited(parsed, named, ())
    for one in (*named.values(), parsed):
        _strict(one, _CarefulChoices if holds_itself else _Choices)
    return parsed, holds_itself


def _visited(schema: Any, named: Mapping[str, Any], within: tuple[str, ...]) -> bool:  # noqa: ANN401
    """Whether a schema holds itself; raises Unfit where few bytes stand for any number of values."""
    if isinstance(schema, str):
        return schema in within or (schema in named and _visited(named[schema], named, within))
    if isinstance(schema, list):
        return True in [_visited(branch, named, within) for branch in schema]
    match schema["type"]:
        case "record" | "error":
            inside = (*within, schema["name"])
            return True in [_visited(one["type"], named, inside) for one in schema["fields"]]
        case "array":
            if _takes_nothing(schema["items"], named, ()):
                raise Unfit("it has an array of values that take no bytes")
            return _visited(schema["items"], named, within)
        case "map":
            return _visited(schema["values"], named, within)
        case dict() | list() as kind:
            return _visited(kind, named, within)
    return False


def _takes_nothing(schema: Any, named: Mapping[str, Any], within: tuple[str, ...]) -> bool:  # noqa: ANN401
    """Whether values of a schema are written in no bytes at all."""
    if isinstance(schema, str):
        return schema == "null" or (
            schema in named and schema not in within and _takes_nothing(named[schema], named, (*within, schema))
        )
    if isinstance(schema, list):
        return False
    if schema["type"] == "record":
        return all(_takes_nothing(one["type"], named, within) for one in schema["fields"])
    return schema["type"] == "null" or (schema["type"] == "fixed" and not schema["size"])


class _Choices(list[Any]):
    """Branches of a union, or symbols of an enum. The compiled reader counts a negative number from the end of a list,
    whose length it asks for: from this end it reaches none."""

    def __len__(self) -> int:
        return 1 << 40


class _CarefulChoices(list[Any]):
    """The same for the careful reader, which asks the list."""

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401
        if place < 0:
            raise IndexError(f"{place} of a union or an enum")
        return super().__getitem__(place)


def _strict(schema: Any, choices: type[list[Any]]) -> Any:  # noqa: ANN401
    """The schema, changed so that the library refuses what it takes and Avro does not have.

    Negative places in unions and enums, booleans other than 0 and 1, and an int of more than 32 bits.
    """
    if isinstance(schema, list):
        return choices(_strict(branch, choices) for branch in schema)
    kind = schema if isinstance(schema, str) else schema["type"]
    match kind:
        case "boolean":
            return _BOOLEAN
        case "int" if isinstance(schema, str) or f"int-{schema.get('logicalType')}" not in LOGICAL_READERS:
            return _INT
        case "record" | "error":
            for one in schema["fields"]:
                one["type"] = _strict(one["type"], choices)
        case "array" | "map":
            inside = "items" if kind == "array" else "values"
            schema[inside] = _strict(schema[inside], choices)
        case "enum":
            schema["symbols"] = choices(symbol for symbol in schema["symbols"])  # the length is none to reserve
    return schema


_BOOLEAN = {"type": "fixed", "name": "boolean", "size": 1, "logicalType": "boolean"}
_INT = {"type": "int", "logicalType": "plain"}


def _boolean(data: bytes, _schema: object = None, _reader: object = None) -> bool:
    if data > b"\1":
        raise ValueError(f"a boolean {data[0]}")
    return data == b"\1"


def _int(data: int, _schema: object = None, _reader: object = None) -> int:
    if not -(1 << 31) <= data < 1 << 31:
        raise ValueError(f"{data} is no int")
    return data


def _of_int(read: Callable[..., Any]) -> Callable[..., Any]:
    return lambda data, schema=None, reader_schema=None: read(_int(data), schema, reader_schema)


def _decimal(data: bytes, schema: Mapping[str, Any] | None = None, _reader: object = None) -> Decimal:
    """All digits: the library's own reader rounds to the precision of the schema."""
    if len(data) > _MOST_DECIMAL_BYTES:
        raise ValueError(f"a decimal of {len(data)} bytes")
    return Decimal(int.from_bytes(data, signed=True)).scaleb(-(schema or {}).get("scale", 0), _EXACT)


def _guarded(read: Callable[..., Any]) -> Callable[..., Any]:
    """A moment or day that Python's calendar does not have stays a number, which no declared moment is."""

    def guarded(data: Any, schema: Any = None, reader_schema: Any = None) -> Any:  # noqa: ANN401
        try:
            return read(data, schema, reader_schema)
        except (ValueError, OverflowError):
            return data

    return guarded


def _as_sent(data: str, _schema: object = None, _reader: object = None) -> str:
    return data


def _uuid(data: bytes, _schema: object = None, _reader: object = None) -> str | bytes:
    return str(UUID(bytes=data)) if len(data) == _UUID_BYTES else data


def _time(per_second: int) -> Callable[..., Any]:
    def read(data: int, _schema: object = None, _reader: object = None) -> time | int:
        # The library takes a time before midnight for one after it.
        is_time = 0 <= data < _DAY_S * per_second
        return (_MIDNIGHT + timedelta(microseconds=data * 10**6 // per_second)).time() if is_time else data

    return read


for _readers in (LOGICAL_READERS, careful.LOGICAL_READERS):
    for _name in [name for name in _readers if "timestamp" in name or "date" in name]:
        _readers[_name] = _guarded(_readers[_name])
    _readers |= {"bytes-decimal": _decimal, "fixed-decimal": _decimal, "string-uuid": _as_sent, "fixed-uuid": _uuid}
    _readers |= {"int-time-millis": _time(10**3), "long-time-micros": _time(10**6)}
    _readers |= {"fixed-boolean": _boolean, "int-plain": _int}
    _readers |= {name: _of_int(_readers[name]) for name in ("int-date", "int-time-millis")}


def json_text(value: Any) -> bytes:  # noqa: ANN401
    """A record, or a value of one, as JSON."""
    try:
        return _JSON.encode(value)
    except OverflowError:  # the careful reader knows no largest number
        return json.dumps(value, default=str).encode()


def columns(fields: Sequence[Field], records: Sequence[Record], faults: dict[int, Reason]) -> dict[str, pa.Array]:
    """An array per field, of the values at its path; records in which a path meets another shape go to the faults."""
    shapes: dict[int, list[Reason]] = {}
    places: dict[tuple[Step, ...], list[Any] | None] = {(): list(records)}
    found = {field.name: _column(_values(field, records, places, shapes), field) for field in fields}
    faults.update({index: reasons.joined(listed) for index, listed in shapes.items() if index not in faults})
    return found


def _values(
    field: Field,
    records: Sequence[Record],
    places: dict[tuple[Step, ...], list[Any] | None],
    shapes: dict[int, list[Reason]],
) -> list[Any]:
    if (found := _at(places, field.source.steps)) is not None:
        return found
    values = []
    for index, record in enumerate(records):
        try:
            values.append(_follow(record, field.source))
        except OtherShape as error:
            values.append(None)
            shapes.setdefault(index, []).append(error.reason(field.label))
    return values


def _at(places: dict[tuple[Step, ...], list[Any] | None], steps: tuple[Step, ...]) -> list[Any] | None:
    """What all records have at a path, each place on the way looked up once; None where one has another shape there."""
    if steps not in places:
        holders, step = _at(places, steps[:-1]), steps[-1]
        kind = dict if isinstance(step, str) else list
        if holders is None or {*map(type, holders)} - {kind, NoneType}:
            places[steps] = None
        elif isinstance(step, str):
            places[steps] = [holder.get(step) if holder else None for holder in holders]
        else:
            places[steps] = [holder[step] if holder and step < len(holder) else None for holder in holders]
    return places[steps]


def _follow(value: Any, source: FieldSource) -> Any:  # noqa: ANN401
    """The value at a path; None where there is none."""
    for taken, step in enumerate(source.steps):
        if value is None:
            return None
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list):
            value = value[step] if step < len(value) else None
        else:
            wanted = "an object" if isinstance(step, str) else "an array"
            raise OtherShape(FieldSource(source.steps[:taken], whole=source.whole), wanted, json_text(value))
    return value


def _column(values: list[Any], field: Field) -> pa.Array:
    if field.type.name == "json":
        return pa.array([None if value is None else json_text(value) for value in values], pa.binary())
    kinds = {*map(type, values)} - {NoneType}
    if len(kinds) <= 1 and not kinds & {dict, list}:
        with suppress(pa.ArrowException, OverflowError):
            return pa.array(values)
    if kinds & {datetime, date} and field.type.name in ("timestamp", "date"):
        return _union(values, field)
    return pa.array([None if value is None else _text(value) for value in values], pa.binary())


def _union(values: list[Any], field: Field) -> pa.Array:
    """Each value by its own type, as moments are read otherwise than the texts and numbers among them."""
    kinds = list(dict.fromkeys(map(type, values)))
    children: list[list[Any]] = [[] for _ in kinds]
    places = []
    for value in values:
        child = children[kinds.index(type(value))]
        places.append(len(child))
        child.append(value)
    which = pa.array([kinds.index(type(value)) for value in values], pa.int8())
    return pa.UnionArray.from_dense(which, pa.array(places, pa.int32()), [_column(child, field) for child in children])


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
