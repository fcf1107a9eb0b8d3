"""A table pinned at one snapshot, with its columns as DuckDB reads them: later commits are not visible."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.expressions.visitors import _InclusiveMetricsEvaluator
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table as IcebergTable
from pyiceberg.types import DecimalType, NestedField

from twofold import catalog as catalogs
from twofold import commits, schemas, table_state, windows
from twofold.errors import TwofoldError
from twofold.table_state import History
from twofold.tables import TableShape

_KNOWN = {"string", "int", "long", "float", "double", "boolean", "timestamptz", "timestamp", "date", "binary"}
"""Types whose names in Iceberg DuckDB understands."""


def duckdb_type(column: NestedField) -> str:
    """A column's type in DuckDB."""
    if not isinstance(column.field_type, DecimalType) and str(column.field_type) not in _KNOWN:
        raise TwofoldError(f"column {column.name} has a type that cannot be read here: {column.field_type}")
    return str(column.field_type)


def columns_of(schema: Schema | None, declared: TableShape | None) -> tuple[NestedField, ...]:
    """The table's columns, then those declared that it does not have yet (every file lacks them).

    A column is found by its field id in the data files, so an older file lacks it harmlessly.
    """
    columns = list(schema.fields) if schema else []
    known = {column.name for column in columns}
    fresh = max((column.field_id for column in columns), default=0) + 1_000_000
    missing = [pair for pair in declared.columns if pair[0] not in known] if declared else []
    columns += [NestedField(fresh + i, name, schemas.iceberg_type(kind)) for i, (name, kind) in enumerate(missing)]
    return tuple(columns)


def iceberg_schema(columns: Iterable[NestedField]) -> Schema:
    """The columns as an Iceberg schema; a file may lack any of them."""
    return Schema(*(column.model_copy(update={"required": False}) for column in columns))


@dataclass(frozen=True)
class Pinned:
    """One table at the snapshot that was current when it was loaded; no `table`: never made, so empty."""

    name: str
    columns: tuple[NestedField, ...]
    table: IcebergTable | None

    @property
    def made(self) -> IcebergTable:
        """The table, for callers that have made sure that it exists."""
        assert self.table is not None, f"{self.name} was never made"
        return self.table

    @property
    def history(self) -> History:
        """Its snapshots up to the pinned one."""
        return table_state.history_of(self.table)

    def narrowed(self, files: Iterable[DataFile], where: BooleanExpression) -> tuple[DataFile, ...]:
        """Of these files, those that may hold rows of `where`, by their statistics."""
        if where == AlwaysTrue():
            return tuple(files)
        # With the columns that are declared only: a query may ask for them too.
        test = _InclusiveMetricsEvaluator(iceberg_schema(self.columns), where)
        return tuple(file for file in files if test.eval(file))

    def on_days(self, days: Collection[date]) -> tuple[DataFile, ...]:
        """Every file of these days, by which the table is partitioned: each file is of one day."""
        files = self._files(one for one in commits.manifests_of(self.table) if commits.may_hold(one, days))
        return tuple(file for file in files if day_of(file) in days)

    @cached_property
    def all_files(self) -> tuple[DataFile, ...]:
        """Every data file."""
        return self.files_since(None)

    def files_since(self, covered: int | None) -> tuple[DataFile, ...]:
        """Every data file but (most of) those that a snapshot, `covered`, already had; None: every one."""
        before = self.table.snapshot_by_id(covered) if self.table and covered is not None else None
        known = before.sequence_number if before and before.sequence_number else -1
        # What a manifest holds was in the table when the manifest was written.
        return self._files(one for one in commits.manifests_of(self.table) if one.sequence_number > known)

    def _files(self, manifests: Iterable[ManifestFile]) -> tuple[DataFile, ...]:
        entries = (entry for manifest in manifests for entry in manifest.fetch_manifest_entry(self.made.io))
        files = [_readable(self.name, entry.data_file) for entry in entries]
        return tuple(sorted(files, key=lambda file: file.file_path))


def pin(catalog: Catalog, namespace: str, name: str, declared: TableShape | None = None) -> Pinned:
    """Load one table as it is now; where it was never made, an empty one with the declared columns."""
    table = catalogs.find(catalog, namespace, name)
    return Pinned(f"{namespace}.{name}", columns_of(table.schema() if table else None, declared), table)


def day_of(file: DataFile) -> date:
    """The day of all rows of a file."""
    if file.partition[0] is None:
        raise TwofoldError(
            f"{file.file_path} has rows without the day by which its table is partitioned, which no job writes",
            "`twofold rebuild` makes events and the views of the batch layer again, of the logs alone",
        )
    return windows.day(int(file.partition[0]))


def _readable(name: str, file: DataFile) -> DataFile:
    """Tables here are copy-on-write Parquet: ignoring a delete file would show rows that are gone."""
    if file.content != DataFileContent.DATA:
        raise TwofoldError(
            f"{name} has a delete file, {file.file_path}: delete files are not read here",
            "rewrite the table's data files (`CALL twofold.system.rewrite_data_files`), "
            "and keep write.delete.mode and write.update.mode at copy-on-write",
        )
    if file.file_format != FileFormat.PARQUET:
        raise TwofoldError(f"{name}: {file.file_path} is {file.file_format}, only Parquet is read here")
    return file
