"""`event.fields`: declared types and rules ─► `Field`, with bounds as Python values of the field's type."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from twofold.definition import names
from twofold.definition.fault import Path, Report, near_miss, shown
from twofold.definition.model import Field
from twofold.definition.patterns import EXPECTED_PATTERN, pattern_fault
from twofold.definition.raw import RawField
from twofold.definition.types import NAMES, FieldType

Value = str | int | float | Decimal | datetime | date
"""What a bound or an allowed value is, by the type of its field."""

_INTEGER_BITS = {"int": 32, "long": 64}
_CUT_DECIMAL = re.compile(r"decimal\(\s*\d+")
QUOTE_DECIMAL = 'the comma ends it within { }: write "decimal(10,2)" in quotes'
_BOUNDED = ("int", "long", "double", "decimal", "timestamp", "date")
_LISTED = ("string", "int", "long", "decimal", "date")
_APPLIES = {
    "min": _BOUNDED,
    "max": _BOUNDED,
    "one_of": _LISTED,
    "pattern": ("string",),
    "max_length": ("string",),
}
"""The types for which each rule makes sense."""


def build_field(name: str, raw: RawField, path: Path, report: Report) -> Field | None:
    """Check one field; None if anything about it is at fault."""
    before = len(report.faults)
    _check_name(name, path, report)
    kind = read_type(raw, path, report)
    if kind is None:
        return None
    _check_rules_apply(raw, kind, path, report)
    low, high = _bounds(raw, kind, path, report)
    allowed = _allowed(raw, kind, path, report)
    if raw.pattern is not None and (why := pattern_fault(raw.pattern)):
        report.add((*path, "pattern"), shown(raw.pattern), EXPECTED_PATTERN, why)
    if len(report.faults) > before:
        return None
    return Field(name, kind, bool(raw.required), low, high, allowed, raw.pattern, raw.max_length)


def _check_name(name: str, path: Path, report: Report) -> None:
    if expected := names.field_fault(name):
        report.add(path, f"the field name {shown(name)}", expected, line=report.key_line(path))


def read_type(raw: RawField, path: Path, report: Report) -> FieldType | None:
    """The declared type, or a fault."""
    if raw.type is None:
        return None
    try:
        return FieldType.parse(raw.type)
    except ValueError as error:
        expected = str(error).removeprefix("expected ")
        hint = QUOTE_DECIMAL if _CUT_DECIMAL.fullmatch(raw.type) else near_miss(raw.type, [*NAMES, "decimal(p,s)"])
        report.add((*path, "type"), shown(raw.type), expected, hint)
        return None


def _check_rules_apply(raw: RawField, kind: FieldType, path: Path, report: Report) -> None:
    for rule, types in _APPLIES.items():
        if getattr(raw, rule) is not None and kind.name not in types:
            expected = f"the rule {rule} only on {', '.join(types)}"
            report.add((*path, rule), f"{rule} on a {kind.name}", expected, line=report.key_line((*path, rule)))


def _bounds(raw: RawField, kind: FieldType, path: Path, report: Report) -> tuple[Any, Any]:
    if kind.name not in _BOUNDED:
        return None, None
    low, high = (
        None if value is None else _typed(value, kind, (*path, rule), report)
        for rule, value in (("min", raw.min), ("max", raw.max))
    )
    if low is not None and high is not None and low > high:
        report.add((*path, "max"), f"{shown(raw.max)} below min {shown(raw.min)}", "max at or above min")
    return low, high


def _allowed(raw: RawField, kind: FieldType, path: Path, report: Report) -> tuple[Any, ...]:
    if raw.one_of is None or kind.name not in _APPLIES["one_of"]:
        return ()
    here = (*path, "one_of")
    values = [_typed(value, kind, (*here, index), report) for index, value in enumerate(raw.one_of)]
    for index, value in enumerate(values):
        if value is not None and value in values[:index]:
            report.add((*here, index), f"{shown(raw.one_of[index])} again", "each value once")
    return tuple(values)


def _typed(value: object, kind: FieldType, path: Path, report: Report) -> Any:  # noqa: ANN401
    try:
        return typed_value(value, kind)
    except ValueError as error:
        quoted = kind.name == "string" and not isinstance(value, str)
        report.add(path, shown(value), str(error), "put it in quotes to make it text" if quoted else "")
        return None


def typed_value(value: object, kind: FieldType) -> Value:
    """A value of a file as a Python value of the field's type; ValueError says what is expected.

    >>> typed_value(Decimal("1.50"), FieldType.parse("decimal(5,2)"))
    Decimal('1.50')
    """
    match kind.name:
        case "string" if isinstance(value, str):
            return value
        case "int" | "long":
            return _integer(value, _INTEGER_BITS[kind.name])
        case "double":
            return _double(value)
        case "decimal":
            return _decimal(value, kind)
        case "timestamp":
            return _timestamp(value)
        case "date":
            return _date(value)
    raise ValueError("text")


def _integer(value: object, bits: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(f"a whole number of {bits} bits")
    return value


def _double(value: object) -> float:
    try:
        double = float(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else math.nan
    except OverflowError:
        double = math.inf
    if not math.isfinite(double):
        raise ValueError("a number")
    return double


def _decimal(value: object, kind: FieldType) -> Decimal:
    """Digits past the scale are a fault, not rounded; numbers in quotes are read too."""
    try:
        numeric = isinstance(value, int | Decimal | str) and not isinstance(value, bool)
        number = Decimal(value) if numeric else Decimal("nan")  # type: ignore[arg-type]
    except (InvalidOperation, ValueError):
        number = Decimal("nan")
    if number.is_finite():
        exponent = number.normalize().as_tuple().exponent
        fits = abs(number) < Decimal(10) ** (kind.precision - kind.scale)
        if isinstance(exponent, int) and -exponent <= kind.scale and fits:
            return number
    raise ValueError(f"a number that fits {kind}")


def _timestamp(value: object) -> datetime:
    """ISO 8601; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a timestamp in ISO 8601, such as `2024-01-31T00:00:00Z`") from None


def _date(value: object) -> date:
    try:
        return date.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError("a date in ISO 8601, such as `2024-01-31`") from None
