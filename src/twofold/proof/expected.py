"""What the rows of a record should be, by an independent reading of it; what cannot be told is said.

    bytes, key, headers, arrival ─► JSON object ─(event.each: an event of each element)─► Expected rows
                                └─► Avro record ─(event.each: as JSON) ────────────────┘
    values of the fields of one row of a file ──────────────────────────────────────────► Expected row

An `Expected` row has a value for each field, or the faults for which its record must be rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property, lru_cache, partial
from typing import Any

import duckdb

from twofold import inbox
from twofold.definition.model import AVRO, CONFLUENT_JSON, Field, Pipeline
from twofold.definition.types import whole_value
from twofold.proof import avro_body, json_text, recount, typed_values
from twofold.proof.avro_body import AvroBodies
from twofold.proof.json_text import NoWay, Value
from twofold.proof.typed_values import NoValue, Untold
from twofold.schema_registry import Registered, UnknownSchema
from twofold.windows import EPOCH

_PREFIX_BYTES = 5
"""Before JSON of `confluent-json`, and before Avro: a nought, and the number of the schema."""
BLANKS = b" \t\r\n"
_ESCAPED = {ord(character): f"\\{character}" for character in '"\\'}
LAST = datetime.max.replace(tzinfo=UTC)
"""When a record is judged of which nobody knows when that was."""
_SHORT = 64
"""Characters."""

Find = Callable[[Field], Any]
"""Gives a field's value in a record; None: there is none. Raises NoValue, NoWay, Untold."""


@dataclass(frozen=True)
class Expected:
    """One row. With faults it must be rejected, without it must hold the values."""

    element: int | None = None
    """With `event.each`: its place in the array, from 1; 0 of a row that stands for the whole record."""
    values: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    """What this reader cannot judge: a clause each."""
    is_no_record: bool = False
    """The fault lies in the record's form, whatever is declared: no value, no UTF-8, not one JSON object."""
    unknown_schema: bool = False
    """The registry has none of its schema's id: rejected for that, or it is gone since."""
    holds_nothing: bool = False
    """A record without elements: read, and filtered."""


@dataclass(frozen=True)
class _Around:
    """What is known of a record besides its value."""

    judged_at: datetime
    """What "the future" begins after."""
    arrived: datetime | None
    """The event time of `time: arrival`; None: there is no such moment."""
    beside: Mapping[str, bytes | None] = field(default_factory=dict)
    """Kafka's key, and headers."""


@dataclass(frozen=True)
class Expecting:
    """Reads records of one pipeline."""

    pipeline: Pipeline
    schemas: Callable[[int], Registered]
    """What a schema's id stands for, as `Registry.schema` says it; asked for records in Avro alone."""

    def of_kafka(
        self,
        value: bytes | None,
        key: bytes | None,
        headers: Mapping[str, bytes | None],
        arrived: datetime | None,
        judged_at: datetime,
    ) -> list[Expected]:
        """The rows of a Kafka record. `judged_at` is what "the future" begins after.

        `arrived` is the event time of `time: arrival`; None: there is no such moment.
        """
        wire = self.pipeline.topic.format
        around = _Around(judged_at, arrived, {"key": key, **headers})
        if wire in (AVRO, CONFLUENT_JSON) and value is not None:
            if len(value) < _PREFIX_BYTES or value[0]:
                return [self._whole("no schema id before it")]
            if wire == AVRO:
                return list(self._of_avro(value, around))
            value = value[_PREFIX_BYTES:]
        return list(self._of_json(value, around))

    def of_text(self, text: bytes, landed_at: datetime) -> list[Expected]:
        """The rows of a line, or of an element, of a JSON file."""
        return list(self._of_json(text, _Around(landed_at, landed_at)))

    def of_cells(self, cells: Mapping[str, Callable[[], Any]], landed_at: datetime) -> Expected:
        """The row of a file that has columns; `cells` has what is found of the fields."""
        found = _Around(landed_at, landed_at)
        return self._row(None, lambda one: cells[one.name]() if one.name in cells else None, found)

    def _of_avro(self, value: bytes, around: _Around) -> Iterator[Expected]:
        if len(value) > self.pipeline.event.max_bytes:
            yield self._whole(_too_large(len(value)))
            return
        number, element = int.from_bytes(value[1:_PREFIX_BYTES]), None if self.pipeline.event.each is None else 0
        try:
            record = self._bodies.read(number, value[_PREFIX_BYTES:])
        except UnknownSchema:
            yield Expected(element, faults=(f"the registry has no schema {number}",), unknown_schema=True)
        except Untold as error:
            yield Expected(element, untold=(str(error),))
        except ValueError as error:
            yield self._whole(f"not of schema {number}: {error}", is_no_record=True)
        else:
            if element is not None:
                yield from self._of_object(typed_values.as_json(record).encode(), around)
            else:
                yield self._row(None, partial(_in_avro, record), around)

    @cached_property
    def _bodies(self) -> AvroBodies:
        return AvroBodies(self.schemas)

    def _of_json(self, text: bytes | None, around: _Around) -> Iterator[Expected]:
        if text is None or not text.strip(BLANKS):
            yield self._whole("it is empty", is_no_record=True)
            return
        if len(text) > self.pipeline.event.max_bytes:
            yield self._whole(_too_large(len(text)))
            return
        yield from self._of_object(text, around)

    def _of_object(self, text: bytes, around: _Around) -> Iterator[Expected]:
        """Of a JSON text of any size."""
        try:
            record = json_text.record(text)
        except ValueError as error:
            yield self._whole(f"not one JSON object: {error}", is_no_record=True)
            return
        for element, at in self._elements(record):
            if isinstance(at, Expected):
                yield at
            else:
                yield self._row(element, partial(_in_json, record, at), around)

    def _elements(self, record: Value) -> Iterator[tuple[int | None, Value | Expected]]:
        each = self.pipeline.event.each
        if each is None:
            yield None, record
            return
        try:
            array = record.at(each.steps)
            if array is not None and not array.text.startswith("["):
                raise NoWay(f"{each} is no array")
        except NoWay as error:
            yield 0, self._whole(str(error))
            return
        if array is None or not array.elements:
            yield 0, Expected(0, holds_nothing=True)
            return
        yield from enumerate(array.elements, 1)

    def _whole(self, fault: str, *, is_no_record: bool = False) -> Expected:
        element = None if self.pipeline.event.each is None else 0
        return Expected(element, faults=(fault,), is_no_record=is_no_record)

    def _row(self, element: int | None, find: Find, around: _Around) -> Expected:
        values: dict[str, Any] = {}
        faults: list[str] = []
        untold: list[str] = []
        for one in self.pipeline.event.fields.values():
            try:
                value = _value(one, find, around)
                value = one.default if value is None else value
                faults += self._broken(one, value)
                values[one.name] = value
            except (NoValue, NoWay) as error:
                faults.append(f"{one.label} is no {one.type}: {error}")
            except Untold as error:
                untold.append(f"{one.label}: {error}")
        time = values.get(self.pipeline.event.time)
        if time is not None and time - around.judged_at > self.pipeline.event.max_future:
            faults.append(f"{self.pipeline.event.time} is {time - around.judged_at} ahead of the arrival")
        return Expected(element, values, tuple(faults), tuple(untold))

    def _broken(self, one: Field, value: Any) -> Iterator[str]:  # noqa: ANN401
        """The rules of a field that a value breaks."""
        if value is None:
            if one.required:
                yield f"{one.label} is missing"
            return
        low = EPOCH if one.min is None and one.name == self.pipeline.event.time else one.min
        if low is not None and value < low:
            yield f"{one.label} is below {low}"
        if one.max is not None and value > one.max:
            yield f"{one.label} is above {one.max}"
        if one.one_of and value not in one.one_of:
            yield f"{one.label} is none of the values allowed"
        if one.max_length is not None and len(value) > one.max_length:
            yield f"{one.label} is longer than {one.max_length}"
        elif one.pattern is not None and not _matches(value, one.pattern):
            yield f"{one.label} does not match its pattern"

    def kept_ids(self, payload: bytes, file: str | None) -> set[str | None]:
        """The ids that a rejected record shows by its bytes, None for one that cannot be read; no file: of Kafka."""
        if file is None or not inbox.has_columns(file):
            rows = self.of_text(payload, LAST) if file else self.of_kafka(payload, None, {}, None, LAST)
        else:
            try:
                record = json_text.record(payload)
            except ValueError:
                return {None}
            cells = {one.name: partial(_in_column, record, one) for one in recount.in_cells(self.pipeline)}
            rows = [self.of_cells(cells, LAST)]
        ids = self.pipeline.event.id
        return {self.key(row.values) if all(row.values.get(name) is not None for name in ids) else None for row in rows}

    def key(self, values: Mapping[str, Any], *place: object) -> str:
        """The id of a row with these values, of a record that lies at a place, as the tables have it."""
        ids = [values[name] for name in self.pipeline.event.id]
        if len(ids) < 2:
            return str(ids[0]) if ids else "/".join(map(str, place))
        return f"[{','.join(str(one) if isinstance(one, int) else _in_quotes(one) for one in ids)}]"


def _in_quotes(text: str) -> str:
    r"""As `_tw_id` has a text: a backslash before each quote and backslash, all else as it is.

    >>> _in_quotes('a"\\\n')
    '"a\\"\\\\\n"'
    """
    return f'"{text.translate(_ESCAPED)}"'


def _matches(text: str, pattern: str) -> bool:
    """By RE2, as a sender's text must not decide how long this takes; short texts are often the same."""
    return _known(text, pattern) if len(text) <= _SHORT else _known.__wrapped__(text, pattern)


@lru_cache(maxsize=65_536)
def _known(text: str, pattern: str) -> bool:
    found = _connection().execute("SELECT regexp_matches(?, ?)", [text, whole_value(pattern)]).fetchone()
    return bool(found and found[0])


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": "1"})


def _too_large(size: int) -> str:
    return f"it has {size:,} bytes, which is more than max_bytes"


def _value(one: Field, find: Find, around: _Around) -> Any:  # noqa: ANN401
    """A field's value, in the record or beside it."""
    if one.is_arrival:
        return around.arrived
    if one.source.kind == "path":
        return find(one)
    held = around.beside.get("key" if one.source.kind == "key" else f"header {one.source.header}")
    try:
        return None if held is None else typed_values.of_text(one, held.decode())
    except UnicodeDecodeError:
        raise NoValue("no UTF-8") from None


def _in_json(record: Value, element: Value, one: Field) -> Any:  # noqa: ANN401
    value = (record if one.source.whole else element).at(one.source.steps)
    return None if value is None else typed_values.of_json(one, value)


def _in_column(record: Value, one: Field) -> Any:  # noqa: ANN401
    """Of a row that was kept as an object: within the column of its first key, or in that of its whole name."""
    try:
        value = record.at(one.source.steps)
    except NoWay:
        value = None
    value = value or record.at((one.source.column,))
    return None if value is None else typed_values.of_json(one, value)


def _in_avro(record: Any, one: Field) -> Any:  # noqa: ANN401
    value = avro_body.at(record, one.source.steps)
    return None if value is None else avro_body.of_avro(one, value)
