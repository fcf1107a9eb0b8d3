"""The tables as they are at one moment, and DuckDB over them: streamed from their files, none is held in Python.

Pinned in an order in which everything refers to what is pinned after it:

    batch_<view>, stream_<view> ─► events ─► batch_log ─► stream_log ─► landed_files

Where only what changed since the last proof is checked, the same names stand for parts of the tables (`changes`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io.pyarrow import PyArrowFileIO, schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import NestedField

from twofold import ledger, table_state, tables
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.ledger import Erased
from twofold.proof import sent, sql
from twofold.proof.findings import MOST_OFFENDERS, Findings
from twofold.proof.last_proof import LastProof
from twofold.proof.sent import Sent
from twofold.schemas import EVENT, iceberg_type
from twofold.table_state import Boundary, History, Landed
from twofold.tables import TableShape
from twofold.text import counted
from twofold.topic import Range

UNIFIED = "unified_events"
"""DuckDB's name of the rows that a reader sees."""
UNREAD = (duckdb.IOException, duckdb.InvalidInputException)
"""What DuckDB raises where a file of a dataset cannot be read."""
_MEMORY_LIMIT = "1GB"
_HELD_BYTES = 64 << 20
"""Tables whose files are no larger are read once, and held: most checks read a table several times."""

_EVERY: BooleanExpression = AlwaysTrue()


@dataclass(frozen=True)
class TableAt:
    """One table at one snapshot; None where it was never made, or holds nothing."""

    name: str
    table: IcebergTable | None
    history: History

    def at(self, snapshot_id: int | None) -> TableAt:
        """The same table at another of its snapshots."""
        return TableAt(self.name, self.table, History(self.history.snapshots, snapshot_id))

    @property
    def properties(self) -> Mapping[str, str]:
        """Of the table; none where it was never made."""
        return self.table.properties if self.table else {}

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot itself; None where the table was never made, or holds nothing."""
        return self.table.snapshot_by_id(self.history.head) if self.table and self.history.head is not None else None

    @property
    def size_bytes(self) -> int:
        """Of its data files, as the snapshot's writer counted them."""
        head = None if self.history.head is None else self.history.snapshots[self.history.head]
        return int(head.summary.get("total-files-size", 0)) if head else 0

    def files(self, where: BooleanExpression = _EVERY) -> list[FileScanTask]:
        """The data files that may hold rows of `where`, each with its delete files."""
        if self.table is None or self.history.head is None:
            return []
        return list(self.table.scan(where, snapshot_id=self.history.head).plan_files())


def pinned(name: str, table: IcebergTable | None) -> TableAt:
    """A table as it was when it was loaded."""
    return TableAt(name, table, table_state.history_of(table))


@dataclass(frozen=True)
class Span:
    """The offsets of one partition in stream_log."""

    rows: int
    first: int
    last: int
    records: int
    distinct: int
    """Offsets, or with `event.each` offsets and elements, that differ: as many as there are rows."""


@dataclass(frozen=True)
class Gaps:
    """Ranges of offsets that stream_log does not have, in order, by partition and kind."""

    missing: Mapping[int, list[Range]] = field(default_factory=dict)
    vacant: Mapping[int, list[Range]] = field(default_factory=dict)
    untold: Mapping[int, list[Range]] = field(default_factory=dict)
    open: Mapping[int, list[Range]] = field(default_factory=dict)
    rows: Mapping[int, list[Range]] = field(default_factory=dict)
    """No gaps: what stream_log has, of what was looked at."""


@dataclass(frozen=True)
class SomeRows:
    """Some rows of a table."""

    files: BooleanExpression = _EVERY
    """Which files may hold them."""
    rows: str = "true"
    """Which rows they are, in DuckDB's SQL."""


@dataclass(frozen=True)
class Scope:
    """What stands for the logs and `events` in the checks; by default all of them."""

    stream_rows: str = tables.STREAM_LOG
    batch_rows: str = tables.BATCH_LOG
    """Relations of which the union is made from scratch."""
    added_events: str = tables.EVENTS
    """The rows of `events` whose origin is looked for."""
    ranges: Sequence[Range] | None = None
    """Event times, in microseconds since the epoch, of the rows that are compared; None: all."""
    part: SomeRows = SomeRows()
    """These rows."""
    windows: str = "true"
    """Condition of the windows that are compared, by `sql.START` and `sql.END`."""


@dataclass
class World:
    """Everything that the checks look at."""

    lake: Lake
    connection: duckdb.DuckDBPyConnection
    before: Sent
    """Kafka before the tables were pinned: all of it should have been ingested."""
    pins: Mapping[str, TableAt]
    unreadable: dict[str, str] = field(default_factory=dict)
    """Table → why its files cannot be read."""
    gaps: Gaps | None = None
    """Kept by `offsets.gaps`."""
    seen: Mapping[int, list[Range]] = field(default_factory=dict)
    """Partition → offsets at which earlier proofs saw a record."""
    spans: Mapping[int, Span] | None = None
    """Kept by `offsets.spans`."""
    compare_all: bool = False
    """Values are compared of all records, not of a sample."""
    last: LastProof | None = None
    """Only what changed since this proof is checked; None: everything."""
    scope: Scope = Scope()
    _whole: dict[tuple[str, int | None], str] = field(default_factory=dict)
    """Table and snapshot → the relation that has all of its rows."""

    @property
    def pipeline(self) -> Pipeline:
        """Whose tables these are."""
        return self.lake.pipeline

    @cached_property
    def erased(self) -> Erased:
        """The ledger, which was pinned first."""
        pin = self.pins.get(tables.LEDGER)
        return ledger.of(self.pipeline, pin.table if pin else None)

    def is_erased(self, key: str) -> bool:
        """Whether the ledger has an id."""
        return hashlib.sha256(f"{self.erased.salt}{key}".encode()).hexdigest() in self.erased.hashes

    @cached_property
    def retained_from(self) -> Mapping[int, int]:
        """Partition → first offset that retention has left in stream_log; a partition not named is whole."""
        log = self.pins.get(tables.STREAM_LOG)
        return table_state.retained_from(log.properties) if log else {}

    @property
    def proved_offsets(self) -> Mapping[int, int]:
        """Partition → the offset up to which the last proof had seen everything; a partition not named has none."""
        return self.last.offsets if self.last else {}

    @property
    def proved_landing(self) -> int:
        """The last landing of files of which the last proof had seen everything."""
        return self.last.landing if self.last else 0

    @cached_property
    def after(self) -> Sent:
        """Kafka after the tables were pinned: nothing past its ends can have been ingested."""
        return sent.read(self.lake)

    @property
    def boundary(self) -> Boundary:
        """What `events` already covers."""
        return table_state.boundary(self.pins[tables.EVENTS].history, self.pipeline.name)

    @property
    def is_united(self) -> bool:
        """Whether `events` was made of the rows that the logs have: `reland` may have replaced some since."""
        return self.boundary.is_of(self.landed(tables.STREAM_LOG), self.landed(tables.BATCH_LOG))

    def landed(self, log: str) -> Landed:
        """What the last commit of a log says that it holds."""
        state = table_state.landed(self.pins[log].history, self.pipeline.name)
        return table_state.begun(state, self.pins[log].properties)

    def defined_since(self, log: str) -> int | None:
        """The first landing of a log by the definition of today; None: none."""
        properties = self.pins[log].properties
        if properties.get(EVENT) != fingerprint.event(self.pipeline):
            return None  # there is no table, or no job has run with the definition of today yet
        return table_state.defined_since(properties)

    @property
    def is_of_one_topic(self) -> bool:
        """Whether stream_log and Kafka speak of one topic; where they do not, I2 says so."""
        now = self.topic_id
        return now is not None and self.landed(tables.STREAM_LOG).topic_id in (None, now)

    @property
    def topic_id(self) -> str | None:
        """Kafka's id of the topic; it may have been made, and have landed, after Kafka was asked first."""
        return self.before.topic_id or (self.landed(tables.STREAM_LOG).topic_id and self.after.topic_id)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a query whose result is small."""
        return self.connection.execute(query).fetchall()

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row of a query."""
        return self.rows(query)[0]

    def number(self, query: str) -> int:
        """The one number of a query."""
        return int(self.row(query)[0] or 0)

    def first(self, query: str) -> list[str]:
        """The last column of the first rows of a query, which says where each is."""
        return [
            row[-1] for row in self.rows(f"SELECT * FROM ({query}) AS _tw_rows ORDER BY ALL LIMIT {MOST_OFFENDERS}")
        ]

    def see_none(self, found: Findings, noun: str, what: str, query: str) -> int:
        """See that a query has no rows: each is a violation, its last column says where. How many there are."""
        count = self.number(f"SELECT count(*) FROM ({query}) AS _tw_rows")
        if count:
            found.violated(f"{counted(count, noun)} {what}", self.first(query))
        return count

    def register(self, name: str, pin: TableAt, part: SomeRows = SomeRows()) -> None:
        """Give the rows of a pinned table, or of a part of it, a name in DuckDB."""
        key = (pin.name, pin.history.head)
        try:
            if part == SomeRows() and key in self._whole:
                same = sql.quoted(self._whole[key])
                self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {sql.quoted(name)} AS FROM {same}")
                return
            tasks = pin.files(part.files)
            if any(task.delete_files for task in tasks):
                assert pin.table is not None
                scan = pin.table.scan(part.files, snapshot_id=pin.history.head)
                _hold(self.connection, name, scan.to_arrow_batch_reader(), part.rows)
            else:
                self.register_files(name, pin, [task.file for task in tasks], part.rows)
        except OSError as error:
            self.unreadable[name] = str(error)
        else:
            if part == SomeRows():
                self._whole[key] = name

    def register_files(self, name: str, pin: TableAt, files: Sequence[DataFile], rows: str = "true") -> None:
        """Give the rows of some data files of a table a name; OSError where a file is missing."""
        schema = self._schema(pin)
        if not files or pin.table is None:
            self.connection.register(name, schema.empty_table())
            return
        assert isinstance(pin.table.io, PyArrowFileIO)
        places = [PyArrowFileIO.parse_location(file.file_path) for file in files]
        store = pin.table.io.fs_by_scheme(*places[0][:2])
        there = ds.dataset([path for _, _, path in places], schema=schema, format="parquet", filesystem=store)
        found = _Streamed(list(there.get_fragments()), schema, there.format, store)
        if sum(file.file_size_in_bytes for file in files) <= _HELD_BYTES:
            _hold(self.connection, name, found, rows)
        else:
            source = sql.quoted(f"_tw_files_of_{name}")
            self.connection.register(f"_tw_files_of_{name}", found)
            self.connection.execute(f"CREATE TEMP VIEW {sql.quoted(name)} AS FROM {source} WHERE {rows}")

    def columns(self, name: str) -> list[str]:
        """The columns of a pinned table."""
        return list(self._schema(self.pins[name]).names)

    def _schema(self, pin: TableAt) -> pa.Schema:
        """The table's columns now, of which files may lack some, and those declared that no job has made yet."""
        shape = declared(self.pipeline).get(pin.name)
        wanted = declared_schema(shape) if shape else pa.schema([])
        there = schema_to_pyarrow(pin.table.schema(), include_field_ids=False) if pin.table else pa.schema([])
        return pa.schema([*there, *(column for column in wanted if column.name not in there.names)])


def declared(pipeline: Pipeline) -> dict[str, TableShape]:
    """The tables whose columns follow from the definition, in the order in which they are pinned."""
    found = (tables.events(pipeline), tables.batch_log(pipeline), tables.stream_log(pipeline), tables.landed_files())
    return {table.name: table for table in found}


def declared_schema(table: TableShape) -> pa.Schema:
    """The columns that a table would be made with."""
    fields = (NestedField(number, name, iceberg_type(kind)) for number, (name, kind) in enumerate(table.columns, 1))
    return schema_to_pyarrow(Schema(*fields), include_field_ids=False)


def connect(spill_to: Path, *, on_disk: bool = False) -> duckdb.DuckDBPyConnection:
    """DuckDB in UTC, that spills into `spill_to` past its memory limit; with `on_disk` its tables are in a file there.

    In a file rows take a fifth of the space, but more time to be put there.
    """
    connection = duckdb.connect(spill_to / "proof.duckdb" if on_disk else ":memory:")
    # The file goes with its folder.
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
    connection.execute(f"SET temp_directory = '{spill_to}'")
    return connection


class _Streamed(ds.FileSystemDataset):  # type: ignore[misc]
    """Data files, of which little more is in memory at a time than DuckDB has asked for."""

    def scanner(self, **asked: Any) -> ds.Scanner:  # noqa: ANN401
        """As DuckDB asks for it; by default a gigabyte may be read ahead, of which DuckDB knows nothing."""
        return super().scanner(**asked, batch_readahead=4, fragment_readahead=1)


def _hold(connection: duckdb.DuckDBPyConnection, name: str, source: object, rows: str) -> None:
    """A table of these rows; OSError where a file is missing."""
    connection.register("_tw_source", source)
    try:
        connection.execute(f"CREATE TEMP TABLE {sql.quoted(name)} AS FROM _tw_source WHERE {rows}")
    except UNREAD as error:
        raise OSError(str(error)) from None
    connection.unregister("_tw_source")
