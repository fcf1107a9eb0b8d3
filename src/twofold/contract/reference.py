"""The contract as it is meant, record by record and field by field; every other way must agree with this one.

JSON text ─► one object? ─► Literal per declared field ─┐
row of cells ─────────────► Literal per declared field ─┴─► values, or all that is wrong with them
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from twofold.contract import reasons, values
from twofold.contract.reasons import Fault
from twofold.contract.values import Literal, NotOfType
from twofold.definition.model import Field, Pipeline
from twofold.definition.types import whole_value

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""Floor of the event time, unless its field declares a `min`: before it lie the zero dates of broken clocks."""
MAX_DEPTH = 1000
"""Objects and arrays within each other; past it a record is no JSON for us, wherever it is decoded."""

_BLANKS = b" \t\r\n"
# A string that is never closed goes to the end: read from each of its quotes again, it would take quadratic time.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_NULL = msgspec.Raw(b"null")


class Judgement(NamedTuple):
    """Values by field where the record keeps the contract, else what is wrong with it."""

    values: Mapping[str, Any] | None
    fault: Fault | None = None


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

    def json(self, value: bytes | None, received_at: datetime) -> Judgement:
        """One JSON text; `received_at` is what "from the future" is judged against."""
        fault = self.unreadable(value)
        if fault is not None:
            return Judgement(None, fault)
        try:
            found = self._tokens.decode(value or b"")
        except msgspec.ValidationError:
            return Judgement(None, reasons.not_json())
        except (msgspec.DecodeError, RecursionError) as error:
            return Judgement(None, reasons.not_json(_why(error)))
        tokens = (bytes(getattr(found, attribute)) for attribute in found.__struct_fields__)
        literals = {name: values.json_literal(token) for name, token in zip(self._fields, tokens, strict=True)}
        return self.literals(literals, received_at)

    def unreadable(self, value: bytes | None) -> Fault | None:
        """Why a JSON text is not even decoded, or None."""
        if value is None:
            return reasons.empty()
        if len(value) > self.pipeline.event.max_bytes:
            return reasons.too_large(len(value), self.pipeline.event.max_bytes)
        if not value.strip(_BLANKS):
            return reasons.empty()
        try:
            value.decode()
        except UnicodeDecodeError:
            return reasons.not_utf8()
        if is_deep(value):
            return reasons.not_json(f"nested more than {MAX_DEPTH} levels deep")
        return None

    def cells(self, cells: Mapping[str, pa.Scalar], received_at: datetime) -> Judgement:
        """One row of a file: its cells by column, of which undeclared ones are passed over."""
        declared = {name: cell for name, cell in cells.items() if name in self._fields}
        try:
            literals = {name: values.cell_literal(cell, self._fields[name].type) for name, cell in declared.items()}
        except UnicodeDecodeError:
            return Judgement(None, reasons.not_utf8())
        texts = (literals[name] for name, cell in declared.items() if values.has_any_length(cell.type))
        size = sum(len(literal.text.encode()) for literal in texts if literal)
        if size > self.pipeline.event.max_bytes:
            return Judgement(None, reasons.too_large(size, self.pipeline.event.max_bytes))
        return self.literals(literals, received_at)

    def literals(self, literals: Mapping[str, Literal | None], received_at: datetime) -> Judgement:
        """A record whose values were taken apart already; a field that is not there counts as null."""
        found: dict[str, Any] = {}
        faults: list[Fault] = []
        for field in self._fields.values():
            literal = literals.get(field.name)
            value = None
            if literal is None:
                faults += [reasons.missing(field.name)] if field.required else []
            else:
                try:
                    value = values.read(field.type, literal)
                except NotOfType:
                    faults.append(reasons.wrong_type(field.name, str(field.type), literal.text))
                else:
                    faults += self._broken_rules(field, value)
            found[field.name] = value
        faults += self._from_the_future(found[self.pipeline.event.time], received_at)
        return Judgement(None, reasons.joined(faults)) if faults else Judgement(found)

    def _broken_rules(self, field: Field, value: Any) -> Iterator[Fault]:  # noqa: ANN401
        low = lowest(self.pipeline, field)
        if low is not None and value < low:
            yield reasons.too_small(field.name, _shown(value), _shown(low))
        if field.max is not None and value > field.max:
            yield reasons.too_great(field.name, _shown(value), _shown(field.max))
        if field.one_of and value not in field.one_of:
            yield reasons.not_allowed(field.name, _shown(value), field.one_of)
        if field.max_length is not None and len(value) > field.max_length:
            yield reasons.too_long(field.name, len(value), field.max_length)
        # Only a text of allowed length is held against the pattern: that bounds what the pattern may cost.
        elif field.pattern is not None and not matches(pa.array([value]), field.pattern)[0].as_py():
            yield reasons.no_match(field.name, _shown(value), field.pattern)

    def _from_the_future(self, time: datetime | None, received_at: datetime) -> Iterator[Fault]:
        if time is not None and time - received_at > self.max_future:
            said = (values.moment_text(moment) for moment in (time, received_at))
            yield reasons.from_the_future(self.pipeline.event.time, *said)

    @property
    def max_future(self) -> timedelta:
        """How far an event time may lie past the arrival."""
        return self.pipeline.event.max_future

    @cached_property
    def _fields(self) -> dict[str, Field]:
        return dict(self.pipeline.event.fields)

    @cached_property
    def _tokens(self) -> msgspec.json.Decoder[Any]:
        """Decodes an object strictly, and gives the declared values as the bytes that they are."""
        return msgspec.json.Decoder(struct(self._fields, dict.fromkeys(self._fields, (msgspec.Raw, _NULL))))


def struct(fields: Mapping[str, Field], types: Mapping[str, tuple[Any, Any]]) -> type[msgspec.Struct]:
    """A msgspec type with (type, default) per declared field; its attributes are not named after the fields.

    Fields may be called as words of Python are.
    """
    attributes = {f"f{index}": name for index, name in enumerate(fields)}
    declared = [(attribute, *types[name]) for attribute, name in attributes.items()]
    return msgspec.defstruct("Record", declared, rename=attributes, gc=False)


def is_deep(value: bytes) -> bool:
    """Whether objects and arrays lie within each other more than MAX_DEPTH times.

    >>> is_deep(b"[" * 1000), is_deep(b"[" * 1001), is_deep(b"[]" * 1500), is_deep(b'"' + b"[" * 1500 + b'"')
    (False, True, False, False)
    """
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    steps = array("b", _STRINGS.sub(b"", value).translate(_STEPS, _NO_BRACKETS))
    return max(accumulate(steps), default=0) > MAX_DEPTH


def _why(error: Exception) -> str:
    """What the decoder says, without its own beginning; a place is a byte from 0.

    >>> _why(msgspec.DecodeError("JSON is malformed: trailing characters (byte 11)"))
    'trailing characters (byte 11)'
    """
    said = str(error).removeprefix("JSON is malformed: ")
    return said[:1].lower() + said[1:]


def _shown(value: object) -> object:
    """A value as sentences have it: the same whatever it was written as."""
    if isinstance(value, datetime):
        return values.moment_text(value)
    return f"{value:f}" if isinstance(value, Decimal) else value
