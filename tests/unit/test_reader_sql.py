"""What the reader makes of SQL: which tables it names, which ranges it needs, whether it may run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.expressions import BooleanExpression, visitors
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record
from pyiceberg.types import IntegerType, LongType, NestedField, TimestamptzType

from twofold.definition.model import Event, Pipeline, Topic, View
from twofold.errors import QueryError
from twofold.reader import engine, pruning, statements
from twofold.reader.pinned import columns_of

HOUR = timedelta(hours=1)
FLIGHTS = Pipeline("flights", Topic("flights"), Event(("id",), "at", {}), HOUR, {"v": View("v", HOUR, HOUR, (), {})})
ROWS = Schema(
    NestedField(1, "kafka_partition", IntegerType()),
    NestedField(2, "kafka_offset", LongType()),
    NestedField(3, "at", TimestamptzType()),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A reading session's DuckDB, for tests that only read; it has the view s7."""
    folder = tmp_path_factory.mktemp("scratch")
    connection = engine.connect(folder)
    stand_in(connection, folder, 7)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("sql", "default", "found"),
    [
        ("SELECT * FROM flights.unified_events", None, {"unified_events"}),
        ('select * from FLIGHTS."Unified_Events" -- flights.events', None, {"unified_events"}),
        ("SELECT * FROM unified_v JOIN flights.batch_log USING (id)", "flights", {"unified_v", "batch_log"}),
        ("SELECT 'flights.events'", None, set()),
        ("SELECT * FROM events", None, set()),
        ("DESCRIBE flights.stream_v", None, {"stream_v"}),
        ("SELECT * FROM other.events", "flights", set()),
    ],
)
def test_tables_that_sql_mentions(sql: str, default: str | None, found: set[str]) -> None:
    """Only what is named is opened; literals and comments name nothing."""
    assert statements.mentioned(sql, {"flights": FLIGHTS}, default).get("flights", set()) == found


def matches(condition: BooleanExpression, partition: int, offset: int, at: datetime | None = None) -> bool:
    """Whether a row of ROWS is in a condition."""
    micros = int((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) if at else None
    return visitors.expression_evaluator(ROWS, condition, case_sensitive=True)(Record(partition, offset, micros))


@given(st.dictionaries(st.integers(0, 6), st.integers(0, 9)), st.integers(0, 8), st.integers(0, 9))
def test_past_offsets(offsets: dict[int, int], partition: int, offset: int) -> None:
    """A partition not named starts at 0, also between named ones."""
    assert matches(pruning.past_offsets(offsets), partition, offset) == (offset >= offsets.get(partition, 0))


@pytest.mark.parametrize(
    ("where", "partition", "offset", "found"),
    [
        ("kafka_offset BETWEEN 5 AND 7", 0, 7, True),
        ("kafka_offset BETWEEN 5 AND 7", 0, 8, False),
        ("kafka_offset > -2 AND kafka_partition IN (1, 3)", 2, 0, False),
        ("kafka_offset = 1 OR kafka_partition = 4", 4, 0, True),
        ("kafka_offset = 1 OR kafka_offset = 4", 3, 0, False),
        ("kafka_offset = 1 OR random() > 2", 3, 0, True),
        ("NOT kafka_offset = 1", 0, 2, True),
        ("kafka_offset <> 1", 0, 2, True),
        ("kafka_offset % 2 = 0", 0, 1, True),
        ("date_trunc('day', \"at\") = '2013-05-01'", 0, 0, True),
        ("date_trunc('day', \"at\") = '2013-05-02'", 0, 0, False),
        ("\"at\" < 'infinity'", 0, 0, True),
        ("kafka_offset > (SELECT 5)", 0, 9, True),
        ("\"at\" >= '2013-05-01 12:00' AND kafka_offset = 3", 0, 3, True),
    ],
)
def test_ranges_that_a_query_needs(
    shared: duckdb.DuckDBPyConnection, where: str, partition: int, offset: int, found: bool
) -> None:
    """Read off DuckDB's real plan: never less than what the condition is true of."""
    bounds = pruning.bounds(shared, f"SELECT count(*) FROM s7 WHERE {where}")
    noon = datetime(2013, 5, 1, 12, tzinfo=UTC)
    assert matches(bounds.get(7, pruning.EVERYTHING), partition, offset, noon) == found


def stand_in(connection: duckdb.DuckDBPyConnection, folder: Path, number: int) -> None:
    """A view s<number> with the columns of ROWS, without rows."""
    fields = columns_of(ROWS, None)
    query = engine.native(fields, engine.stand_ins(folder), 1000, pruning.prefix(number))
    connection.execute(f"CREATE VIEW s{number} AS {query}")


@pytest.mark.parametrize(
    "sql", ["SELECT a.kafka_offset FROM s0 a, s1 b WHERE a.kafka_offset = 1", "SELECT 1 FROM s0, s1"]
)
def test_a_scan_that_names_no_column_narrows_nothing(tmp_path: Path, sql: str) -> None:
    """It could be of any engine."""
    connection = engine.connect(tmp_path)
    stand_in(connection, tmp_path, 0)
    stand_in(connection, tmp_path, 1)
    assert pruning.bounds(connection, sql) == {}


def test_two_scans_of_one_source_need_both_their_ranges(tmp_path: Path) -> None:
    """Files are left out only if no scan needs them."""
    connection = engine.connect(tmp_path)
    stand_in(connection, tmp_path, 0)
    part = "SELECT kafka_offset FROM s0 WHERE kafka_offset"
    bounds = pruning.bounds(connection, f"{part} = 1 UNION ALL {part} = 5")
    assert [matches(bounds[0], 0, offset) for offset in (1, 3, 5)] == [True, False, True]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM a",
        "COPY (SELECT 1) TO 'x'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x'",
        "explain (analyze, format json) CREATE TABLE x AS SELECT 1",
        "WITH a AS (SELECT 1) INSERT INTO b SELECT * FROM a",
        "ATTACH 'a'",
        "SET threads = 1",
        "PRAGMA version",
        "SELECT 1; DROP TABLE a",
        "SELECT 1 FROM",
        "SELECT 'a",
        "",
        ";",
    ],
)
def test_what_does_not_only_read_is_refused(shared: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Nothing but one reading statement runs."""
    with pytest.raises(QueryError):
        statements.only_reading(shared, sql)


@pytest.mark.parametrize(
    ("sql", "explain", "body"),
    [
        ("SELECT 1; -- done", "", "SELECT 1"),
        ("-- first\nWITH a AS (SELECT ';') FROM a", "", "-- first\nWITH a AS (SELECT ';') FROM a"),
        ("EXPLAIN (FORMAT json) SELECT 1;", "EXPLAIN (FORMAT json)", " SELECT 1"),
        ("explain analyze (select 1)", "explain analyze", " (select 1)"),
        ("EXPLAIN (SELECT 1)", "EXPLAIN ", "(SELECT 1)"),
        ("PIVOT a ON b USING count(*)", "", "PIVOT a ON b USING count(*)"),
        ("SUMMARIZE a", "", "SUMMARIZE a"),
    ],
)
def test_reading_statements_run(shared: duckdb.DuckDBPyConnection, sql: str, explain: str, body: str) -> None:
    """All ways of reading, without the closing semicolon."""
    assert statements.only_reading(shared, sql) == statements.Statement(explain, body)
