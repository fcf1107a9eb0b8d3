"""`event.fields`: declared types and rules ─► `Field`, with bounds as Python values of the field's type."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from twofold.definition import names
from twofold.definition.fault import Path, Report, near_miss, shown
from twofold.definition.model import Field
from twofold.definition.raw import RawField
from twofold.definition.types import EXPECTED_PATTERN, NAMES, FieldType, pattern_fault, typed_value

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
