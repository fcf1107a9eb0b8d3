"""DuckDB for reading: in memory, UTC, no look at Python's variables, nothing fetched; and data files as its relations.

Local files are read by DuckDB itself, two to five times as fast as through pyarrow. Its wheel has no S3 client, and
files opened through fsspec share one position between DuckDB's threads, which garbles what they read; so S3 goes
through pyarrow.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection
from pyiceberg.io.pyarrow import PyArrowFileIO, schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.types import NestedField

from twofold.errors import QueryError
from twofold.reader.pinned import Pinned, duckdb_type, iceberg_schema
from twofold.settings import Settings
from twofold.text import quoted

ISO = "'%Y-%m-%dT%H:%M:%S.%f'"
"""DuckDB's format of a moment in ISO 8601, as SQL."""
SCHEMA = "_tw_sources"
"""DuckDB schema of what users do not name: pipeline names start with a letter."""
DATA = "_tw_data"
"""The database that queries read; a pipeline may be called `memory`, as DuckDB's first one is."""
_LEFT_S = 86_400.0
"""Files that a killed process spilled are removed after this long."""
PLAN = "_tw_plan"
"""The database that has the same names, over stand-ins: what queries are planned in to see what they need."""


def plain(scratch: Path | None, memory: str = "", threads: int | None = None) -> DuckDBPyConnection:
    """An empty database that spills into the folder `scratch` (None: nowhere) past `memory`, or most of the machine's,
    and works in `threads`, or one per core."""
    limits = {"memory_limit": memory, "threads": threads}
    connection = duckdb.connect(config={
        "temp_directory": str(scratch or ""),
        "python_enable_replacements": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        **{name: str(limit) for name, limit in limits.items() if limit},
    })  # fmt: skip
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@contextmanager
def scratch(settings: Settings) -> Iterator[Path]:
    """A folder to spill into, beside the stack's home and not in /tmp, which may be memory.

    A cluster's worker has no such home, but a folder for each executor, in which it runs.
    """
    root = (settings.home if os.access(settings.home, os.W_OK) else Path.cwd()) / "scratch"
    root.mkdir(exist_ok=True)
    for left in root.iterdir():
        with suppress(FileNotFoundError):  # removed by another one meanwhile
            if time.time() - left.stat().st_mtime > _LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def connect(scratch: Path, memory: str = "") -> DuckDBPyConnection:
    """The same as `plain`, with what a reading session keeps its relations in."""
    connection = plain(scratch, memory)
    for database in (PLAN, DATA):
        connection.execute(f"ATTACH ':memory:' AS {database}")
        connection.execute(f"CREATE SCHEMA {database}.{SCHEMA}")
    connection.execute(f"USE {DATA}.main")
    # The database that it began with: its name is as good as any for a pipeline.
    connection.execute("DETACH memory")
    return connection


def keywords(connection: DuckDBPyConnection) -> frozenset[str]:
    """Words that DuckDB's parser does not take for a name everywhere, unless they are quoted."""
    query = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
    return frozenset(word for (word,) in connection.execute(query).fetchall())


def failure(error: duckdb.Error, remedy: str = "") -> QueryError:
    """DuckDB's complaint, as it is: it shows the place in the SQL."""
    usual = "`SHOW TABLES` lists the tables, `DESCRIBE <table>` a table's columns"
    return QueryError(f"the query fails: {str(error).strip()}", remedy or usual)


def iso(value: str) -> str:
    """SQL that writes a moment with time zone in ISO 8601, UTC; whole seconds without a fraction."""
    return f"replace(strftime({value}, {ISO}) || 'Z', '.000000Z', 'Z')"


@contextmanager
def errors() -> Iterator[None]:
    """Where a query's rows are fetched: DuckDB's complaints become QueryError."""
    try:
        yield
    except duckdb.Error as error:
        raise failure(error) from None


@dataclass
class FileSource:
    """Some data files of one pinned table, read through the view `relation`."""

    number: int
    pinned: Pinned
    files: tuple[DataFile, ...]
    shown: tuple[DataFile, ...] | None = None
    """Those that the view reads now: what a query does not need is left out."""

    @property
    def relation(self) -> str:
        """Name of its view, in either database."""
        return f"{SCHEMA}._tw_s{self.number}"

    def show(self, connection: DuckDBPyConnection, files: tuple[DataFile, ...]) -> None:
        """Let the view read these files."""
        if self.shown != files:
            io = self.pinned.table.io.properties if self.pinned.table else {}
            query = query_of(connection, f"_tw_remote_{self.number}", self.pinned.columns, io, files)
            connection.execute(f"CREATE OR REPLACE VIEW {DATA}.{self.relation} AS {query}")
            self.shown = files

    def stand_in(self, connection: DuckDBPyConnection, paths: Sequence[str], prefix: str) -> None:
        """Make the view of PLAN, which reads no rows, through columns whose names begin with `prefix`."""
        rows = sum(file.record_count for file in self.files)
        query = native(self.pinned.columns, paths, rows, prefix) if self.files else _empty(self.pinned.columns)
        connection.execute(f"CREATE VIEW {PLAN}.{self.relation} AS {query}")


def query_of(
    connection: DuckDBPyConnection,
    name: str,
    fields: Sequence[NestedField],
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
    scheme, bucket, _ = places[0]
    store, parquet = io.fs_by_scheme(scheme, bucket), ds.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(path, store, file_size=file.file_size_in_bytes)
        for (_, _, path), file in zip(places, files, strict=True)
    ]
    # Columns are matched by name here, which serves as well: they are added, never renamed.
    schema = schema_to_pyarrow(iceberg_schema(fields), include_field_ids=False)
    connection.register(name, ds.FileSystemDataset(fragments, schema, parquet, store))
    return f"SELECT * FROM {name}"


def stand_ins(folder: Path) -> list[str]:
    """Two empty Parquet files: of a single one, DuckDB would take the statistics into the plan."""
    paths = [folder / f"empty-{number}.parquet" for number in range(2)]
    for path in paths:
        if not path.exists():
            pq.write_table(pa.table({"nothing": pa.array([], pa.int32())}), path)
    return [str(path) for path in paths]


def native(fields: Sequence[NestedField], paths: Sequence[str], rows: int, prefix: str = "") -> str:
    """A query that DuckDB's Parquet reader serves. A column that a file lacks is null in its rows."""
    schema = ", ".join(
        f"{field.field_id}: {{name: '{prefix}{field.name}', type: '{duckdb_type(field)}', default_value: NULL}}"
        for field in fields
    )
    listed = ", ".join(f"'{_literally(path)}'" for path in paths)
    renamed = ", ".join(f"{quoted(prefix + field.name)} AS {quoted(field.name)}" for field in fields)
    # Without can_have_nan, statistics that know no NaN would prune row groups that have some.
    options = f"schema = MAP {{{schema}}}, explicit_cardinality = {max(rows, 1)}, can_have_nan = true"
    return f"SELECT {renamed} FROM read_parquet([{listed}], {options})"


def _literally(path: str) -> str:
    """A path in a SQL literal, none of its characters taken for a glob.

    >>> _literally("/a[1]/it's*")
    "/a[[]1]/it''s[*]"
    """
    return re.sub(r"[\[*?]", lambda match: f"[{match[0]}]", path).replace("'", "''")


def _empty(fields: Sequence[NestedField]) -> str:
    nulls = ", ".join(f"CAST(NULL AS {duckdb_type(field)}) AS {quoted(field.name)}" for field in fields)
    return f"SELECT {nulls} WHERE FALSE"
