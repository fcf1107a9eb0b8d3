"""The types of arithmetic, as both engines are made to follow them. Pure; `value: FieldType` in, `FieldType` out."""

from __future__ import annotations

from collections.abc import Sequence

from twofold.definition.types import MAX_DECIMAL_PRECISION, FieldType

_DIGITS = {"int": 10, "long": 20}
NUMBERS = ("int", "long", "decimal", "double")


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
    for name in ("double", "decimal", "long", "int"):
        if name in names and name != "decimal":
            return FieldType(name)
        if name in names:
            decimals = [as_decimal(kind) for kind in kinds]
            scale = max(kind.scale for kind in decimals)
            return _decimal(max(kind.precision - kind.scale for kind in decimals) + scale, scale)
    return None


def total_type(kind: FieldType) -> FieldType:
    """Type of `sum`, as Spark widens it."""
    match kind.name:
        case "decimal":
            return FieldType("decimal", min(MAX_DECIMAL_PRECISION, kind.precision + 10), kind.scale)
        case "double":
            return kind
        case _:
            return FieldType("long")


def rounded_type(kind: FieldType, digits: int) -> FieldType:
    """Type of a decimal rounded to `digits`, which is below its scale: rounding up may need one digit more."""
    return FieldType("decimal", min(MAX_DECIMAL_PRECISION, kind.precision - kind.scale + 1 + digits), digits)


def _decimal(precision: int, scale: int) -> FieldType | None:
    return FieldType("decimal", precision, scale) if precision <= MAX_DECIMAL_PRECISION else None
