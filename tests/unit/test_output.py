"""A query's rows as JSON and as text, value by value: each type that DuckDB has, and each nested in the others."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from twofold.reader import engine, output

NOON = "TIMESTAMPTZ '2024-05-01 12:00:00'"


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """As a reader's is."""
    return engine.connect(tmp_path_factory.mktemp("duckdb"))


def strict(text: str) -> Any:  # noqa: ANN401
    """What a parser says that knows no NaN: Python's does."""

    def refused(word: str) -> None:
        raise ValueError(word)

    return json.loads(text, parse_constant=refused, parse_float=Decimal)


def written(connection: duckdb.DuckDBPyConnection, value: str, target: Path) -> Any:  # noqa: ANN401
    """The value, and one that is null, as a query writes them."""
    output.write_json(connection.sql(f"SELECT * FROM (VALUES ({value}), (NULL)) AS t(v)"), target)
    first, null = strict(target.read_text())
    assert null == {"v": None}
    return first["v"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("'nan'::DOUBLE", None),
        ("'-inf'::FLOAT", None),
        ("['nan'::DOUBLE, 1.5]", [None, Decimal("1.5")]),
        ("array_value('inf'::DOUBLE, 1)", [None, Decimal("1.0")]),
        ("{'a': '-inf'::DOUBLE, 'b': 'NaN, inf'}", {"a": None, "b": "NaN, inf"}),
        ("map {'x': 'inf'::DOUBLE}", {"x": None}),
        ("map {'nan'::DOUBLE: 1}", {"nan": 1}),
        ("[map {1: ['nan'::FLOAT]}]", [{"1": [None]}]),
        ("row('inf'::DOUBLE, 'a')", [None, "a"]),
        ("union_value(a := 'nan'::DOUBLE)", {"a": None}),
        ("'nan'::DOUBLE::VARIANT", None),
        ("""'{"a": [NaN, -inf, -Infinity], "N\\"aN": "inf"}'::JSON""", {"a": [None] * 3, 'N"aN': "inf"}),
        (NOON, "2024-05-01T12:00:00Z"),
        (f"[{NOON}]", ["2024-05-01T12:00:00Z"]),
        (f"array_value({NOON})", ["2024-05-01T12:00:00Z"]),
        (f"{{'a': {NOON}, 'b': 1}}", {"a": "2024-05-01T12:00:00Z", "b": 1}),
        (f"map {{'a': {NOON}}}", {"a": "2024-05-01T12:00:00Z"}),
        (f"map {{{NOON}: [{NOON}]}}", {"2024-05-01T12:00:00Z": ["2024-05-01T12:00:00Z"]}),
        (f"row({NOON}, 1)", ["2024-05-01T12:00:00Z", 1]),
        (f"""union_value("it's" := {NOON})""", {"it's": "2024-05-01T12:00:00Z"}),
        (f"[{{'a': map {{1: row(union_value(b := [{NOON}]))}}}}]", [{"a": {"1": [{"b": ["2024-05-01T12:00:00Z"]}]}}]),
        ("TIMESTAMPTZ_NS '2024-05-01 12:00:00.123456789'", "2024-05-01T12:00:00.123456789Z"),
        ("TIMESTAMP_NS '2024-05-01 12:00:00.123456789'", "2024-05-01T12:00:00.123456789"),
        ("TIMESTAMP_MS '2024-05-01 12:00:00.5'", "2024-05-01T12:00:00.500000"),
        ("TIMESTAMP_S '2024-05-01 12:00:00'", "2024-05-01T12:00:00"),
        ("TIMESTAMP '2024-05-01 12:00:00'", "2024-05-01T12:00:00"),
        ("TIMESTAMPTZ 'infinity'", None),
        ("TIMESTAMP '-infinity'", None),
        ("TIMESTAMP_NS 'infinity'", None),
        ("map {'a': DATE 'infinity'}", {"a": None}),
        ("map {TIMESTAMPTZ 'infinity': DATE '2024-05-01'}", {"infinity": "2024-05-01"}),
        ("map {'a'::BLOB: encode('ä')}", {"a": "ä"}),
        ("INTERVAL 1 DAY", "1 day"),
        ("TIME '12:00:00'", "12:00:00"),
        ("1.10::DECIMAL(9, 2)", Decimal("1.10")),
        ("[0.5, -0.5]::DECIMAL(16, 16)[]", [Decimal("0.5"), Decimal("-0.5")]),
        ("{'a': '.5, :.5', 'b': 0.5::DECIMAL(38, 38)}", {"a": ".5, :.5", "b": Decimal("0.5")}),
        ("170141183460469231731687303715884105727::HUGEINT", 2**127 - 1),
        ("map {}", {}),
        ("[]", []),
        ("row()", []),
        ("row(row(), [map {}])", [[], [{}]]),
    ],
)
def test_each_type_is_json(connection: duckdb.DuckDBPyConnection, tmp_path: Path, value: str, expected: object) -> None:
    assert written(connection, value, tmp_path / "rows.json") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("TIMESTAMPTZ 'infinity'", "infinity"),
        ("TIMESTAMP '-infinity'", "-infinity"),
        (f"map {{'a': {NOON}}}", "{a='2024-05-01T12:00:00Z'}"),
        (f"union_value(a := {NOON})", "2024-05-01T12:00:00Z"),
        (f"row({NOON}, 1)", "('2024-05-01T12:00:00Z', 1)"),
        ("'nan'::DOUBLE", "nan"),
    ],
)
def test_as_text_nothing_is_lost(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, value: str, expected: str
) -> None:
    target = tmp_path / "rows.csv"
    output.write_csv(connection.sql(f"SELECT {value} AS v"), target)
    with target.open(newline="") as file:
        assert [row["v"] for row in csv.DictReader(file)] == [expected]


def test_names_that_are_there_twice_are_numbered(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Names that differ in case, and one like a numbered one, ended JSON with an error of DuckDB."""
    target = tmp_path / "rows.json"
    output.write_json(connection.sql('SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS "A"'), target)
    assert strict(target.read_text()) == [{"a": 1, "a_2": 2, "a_2_2": 3, "A_3": 4}]
