"""A table pinned at one snapshot: what is committed later does not show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression, visitors
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table as IcebergTable
from pyiceberg.typedef import Record

from twofold import catalog as catalogs
from twofold.boundary import History
from twofold.errors import TwofoldError
from twofold.reader import columns
from twofold.reader.columns import Column
from twofold.reader.predicates import EVERYTHING
from twofold.tables import Table


@dataclass(frozen=True)
class Pinned:
    """One table at the snapshot that was current when it was loaded; no `table`: never made, so empty."""

    name: str
    columns: tuple[Column, ...]
    table: IcebergTable | None

    @property
    def history(self) -> History:
        """Its snapshots up to the pinned one."""
        return catalogs.history(self.table)

    @cached_property
    def all_files(self) -> tuple[DataFile, ...]:
        """Every data file."""
        return self.files(EVERYTHING)

    def narrowed(self, files: Iterable[DataFile], where: BooleanExpression) -> tuple[DataFile, ...]:
        """Of these files, those whose partition may hold rows of `where`; without reading the manifests again."""
        if self.table is None or where == EVERYTHING:
            return tuple(files)
        # With the columns that are declared only: a query may ask for them too.
        schema, specs = columns.iceberg_schema(self.columns), self.table.specs()
        may_match = {number: _partition_test(schema, spec, where) for number, spec in specs.items()}
        return tuple(file for file in files if may_match[file.spec_id](file.partition))

    def files(self, where: BooleanExpression) -> tuple[DataFile, ...]:
        """Data files that may hold rows of `where`, by Iceberg's partitions and statistics."""
        if self.table is None or self.table.metadata.current_snapshot_id is None:
            return ()
        scan = self.table.scan(row_filter=where, snapshot_id=self.table.metadata.current_snapshot_id)
        tasks = list(scan.plan_files())
        for task in tasks:
            _readable(self.name, task.file, bool(task.delete_files))
        return tuple(sorted((task.file for task in tasks), key=lambda file: file.file_path))


def _partition_test(schema: Schema, spec: PartitionSpec, where: BooleanExpression) -> Callable[[Record], bool]:
    """A partition record ─► whether its rows may match."""
    projected = visitors.inclusive_projection(schema, spec)(where)
    return visitors.expression_evaluator(Schema(*spec.partition_type(schema).fields), projected, case_sensitive=True)


def pin(catalog: Catalog, namespace: str, name: str, declared: Table | None = None) -> Pinned:
    """Load one table as it is now; where it was never made, an empty one with the declared columns."""
    table = catalogs.find(catalog, namespace, name)
    return Pinned(f"{namespace}.{name}", columns.of(table.schema() if table else None, declared), table)


def _readable(name: str, file: DataFile, deletes: bool) -> None:
    """Tables here are copy-on-write Parquet: ignoring a delete file would show rows that are gone."""
    if deletes:
        raise TwofoldError(
            f"{name}: {file.file_path} has delete files, which are not read here",
            "rewrite the table's data files (`CALL twofold.system.rewrite_data_files`), "
            "and keep write.delete.mode and write.update.mode at copy-on-write",
        )
    if file.file_format != FileFormat.PARQUET:
        raise TwofoldError(f"{name}: {file.file_path} is {file.file_format}, only Parquet is read here")
