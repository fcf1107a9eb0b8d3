"""The contract as it is meant, record by record and field by field; every other way must agree with this one.

JSON text ─► one object? ─► Literal per declared field ─┐
row of cells ─────────────► Literal per declared field ─┴─► Reading each ─► values, or all that is wrong with them
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from twofold.contract import reasons
from twofold.contract.literals import (
    BLANKS,
    MAX_DEPTH,
    Literal,
    NotOfType,
    OtherShape,
    cell_literal,
    elements,
    follow,
    is_deep,
    json_literal,
    moment_text,
    read_value,
)
from twofold.contract.reasons import Reason
from twofold.definition.model import Field, Pipeline
from twofold.definition.types import whole_value

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""Floor of the event time, unless its field declares a `min`: before it lie the zero dates of broken clocks."""
_OBJECT = msgspec.json.Decoder(msgspec.defstruct("Any", []))


class Judgement(NamedTuple):
    """Values by field where the record keeps the contract, else what is wrong with it."""

    values: Mapping[str, Any] | None
    fault: Reason | None = None


class Reading(NamedTuple):
    """What a field of a record holds."""

    value: Any = None
    faults: tuple[Reason, ...] = ()
    unreadable: Reason | None = None
    """Why nothing of the record can be read, as the field shows."""


Readings = Mapping[str, Reading]
"""By the name of the field."""
NOTHING = Judgement(None)
"""Of a record that is read, and holds no event."""


def lowest(pipeline: Pipeline, field: Field) -> Any:  # noqa: ANN401
    """The lowest value that a field may have; None: any."""
    return EARLIEST if field.min is None and field.name == pipeline.event.time else field.min


def matches(texts: pa.Array, pattern: str) -> pa.Array:
    """Whether each whole text matches, by RE2: in linear time whatever pattern and text are; null for null."""
    return pc.match_substring_regex(texts, whole_value(pattern))


@dataclass(frozen=True)
class Reference:
    """Judges the records of one pipeline."""

    pipeline: Pipeline

    def around(self, value: bytes | None, beside: Mapping[str, pa.Scalar]) -> Readings | Reason:
        """What the fields hold that lie in a text, but for its elements, or beside it; or why it cannot be read.

        `beside` has what is found there: Kafka's key, its headers, the arrival.
        """
        if fault := self.no_object(value):
            return fault
        readings: dict[str, Reading] = {}
        for field in self.pipeline.event.fields.values():
            if field.name in beside:
                readings[field.name] = self.reading(field, partial(cell_of, beside))
            elif field.source.whole or self.pipeline.event.each is None:
                readings[field.name] = self.reading(field, partial(token_of, value))
        return readings

    def event(self, around: Readings | Reason, received_at: datetime, element: bytes | None = None) -> Judgement:
        """An element of a text, by what was read around it; or a text that is one event itself.

        `received_at` is what "from the future" is judged against.
        """
        if isinstance(around, Reason):
            return Judgement(None, around)
        fields = self.pipeline.event.fields.values()
        readings = (around.get(one.name) or self.reading(one, partial(token_of, element)) for one in fields)
        return self._judged(readings, received_at)

    def no_object(self, value: bytes | None) -> Reason | None:
        """Why a text is not exactly one JSON object, or None."""
        if value is None:
            return reasons.empty()
        if len(value) > self.pipeline.event.max_bytes:
            return reasons.too_large(len(value), self.pipeline.event.max_bytes)
        if not value.strip(BLANKS):
            return reasons.empty()
        try:
            value.decode()
            if is_deep(value):
                return reasons.not_json(f"nested more than {MAX_DEPTH} levels deep")
            _OBJECT.decode(value)
        except UnicodeDecodeError:
            return reasons.not_utf8()
        except msgspec.ValidationError:
            return reasons.not_json()
        except (msgspec.DecodeError, RecursionError) as error:
            return reasons.not_json(_why(error))
        return None

    def elements(self, value: bytes | None) -> list[bytes] | Reason:
        """The texts of the elements at `event.each`, none where there is no array; or why the record cannot be read."""
        each, fault = self.pipeline.event.each, self.no_object(value)
        if fault is not None or value is None or each is None:
            return fault or reasons.empty()
        try:
            token = follow(value, each)
            if token == b"null":
                return []
            if token[:1] != b"[":
                raise OtherShape(each, len(each.steps), token)
            return elements(token)
        except OtherShape as error:
            return error.reason("event.each")
        except (msgspec.DecodeError, RecursionError) as error:
            return reasons.not_json(str(error))

    def cells(self, cells: Mapping[str, pa.Scalar], received_at: datetime) -> Judgement:
        """One row of a file, of allowed size: its cells by field; undeclared ones are passed over."""
        readings = (self.reading(field, partial(cell_of, cells)) for field in self.pipeline.event.fields.values())
        return self._judged(readings, received_at)

    def reading(self, field: Field, find: Callable[[Field], Literal | None]) -> Reading:
        """What a field holds where it is looked for, and what is wrong with it."""
        try:
            literal = find(field)
        except UnicodeDecodeError:
            return Reading(unreadable=reasons.not_utf8())
        except (msgspec.DecodeError, RecursionError) as error:
            return Reading(unreadable=reasons.not_json(_why(error)))
        except OtherShape as error:
            return Reading(faults=(error.reason(field.label),))
        if literal is None:
            is_missing = field.required and not field.is_arrival
            return Reading(field.default, (reasons.missing(field.label),) if is_missing else ())
        try:
            value = read_value(field.type, literal, field.format)
        except NotOfType:
            return Reading(faults=(reasons.wrong_type(field.label, str(field.type), literal.text),))
        return Reading(value, tuple(self._broken_rules(field, value)))

    def _judged(self, readings: Iterable[Reading], received_at: datetime) -> Judgement:
        """A record of which every field was read, in their order."""
        found: dict[str, Any] = {}
        faults: list[Reason] = []
        for field, reading in zip(self.pipeline.event.fields.values(), readings, strict=True):
            if reading.unreadable is not None:
                return Judgement(None, reading.unreadable)
            faults += reading.faults
            found[field.name] = received_at if field.is_arrival and reading.value is None else reading.value
        time = found[self.pipeline.event.time]
        if time is not None and time - received_at > self.pipeline.event.max_future:
            at, received = moment_text(time), moment_text(received_at)
            said = f"from the future: {self.pipeline.event.time} is {at}, received {received}"
            faults.append(Reason(reasons.FUTURE, said))
        return Judgement(None, reasons.joined(faults)) if faults else Judgement(found)

    def _broken_rules(self, field: Field, value: Any) -> Iterator[Reason]:  # noqa: ANN401
        low = lowest(self.pipeline, field)
        for sign, bound, is_past in (("<", low, operator.lt), (">", field.max, operator.gt)):
            if bound is not None and is_past(value, bound):
                broken = f"{field.label} out of range: {_shown(value)} {sign} {value_text(bound)}"
                yield Reason(reasons.OUT_OF_RANGE, broken)
        if field.one_of and value not in field.one_of:
            allowed = ", ".join(map(str, field.one_of))
            yield Reason(reasons.NOT_ALLOWED, f"{field.label} not one of {allowed}: {_shown(value)}")
        if field.max_length is not None and len(value) > field.max_length:
            said = f"{field.label} too long: {len(value)} > {field.max_length} characters"
            yield Reason(reasons.TOO_LONG, said)
        # Only a text of allowed length is held against the pattern: that bounds what the pattern may cost.
        elif field.pattern is not None and not matches(pa.array([value]), field.pattern)[0].as_py():
            yield Reason(reasons.PATTERN, f"{field.label} does not match {field.pattern}: {_shown(value)}")


def token_of(text: bytes | None, field: Field) -> Literal | None:
    """What a field is in a JSON text; one that lies beside the text is not there."""
    return None if text is None or not field.is_in_value else json_literal(follow(text, field.source), field.type)


def cell_of(cells: Mapping[str, pa.Scalar], field: Field) -> Literal | None:
    """What a field is in a row of cells; a value among those of other types has its own."""
    cell = cells.get(field.name)
    found = cell.value if isinstance(cell, pa.UnionScalar) else cell
    return None if found is None else cell_literal(found, field.type)


def _why(error: Exception) -> str:
    """What the decoder says, without its own beginning; a place is a byte from 0.

    >>> _why(msgspec.DecodeError("JSON is malformed: trailing characters (byte 11)"))
    'trailing characters (byte 11)'
    """
    said = str(error).removeprefix("JSON is malformed: ")
    return said[:1].lower() + said[1:]


def value_text(value: object) -> str:
    """A value as sentences have it: the same whatever it was written as."""
    if isinstance(value, datetime):
        return moment_text(value)
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _shown(value: object) -> str:
    return reasons.shown(value_text(value))
