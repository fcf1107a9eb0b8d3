"""Data files ─► a DuckDB relation. Local files are read by DuckDB itself, remote ones through pyarrow.

DuckDB's own Parquet reader is two to five times as fast as pyarrow's. Its wheel has no S3 client, and files opened
through fsspec share one position between DuckDB's threads, which garbles what they read; so S3 goes through pyarrow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection
from pyiceberg.io.pyarrow import PyArrowFileIO, schema_to_pyarrow
from pyiceberg.manifest import DataFile

from twofold.reader import columns
from twofold.reader.columns import Column
from twofold.reader.pinned import Pinned

SCHEMA = "_tw_sources"
"""DuckDB schema of what users do not name: pipeline names start with a letter."""
DATA = "_tw_data"
"""The database that queries read; a pipeline may be called `memory`, as DuckDB's first one is."""
PLAN = "_tw_plan"
"""The database that has the same names, over stand-ins: what queries are planned in to see what they need."""


@dataclass(frozen=True)
class Source:
    """Some data files of one pinned table, read through the view `relation`."""

    number: int
    pinned: Pinned
    files: tuple[DataFile, ...]

    @property
    def relation(self) -> str:
        """Name of its view, in either database."""
        return f"{SCHEMA}._tw_s{self.number}"


def show(connection: DuckDBPyConnection, source: Source, files: Sequence[DataFile]) -> None:
    """Let the source's view read these files."""
    io = source.pinned.table.io.properties if source.pinned.table else {}
    query = query_of(connection, f"_tw_remote_{source.number}", source.pinned.columns, io, files)
    connection.execute(f"CREATE OR REPLACE VIEW {DATA}.{source.relation} AS {query}")


def query_of(
    connection: DuckDBPyConnection,
    name: str,
    fields: Sequence[Column],
    io_properties: Mapping[str, str],
    files: Sequence[DataFile],
) -> str:
    """A query of the rows of some data files; remote ones are registered as `name`."""
    if not files:
        return _empty(fields)
    io = PyArrowFileIO(dict(io_properties))
    places = [io.parse_location(file.file_path, io.properties) for file in files]
    if all(scheme == "file" for scheme, _, _ in places):
        return native(fields, [path for _, _, path in places], sum(file.record_count for file in files))
    return _remote(connection, name, fields, io, places, files)


def stand_ins(folder: Path) -> list[str]:
    """Two empty Parquet files: of a single one, DuckDB would take the statistics into the plan."""
    paths = [folder / f"empty-{number}.parquet" for number in range(2)]
    for path in paths:
        if not path.exists():
            pq.write_table(pa.table({"nothing": pa.array([], pa.int32())}), path)
    return [str(path) for path in paths]


def stand_in(connection: DuckDBPyConnection, source: Source, paths: Sequence[str], prefix: str) -> None:
    """Give the source a view in PLAN that reads no rows, through columns whose names begin with `prefix`."""
    rows = sum(file.record_count for file in source.files)
    query = native(source.pinned.columns, paths, rows, prefix) if source.files else _empty(source.pinned.columns)
    connection.execute(f"CREATE VIEW {PLAN}.{source.relation} AS {query}")


def native(fields: Sequence[Column], paths: Sequence[str], rows: int, prefix: str = "") -> str:
    """A query that DuckDB's Parquet reader serves. A column that a file lacks is null in its rows."""
    schema = ", ".join(
        f"{field.id}: {{name: '{prefix}{field.name}', type: '{field.duckdb}', default_value: NULL}}" for field in fields
    )
    listed = ", ".join(f"'{_literally(path)}'" for path in paths)
    renamed = ", ".join(f'"{prefix}{field.name}" AS "{field.name}"' for field in fields)
    # Without can_have_nan, statistics that know no NaN would prune row groups that have some.
    options = f"schema = MAP {{{schema}}}, explicit_cardinality = {max(rows, 1)}, can_have_nan = true"
    return f"SELECT {renamed} FROM read_parquet([{listed}], {options})"


def _literally(path: str) -> str:
    """A path in a SQL literal, none of its characters taken for a glob.

    >>> _literally("/a[1]/it's*")
    "/a[[]1]/it''s[*]"
    """
    return re.sub(r"[\[*?]", lambda match: f"[{match[0]}]", path).replace("'", "''")


def _empty(fields: Sequence[Column]) -> str:
    nulls = ", ".join(f'CAST(NULL AS {field.duckdb}) AS "{field.name}"' for field in fields)
    return f"SELECT {nulls} WHERE FALSE"


def _remote(
    connection: DuckDBPyConnection,
    name: str,
    fields: Sequence[Column],
    io: PyArrowFileIO,
    places: Sequence[tuple[str, str, str]],
    files: Sequence[DataFile],
) -> str:
    """Columns are matched by name here, which serves as well: they are added, never renamed."""
    scheme, bucket, _ = places[0]
    store, parquet = io.fs_by_scheme(scheme, bucket), ds.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(path, store, file_size=file.file_size_in_bytes)
        for (_, _, path), file in zip(places, files, strict=True)
    ]
    schema = schema_to_pyarrow(columns.iceberg_schema(fields), include_field_ids=False)
    connection.register(name, ds.FileSystemDataset(fragments, schema, parquet, store))
    return f"SELECT * FROM {name}"
