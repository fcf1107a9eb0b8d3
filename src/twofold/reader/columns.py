"""Columns of an Iceberg table as DuckDB reads them: found by field id, so an older file lacks a column harmlessly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
    TimestamptzType,
)

from twofold import schemas
from twofold.errors import TwofoldError
from twofold.tables import TableShape

_DUCKDB: dict[type[IcebergType], str] = {
    StringType: "VARCHAR",
    IntegerType: "INTEGER",
    LongType: "BIGINT",
    FloatType: "FLOAT",
    DoubleType: "DOUBLE",
    BooleanType: "BOOLEAN",
    TimestamptzType: "TIMESTAMPTZ",
    TimestampType: "TIMESTAMP",
    DateType: "DATE",
    BinaryType: "BLOB",
}


@dataclass(frozen=True)
class Column:
    """One column: its field id in the data files, and its type in both worlds."""

    id: int
    name: str
    iceberg: IcebergType

    @property
    def duckdb(self) -> str:
        """Its type in DuckDB."""
        if isinstance(self.iceberg, DecimalType):
            return f"DECIMAL({self.iceberg.precision}, {self.iceberg.scale})"
        try:
            return _DUCKDB[type(self.iceberg)]
        except KeyError:
            raise TwofoldError(f"column {self.name} has a type that cannot be read here: {self.iceberg}") from None


def of(schema: Schema | None, declared: TableShape | None) -> tuple[Column, ...]:
    """The table's columns, then those declared that it does not have yet (every file lacks them)."""
    columns = [Column(field.field_id, field.name, field.field_type) for field in schema.fields] if schema else []
    known = {column.name for column in columns}
    fresh = max((column.id for column in columns), default=0) + 1_000_000
    missing = [pair for pair in declared.columns if pair[0] not in known] if declared else []
    columns += [Column(fresh + i, name, schemas.iceberg_type(kind)) for i, (name, kind) in enumerate(missing)]
    return tuple(columns)


def iceberg_schema(columns: Iterable[Column]) -> Schema:
    """The columns as an Iceberg schema."""
    return Schema(*(NestedField(column.id, column.name, column.iceberg, required=False) for column in columns))
