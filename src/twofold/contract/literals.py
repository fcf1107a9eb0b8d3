"""Single values: where they lie in a JSON text, how each was written, and what it means as a declared type.

    JSON text ─► follow(path) ─► token ─► json_literal ─┐
    cell of CSV, Parquet or Avro ───────► cell_literal ─┴─► Literal ─► read_value(type) ─► str, int, Decimal, datetime …

A value is judged by its text alone, so the same text is judged alike wherever it came from. Clear rather than fast,
but every step is linear in the length of the text, whatever it holds.
"""

from __future__ import annotations

import base64
import math
import re
from array import array
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Context, Decimal
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa

from twofold.contract import reasons
from twofold.contract.reasons import Reason
from twofold.definition.field_source import FieldSource
from twofold.definition.time_formats import EPOCHS, ISO, parse, read_epoch
from twofold.definition.types import MAX_DECIMAL_PRECISION, FieldType

MAX_DEPTH = 1000
"""Objects and arrays within each other; past it a record is no JSON for us, wherever it is decoded."""

BLANKS = b" \t\r\n"
_BLANKS = BLANKS.decode()
# A string that is never closed goes to the end: read from each of its quotes again, it would take quadratic time.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_NULL = b"null"
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
JSON = msgspec.json.Encoder(decimal_format="number")

TEXT = "text"
"""A JSON string, a CSV cell."""
NUMBER = "number"
BOOLEAN = "boolean"
OTHER = "other"
"""An array or an object."""
MOMENT = "moment"
"""A moment, a day or a time that has a type of its own, as ISO 8601."""
BEYOND = "beyond"
"""What no calendar of ours has, and a duration; its text only describes it, so it is a value of no type."""

_MIDNIGHT = datetime.min.replace(tzinfo=UTC).timetz()
_NUMBER = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(?:[eE]([+-]?)([0-9]+))?")
_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?)?"
)
_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
# Nanoseconds are cut off; pyarrow does that itself only where it can import pandas.
_IN_PYTHON = {pa.time64("ns"): pa.time64("us"), pa.duration("ns"): pa.duration("us")}
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


def read_value(kind: FieldType, literal: Literal, form: str = ISO) -> Any:  # noqa: ANN401
    """The value of the declared type: str, int, float, Decimal, bool, datetime (UTC, microseconds) or date.

    `form` is how moments and days are written, where they have no type of their own.
    """
    if form != ISO and literal.form != MOMENT:
        return _formatted(kind, literal, form)
    return _READERS[kind.name](kind, literal)


def _formatted(kind: FieldType, literal: Literal, form: str) -> datetime | date:
    """Of a count of units since 1970, or of a pattern; a day is a moment at midnight."""
    if form in EPOCHS:
        moment = read_epoch(form, _number(literal))
    else:
        moment = parse(form, literal.text) if literal.form == TEXT else None
    if moment is None:
        raise NotOfType
    if kind.name == "timestamp":
        return moment
    if form in EPOCHS and moment.timetz() != _MIDNIGHT:
        raise NotOfType
    return moment.date()


def is_json(text: str) -> bool:
    """Whether a text is exactly one JSON value.

    >>> is_json('{"a": [1.50]}'), is_json("{}{}"), is_json("NaN")
    (True, False, False)
    """
    try:
        value = text.encode()
        return not is_deep(value) and msgspec.json.decode(value, type=msgspec.Raw) is not None
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False


def _json(_kind: FieldType, literal: Literal) -> str:
    """The exact text of a JSON value: a token as it is, a cell's text if it is one, a moment in quotes."""
    if literal.form == BEYOND or (literal.form in (TEXT, NUMBER) and not is_json(literal.text)):
        raise NotOfType
    return f'"{literal.text}"' if literal.form == MOMENT else literal.text


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
    match = _NUMBER.fullmatch(literal.text) if literal.form in (NUMBER, TEXT) else None
    if match is None:
        raise NotOfType
    mantissa, sign, exponent = match.groups("")
    # An exponent of more digits is as good as of 15: no mantissa is long enough to make up for it.
    return Decimal(f"{mantissa}e{sign}{exponent.lstrip('0')[:15] or 0}")


def _boolean(_kind: FieldType, literal: Literal) -> bool:
    word = literal.text.lower()
    if literal.form not in (BOOLEAN, TEXT) or word not in ("true", "false"):
        raise NotOfType
    return word == "true"


def _timestamp(_kind: FieldType, literal: Literal) -> datetime:
    """ISO 8601, without an offset UTC; digits past the microsecond are cut off."""
    match = _MOMENT.fullmatch(literal.text) if literal.form in (TEXT, MOMENT) else None
    if match is None:
        raise NotOfType
    year, month, day, hour, minute, second, fraction, _, sign, hours, minutes = match.groups()
    try:
        if int(minutes or 0) > 59:
            raise NotOfType
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        zone = timezone(-offset if sign == "-" else offset)
        microsecond = int((fraction or "0")[:6].ljust(6, "0"))
        clock = (int(hour or 0), int(minute or 0), int(second or 0), microsecond)
        return datetime(int(year), int(month), int(day), *clock, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise NotOfType from None


def _date(_kind: FieldType, literal: Literal) -> date:
    match = _DAY.fullmatch(literal.text) if literal.form in (TEXT, MOMENT) else None
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
    "json": _json,
}


@lru_cache(maxsize=1024)
def _member(key: str) -> msgspec.json.Decoder[Any]:
    """Of an object in which one key counts: it reads keys as the fast path does."""
    fields = [("value", msgspec.Raw, msgspec.Raw(_NULL))]
    return msgspec.json.Decoder(msgspec.defstruct("Member", fields, rename={"value": key}, gc=False))


class OtherShape(Exception):
    """A path meets a value that is no object, or no array: the path, how many steps it took, and the value's token."""

    def reason(self, label: str) -> Reason:
        """Why a record is rejected, of which the path has this label."""
        path, taken, token = self.args
        return reasons.wrong_shape(label, path, taken, token.decode())


def follow(text: bytes, source: FieldSource) -> bytes:
    """The token at a path of a sound JSON text; `null` where there is none. Of a repeated key the last one counts.

    >>> follow(b'{"a": [{"b": 1.50}]}', FieldSource(("a", 0, "b"))), follow(b'{"a": null}', FieldSource(("a", "b")))
    (b'1.50', b'null')
    """
    token = text.strip(BLANKS)
    for taken, step in enumerate(source.steps):
        if token == _NULL:
            return token
        if token[:1] != (b"{" if isinstance(step, str) else b"["):
            raise OtherShape(source, taken, token)
        if isinstance(step, str):
            token = bytes(_member(step).decode(token).value).strip(BLANKS)
        else:
            found = elements(token)
            token = found[step] if step < len(found) else _NULL
    return token


def elements(array: bytes) -> list[bytes]:
    """The texts of the elements of a sound JSON array.

    >>> elements(b'[1.50, {"a": 1} ]')
    [b'1.50', b'{"a": 1}']
    """
    return [bytes(element).strip(BLANKS) for element in _ARRAY.decode(array)]


def json_literal(token: bytes, kind: FieldType) -> Literal | None:
    """A token of a JSON text that was decoded before, as its UTF-8 bytes; None for null.

    >>> text, number = FieldType("string"), FieldType("double")
    >>> json_literal(b'"a"', text), json_literal(b"1.50", number), json_literal(b"null", text)
    (Literal(form='text', text='a'), Literal(form='number', text='1.50'), None)
    """
    if token == _NULL:
        return None
    if kind.name == "json":
        return Literal(OTHER, token.decode())
    match token[:1]:
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
        if pa.types.is_nested(kind):
            return Literal(OTHER, JSON.encode(json_value(cell)).decode())
        value = (cell.cast(_IN_PYTHON[kind], safe=False) if kind in _IN_PYTHON else cell).as_py()
    except UnicodeDecodeError:
        raise
    except (OverflowError, ValueError):
        return Literal(BEYOND, f"a value of the type {kind} that has no text")
    if isinstance(value, bytes | str | UUID):
        text = value.decode() if isinstance(value, bytes) else str(value)
        return None if declared.name == "json" and text.strip(_BLANKS) == "null" else Literal(TEXT, text)
    if isinstance(value, bool):
        return Literal(BOOLEAN, str(value).lower())
    if isinstance(value, Decimal):
        return Literal(NUMBER, decimal_text(value))
    if isinstance(value, int | float):
        return Literal(NUMBER, repr(value))
    return Literal(MOMENT if isinstance(value, date | time) else BEYOND, str(value))


def _moment_literal(cell: pa.Scalar, declared: FieldType) -> Literal:
    """In UTC with microseconds, finer digits cut off; a midnight as a date, where a date is declared."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[cell.type.unit]
    microseconds = cell.value * 10**6 // per_second
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        return Literal(BEYOND, f"{microseconds} microseconds since 1970")
    if declared.name == "date" and moment.timetz() == _MIDNIGHT:
        return Literal(MOMENT, moment.date().isoformat())
    return Literal(MOMENT, moment_text(moment))


def moment_text(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC.

    >>> moment_text(datetime(2026, 3, 1, 12, 0, 0, 500, UTC))
    '2026-03-01T12:00:00.000500Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def decimal_text(value: Decimal) -> str:
    """Without an exponent; a whole number without a point, as a point marks doubles."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def json_value(cell: pa.Scalar, *, described: bool = False) -> object:
    """A cell as JSON has it: moments in ISO 8601, bytes as text or in base64, numbers with all their digits.

    ValueError where it, or a value within it, has no text here; `described`, there is one of every value, with digits
    finer than a microsecond.
    """
    kind = cell.type
    if not cell.is_valid:
        return None
    if pa.types.is_struct(kind):
        return {kind.field(at).name: json_value(cell[at], described=described) for at in range(kind.num_fields)}
    if pa.types.is_map(kind):
        pairs = [[json_value(pair[at], described=described) for at in ("key", "value")] for pair in cell.values]
        return {str(key): value for key, value in pairs} if is_text(kind.key_type) else pairs
    if isinstance(cell, pa.ListScalar):
        return [json_value(element, described=described) for element in cell.values]
    if pa.types.is_temporal(kind) and described:
        return _described(cell)
    if pa.types.is_temporal(kind):
        literal = cell_literal(cell, FieldType("timestamp"))
        if literal is None or literal.form == BEYOND:
            raise ValueError(f"a value of the type {kind} has no text")
        return literal.text
    value = cell.as_py()
    if isinstance(value, bytes):
        return _text_of(value)
    # JSON has no number for it.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _described(cell: pa.Scalar) -> object:
    """A moment, a day or a time with all its digits, of any year; of a duration the count of its units."""
    kind = cell.type
    if pa.types.is_timestamp(kind):
        return f"{np.datetime64(cell.value, kind.unit)}Z"
    if pa.types.is_date(kind):
        return str(np.datetime64(cell.value, "D" if pa.types.is_date32(kind) else "ms"))
    return str(cell.cast(pa.string()).as_py()) if pa.types.is_time(kind) else cell.value


def _text_of(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def is_deep(value: bytes) -> bool:
    """Whether objects and arrays lie within each other more than MAX_DEPTH times.

    >>> is_deep(b"[" * 1000), is_deep(b"[" * 1001), is_deep(b"[]" * 1500), is_deep(b'"' + b"[" * 1500 + b'"')
    (False, True, False, False)
    """
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    steps = array("b", _STRINGS.sub(b"", value).translate(_STEPS, _NO_BRACKETS))
    return max(accumulate(steps), default=0) > MAX_DEPTH
