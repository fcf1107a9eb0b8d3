"""The files of one Iceberg table: those that its metadata refers to, and those that lie in its two folders.

metadata ─► snapshots kept ─► manifest lists ─► manifests ─► data and delete files ──► Referenced
data/ and metadata/ of the table's folder, each listed once ─────────────────────────► present
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from twofold import places

THREADS = 16
"""How many files are read at once."""


@dataclass(frozen=True)
class Referenced:
    """What the metadata of a table refers to."""

    locations: dict[str, str]
    """Path → location of every file."""
    unread: frozenset[str]
    """Locations of manifests and manifest lists that are not there: what they referred to is not known."""


def path_of(location: str) -> str:
    """A location without its scheme, which engines write in different ways.

    >>> path_of("file:/a/b"), path_of("file:///a/b"), path_of("s3a://a/b")
    ('/a/b', '/a/b', 'a/b')
    """
    return PyArrowFileIO.parse_location(location)[2]


def referenced(pool: ThreadPoolExecutor, table: IcebergTable) -> Referenced:
    """Every file that some snapshot kept in the metadata of now needs, and the metadata files themselves."""
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
    return Referenced({path_of(location): location for location in locations}, frozenset(unread))


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


def present(table: IcebergTable) -> dict[str, datetime]:
    """Path → when it was written, for every file in the table's `data/` and `metadata/`.

    Not so for hidden ones: Hadoop keeps a checksum beside each file that it writes to a local disk.
    """
    store, root = _store(table)
    folders = (fs.FileSelector(f"{root}/{name}", recursive=True, allow_not_found=True) for name in _FOLDERS)
    listed = (info for folder in folders for info in store.get_file_info(folder))
    return {info.path: info.mtime or datetime.now(UTC) for info in listed if info.is_file and info.base_name[0] != "."}


_FOLDERS = (places.DATA, places.METADATA)


def own(table: IcebergTable, paths: Iterable[str]) -> set[str]:
    """Those of the paths that are named as writers of tables name files; others may be anybody's."""
    _, root = _store(table)
    return {path for path in paths if places.is_table_file(path.removeprefix(f"{root}/"))}


def remove(table: IcebergTable, paths: Iterable[str]) -> None:
    """Remove files, each with the checksum that Hadoop may have put beside it; one that is gone is as good."""
    store, _ = _store(table)
    for path in paths:
        folder, name = path.rsplit("/", 1)
        for one in (path, f"{folder}/.{name}.crc") if isinstance(store, fs.LocalFileSystem) else (path,):
            with suppress(FileNotFoundError):
                store.delete_file(one)


def _store(table: IcebergTable) -> tuple[fs.FileSystem, str]:
    """The file system of a table, and its folder there."""
    assert isinstance(table.io, PyArrowFileIO)
    scheme, netloc, path = PyArrowFileIO.parse_location(table.location())
    return table.io.fs_by_scheme(scheme, netloc), path.rstrip("/")
