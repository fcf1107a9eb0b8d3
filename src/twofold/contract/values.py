"""One value of a record: from how it was written to the declared type. Clear rather than fast: this is the reference.

    JSON token, CSV cell, Parquet value ─► Literal (form and exact text) ─► read(type) ─► value, or NotOfType

A value is judged by its text alone, so the same text is judged alike wherever it came from. Every step is linear in
the length of the text, whatever it holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Context, Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from twofold.definition.types import MAX_DECIMAL_PRECISION, FieldType

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


def read(kind: FieldType, literal: Literal) -> Any:  # noqa: ANN401
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
    """Without an exponent; a whole number without a point, as only doubles are told by one."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_NESTED = msgspec.json.Encoder(enc_hook=str, decimal_format="number")
"""Bytes within other values as base64."""
