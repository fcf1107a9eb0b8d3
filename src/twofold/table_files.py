"""The files of one Iceberg table: written before anything refers to them, referred to by its metadata, and lying there.

    table ─► Place (pickled, sent to a task) ─► Writer ─► one file per day of the partition column ─► DataFile each

    metadata ─► snapshots kept ─► manifest lists ─► manifests ─► data and delete files ──► Referenced
    data/ and metadata/ of the table's folder, each listed once ─────────────────────────► present

A file counts only once a commit names it (`twofold.commits`); one that no commit names is removed by maintenance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.io.fileformat import DataFileStatistics, FileFormatFactory, FileFormatWriter
from pyiceberg.io.pyarrow import (
    PyArrowFileIO,
    StatsAggregator,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestFile
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata, TableMetadataUtil
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import DateType, DecimalType, IcebergType, TimestamptzType
from pyiceberg.utils.truncate import truncate_upper_bound_text_string

from twofold import commits, inbox, windows
from twofold.contract.columns import ARROW

_GROUP_ROWS = 262_144
_GROUP_BYTES = 64 << 20
"""A row group of sorted rows has about this many rows, or bytes in memory."""
_FILE_ROWS = 8_000_000
"""A day of more rows gets more than one file."""
_FIELD_ID = b"PARQUET:field_id"
# The types of event columns have the same names here, but for moments; payloads are bytes.
_ARROW = {**ARROW, "timestamptz": ARROW["timestamp"], "binary": pa.binary()}


@dataclass(frozen=True)
class Place:
    """Where a table's data files go, and what they look like; small enough to be sent to every task."""

    described: str
    """The table's metadata as JSON: equal tables give equal bytes, by which a worker knows what it has made already."""
    io_properties: Mapping[str, str]

    @classmethod
    def of(cls, table: Table) -> Place:
        """Without what each commit changes, which tasks have no use for."""
        slim: dict[str, Any] = {
            "snapshots": [],
            "snapshot_log": [],
            "metadata_log": [],
            "refs": {},
            "current_snapshot_id": None,
            "last_updated_ms": 0,
            "last_sequence_number": 0,
        }
        return cls(table.metadata.model_copy(update=slim).model_dump_json(), dict(table.io.properties))

    @cached_property
    def metadata(self) -> TableMetadata:
        """Columns, partitioning, location and properties."""
        return TableMetadataUtil.parse_raw(self.described)

    @property
    def schema(self) -> Schema:
        """The table's columns."""
        return self.metadata.schema()

    @cached_property
    def arrow(self) -> pa.Schema:
        """The columns as they are written: each with the id by which Iceberg knows it."""
        return pa.schema(
            pa.field(field.name, arrow_type(field.field_type), metadata={_FIELD_ID: str(field.field_id)})
            for field in self.schema.fields
        )

    @cached_property
    def io(self) -> FileIO:
        """Access to the store."""
        return load_file_io(dict(self.io_properties), self.metadata.location)

    def partition(self, day: int) -> PartitionKey:
        """The partition of a day, by its number since the epoch."""
        spec = self.metadata.spec()
        return PartitionKey([PartitionFieldValue(spec.fields[0], day)], spec, self.schema)

    def new_file(self, key: PartitionKey) -> str:
        """Where a new data file goes: into its day's folder, if the day has a name, as Python knows no year 0."""
        provider = load_location_provider(self.metadata.location, self.metadata.properties)
        name, day = f"00000-0-{uuid4()}.parquet", key.partition[0]
        return provider.new_data_location(name, key if day == (windows.day(day) - windows.EPOCH.date()).days else None)

    @property
    def day_of(self) -> str:
        """The timestamp column whose day partitions the table."""
        return self.schema.find_field(self.metadata.spec().fields[0].source_id).name


def arrow_type(kind: IcebergType) -> pa.DataType:
    """Arrow's type of a column.

    >>> arrow_type(DecimalType(10, 2))
    Decimal128Type(decimal128(10, 2))
    """
    if isinstance(kind, DecimalType):
        return pa.decimal128(kind.precision, kind.scale)
    return _ARROW[str(kind)]


def grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, as many together as make a row group of a good size."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.concat_batches(held)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.concat_batches(held)


class Writer:
    """Writes rows, in the order in which they come, into a file per day; closed it gives the files, else none stay."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._open: dict[int, _OneFile] = {}
        self._whole: list[DataFile] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays of what was not closed."""
        self.abort()

    def write(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Add rows; a column of the table that they lack is null."""
        table = self._in_order(rows)
        # As numbers: Python has no date for some of a table's days.
        days = table[self.place.day_of].cast(pa.date32(), safe=False).cast(pa.int32())
        distinct = pc.unique(days).to_pylist()
        for day in distinct:
            part = table if len(distinct) == 1 else table.filter(pc.equal(days, pa.scalar(day, pa.int32())))
            if day not in self._open:
                self._open[day] = _OneFile(self.place, day)
            self._open[day].write(part)

    def write_sorted(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Add rows that come day by day, in row groups of a good size; a day's file is closed where the next begins."""
        for rows in grouped(batches):
            self.write(rows)
            *done, last = self._open
            self._whole += [self._open.pop(day).close() for day in done]
            if self._open[last].rows >= _FILE_ROWS:
                self._whole.append(self._open.pop(last).close())

    def close(self) -> list[DataFile]:
        """The files, whole; none where nothing was written."""
        files = [*self._whole, *(one.close() for one in self._open.values())]
        self._open, self._whole = {}, []
        return files

    def abort(self) -> None:
        """Remove what was written."""
        for one in self._open.values():
            one.abort()
        commits.remove(self.place.io, [file.file_path for file in self._whole])
        self._open, self._whole = {}, []

    def _in_order(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        columns = [
            rows.column(field.name) if field.name in rows.schema.names else pa.nulls(rows.num_rows, field.type)
            for field in self.place.arrow
        ]
        return pa.Table.from_arrays(columns, schema=self.place.arrow)


class _OneFile:
    """One data file while it is written."""

    def __init__(self, place: Place, day: int) -> None:
        self._place = place
        self._key = place.partition(day)
        self.rows = 0
        self.path = place.new_file(self._key)
        self._output = place.io.new_output(self.path)
        model = FileFormatFactory.get(FileFormat.PARQUET)
        self._writer: FileFormatWriter = model.create_writer(self._output, place.schema, place.metadata.properties)

    def write(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        self._writer.write(rows)

    def close(self) -> DataFile:
        statistics = self._closed()
        for bounds in statistics.column_aggregates.values():
            _storable(bounds)
        facts: dict[str, Any] = statistics.to_serialized_dict()
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self.path,
            file_format=FileFormat.PARQUET,
            partition=self._key.partition,
            file_size_in_bytes=len(self._output),
            sort_order_id=None,
            spec_id=self._place.metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **facts,
        )

    def _closed(self) -> DataFileStatistics:
        try:
            with self._writer:
                pass
            return self._writer.result()
        except OverflowError:
            # Python has no date for a bound, as of a window that ends in the year 10000: times go without bounds.
            with self._place.io.new_input(self.path).open() as stream:
                written = pq.read_metadata(stream)
            schema = self._place.schema
            times = (field.name for field in schema.fields if isinstance(field.field_type, (DateType, TimestamptzType)))
            unbounded = {f"{TableProperties.METRICS_MODE_COLUMN_CONF_PREFIX}.{name}": "counts" for name in times}
            plan = compute_statistics_plan(schema, {**self._place.metadata.properties, **unbounded})
            return data_file_statistics_from_parquet_metadata(written, plan, parquet_path_to_id_mapping(schema))

    def abort(self) -> None:
        # What cannot be removed now is removed by maintenance.
        with suppress(OSError, ValueError):
            with self._writer:
                pass
            self._place.io.delete(self.path)


def _storable(bounds: StatsAggregator) -> None:
    """See that the upper bound of texts can be written: the character after U+D7FF is U+E000, not half a pair."""
    if isinstance(bounds.current_max, str):
        cut = truncate_upper_bound_text_string(bounds.current_max, bounds.trunc_length)
        if cut is not None:
            bounds.current_max = cut.replace("\ud800", "\ue000")


def of_rows(table: Table, rows: Iterable[Mapping[str, Any]]) -> list[DataFile]:
    """New data files with these few rows, for a commit of the table; nothing stays where a row does not fit."""
    place = Place.of(table)
    with Writer(place) as writer:
        writer.write(pa.RecordBatch.from_pylist(list(rows), place.arrow))
        return writer.close()


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


def referenced(pool: ThreadPoolExecutor, table: Table) -> Referenced:
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


def _manifests(table: Table, snapshot: Snapshot) -> list[ManifestFile] | None:
    try:
        return snapshot.manifests(table.io)
    except FileNotFoundError:
        return None


def _data_files(table: Table, manifest: ManifestFile) -> list[str] | None:
    try:
        return [entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)]
    except FileNotFoundError:
        return None


def present(table: Table) -> dict[str, datetime]:
    """Path → when it was written, for every file in the table's `data/` and `metadata/`.

    Not so for hidden ones: Hadoop keeps a checksum beside each file that it writes to a local disk.
    """
    store, root = _store(table)
    folders = (fs.FileSelector(f"{root}/{name}", recursive=True, allow_not_found=True) for name in _FOLDERS)
    listed = (info for folder in folders for info in store.get_file_info(folder))
    return {info.path: info.mtime or datetime.now(UTC) for info in listed if info.is_file and info.base_name[0] != "."}


_FOLDERS = (inbox.DATA, inbox.METADATA)


def own(table: Table, paths: Iterable[str]) -> set[str]:
    """Those of the paths that are named as writers of tables name files; others may be anybody's."""
    _, root = _store(table)
    return {path for path in paths if inbox.is_table_file(path.removeprefix(f"{root}/"))}


def remove(table: Table, paths: Iterable[str]) -> None:
    """Remove files, each with the checksum that Hadoop may have put beside it; one that is gone already is fine."""
    store, _ = _store(table)
    for path in paths:
        folder, name = path.rsplit("/", 1)
        for one in (path, f"{folder}/.{name}.crc") if isinstance(store, fs.LocalFileSystem) else (path,):
            with suppress(FileNotFoundError):
                store.delete_file(one)


def _store(table: Table) -> tuple[fs.FileSystem, str]:
    """The file system of a table, and its folder there."""
    assert isinstance(table.io, PyArrowFileIO)
    scheme, netloc, path = PyArrowFileIO.parse_location(table.location())
    return table.io.fs_by_scheme(scheme, netloc), path.rstrip("/")
