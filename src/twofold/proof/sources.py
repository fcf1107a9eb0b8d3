"""An Iceberg snapshot as a DuckDB relation, streamed: no table is ever held in Python.

snapshot ─► data files ─► Arrow dataset (columns and filters pushed down) ─► DuckDB
            └─ with delete files ─► record batches ─► DuckDB table, which may spill to disk
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.io.pyarrow import PyArrowFileIO, schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask
from pyiceberg.table import Table as IcebergTable
from pyiceberg.types import NestedField

from twofold.schemas import iceberg_type
from twofold.tables import TableShape

_MEMORY_LIMIT = "2GB"


def connect(spill_to: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory, in UTC, that spills into `spill_to` past its memory limit."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'")
    connection.execute(f"SET temp_directory = '{spill_to}'")
    return connection


def spill_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes away with the proof."""
    return tempfile.TemporaryDirectory(prefix="twofold-prove-", ignore_cleanup_errors=True)


def register(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: IcebergTable | None,
    snapshot_id: int | None,
    schema: pa.Schema,
) -> None:
    """Give the rows of one snapshot (none: no rows) a name in DuckDB; OSError where a file is missing."""
    if table is None or snapshot_id is None:
        connection.register(name, schema.empty_table())
        return
    tasks = list(table.scan(snapshot_id=snapshot_id).plan_files())
    if any(task.delete_files for task in tasks):
        batches = table.scan(snapshot_id=snapshot_id).to_arrow_batch_reader()
        connection.register(f"_tw_{name}_batches", batches)
        connection.execute(f'CREATE TEMP TABLE "{name}" AS SELECT * FROM "_tw_{name}_batches"')
        connection.unregister(f"_tw_{name}_batches")
    elif tasks:
        connection.register(name, dataset(table, tasks, schema))
    else:
        connection.register(name, schema.empty_table())


def arrow_schema(table: IcebergTable) -> pa.Schema:
    """The table's columns now; a file written before one was added gives nulls for it."""
    return schema_to_pyarrow(table.schema(), include_field_ids=False)


def declared_schema(table: TableShape) -> pa.Schema:
    """The columns of a table that is not made yet."""
    fields = (NestedField(number, name, iceberg_type(kind)) for number, (name, kind) in enumerate(table.columns, 1))
    return schema_to_pyarrow(Schema(*fields), include_field_ids=False)


def dataset(table: IcebergTable, tasks: list[FileScanTask], schema: pa.Schema) -> ds.Dataset:
    """The data files of these tasks."""
    located = [PyArrowFileIO.parse_location(task.file.file_path) for task in tasks]
    scheme, netloc, _ = located[0]
    assert isinstance(table.io, PyArrowFileIO)
    return ds.dataset(
        [path for _, _, path in located],
        schema=schema,
        format="parquet",
        filesystem=table.io.fs_by_scheme(scheme, netloc),
    )
