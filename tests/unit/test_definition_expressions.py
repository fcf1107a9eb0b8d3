"""Filters and measures: what is refused and why; what DuckDB's text gives."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.expression_cases import MEASURES, SCALARS, TYPES, in_duckdb, listed
from twofold.definition.expressions import Checked, check_filter, check_measure

REFUSED_FILTERS = {
    "": "an empty text",
    "b and": '"b and", expected a Spark SQL expression',
    "(b": "line 1, column 2",
    "b; b": "2 expressions",
    "i": "found an int, expected a condition",
    "s": "found a string, expected a condition",
    "null": "expected a condition",
    "k > 1": "the unknown field k",
    "dd > 1": 'did you mean "d"',
    "t.i > 1": "t.i, expected the plain name of a field",
    "count(*) > 1": "the aggregate count() in a filter",
    "sum(i) > 1": "the aggregate sum() in a filter",
    "approx_count_distinct(i) > 1": "the aggregate approx",
    "i in (select 1)": "a subquery",
    "exists (select 1)": "a subquery",
    "row_number() over (order by i) = 1": "a window function",
    "rand() < 0.1": "rand(), which changes from run to run",
    "ts < now()": "now(), which changes from run to run",
    "ts < current_timestamp()": "current_timestamp(), which changes",
    "dt < current_date": "current_date(), which changes",
    "uuid() = s": "uuid(), which changes",
    "lenght(s) > 1": 'the function lenght(), expected one that both engines compute alike (did you mean "length"?)',
    "isnull(s)": "x is null",
    "levenshtein(s, 'a') > 1": "the function levenshtein()",
    "s = 5": "a string compared with an int",
    "i = '5'": "write numbers without quotes",
    "b = 1": "a boolean compared with an int",
    "ts > 'yesterday'": "a timestamp in ISO 8601",
    "dt > '2024-02-30'": "a date in ISO 8601",
    "s + 1 > 2": "a string in arithmetic, expected one of int, long, decimal, double",
    "upper(i) = 'A'": "an int in upper(), expected string",
    "i and b": "an int beside AND",
    "not i": "an int after NOT",
    "w * w > 1": "needs more than 38 digits",
    "cast(s as int) > 1": "a string in a cast to int",
    "cast(i as array<int>) is null": "a cast to array<int>",
    "s rlike '(a)\\\\1'": "a back-reference",
    "s rlike s": "a computed regular expression",
    "s like 'a\\\\%'": "this pattern of LIKE",
    "s like s": "this pattern of LIKE",
    "s = 'it''s'": "two quoted texts side by side",
    "substring(s, 0) = 'a'": "these positions of substring()",
    "round(x, -1) > 1": "these digits of round()",
    "ts + interval 1 month > ts": "the interval",
    "date_trunc('century', ts) = ts": "the unit century",
    "ts - ts > 1": "a timestamp in arithmetic",
    "i[0] = 1": "expected a supported operator",
    "i & 1 = 1": "expected a supported operator",
    "ceil(x, 1) > 1": "the function ceil() in this form",
    "*": "expected",
    ":x": "expected",
    "drop table x": "expected",
    "(" * 3000 + "b" + ")" * 900: "expected",
    "-" * 3999 + "i": "expected",
    "b or " * 1200 + "b": "6001 characters",
}

REFUSED_MEASURES = {
    "i": 'no aggregate in "i"',
    "1 + 1": "no aggregate",
    "j": "the field j outside an aggregate, expected it inside an aggregate, such as max(j)",
    "sum(i) + j": "the field j outside an aggregate",
    "sum(max(i))": "the aggregate max() within an aggregate",
    "count(distinct i)": "distinct, expected an aggregate without it (a stream would have to keep every value",
    "sum(distinct i)": "distinct, expected",
    "count(i, j)": "the aggregate count()",
    "sum(s)": "a string in sum()",
    "avg(ts)": "a timestamp in avg()",
    "count_if(i)": "an int in count_if()",
    "median(i)": "the aggregate median(), expected count, count_if, sum, min, max or avg",
    "stddev(i)": "the aggregate stddev()",
    "first(i)": "the aggregate first()",
    "collect_list(i)": "expected count, count_if",
    "percentile_approx(i, 0.5)": "expected count, count_if",
    "sum(i) over (partition by j)": "a window function",
    "sum(k)": "the unknown field k",
    "mean(i)": 'did you mean "avg"',
    "avg(rand())": "rand(), which changes",
    "sum(i) as total": "expected",
    "sum(ts - ts)": "a timestamp in arithmetic",
}


def told(checked: Checked) -> str:
    """The problems as the fault would say them."""
    return "; ".join(f"found {p.found}, expected {p.expected} ({p.hint})" for p in checked.problems)


@pytest.mark.parametrize("text", REFUSED_FILTERS)
def test_filter_is_refused_with_the_reason(text: str) -> None:
    checked = check_filter(text, TYPES)
    assert checked.expression is None
    assert REFUSED_FILTERS[text] in told(checked)


@pytest.mark.parametrize("text", REFUSED_MEASURES)
def test_measure_is_refused_with_the_reason(text: str) -> None:
    checked = check_measure(text, TYPES, by=("i",))
    assert checked.expression is None
    assert REFUSED_MEASURES[text] in told(checked)


def test_every_problem_of_an_expression_is_told() -> None:
    problems = check_filter("foo > 1 and sum(i) > 2 and s = 3", TYPES).problems
    assert len(problems) == 3


def test_field_of_unknown_type_fits_everywhere() -> None:
    columns = {**TYPES, "i": None}
    assert not check_filter("i = 'x' or i > 3 or i", columns).problems
    assert not check_measure("sum(i) + max(length(i))", columns, ()).problems


def test_expression_keeps_the_declared_text_and_quotes_fields() -> None:
    columns = {"order": TYPES["i"], "s": TYPES["s"]}
    expression = check_filter("Order > 3 AND s <> 'it\\'s'", columns).expression
    assert expression is not None
    assert expression.declared == "Order > 3 AND s <> 'it\\'s'"
    assert expression.spark == "((`order` > 3) AND (`s` <> 'it\\'s'))"
    assert expression.duckdb == "((\"order\" > 3) AND (\"s\" <> 'it''s'))"


DUCKDB_VALUES = {
    "sum(j)": 54,
    "count_if(b)": 3,
    "sum(j) / 0": None,
    "count(*) / 3": 8 / 3,
    "round(sum(case when i = 7 then x else 0 end), 2)": 2.68,
    "max(i) + 1": None,
    "cast(max(x) / 1e300 * 2.6 as int)": 2,
    "max(l) - min(l)": None,
    "min(dayofweek(ts))": 1,
    "sum(j) div 4": 13,
    "-7 % count(*)": -7,
    "avg(d)": 1.22 / 7,
    "min(s)": "",
    "max(dt)": date(2024, 12, 31),
    "sum(d) filter (where i in (7, 5))": Decimal("2.72"),
    "unix_timestamp(max(ts)) - unix_timestamp(min(ts))": 4102448400,
}


@pytest.fixture(scope="module")
def duck() -> duckdb.DuckDBPyConnection:
    return in_duckdb()


@pytest.mark.parametrize("text", DUCKDB_VALUES)
def test_duckdb_gives_what_the_expression_means_in_spark(text: str, duck: duckdb.DuckDBPyConnection) -> None:
    expression = check_measure(text, TYPES, ()).expression
    assert expression is not None
    (value,) = duck.execute(f"SELECT {expression.duckdb} FROM t").fetchall()[0]
    expected = DUCKDB_VALUES[text]
    assert value == (pytest.approx(expected) if isinstance(expected, float) else expected)


ATOMS = st.sampled_from(
    ["i", "j", "l", "x", "d", "s", "b", "ts", "dt", "null", "1", "2.5", "'a'", "true", "*", "q", "(", "'"]
)
PIECES = st.sampled_from(
    listed(SCALARS)
    + listed(MEASURES)
    + ["over ()", "distinct", "select", "interval 1 day", "--", "/*", "{{", "@", "$1", "::int", "[1]", "->"]
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(ATOMS | PIECES | st.text(max_size=4), min_size=1, max_size=6),
    st.sampled_from([" ", "(", ") and (", ",", "+"]),
)
def test_no_text_gives_a_stack_trace(parts: list[str], glue: str) -> None:
    text = glue.join(parts)
    for checked in (check_filter(text, TYPES), check_measure(text, TYPES, ("i",))):
        assert (checked.expression is None) == bool(checked.problems)
