"""DuckDB, set up for reading: in memory, UTC, no look at Python's variables, nothing fetched from the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from twofold.errors import QueryError
from twofold.reader.source import DATA, PLAN, SCHEMA


def connect(scratch: Path) -> duckdb.DuckDBPyConnection:
    """An empty database that spills into the folder `scratch`."""
    connection = duckdb.connect(config={
        "temp_directory": str(scratch),
        "python_enable_replacements": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    })  # fmt: skip
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH ':memory:' AS {PLAN}")
    for database in (PLAN, DATA):
        connection.execute(f"CREATE SCHEMA {database}.{SCHEMA}")
    return connection


def failure(error: duckdb.Error) -> QueryError:
    """DuckDB's complaint, as it is: it shows the place in the SQL."""
    text = str(error).strip()
    return QueryError(
        f"the query fails: {text}", "`SHOW TABLES` lists the tables, `DESCRIBE <table>` a table's columns"
    )


@contextmanager
def errors() -> Iterator[None]:
    """Where a query's rows are fetched: DuckDB's complaints become QueryError."""
    try:
        yield
    except duckdb.Error as error:
        raise failure(error) from None
