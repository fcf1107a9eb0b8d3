"""DuckDB, set up for reading: in memory, UTC, no look at Python's variables, nothing fetched from the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from twofold.errors import QueryError
from twofold.reader.source import DATA, PLAN, SCHEMA


def plain(scratch: Path | None, memory: str = "", threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """An empty database that spills into the folder `scratch` (None: nowhere) past so much `memory`, or most of the
    machine's, and works in so many `threads`, or one per core."""
    connection = duckdb.connect(config={
        "temp_directory": str(scratch or ""),
        "python_enable_replacements": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    })  # fmt: skip
    connection.execute("SET TimeZone = 'UTC'")
    if memory:
        connection.execute(f"SET memory_limit = '{memory}'")
    if threads:
        connection.execute(f"SET threads = {threads}")
    return connection


def connect(scratch: Path) -> duckdb.DuckDBPyConnection:
    """The same, with what a reading session keeps its relations in."""
    connection = plain(scratch)
    for database in (PLAN, DATA):
        connection.execute(f"ATTACH ':memory:' AS {database}")
        connection.execute(f"CREATE SCHEMA {database}.{SCHEMA}")
    connection.execute(f"USE {DATA}.main")
    # The database that it began with: its name is as good as any for a pipeline.
    connection.execute("DETACH memory")
    return connection


def keywords(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Words that DuckDB's parser does not take for a name everywhere, unless they are quoted."""
    query = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
    return frozenset(word for (word,) in connection.execute(query).fetchall())


def failure(error: duckdb.Error, remedy: str = "") -> QueryError:
    """DuckDB's complaint, as it is: it shows the place in the SQL."""
    text = str(error).strip()
    usual = "`SHOW TABLES` lists the tables, `DESCRIBE <table>` a table's columns"
    return QueryError(f"the query fails: {text}", remedy or usual)


@contextmanager
def errors() -> Iterator[None]:
    """Where a query's rows are fetched: DuckDB's complaints become QueryError."""
    try:
        yield
    except duckdb.Error as error:
        raise failure(error) from None
