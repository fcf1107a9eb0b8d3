"""Expressions against Spark: the language of the pipeline file is Spark SQL, and streams keep parts in Spark."""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from tests.expression_cases import MEASURES, ROWS, SCALARS, SPARK_SCHEMA, TYPES, in_duckdb, listed, same
from twofold.definition.expressions import render
from twofold.definition.fault import Report
from twofold.definition.keys import read_section
from twofold.definition.model import View
from twofold.definition.renderer import Renderer
from twofold.definition.rules import checked_view

_AT_ONCE = 40
"""Expressions in one query: with many more, Spark's generated method grows too large to be compiled."""

OVERFLOWS = """
abs(i); abs(l)
i - j; i * j; -i; i + 1; i * 1000000; i + l; l * l; -l; i * -1; (i + j) * (i - j) - l; cast(x / 1e200 as int)
cast(x as long); cast(l as int); year(ts) * 100000000; length(s) * 1000000000
max(i) - min(i); max(l) - min(l); sum(i * j); sum(l * l)
"""
"""Null here, as the manual says. Spark takes what is left of the bits, or stops in its ANSI mode."""

OTHERWISE = "d / i; avg(d); avg(j * 1.5); round(avg(d), 3); sum(d) + avg(d); ts in ('1970-01-01', '2100-01-01')"
"""Doubles here, decimals in Spark; a quoted text beside a timestamp is one here, and in Spark's IN is not."""


@pytest.fixture(scope="module")
def lenient(spark: SparkSession) -> SparkSession:
    """A session in which what overflows stops nothing."""
    own = spark.newSession()
    own.conf.set("spark.sql.ansi.enabled", "false")
    return own


@pytest.fixture(scope="module")
def duck() -> duckdb.DuckDBPyConnection:
    return in_duckdb()


def in_spark(frame: DataFrame, texts: list[str], by: tuple[str, ...] | None) -> list[Row]:
    """The declared texts as Spark itself reads them: of each row, or of all rows."""
    columns = [F.expr(text).alias(f"c{index}") for index, text in enumerate(texts)]
    return (frame.select(*columns) if by is None else frame.agg(*columns)).collect()


def sql(text: str, by: tuple[str, ...] | None) -> str:
    """DuckDB's text of any expression, also of one that is neither a condition nor an aggregate."""
    renderer = Renderer(TYPES, by)
    rendered = render(text, renderer)
    assert not renderer.problems, (text, renderer.problems)
    return rendered.sql


def in_utc(value: object) -> object:
    """Spark hands out timestamps in the process's zone without naming it."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


@pytest.mark.parametrize(("cases", "by"), [(SCALARS, None), (MEASURES, ())], ids=["scalars", "measures"])
def test_expressions_mean_what_spark_sql_says_but_for_what_the_manual_tells(
    cases: str, by: tuple[str, ...] | None, lenient: SparkSession, duck: duckdb.DuckDBPyConnection
) -> None:
    frame = lenient.createDataFrame(ROWS, SPARK_SCHEMA).coalesce(1)
    texts, unlike = listed(cases), set()
    for some in (texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE)):
        ours = duck.sql(f"SELECT {', '.join(sql(text, by) for text in some)} FROM t").fetchall()
        for left, right in zip(ours, in_spark(frame, some, by), strict=True):
            unlike |= {t for t, a, b in zip(some, left, right, strict=True) if not same(in_utc(a), in_utc(b))}
    assert unlike == {*listed(OVERFLOWS), *listed(OTHERWISE)}.intersection(texts)


@pytest.mark.parametrize("by", [(), ("b",), ("j",)])
def test_parts_in_spark_give_what_duckdb_gives(
    by: tuple[str, ...], lenient: SparkSession, duck: duckdb.DuckDBPyConnection
) -> None:
    """As a stream does: arguments in columns, plain aggregates in Spark, the expressions over them in columns again."""
    measures = {f"m{n}": text for n, text in enumerate(listed(MEASURES))}
    report = Report("engines.yaml")
    declared = read_section(
        View, {"window": "1 hour", "by": list(by), "measures": measures}, ("views", "v"), report, name="v"
    )
    view = checked_view(declared, TYPES, report)
    assert report.faults == []
    arguments = ", ".join([*by, *(f"{part.argument} AS {part.name}" for part in view.parts)])
    # In one partition: doubles are added in the same order.
    frame = lenient.createDataFrame(duck.sql(f"SELECT {arguments} FROM t").to_arrow_table()).coalesce(1)
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
