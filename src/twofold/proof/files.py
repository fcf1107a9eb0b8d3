"""I7: every file that the current metadata of a table refers to exists; and what nothing refers to.

metadata ─► snapshots kept ─► manifest lists ─► manifests ─► data and delete files ──┐
the table's folder, listed once ─────────────────────────────────────────────────────┴─► missing, unreferenced
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pyarrow import fs
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from twofold.proof.report import Check, Findings, counted

OLD = timedelta(days=3)
"""Unreferenced files that are younger may belong to a commit in flight."""
_THREADS = 16


@dataclass(frozen=True)
class Listed:
    """What one table refers to, and what of it is not there."""

    table: str
    referenced: int
    missing: tuple[str, ...]
    unreferenced: tuple[str, ...]
    """Old files of the table's folder that nothing refers to."""


def all_there(catalog: Catalog, pipeline: str, now: datetime) -> Check:
    """I7 for every table of the pipeline."""
    found = Findings("I7")
    names = sorted(name[-1] for name in catalog.list_tables(pipeline)) if catalog.namespace_exists(pipeline) else []
    with ThreadPoolExecutor(_THREADS) as pool:
        listed = [files for name in names if (files := _checked(pool, catalog, pipeline, name, now))]
    for files in listed:
        if files.missing:
            named = [f"{pipeline}.{files.table}: {path} is missing" for path in files.missing]
            found.violated(f"{counted(len(files.missing), 'file')} of {files.table} missing", named)
    old = {files.table: len(files.unreferenced) for files in listed if files.unreferenced}
    if old:
        found.behind(
            f"{counted(sum(old.values()), 'unreferenced file')} older than 3 days: `twofold maintain {pipeline}`"
        )
    referenced = sum(files.referenced for files in listed)
    found.numbers |= {
        "tables": len(listed),
        "files": referenced,
        "missing": sum(len(files.missing) for files in listed),
        "unreferenced_older_than_3_days": old,
    }
    found.say(f"{counted(referenced, 'file')} of {counted(len(listed), 'table')} exist" if found.holds else "")
    return found.check()


def _checked(pool: ThreadPoolExecutor, catalog: Catalog, pipeline: str, name: str, now: datetime) -> Listed | None:
    """One table. What a commit took away during a look is not referred to by the next, so two looks must agree."""
    try:
        first = _look(pool, catalog.load_table((pipeline, name)), now)
        if not first.missing:
            return first
        second = _look(pool, catalog.load_table((pipeline, name)), now)
        return replace(second, missing=tuple(path for path in second.missing if path in first.missing))
    except NoSuchTableError:
        return None  # dropped since it was listed


def _look(pool: ThreadPoolExecutor, table: IcebergTable, now: datetime) -> Listed:
    referenced, unread = _referenced(pool, table)
    present = _present(table)
    absent = sorted(referenced.keys() - present.keys())
    there = pool.map(lambda path: table.io.new_input(referenced[path]).exists(), absent)
    missing = {referenced[path] for path, exists in zip(absent, there, strict=True) if not exists} | unread
    old = (path for path, changed in present.items() if path not in referenced and now - changed > OLD)
    return Listed(table.name()[-1], len(referenced), tuple(sorted(missing)), tuple(sorted(old)))


def _path(location: str) -> str:
    """A location without its scheme, which engines write in different ways.

    >>> _path("file:/a/b"), _path("file:///a/b"), _path("s3a://a/b")
    ('/a/b', '/a/b', 'a/b')
    """
    return PyArrowFileIO.parse_location(location)[2]


def _referenced(pool: ThreadPoolExecutor, table: IcebergTable) -> tuple[dict[str, str], set[str]]:
    """Path → location of every file; and the manifests and manifest lists that cannot be read."""
    metadata = table.metadata
    listed = list(pool.map(lambda snapshot: _manifests(table, snapshot), metadata.snapshots))
    manifests = {manifest.manifest_path: manifest for found in listed for manifest in found or ()}
    data = dict(zip(manifests, pool.map(lambda m: _data_files(table, m), manifests.values()), strict=True))
    lists = [snapshot.manifest_list for snapshot in metadata.snapshots]
    unread = {path for path, found in zip(lists, listed, strict=True) if found is None}
    unread |= {path for path, found in data.items() if found is None}
    locations = [
        table.metadata_location,
        *(entry.metadata_file for entry in metadata.metadata_log),
        *(file.statistics_path for file in [*metadata.statistics, *metadata.partition_statistics]),
        *lists,
        *manifests,
        *(path for found in data.values() for path in found or ()),
    ]
    return {_path(location): location for location in locations}, unread


def _manifests(table: IcebergTable, snapshot: Snapshot) -> list[ManifestFile] | None:
    try:
        return snapshot.manifests(table.io)
    except FileNotFoundError:
        return None


def _data_files(table: IcebergTable, manifest: ManifestFile) -> list[str] | None:
    try:
        return [entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)]
    except FileNotFoundError:
        return None


def _present(table: IcebergTable) -> dict[str, datetime]:
    """Path → when it was written, for every file below the table's folder.

    Not so for hidden ones: Hadoop keeps a checksum beside each file that it writes to a local disk.
    """
    assert isinstance(table.io, PyArrowFileIO)
    scheme, netloc, path = PyArrowFileIO.parse_location(table.location())
    selector = fs.FileSelector(path.rstrip("/"), recursive=True, allow_not_found=True)
    listed = table.io.fs_by_scheme(scheme, netloc).get_file_info(selector)
    return {info.path: info.mtime or datetime.now(UTC) for info in listed if info.is_file and info.base_name[0] != "."}
