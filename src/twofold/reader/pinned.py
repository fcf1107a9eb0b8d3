"""A table pinned at one snapshot: what is committed later does not show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.table import Table as IcebergTable

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

    def files(self, where: BooleanExpression) -> tuple[DataFile, ...]:
        """Data files that may hold rows of `where`, by Iceberg's partitions and statistics."""
        if self.table is None or self.table.metadata.current_snapshot_id is None:
            return ()
        scan = self.table.scan(row_filter=where, snapshot_id=self.table.metadata.current_snapshot_id)
        tasks = list(scan.plan_files())
        for task in tasks:
            _readable(self.name, task.file, bool(task.delete_files))
        return tuple(sorted((task.file for task in tasks), key=lambda file: file.file_path))


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
