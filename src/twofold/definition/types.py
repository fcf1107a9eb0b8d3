"""The types a field may have, and their names in each engine: the one home of this mapping."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

NAMES = ("string", "int", "long", "double", "boolean", "timestamp", "date")
_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")
MAX_DECIMAL_PRECISION = 38

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
