"""The contract as it is meant, record by record and field by field; every other way must agree with this one.

JSON text ─► one object? ─► Literal per declared field ─┐
row of cells ─────────────► Literal per declared field ─┴─► values, or all that is wrong with them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
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
_NONE: Mapping[str, Any] = MappingProxyType({})


class Judgement(NamedTuple):
    """Values by field where the record keeps the contract, else what is wrong with it."""

    values: Mapping[str, Any] | None
    fault: Reason | None = None


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

    def json(
        self,
        value: bytes | None,
        received_at: datetime,
        beside: Mapping[str, pa.Scalar] = _NONE,
        element: bytes | None = None,
    ) -> Judgement:
        """One JSON text, or an element of an array in it; `received_at` is what "from the future" is judged against.

        `beside` has the values of fields that are found beside the text: Kafka's key, its headers, the arrival.
        """
        fault = self.no_object(value)
        if fault is not None or value is None:
            return Judgement(None, fault)
        literals: dict[str, Literal | None] = {}
        shapes: dict[str, Reason] = {}
        for field in self.pipeline.event.fields.values():
            try:
                if field.name in beside:
                    literals[field.name] = cell_literal(beside[field.name], field.type)
                elif field.is_in_value:
                    text = value if element is None or field.source.whole else element
                    literals[field.name] = json_literal(follow(text, field.source), field.type)
            except UnicodeDecodeError:
                return Judgement(None, reasons.not_utf8())
            except (msgspec.DecodeError, RecursionError) as error:
                return Judgement(None, reasons.not_json(_why(error)))
            except OtherShape as error:
                token = error.token.decode()
                shapes[field.name] = reasons.wrong_shape(field.label, str(error.place), error.wanted, token)
        return self.literals(literals, received_at, shapes)

    def no_object(self, value: bytes | None) -> Reason | None:
        """Why a text is not exactly one JSON object, or None."""
        fault = self.unreadable(value)
        if fault is not None:
            return fault
        try:
            _OBJECT.decode(value or b"")
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
                raise OtherShape(each, "an array", token)
            return elements(token)
        except OtherShape as error:
            return reasons.wrong_shape("event.each", str(error.place), error.wanted, error.token.decode())
        except (msgspec.DecodeError, RecursionError) as error:
            return reasons.not_json(str(error))

    def unreadable(self, value: bytes | None) -> Reason | None:
        """Why a JSON text is not even decoded, or None."""
        if value is None:
            return reasons.empty()
        if len(value) > self.pipeline.event.max_bytes:
            return reasons.too_large(len(value), self.pipeline.event.max_bytes)
        if not value.strip(BLANKS):
            return reasons.empty()
        try:
            value.decode()
        except UnicodeDecodeError:
            return reasons.not_utf8()
        if is_deep(value):
            return reasons.not_json(f"nested more than {MAX_DEPTH} levels deep")
        return None

    def cells(self, cells: Mapping[str, pa.Scalar], received_at: datetime) -> Judgement:
        """One row of a file, of allowed size: its cells by field; undeclared ones are passed over."""
        declared = {name: _of_one_type(cell) for name, cell in cells.items() if name in self.pipeline.event.fields}
        try:
            literals = {
                name: cell_literal(cell, self.pipeline.event.fields[name].type) for name, cell in declared.items()
            }
        except UnicodeDecodeError:
            return Judgement(None, reasons.not_utf8())
        return self.literals(literals, received_at)

    def literals(
        self,
        literals: Mapping[str, Literal | None],
        received_at: datetime,
        shapes: Mapping[str, Reason] = _NONE,
    ) -> Judgement:
        """A record whose values were taken apart already; a field that is not there counts as null.

        `shapes` has the fields whose path leads to none of its values, as it meets a value of another shape.
        """
        found: dict[str, Any] = {}
        faults: list[Reason] = []
        for field in self.pipeline.event.fields.values():
            literal = literals.get(field.name)
            value = field.default
            if field.name in shapes:
                faults.append(shapes[field.name])
            elif literal is not None:
                try:
                    value = read_value(field.type, literal, field.format)
                except NotOfType:
                    faults.append(reasons.wrong_type(field.label, str(field.type), literal.text))
                else:
                    faults += self._broken_rules(field, value)
            elif field.is_arrival:
                value = received_at
            elif field.required:
                faults.append(reasons.missing(field.label))
            found[field.name] = value
        faults += self._from_the_future(found[self.pipeline.event.time], received_at)
        return Judgement(None, reasons.joined(faults)) if faults else Judgement(found)

    def _broken_rules(self, field: Field, value: Any) -> Iterator[Reason]:  # noqa: ANN401
        low = lowest(self.pipeline, field)
        if low is not None and value < low:
            yield Reason(reasons.OUT_OF_RANGE, f"{field.label} out of range: {_shown(value)} < {_value_text(low)}")
        if field.max is not None and value > field.max:
            yield Reason(
                reasons.OUT_OF_RANGE, f"{field.label} out of range: {_shown(value)} > {_value_text(field.max)}"
            )
        if field.one_of and value not in field.one_of:
            allowed = ", ".join(map(str, field.one_of))
            yield Reason(reasons.NOT_ALLOWED, f"{field.label} not one of {allowed}: {_shown(value)}")
        if field.max_length is not None and len(value) > field.max_length:
            limit = f"{len(value)} > {field.max_length} characters"
            yield Reason(reasons.TOO_LONG, f"{field.label} too long: {limit}")
        # Only a text of allowed length is held against the pattern: that bounds what the pattern may cost.
        elif field.pattern is not None and not matches(pa.array([value]), field.pattern)[0].as_py():
            yield Reason(reasons.PATTERN, f"{field.label} does not match {field.pattern}: {_shown(value)}")

    def _from_the_future(self, time: datetime | None, received_at: datetime) -> Iterator[Reason]:
        if time is not None and time - received_at > self.pipeline.event.max_future:
            at, received = moment_text(time), moment_text(received_at)
            yield Reason(reasons.FUTURE, f"from the future: {self.pipeline.event.time} is {at}, received {received}")


def _why(error: Exception) -> str:
    """What the decoder says, without its own beginning; a place is a byte from 0.

    >>> _why(msgspec.DecodeError("JSON is malformed: trailing characters (byte 11)"))
    'trailing characters (byte 11)'
    """
    said = str(error).removeprefix("JSON is malformed: ")
    return said[:1].lower() + said[1:]


def _of_one_type(cell: pa.Scalar) -> pa.Scalar:
    """A value among those of other types by its own."""
    if not isinstance(cell, pa.UnionScalar):
        return cell
    return pa.scalar(None) if cell.value is None else cell.value


def _value_text(value: object) -> str:
    """A value as sentences have it: the same whatever it was written as."""
    if isinstance(value, datetime):
        return moment_text(value)
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _shown(value: object) -> str:
    return reasons.shown(_value_text(value))
