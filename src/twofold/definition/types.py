"""What values a definition may declare: types of fields, values of them, durations, sizes, patterns. Pure.

Types have a name in each engine, and arithmetic has the types that it gives.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from functools import cache
from typing import Self

import duckdb

from twofold.definition.fault import shortened

NAMES = ("string", "int", "long", "double", "boolean", "timestamp", "date", "json")
EXPECTED_TYPE = f"one of {', '.join(NAMES)} or decimal(p,s)"
_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")
MAX_DECIMAL_PRECISION = 38
NUMBERS = ("int", "long", "decimal", "double")
Value = str | bool | int | float | Decimal | datetime | date
"""What a bound or an allowed value is, by the type of its field."""
_DIGITS = {"int": 10, "long": 20}

_SPARK = {name: name.upper() for name in NAMES} | {"long": "BIGINT", "json": "STRING"}
_DUCKDB = {**_SPARK, "string": "VARCHAR", "json": "VARCHAR", "int": "INTEGER", "timestamp": "TIMESTAMPTZ"}


@dataclass(frozen=True)
class FieldType:
    """One declared type; `precision` and `scale` are set for decimals only."""

    name: str
    precision: int = 0
    scale: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `int`, `decimal(10,2)` …; raise ValueError that says what is expected.

        >>> FieldType.parse("decimal(10, 2)")
        FieldType(name='decimal', precision=10, scale=2)
        """
        if text in NAMES:
            return cls(text)
        if match := _DECIMAL.fullmatch(text):
            precision, scale = int(match[1]), int(match[2])
            if 1 <= precision <= MAX_DECIMAL_PRECISION and scale <= precision:
                return cls("decimal", precision, scale)
            raise ValueError(f"decimal precision must be 1 to {MAX_DECIMAL_PRECISION}, and scale at most precision")
        raise ValueError(EXPECTED_TYPE)

    @property
    def spark(self) -> str:
        """Name in Spark SQL."""
        return str(self) if self.name == "decimal" else _SPARK[self.name]

    @property
    def duckdb(self) -> str:
        """Name in DuckDB."""
        return str(self) if self.name == "decimal" else _DUCKDB[self.name]

    @property
    def is_number(self) -> bool:
        """Whether values are ordered numbers."""
        return self.name in ("int", "long", "double", "decimal")

    def __str__(self) -> str:
        return f"decimal({self.precision},{self.scale})" if self.name == "decimal" else self.name


def as_decimal(kind: FieldType) -> FieldType:
    """The decimal type that holds every value of an int, long or decimal."""
    return kind if kind.name == "decimal" else FieldType("decimal", _DIGITS[kind.name], 0)


def sum_type(left: FieldType, right: FieldType) -> FieldType | None:
    """Type of `+`, `-` and `%`; None if no decimal is wide enough.

    >>> str(sum_type(FieldType("decimal", 10, 2), FieldType("int")))
    'decimal(13,2)'
    """
    common = common_number([left, right])
    if common is None or common.name != "decimal":
        return common
    return _decimal(common.precision + 1, common.scale)


def product_type(left: FieldType, right: FieldType) -> FieldType | None:
    """Type of `*`; None if no decimal is wide enough.

    >>> str(product_type(FieldType("decimal", 10, 2), FieldType("decimal", 2, 1)))
    'decimal(13,3)'
    """
    common = common_number([left, right])
    if "double" in (left.name, right.name) or "decimal" not in (left.name, right.name):
        return common
    one, other = as_decimal(left), as_decimal(right)
    return _decimal(one.precision + other.precision + 1, one.scale + other.scale)


def common_number(kinds: Sequence[FieldType]) -> FieldType | None:
    """The narrowest type that holds the values of all of `kinds`; None if no decimal is wide enough."""
    names = {kind.name for kind in kinds}
    if "double" in names or "decimal" not in names:
        return FieldType(next(name for name in ("double", "long", "int") if name in names))
    decimals = [as_decimal(kind) for kind in kinds]
    scale = max(kind.scale for kind in decimals)
    return _decimal(max(kind.precision - kind.scale for kind in decimals) + scale, scale)


def _decimal(precision: int, scale: int) -> FieldType | None:
    return FieldType("decimal", precision, scale) if precision <= MAX_DECIMAL_PRECISION else None


def typed_value(value: object, kind: FieldType) -> Value:
    """A value of a file as a Python value of the field's type; ValueError says what is expected.

    >>> typed_value(Decimal("1.50"), FieldType.parse("decimal(5,2)"))
    Decimal('1.50')
    """
    readers: dict[str, tuple[Callable[[object], Value | None], str]] = {
        "string": (lambda text: text if isinstance(text, str) else None, "text"),
        "int": (lambda number: as_integer(number, 32), "a whole number of 32 bits"),
        "long": (lambda number: as_integer(number, 64), "a whole number of 64 bits"),
        "double": (as_double, "a number"),
        "decimal": (lambda number: as_exact(number, kind), f"a number that fits {kind}"),
        "timestamp": (as_moment, "a timestamp in ISO 8601, such as `2024-01-31T00:00:00Z`"),
        "date": (as_date, "a date in ISO 8601, such as `2024-01-31`"),
        "boolean": (lambda flag: flag if isinstance(flag, bool) else None, "true or false"),
    }
    read, expected = readers[kind.name]
    found = read(value)
    if found is None:
        raise ValueError(expected)
    return found


def as_integer(value: object, bits: int) -> int | None:
    """A whole number of at most `bits`; None if it is something else, as in the functions below."""
    return value if type(value) is int and -(1 << bits - 1) <= value < 1 << bits - 1 else None


def as_double(value: object) -> float | None:
    """A finite number."""
    try:
        double = float(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return None
    return double if math.isfinite(double) else None


def as_moment(value: object) -> datetime | None:
    """A point in time in ISO 8601, in UTC where it names no offset."""
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def as_date(value: object) -> date | None:
    """A day in ISO 8601."""
    try:
        return date.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)
"""By default a decimal is rounded to 28 digits."""


def as_exact(value: object, kind: FieldType) -> Decimal | None:
    """A decimal that fits `kind`. Digits past the scale are a fault, not rounded; numbers in quotes are read too."""
    try:
        numeric = isinstance(value, int | Decimal | str) and not isinstance(value, bool)
        number = Decimal(value) if numeric else Decimal("nan")  # type: ignore[arg-type]
    except (InvalidOperation, ValueError):
        return None
    if not number.is_finite():
        return None
    exponent = number.normalize(EXACT).as_tuple().exponent
    fits = number.copy_abs() < Decimal(10) ** (kind.precision - kind.scale)
    return number if isinstance(exponent, int) and -exponent <= kind.scale and fits else None


_UNITS_MS = {
    "ms": 1, "millisecond": 1, "milliseconds": 1,
    "s": 1000, "sec": 1000, "second": 1000, "seconds": 1000,
    "min": 60_000, "minute": 60_000, "minutes": 60_000,
    "h": 3_600_000, "hour": 3_600_000, "hours": 3_600_000,
    "d": 86_400_000, "day": 86_400_000, "days": 86_400_000,
    "week": 604_800_000, "weeks": 604_800_000,
}  # fmt: skip
_UNITS_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,15}) ?([A-Za-z]+)")
LONGEST = timedelta(days=3650)

EXPECTED_DURATION = "a duration above 0 and up to 3650 days, such as `500 ms`, `90 s`, `15 minutes`, `2 hours`, `1 day`"
EXPECTED_SIZE = "a number of bytes, or a size such as `64 KiB` or `1 MiB`, from 1 byte to 1 GiB"


def parse_duration(text: object) -> timedelta:
    """Read a duration; ValueError says what is expected. There are no months or years: their length varies.

    >>> parse_duration("15 minutes")
    datetime.timedelta(seconds=900)
    """
    match = _NUMBER_AND_UNIT.fullmatch(text) if isinstance(text, str) else None
    milliseconds = int(match[1]) * _UNITS_MS.get(match[2], 0) if match else 0
    if not 0 < milliseconds <= LONGEST / timedelta(milliseconds=1):
        raise ValueError(EXPECTED_DURATION)
    return timedelta(milliseconds=milliseconds)


def parse_since(text: str, now: datetime) -> datetime:
    """Read a moment (ISO 8601, UTC unless it says otherwise), or how long before `now` it was; ValueError says what.

    >>> noon = datetime(2013, 5, 1, 12, tzinfo=UTC)
    >>> parse_since("2 hours", noon).hour, parse_since("2013-05-01", noon) == noon - timedelta(hours=12)
    (10, True)
    """
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    moment = as_moment(text)
    if moment is None:
        raise ValueError("neither a moment such as 2013-05-01T12:00Z nor a duration such as 2 hours")
    return moment


def parse_size(value: object) -> int:
    """Read a size in bytes; ValueError says what is expected.

    >>> parse_size("1 MiB"), parse_size(4096)
    (1048576, 4096)
    """
    size = 0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _NUMBER_AND_UNIT.fullmatch(value)):
        size = int(match[1]) * _UNITS_BYTES.get(match[2], 0)
    if not 1 <= size <= 1 << 30:
        raise ValueError(EXPECTED_SIZE)
    return size


def format_duration(duration: timedelta) -> str:
    """The inverse of `parse_duration`, in the largest unit that leaves a whole number.

    >>> format_duration(timedelta(hours=48)), format_duration(timedelta(seconds=90))
    ('2 days', '90 seconds')
    """
    milliseconds = duration // timedelta(milliseconds=1)
    for unit in ("day", "hour", "minute", "second"):
        if milliseconds % _UNITS_MS[unit] == 0:
            count = milliseconds // _UNITS_MS[unit]
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{milliseconds} ms"


EXPECTED_PATTERN = "a regular expression that RE2 and Python read alike"
_UNLIKE = {
    r"\\[AGNZz]": "an anchor that differs between engines; the pattern matches the whole value anyway",
    r"\\0": "an octal escape",
    r"\\[1-9]": "a back-reference",
    r"\[\^?\]": "an unescaped ] at the start of [ ]",
    r"\[\^?(?:[^]\[\\&]|\\[^0-9AGNZz]|&(?!&))*\]|\\.|[^[{(*+?}]": "",
    r"\[": "an unescaped [, or &&, within [ ]",
    r"\{(?!\d+(?:,\d*)?\})": "an unescaped { that is no repetition",
    r"\(\?(?!:|[ism]+[:)])": "a look-around, named or atomic group",
    r"[*+?}]\+": "a possessive repetition",
}
"""What the engines read differently, or only some of them have; in between, what is the same in all."""
_TOKEN = re.compile("|".join(f"({token})" for token in _UNLIKE) + "|.", re.DOTALL)


def whole_value(pattern: str) -> str:
    r"""The pattern for RE2, which searches: no `$`, which would allow a final newline.

    >>> whole_value("a|b")
    '\\A(?:a|b)\\z'
    """
    return rf"\A(?:{pattern})\z"


def pattern_fault(pattern: str) -> str:
    """Why a pattern cannot be used; empty if it can. RE2 judges records (Arrow, DuckDB); Python makes them up.

    >>> pattern_fault("a{1000}"), pattern_fault("a{1001}")
    ('', 'RE2 refuses it: invalid repetition size: {1001}')
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "possible nested set"
            re.compile(pattern)
    except (re.error, FutureWarning, DeprecationWarning, OverflowError, RecursionError) as error:
        return str(error)
    for token in _TOKEN.finditer(pattern):
        if token.lastindex and (fault := list(_UNLIKE.values())[token.lastindex - 1]):
            return f"{fault} at character {token.start() + 1}"
    try:
        _re2().cursor().execute("SELECT regexp_matches('', ?)", [whole_value(pattern)]).fetchall()
    except duckdb.Error as error:
        return f"RE2 refuses it: {shortened(str(error).split(': ', 1)[-1], 120)}"
    return ""


def matches_whole(pattern: str, value: str) -> bool:
    """Whether a whole value matches, by RE2, which judges records too; a pattern at fault matches all.

    >>> matches_whole("a|b", "b"), matches_whole("a|b", "ab"), matches_whole("(", "x")
    (True, False, True)
    """
    try:
        found = _re2().cursor().execute("SELECT regexp_matches(?, ?)", [value, whole_value(pattern)]).fetchone()
    except duckdb.Error:
        return True
    return bool(found and found[0])


@cache
def _re2() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()
