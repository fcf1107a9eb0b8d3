"""The tables as they are at one moment, and DuckDB over them: streamed from their files, none is held in Python.

Pinned in an order in which everything refers to what is pinned after it:

    batch_<view>, stream_<view> ─► events ─► batch_log ─► stream_log ─► landed_files
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.io.pyarrow import PyArrowFileIO, schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import Table as IcebergTable
from pyiceberg.types import NestedField

from twofold import table_state, tables
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.proof import sent
from twofold.proof.findings import MOST_OFFENDERS
from twofold.proof.sent import Sent
from twofold.schemas import EVENT, iceberg_type
from twofold.table_state import History, Landed
from twofold.tables import TableShape
from twofold.topic import Range

UNIFIED = "unified_events"
"""DuckDB's name of the rows that a reader sees."""
_MEMORY_LIMIT = "2GB"


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


def pinned(name: str, table: IcebergTable | None) -> TableAt:
    """A table as it was when it was loaded."""
    return TableAt(name, table, table_state.history_of(table))


@dataclass(frozen=True)
class Gaps:
    """Ranges of offsets that stream_log does not have, in order, by partition and kind."""

    missing: Mapping[int, list[Range]] = field(default_factory=dict)
    vacant: Mapping[int, list[Range]] = field(default_factory=dict)
    untold: Mapping[int, list[Range]] = field(default_factory=dict)
    open: Mapping[int, list[Range]] = field(default_factory=dict)


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
    compare_all: bool = False
    """Values are compared of all records, not of a sample."""

    @property
    def pipeline(self) -> Pipeline:
        """Whose tables these are."""
        return self.lake.pipeline

    @cached_property
    def retained_from(self) -> Mapping[int, int]:
        """Partition → first offset that retention has left in stream_log; a partition not named is whole."""
        log = self.pins.get(tables.STREAM_LOG)
        return table_state.retained_from(log.properties) if log else {}

    @cached_property
    def after(self) -> Sent:
        """Kafka after the tables were pinned: nothing past its ends can have been ingested."""
        return sent.read(self.lake.settings, self.pipeline)

    @property
    def is_united(self) -> bool:
        """Whether `events` was made of the rows that the logs have: `reland` may have replaced some since."""
        edge = table_state.boundary(self.pins[tables.EVENTS].history, self.pipeline.name)
        return edge.is_of(self.landed(tables.STREAM_LOG), self.landed(tables.BATCH_LOG))

    def landed(self, log: str) -> Landed:
        """What the last commit of a log says that it holds."""
        state = table_state.landed(self.pins[log].history, self.pipeline.name)
        return table_state.begun(state, self.pins[log].properties)

    def defined_since(self, log: str) -> int | None:
        """The first landing of a log by the definition of today; None: none, or it cannot be told."""
        properties = self.pins[log].properties
        if properties.get(EVENT) not in (None, fingerprint.event(self.pipeline)):
            return None  # changed since: no job has run with it yet
        return table_state.defined_since(properties)

    @property
    def is_of_one_topic(self) -> bool:
        """Whether stream_log and Kafka speak of one topic; where they do not, I2 says so."""
        now = self.before.topic_id
        return now is not None and self.landed(tables.STREAM_LOG).topic_id in (None, now)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a query whose result is small."""
        return self.connection.execute(query).fetchall()

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row of a query."""
        return self.rows(query)[0]

    def number(self, query: str) -> int:
        """The one number of a query."""
        return int(self.row(query)[0] or 0)

    def offenders(self, query: str, columns: str, describe: Callable[..., str]) -> tuple[int, list[str]]:
        """How many rows a query has, and the first of them by these columns, each described."""
        count = self.number(f"SELECT count(*) FROM ({query}) AS _tw_rows")
        if not count:
            return 0, []
        first = self.rows(f"SELECT {columns} FROM ({query}) AS _tw_rows ORDER BY ALL LIMIT {MOST_OFFENDERS}")
        return count, [describe(*row) for row in first]

    def register(self, name: str, pin: TableAt) -> None:
        """Give a pinned table's rows a name in DuckDB."""
        try:
            _register(self.connection, name, pin, self._schema(pin))
        except OSError as error:
            self.unreadable[name] = str(error)

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


def connect(spill_to: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory, in UTC, that spills into `spill_to` past its memory limit."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
    connection.execute(f"SET temp_directory = '{spill_to}'")
    return connection


def _register(connection: duckdb.DuckDBPyConnection, name: str, pin: TableAt, schema: pa.Schema) -> None:
    """Give the rows of one snapshot (none: no rows) a name in DuckDB; OSError where a file is missing."""
    scan = pin.table.scan(snapshot_id=pin.history.head) if pin.table and pin.history.head is not None else None
    tasks = list(scan.plan_files()) if scan else []
    if not scan or not tasks:
        connection.register(name, schema.empty_table())
    elif any(task.delete_files for task in tasks):
        connection.register(f"_tw_{name}_batches", scan.to_arrow_batch_reader())
        connection.execute(f'CREATE TEMP TABLE "{name}" AS SELECT * FROM "_tw_{name}_batches"')
        connection.unregister(f"_tw_{name}_batches")
    else:
        places = [PyArrowFileIO.parse_location(task.file.file_path) for task in tasks]
        assert isinstance(scan.io, PyArrowFileIO)
        store = scan.io.fs_by_scheme(*places[0][:2])
        paths = [path for _, _, path in places]
        connection.register(name, ds.dataset(paths, schema=schema, format="parquet", filesystem=store))
