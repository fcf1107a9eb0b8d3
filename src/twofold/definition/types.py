"""The types that fields and values have, their names in each engine, and the types that arithmetic gives. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

NAMES = ("string", "int", "long", "double", "boolean", "timestamp", "date")
_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")
MAX_DECIMAL_PRECISION = 38
NUMBERS = ("int", "long", "decimal", "double")
_DIGITS = {"int": 10, "long": 20}

_SPARK = {
    "string": "STRING",
    "int": "INT",
    "long": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
}
_DUCKDB = {**_SPARK, "string": "VARCHAR", "int": "INTEGER", "timestamp": "TIMESTAMPTZ"}


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
        raise ValueError(f"expected one of {', '.join(NAMES)} or decimal(p,s)")

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
    for name in ("double", "decimal", "long", "int"):
        if name in names and name != "decimal":
            return FieldType(name)
        if name in names:
            decimals = [as_decimal(kind) for kind in kinds]
            scale = max(kind.scale for kind in decimals)
            return _decimal(max(kind.precision - kind.scale for kind in decimals) + scale, scale)
    return None


def total_type(kind: FieldType) -> FieldType:
    """Type of `sum`: wide enough for ten thousand million values."""
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
