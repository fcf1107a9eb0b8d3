"""The contract as it is meant, record by record and field by field; every other way must agree with this one.

    JSON text ─► one object? ─► Literal per declared field ─┐
    row of cells ─────────────► Literal per declared field ─┴─► values, or all that is wrong with them

A value is judged by its text alone, so the same text is judged alike wherever it came from. Clear rather than fast,
but every step is linear in the length of the text, whatever it holds.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Context, Decimal, InvalidOperation
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from twofold.contract import reasons
from twofold.contract.reasons import Reason
from twofold.definition.model import Field, Pipeline
from twofold.definition.types import MAX_DECIMAL_PRECISION, FieldType, whole_value

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

TEXT = "text"
"""A JSON string, a CSV cell."""
NUMBER = "number"
BOOLEAN = "boolean"
OTHER = "other"
"""An array or an object."""
BEYOND = "beyond"
"""What no calendar of ours has; its text only describes it, so it is a value of no type."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?)?"
)
_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_BITS = {"int": 32, "long": 64}
EXACT_IN_A_DOUBLE = 2**53
"""From here on a double stands for more than one whole number."""
_EXACT = Context(prec=2 * MAX_DECIMAL_PRECISION, Emax=10**9, Emin=-(10**9))


class Literal(NamedTuple):
    """A value as it was written; `text` of a string is what it says, of everything else the token byte for byte."""

    form: str
    text: str


class NotOfType(Exception):
    """The text is no value of the declared type."""


def read_value(kind: FieldType, literal: Literal) -> Any:  # noqa: ANN401
    """The value of the declared type: str, int, float, Decimal, bool, datetime (UTC, microseconds) or date."""
    return _READERS[kind.name](kind, literal)


def _string(_kind: FieldType, literal: Literal) -> str:
    if literal.form == BEYOND:
        raise NotOfType
    return literal.text


def _whole(kind: FieldType, literal: Literal) -> int:
    """A whole number, also one written as a double (5.0, 1e2), below the size where doubles have gaps."""
    number = _number(literal)
    if not number:
        return 0
    if number.adjusted() >= 19 or number != number.to_integral_value():
        raise NotOfType
    whole = int(number)
    limit = 1 << _BITS[kind.name] - 1
    as_double = any(sign in literal.text for sign in ".eE")
    if not -limit <= whole < limit or (as_double and abs(whole) >= EXACT_IN_A_DOUBLE):
        raise NotOfType
    return whole


def _double(_kind: FieldType, literal: Literal) -> float:
    _number(literal)
    value = float(literal.text)
    if not math.isfinite(value):
        raise NotOfType
    # Minus zero is zero: engines differ in whether they group both as one.
    return value + 0.0


def _decimal(kind: FieldType, literal: Literal) -> Decimal:
    """Exact: a digit too many is a fault, never rounded away; zeros at the end are no digits."""
    number = _number(literal)
    if not number:
        return Decimal(0).scaleb(-kind.scale)
    mantissa = re.split("[eE]", literal.text, maxsplit=1)[0]
    digits = mantissa.lstrip("-").replace(".", "").strip("0")
    highest = number.adjusted()
    if highest - len(digits) + 1 < -kind.scale or highest >= kind.precision - kind.scale:
        raise NotOfType
    return number.quantize(Decimal(1).scaleb(-kind.scale), context=_EXACT)


def _number(literal: Literal) -> Decimal:
    if literal.form not in (NUMBER, TEXT) or not _NUMBER.fullmatch(literal.text):
        raise NotOfType
    try:
        return Decimal(literal.text)
    except InvalidOperation:  # an exponent of more than 18 digits
        raise NotOfType from None


def _boolean(_kind: FieldType, literal: Literal) -> bool:
    word = literal.text.lower()
    if literal.form not in (BOOLEAN, TEXT) or word not in ("true", "false"):
        raise NotOfType
    return word == "true"


def _timestamp(_kind: FieldType, literal: Literal) -> datetime:
    """ISO 8601, without an offset UTC; digits past the microsecond are cut off."""
    match = _MOMENT.fullmatch(literal.text) if literal.form == TEXT else None
    if match is None:
        raise NotOfType
    year, month, day, hour, minute, second, fraction, _, sign, hours, minutes = match.groups()
    try:
        if int(minutes or 0) > 59:
            raise NotOfType
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        zone = timezone(-offset if sign == "-" else offset)
        microsecond = int((fraction or "0")[:6].ljust(6, "0"))
        time = (int(hour or 0), int(minute or 0), int(second or 0), microsecond)
        return datetime(int(year), int(month), int(day), *time, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise NotOfType from None


def _date(_kind: FieldType, literal: Literal) -> date:
    match = _DAY.fullmatch(literal.text) if literal.form == TEXT else None
    if match is None:
        raise NotOfType
    try:
        return date(*map(int, match.groups()))
    except ValueError:
        raise NotOfType from None


_READERS: dict[str, Callable[[FieldType, Literal], Any]] = {
    "string": _string,
    "int": _whole,
    "long": _whole,
    "double": _double,
    "decimal": _decimal,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "date": _date,
}


def json_literal(token: bytes) -> Literal | None:
    """A token of a JSON text that was decoded before, as its UTF-8 bytes; None for null.

    >>> json_literal(b'"a"'), json_literal(b"1.50"), json_literal(b"null")
    (Literal(form='text', text='a'), Literal(form='number', text='1.50'), None)
    """
    match token[:1]:
        case b"n" | b"":
            return None
        case b'"':
            return Literal(TEXT, msgspec.json.decode(token, type=str))
        case b"t" | b"f":
            return Literal(BOOLEAN, token.decode())
        case b"{" | b"[":
            return Literal(OTHER, token.decode())
    return Literal(NUMBER, token.decode())


def is_text(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are texts, or the bytes of texts."""
    names = ("string", "binary", "large_string", "large_binary", "string_view", "binary_view", "fixed_size_binary")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def has_any_length(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type may be as long as they like: texts, and arrays and objects of values."""
    if pa.types.is_dictionary(kind):
        return has_any_length(kind.value_type)
    return is_text(kind) or pa.types.is_nested(kind)


def cell_literal(cell: pa.Scalar, declared: FieldType) -> Literal | None:
    """A cell of CSV (binary) or a value of Parquet (any type); None where it is null.

    Raises UnicodeDecodeError where it is a text that is no UTF-8.
    """
    if not cell.is_valid:
        return None
    kind = cell.type
    if pa.types.is_timestamp(kind):
        return _moment_literal(cell, declared)
    try:
        value = cell.as_py()
    except UnicodeDecodeError:
        raise
    except (OverflowError, ValueError):
        return Literal(BEYOND, f"a value of the type {kind} that cannot be read")
    if isinstance(value, bytes):
        return Literal(TEXT, value.decode())
    if isinstance(value, bool):
        return Literal(BOOLEAN, str(value).lower())
    if isinstance(value, Decimal):
        return Literal(NUMBER, _decimal_text(value))
    if isinstance(value, int | float):
        return Literal(NUMBER, repr(value))
    if isinstance(value, dict | list):
        return Literal(OTHER, _NESTED.encode(value).decode())
    return Literal(TEXT, str(value))


def _moment_literal(cell: pa.Scalar, declared: FieldType) -> Literal:
    """In UTC with microseconds, finer digits cut off; a midnight as a date, where a date is declared."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[cell.type.unit]
    microseconds = cell.value * 10**6 // per_second
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        return Literal(BEYOND, f"{microseconds} microseconds since 1970")
    if declared.name == "date" and moment.timetz() == datetime.min.replace(tzinfo=UTC).timetz():
        return Literal(TEXT, moment.date().isoformat())
    return Literal(TEXT, moment_text(moment))


def moment_text(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC.

    >>> moment_text(datetime(2026, 3, 1, 12, 0, 0, 500, UTC))
    '2026-03-01T12:00:00.000500Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _decimal_text(value: Decimal) -> str:
    """Without an exponent; a whole number without a point, as a point marks doubles."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_NESTED = msgspec.json.Encoder(enc_hook=str, decimal_format="number")
"""Bytes within other values as base64."""


class Judgement(NamedTuple):
    """Values by field where the record keeps the contract, else what is wrong with it."""

    values: Mapping[str, Any] | None
    fault: Reason | None = None


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
        literals = {name: json_literal(token) for name, token in zip(self._fields, tokens, strict=True)}
        return self.literals(literals, received_at)

    def unreadable(self, value: bytes | None) -> Reason | None:
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
            literals = {name: cell_literal(cell, self._fields[name].type) for name, cell in declared.items()}
        except UnicodeDecodeError:
            return Judgement(None, reasons.not_utf8())
        texts = (literals[name] for name, cell in declared.items() if has_any_length(cell.type))
        size = sum(len(literal.text.encode()) for literal in texts if literal)
        if size > self.pipeline.event.max_bytes:
            return Judgement(None, reasons.too_large(size, self.pipeline.event.max_bytes))
        return self.literals(literals, received_at)

    def literals(self, literals: Mapping[str, Literal | None], received_at: datetime) -> Judgement:
        """A record whose values were taken apart already; a field that is not there counts as null."""
        found: dict[str, Any] = {}
        faults: list[Reason] = []
        for field in self._fields.values():
            literal = literals.get(field.name)
            value = None
            if literal is None:
                faults += [reasons.missing(field.name)] if field.required else []
            else:
                try:
                    value = read_value(field.type, literal)
                except NotOfType:
                    faults.append(reasons.wrong_type(field.name, str(field.type), literal.text))
                else:
                    faults += self._broken_rules(field, value)
            found[field.name] = value
        faults += self._from_the_future(found[self.pipeline.event.time], received_at)
        return Judgement(None, reasons.joined(faults)) if faults else Judgement(found)

    def _broken_rules(self, field: Field, value: Any) -> Iterator[Reason]:  # noqa: ANN401
        low = lowest(self.pipeline, field)
        if low is not None and value < low:
            yield Reason(reasons.OUT_OF_RANGE, f"{field.name} out of range: {_shown(value)} < {_value_text(low)}")
        if field.max is not None and value > field.max:
            yield Reason(reasons.OUT_OF_RANGE, f"{field.name} out of range: {_shown(value)} > {_value_text(field.max)}")
        if field.one_of and value not in field.one_of:
            allowed = ", ".join(map(str, field.one_of))
            yield Reason(reasons.NOT_ALLOWED, f"{field.name} not one of {allowed}: {_shown(value)}")
        if field.max_length is not None and len(value) > field.max_length:
            limit = f"{len(value)} > {field.max_length} characters"
            yield Reason(reasons.TOO_LONG, f"{field.name} too long: {limit}")
        # Only a text of allowed length is held against the pattern: that bounds what the pattern may cost.
        elif field.pattern is not None and not matches(pa.array([value]), field.pattern)[0].as_py():
            yield Reason(reasons.PATTERN, f"{field.name} does not match {field.pattern}: {_shown(value)}")

    def _from_the_future(self, time: datetime | None, received_at: datetime) -> Iterator[Reason]:
        if time is not None and time - received_at > self.max_future:
            at, received = moment_text(time), moment_text(received_at)
            yield Reason(reasons.FUTURE, f"from the future: {self.pipeline.event.time} is {at}, received {received}")

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


def _value_text(value: object) -> str:
    """A value as sentences have it: the same whatever it was written as."""
    if isinstance(value, datetime):
        return moment_text(value)
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _shown(value: object) -> str:
    return reasons.shown(_value_text(value))
