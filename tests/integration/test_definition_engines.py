"""Spark and DuckDB agree on every supported expression, in both of Spark's ANSI modes, on rows with hostile values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from spark_jobs import session
from tests.expression_cases import MEASURES, ROWS, SCALARS, SPARK_SCHEMA, TYPES, in_duckdb, listed, same
from twofold.definition.expressions import parse
from twofold.definition.fault import Report
from twofold.definition.model import Expression
from twofold.definition.patterns import whole_value
from twofold.definition.raw import RawView
from twofold.definition.render import Renderer
from twofold.definition.views import build_views
from twofold.settings import Settings

_AT_ONCE = 40
"""Expressions in one query: with many more, Spark's generated method grows too large to be compiled."""


def rendered(text: str, by: tuple[str, ...] | None) -> Expression:
    """Any expression, also one that is neither a condition nor an aggregate."""
    tree, problems = parse(text)
    assert tree is not None, (text, problems)
    renderer = Renderer(TYPES, by)
    part = renderer.render_whole(tree)
    assert not renderer.problems, (text, renderer.problems)
    return Expression(part.spark, part.duckdb, text, part.kind)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), spark_master="local[1]")
    started = session.build(settings, "engines")
    yield started.newSession()
    started.stop()


@pytest.fixture(params=["true", "false"], ids=["ansi", "not-ansi"])
def frame(spark: SparkSession, request: pytest.FixtureRequest) -> DataFrame:
    spark.conf.set("spark.sql.ansi.enabled", request.param)
    return spark.createDataFrame(ROWS, SPARK_SCHEMA).coalesce(1)


@pytest.fixture(scope="module")
def duck() -> duckdb.DuckDBPyConnection:
    return in_duckdb()


def differences(
    expressions: list[Expression], evaluate: Callable[..., list[Row]], duck: duckdb.DuckDBPyConnection
) -> list[tuple[str, int, object, object]]:
    """(declared text, row, Spark's value, DuckDB's value) wherever they differ."""
    found = []
    for start in range(0, len(expressions), _AT_ONCE):
        some = expressions[start : start + _AT_ONCE]
        columns: list[Column] = [F.expr(one.spark).alias(f"c{index}") for index, one in enumerate(some)]
        ours = evaluate(*columns)
        theirs = duck.execute(f"SELECT {', '.join(one.duckdb for one in some)} FROM t").fetchall()
        assert len(ours) == len(theirs)
        for row, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            pairs = zip(some, left, right, strict=True)
            found += [(one.declared, row, a, b) for one, a, b in pairs if not same(in_utc(a), in_utc(b))]
    return found


def in_utc(value: object) -> object:
    """Spark hands out timestamps in the process's zone without naming it."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def test_engines_agree_on_every_scalar(frame: DataFrame, duck: duckdb.DuckDBPyConnection) -> None:
    expressions = [rendered(text, None) for text in listed(SCALARS)]
    assert differences(expressions, lambda *columns: frame.select(*columns).collect(), duck) == []


def test_engines_agree_on_every_measure(frame: DataFrame, duck: duckdb.DuckDBPyConnection) -> None:
    expressions = [rendered(text, ()) for text in listed(MEASURES)]
    assert differences(expressions, lambda *columns: frame.agg(*columns).collect(), duck) == []


@pytest.mark.parametrize("by", [(), ("b",), ("j",)])
def test_parts_in_spark_give_what_duckdb_gives(
    by: tuple[str, ...], spark: SparkSession, duck: duckdb.DuckDBPyConnection
) -> None:
    """As a stream does: arguments in columns, plain aggregates in Spark, the expressions over them in columns again."""
    raw = RawView(window="1 hour", by=list(by), measures={f"m{n}": text for n, text in enumerate(listed(MEASURES))})
    view = build_views({"v": raw}, TYPES, Report("engines.yaml"))["v"]
    arguments = ", ".join([*by, *(f"{part.argument} AS {part.name}" for part in view.parts)])
    frame = spark.createDataFrame(duck.sql(f"SELECT {arguments} FROM t").to_arrow_table())
    assert [frame.schema[part.name].dataType.simpleString() for part in view.parts] == [
        part.type.spark.lower() for part in view.parts
    ]
    parts = [F.expr(f"{part.function}({part.name})").alias(part.name) for part in view.parts]
    duck.register("parts", frame.groupBy(*by).agg(*parts).toArrow())
    after = ", ".join([*by, *(f"{measure.after} AS {name}" for name, measure in view.measures.items())])
    whole = ", ".join([*by, *(f"{measure.duckdb} AS {name}" for name, measure in view.measures.items())])
    ours = duck.sql(f"SELECT {after} FROM parts ORDER BY ALL").fetchall()
    theirs = duck.sql(f"SELECT {whole} FROM t {'GROUP BY ' if by else ''}{', '.join(by)} ORDER BY ALL").fetchall()
    assert len(ours) == len(theirs)
    declared = [*by, *(measure.declared for measure in view.measures.values())]
    for left, right in zip(ours, theirs, strict=True):
        assert [pair for pair in zip(declared, left, right, strict=True) if not same(pair[1], pair[2])] == []


def test_measures_run_in_a_stream(spark: SparkSession, tmp_path: Path) -> None:
    """Streams refuse some aggregates when they start; the first of MEASURES hold every supported one."""
    spark.conf.set("spark.sql.ansi.enabled", "true")
    spark.createDataFrame(ROWS, SPARK_SCHEMA).coalesce(1).write.parquet(str(tmp_path / "in"))
    measures = [F.expr(rendered(text, ()).spark).alias(f"c{i}") for i, text in enumerate(listed(MEASURES)[:28])]
    windows = spark.readStream.schema(SPARK_SCHEMA).parquet(str(tmp_path / "in")).withWatermark("ts", "1 hour")
    query = (
        windows.groupBy(F.window("ts", "1 hour"))
        .agg(*measures)
        .writeStream.outputMode("update")
        .format("memory")
        .queryName("measured")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    assert spark.table("measured").count() > 0


PATTERNS = {
    "[A-Z]{3}": ("JFK", "JFKX", "jfk", "JFK\n"),
    "a|ab": ("ab", "abc", "b"),
    r"\d+(\.\d{2})?": ("12.50", "12.5", "12", "\u0661"),
    "(?i)x[^a-c]*": ("X123", "xA", "yx"),
    "": ("", "a"),
    "^a.c$": ("abc", "a\nc", "abc\n"),
}


def test_patterns_match_whole_values_in_java_as_in_python(spark: SparkSession) -> None:
    for pattern, values in PATTERNS.items():
        frame = spark.createDataFrame([(value,) for value in values], "s STRING")
        matched = [row[0] for row in frame.select(F.col("s").rlike(whole_value(pattern))).collect()]
        assert matched == [re.fullmatch(pattern, value, re.ASCII) is not None for value in values], pattern
