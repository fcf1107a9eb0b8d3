"""A table pinned at one snapshot: what is committed later does not show."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression
from pyiceberg.expressions.visitors import _InclusiveMetricsEvaluator
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestFile
from pyiceberg.table import Table as IcebergTable

from twofold import catalog as catalogs
from twofold import commits, table_state, windows
from twofold.errors import TwofoldError
from twofold.reader import columns
from twofold.reader.columns import Column
from twofold.reader.predicates import EVERYTHING
from twofold.table_state import History
from twofold.tables import TableShape


@dataclass(frozen=True)
class Pinned:
    """One table at the snapshot that was current when it was loaded; no `table`: never made, so empty."""

    name: str
    columns: tuple[Column, ...]
    table: IcebergTable | None

    @property
    def made(self) -> IcebergTable:
        """The table, for who has seen to it that it is there."""
        assert self.table is not None, f"{self.name} was never made"
        return self.table

    @property
    def history(self) -> History:
        """Its snapshots up to the pinned one."""
        return table_state.history_of(self.table)

    def narrowed(self, files: Iterable[DataFile], where: BooleanExpression) -> tuple[DataFile, ...]:
        """Of these files, those that may hold rows of `where`, by their statistics."""
        if where == EVERYTHING:
            return tuple(files)
        # With the columns that are declared only: a query may ask for them too.
        test = _InclusiveMetricsEvaluator(columns.iceberg_schema(self.columns), where)
        return tuple(file for file in files if test.eval(file))

    def on_days(self, days: Collection[date]) -> tuple[DataFile, ...]:
        """Every file of these days, by which the table is partitioned: each file is of one day."""
        manifests = (manifest for manifest in self._manifests() if commits.may_hold(manifest, days))
        files = (file for manifest in manifests for file in self._files_of(manifest) if day_of(file) in days)
        return tuple(sorted(files, key=lambda file: file.file_path))

    @cached_property
    def all_files(self) -> tuple[DataFile, ...]:
        """Every data file."""
        return self.files_since(None)

    def files_since(self, covered: int | None) -> tuple[DataFile, ...]:
        """Every data file but (most of) those that a snapshot, `covered`, already had; None: every one."""
        before = self.table.snapshot_by_id(covered) if self.table and covered is not None else None
        manifests = self._manifests()
        if before and before.sequence_number:
            # What a manifest holds was in the table when the manifest was written.
            manifests = [manifest for manifest in manifests if manifest.sequence_number > before.sequence_number]
        files = [file for manifest in manifests for file in self._files_of(manifest)]
        return tuple(sorted(files, key=lambda file: file.file_path))

    def _manifests(self) -> list[ManifestFile]:
        snapshot = self.table.current_snapshot() if self.table else None
        return snapshot.manifests(self.table.io) if self.table and snapshot else []

    def _files_of(self, manifest: ManifestFile) -> Iterator[DataFile]:
        if self.table is not None:
            for entry in manifest.fetch_manifest_entry(self.table.io, discard_deleted=True):
                _readable(self.name, entry.data_file)
                yield entry.data_file


def pin(catalog: Catalog, namespace: str, name: str, declared: TableShape | None = None) -> Pinned:
    """Load one table as it is now; where it was never made, an empty one with the declared columns."""
    table = catalogs.find(catalog, namespace, name)
    return Pinned(f"{namespace}.{name}", columns.of(table.schema() if table else None, declared), table)


def day_of(file: DataFile) -> date:
    """The day of all rows of a file."""
    return windows.day(int(file.partition[0]))


def _readable(name: str, file: DataFile) -> None:
    """Tables here are copy-on-write Parquet: ignoring a delete file would show rows that are gone."""
    if file.content != DataFileContent.DATA:
        raise TwofoldError(
            f"{name} has a delete file, {file.file_path}: delete files are not read here",
            "rewrite the table's data files (`CALL twofold.system.rewrite_data_files`), "
            "and keep write.delete.mode and write.update.mode at copy-on-write",
        )
    if file.file_format != FileFormat.PARQUET:
        raise TwofoldError(f"{name}: {file.file_path} is {file.file_format}, only Parquet is read here")
