"""What a value means as its field's type, read a second time: plain Python, apart from the contract's code.

    a JSON value ─┐
    a CSV cell ───┼─► text, and whether it is one ─► str, int, float, Decimal, bool, datetime (UTC), date
    a value of Parquet or Avro (those with a type of their own as they are) ─┘

By the tables of docs/definition.md. `NoValue`: it is none of the type. `Untold`: this reader cannot judge it.
"""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from twofold.definition.model import Field
from twofold.proof import json_text
from twofold.proof.json_text import Value
from twofold.windows import EPOCH

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-5][0-9])?)?"
)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TEN_TO = {"epoch_s": 6, "epoch_ms": 3, "epoch_us": 0, "epoch_ns": -3}
"""Microseconds in a unit, as a power of ten."""
_BITS = {"int": 31, "long": 63}
_MOST_DIGITS = 4_000
"""More digits than any type holds; Python takes 4,300 at once."""
_GAPS_FROM = 2**53
"""From here on doubles do not have every whole number."""


class NoValue(Exception):
    """The value is none of its field's type."""


class Untold(Exception):
    """This reader cannot say what the value is."""


def of_json(field: Field, value: Value) -> Any:  # noqa: ANN401
    """A JSON value that is not null.

    >>> from twofold.definition.types import FieldType
    >>> of_json(Field("n", FieldType("int")), Value('"5.0"', "5.0"))
    5
    """
    if field.type.name == "json":
        return value.text
    return of_text(field, value.plain, quoted=value.string is not None)


def of_text(field: Field, text: str, *, quoted: bool = True) -> Any:  # noqa: ANN401
    """A text; not `quoted`, it is a number, true, false, an array or an object.

    >>> from twofold.definition.types import FieldType
    >>> str(of_text(Field("at", FieldType("timestamp"), format="epoch_ms"), "1772323200007.5"))
    '2026-03-01 00:00:00.007500+00:00'
    """
    match field.type.name:
        case "string":
            return text
        case "json":
            return _json(text)
        case "boolean":
            if text.lower() not in ("true", "false"):
                raise NoValue(text)
            return text.lower() == "true"
        case "timestamp":
            return _moment(field, text, quoted)
        case "date":
            return _day(field, text, quoted)
        case "int" | "long":
            return _whole(text, _BITS[field.type.name])
        case "double":
            return _double(text)
    return _decimal(text, field.type.precision, field.type.scale)


def moment(scalar: pa.Scalar) -> datetime:
    """A moment of Parquet, finer than a microsecond cut off towards the past."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[scalar.type.unit]
    return _after_1970(scalar.value * 10**6 // per_second)


def of_value(field: Field, value: Any) -> Any:  # noqa: ANN401
    """A value that has a type of its own, of Parquet or Avro.

    >>> from twofold.definition.types import FieldType
    >>> of_value(Field("n", FieldType("string")), Decimal("1.50")), of_value(Field("n", FieldType("json")), date.min)
    ('1.5', '"0001-01-01"')
    """
    match value:
        case str():
            return of_text(field, value)
        case float():
            return value + 0.0 if field.type.name == "double" and math.isfinite(value) else _own(field, repr(value))
        case bool() | int():
            return of_text(field, str(value).lower(), quoted=False)
        case Decimal():
            plain = f"{value:f}"
            return of_text(field, plain.rstrip("0").rstrip(".") if "." in plain else plain, quoted=False)
        case datetime():
            return _own_moment(field, value if value.tzinfo else value.replace(tzinfo=UTC))
        case date() | time():
            return _own_moment(field, value)
    raise NoValue(f"a value of the type {type(value).__name__}")


def own(scalar: pa.Scalar) -> Any:  # noqa: ANN401
    """A value of Parquet as Python has it, bytes as text; NoValue where it has none, and of a duration."""
    if pa.types.is_duration(scalar.type):
        raise NoValue("a duration")
    if pa.types.is_timestamp(scalar.type):
        return moment(scalar)
    try:
        # Nanoseconds are cut off; pyarrow does that itself only where it can import pandas.
        value = (scalar.cast(pa.time64("us"), safe=False) if isinstance(scalar, pa.Time64Scalar) else scalar).as_py()
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise NoValue("no UTF-8") from None
    except (OverflowError, ValueError):
        raise NoValue("what no calendar of Python has") from None


def _own(field: Field, text: str) -> Any:  # noqa: ANN401
    return text if field.type.name == "string" else of_text(field, text, quoted=False)


def _own_moment(field: Field, moment: date | time) -> Any:  # noqa: ANN401
    """A moment, a day or a time that has a type of its own."""
    text = moment.isoformat().replace("+00:00", "Z")
    match field.type.name, moment:
        case "string", _:
            return text
        case "json", _:
            return f'"{text}"'
        case "timestamp", datetime():
            return moment
        case "timestamp", date():
            return datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        case "date", datetime() if moment.time() == time():
            return moment.date()
        case "date", date() if not isinstance(moment, datetime):
            return moment
    raise NoValue(f"{text} as {field.type}")


def _json(text: str) -> str | None:
    try:
        return None if json_text.one(text).is_null else text
    except ValueError as error:
        raise NoValue(f"no JSON: {error}") from None


def _number(text: str) -> tuple[int, int]:
    """A number as (n, e): n × 10^e exactly, n without zeros at its end; (0, 0) is nought."""
    if not _NUMBER.fullmatch(text):
        raise NoValue(f"no number: {text[:40]}")
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = f"{whole}{fraction}".lstrip("-").lstrip("0")
    kept = digits.rstrip("0")
    if not kept:
        return 0, 0
    if len(kept) > _MOST_DIGITS:
        raise Untold(f"a number of more than {_MOST_DIGITS:,} digits")
    number = int(kept)
    # An exponent of 19 digits is beyond every type already: no text is long enough to make up for it.
    power = int(exponent.lstrip("+-0")[:19] or 0) * (-1 if exponent.startswith("-") else 1)
    return -number if text[0] == "-" else number, power - len(fraction) + len(digits) - len(kept)


def _whole(text: str, bits: int) -> int:
    number, ten_to = _number(text)
    if ten_to < 0 or len(str(abs(number))) + ten_to > 20:
        raise NoValue(f"no whole number of {bits + 1} bits: {text[:40]}")
    value = int(number * 10**ten_to)
    written_as_double = any(sign in text for sign in ".eE")
    if not -(1 << bits) <= value < 1 << bits or (written_as_double and abs(value) >= _GAPS_FROM):
        raise NoValue(f"no whole number of {bits + 1} bits: {text[:40]}")
    return value


def _double(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise NoValue(f"no number: {text[:40]}")
    value = float(text) + 0.0
    if not math.isfinite(value):
        raise NoValue(f"too large for a double: {text[:40]}")
    return value


def _decimal(text: str, precision: int, scale: int) -> Decimal:
    number, ten_to = _number(text)
    digits = Decimal(abs(number)).adjusted() + 1
    if number and (-ten_to > scale or digits + ten_to > precision - scale):
        raise NoValue(f"not within decimal({precision},{scale}): {text[:40]}")
    return Decimal((int(number < 0), tuple(map(int, str(abs(number)))), ten_to))


def _moment(field: Field, text: str, quoted: bool) -> datetime:
    if field.format in _TEN_TO:
        return _counted(field.format, text)
    if not quoted:
        raise NoValue(f"no text: {text[:40]}")
    try:
        if field.format == "iso8601":
            written = text.upper().replace(" ", "T")
            if not _MOMENT.fullmatch(written.replace("T", " ", 1)):
                raise NoValue(f"no moment: {text[:40]}")
            moment = datetime.fromisoformat(written)
        else:
            moment = _by_pattern(field.format, text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise NoValue(f"no moment: {text[:40]}") from None


def _by_pattern(form: str, text: str) -> datetime:
    if re.search(r"\d", re.sub("[0-9]", "", text)):
        raise NoValue("digits of another script")
    return datetime.strptime(text, form)  # noqa: DTZ007 - without an offset it is UTC


def _day(field: Field, text: str, quoted: bool) -> date:
    if field.format != "iso8601":
        moment = _moment(field, text, quoted)
        if field.format in _TEN_TO and moment.time() != time():
            raise NoValue(f"no midnight: {text[:40]}")
        return moment.date()
    if not quoted or not _DAY.fullmatch(text):
        raise NoValue(f"no day: {text[:40]}")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise NoValue(f"no day: {text[:40]}") from None


def _counted(form: str, text: str) -> datetime:
    """A count of units after 1970, finer than a microsecond cut off towards the past."""
    number, ten_to = _number(text)
    ten_to += _TEN_TO[form]
    digits = Decimal(abs(number)).adjusted() + 1
    if digits + ten_to > 20:
        raise NoValue(f"a moment that no calendar has: {text[:40]}")
    if ten_to >= 0:
        return _after_1970(number * 10**ten_to)
    # What is less than a microsecond is none, or the last one before 1970: 10^(10^17) is never worked out.
    return _after_1970(number // 10**-ten_to if -ten_to <= digits else -int(number < 0))


def _after_1970(microseconds: int) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise NoValue("a moment that no calendar has") from None


def as_json(value: Any) -> str:  # noqa: ANN401
    """A value as JSON: bytes in base64, moments in ISO 8601, null for a number that JSON does not have.

    >>> as_json({"a": [1e22, 0.00001, float("nan")], "b": Decimal("1.50"), "c": date(2026, 3, 1), "d": b"x"})
    '{"a":[1e22,0.00001,null],"b":1.50,"c":"2026-03-01","d":"eA=="}'
    """
    match value:
        case dict():
            return "{" + ",".join(f"{_in_quotes(key)}:{as_json(one)}" for key, one in value.items()) + "}"
        case list():
            return f"[{','.join(map(as_json, value))}]"
        case float():
            return _shortest(value)
        case Decimal() | bool() | int() | None:
            return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        case bytes():
            return _in_quotes(base64.b64encode(value).decode())
        case date() | time():
            return _in_quotes(value.isoformat().replace("+00:00", "Z"))
    return _in_quotes(value)


def _in_quotes(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _shortest(value: float) -> str:
    """As the fewest digits that give it again, with an exponent below 10^-5 and from 10^16 on."""
    if not math.isfinite(value):
        return "null"
    if value == 0 or 1e-4 <= abs(value) < 1e16:
        return repr(value)
    mantissa, _, exponent = repr(value).partition("e")
    if int(exponent) == -5:
        return format(Decimal(repr(value)), "f")
    return f"{mantissa}e{int(exponent)}"
