"""Filters and measures: what is refused and why; what DuckDB's text gives."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.expression_cases import MEASURES, SCALARS, TYPES, in_duckdb, listed, same
from twofold.definition.expressions import CheckedExpression, check_filter, check_measure
from twofold.definition.fault import Report
from twofold.definition.keys import read_section
from twofold.definition.model import Expression, Measure, View
from twofold.definition.rules import checked_view
from twofold.definition.types import FieldType

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
    "lenght(s) > 1": 'the function lenght(), expected one of those that the manual lists (did you mean "length"?)',
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
    "floor() > 1": "found nothing, expected a value",
    "*": "expected",
    ":x": "expected",
    "drop table x": "expected",
    "(" * 3000 + "b" + ")" * 900: "expected",
    "-" * 3999 + "i": "expected",
    "b or " * 1200 + "b": "6001 characters",
    "i" + " + i" * 90 + " > 1": "levels of operators and functions, expected at most 80",
    "abs(" * 90 + "i" + ")" * 90 + " > 1": "levels",
    **dict.fromkeys(
        [f"x {sign} (" * 30 + "x" + ")" * 30 + " > 0" for sign in "/%"]
        + ["nullif(" * 30 + "i" + ", 1)" * 30 + " > 0", "i div (" * 30 + "i" + ")" * 30 + " > 0"],
        "characters of DuckDB's SQL for it",
    ),
    "ceil(" * 30 + "x" + " / 2.0)" * 30 + " > 1": "characters of DuckDB's SQL for it",
    # DuckDB would compare in a type that cannot hold both, and stop at a record that shows it.
    "w > 0.00001": "decimals that no common type can hold",
    "w < 10000000000000000000000000000000000": "decimals that no common type can hold",
    "w between -(1) and 99999999999999999999999999999999999999": "decimals that no common type can hold",
    "d in (1, 99999999999999999999999999999999999999)": "decimals that no common type can hold",
    "0.000000000000000000000000000001 < cast(1e18 as long)": "decimals that no common type can",
    "nullif(w, 0.00001) is null": "decimals that no common type can hold",
    "case d when 0.0000000000000000000000000000000000001 then b end": "decimals that no common type can hold",
    "i in ()": "IN without values",
    **dict.fromkeys(
        [
            "b = b not in (true)",
            "b = i not between 0 and 1",
            "b = s not rlike 'a'",
            "b = b < b",
            "b <> b > b",
            "b = s like 'a%'",
            "b = s rlike 'a'",
            "b = i in (0, 1)",
            "b = i > 0",
            "i > 0 = b",
        ],
        "parentheses that say what is compared with what",
    ),
    "b = b between false and true": "parentheses that say what is compared with what",
    "x < 1e400": "1e400, expected a number that a double can hold",
    "cast('1_000' as decimal(10,2)) > 1": "'1_000', expected a number in quotes",
    "cast(i as decimal(b,2)) > 1": "a cast to decimal(b, 2)",
    "map(i) is null": "expected one Spark SQL expression",
    "j_s_o_n_object_agg(i ignore nulls)": "found ignorenulls, expected",
    "js = js": "a json value compared",
    "nullif(js, js) is null": "a json value compared",
    "x > 1e": "1e, expected a number",
    "w between 0.00001 and 1e3": "decimals that no common type can hold",
    "case w when 0.00001 then b when 1e0 then b end": "decimals that no common type can hold",
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
    "count()": "found nothing, expected a value",
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
    "max(i + null)": "no aggregate",
    "sum(i) + null": "a null, expected a value that a column can hold",
    "max(js)": "a json in max()",
}
ACCEPTED_MEASURES = ["count(js) filter (where b)", "count(if(b, js, null))", "count(case when b then js end)"]


def told(checked: CheckedExpression[Expression] | CheckedExpression[Measure]) -> str:
    """The problems as the fault would say them."""
    return "; ".join(f"found {p.found}, expected {p.expected} ({p.hint})" for p in checked.problems)


@pytest.mark.parametrize("text", REFUSED_FILTERS)
def test_filter_is_refused_with_the_reason(text: str) -> None:
    checked = check_filter(text, {**TYPES, "js": FieldType("json")})
    assert checked.expression is None
    assert REFUSED_FILTERS[text] in told(checked)


@pytest.mark.parametrize("text", REFUSED_MEASURES)
def test_measure_is_refused_with_the_reason(text: str) -> None:
    checked = check_measure(text, {**TYPES, "js": FieldType("json")}, by=("i",))
    assert checked.expression is None
    assert REFUSED_MEASURES[text] in told(checked)


@pytest.mark.parametrize("text", ACCEPTED_MEASURES)
def test_json_is_counted(text: str) -> None:
    assert not check_measure(text, {**TYPES, "js": FieldType("json")}, by=()).problems


def test_every_problem_of_an_expression_is_told() -> None:
    problems = check_filter("foo > 1 and sum(i) > 2 and s = 3", TYPES).problems
    assert len(problems) == 3


def test_field_of_unknown_type_fits_everywhere() -> None:
    columns = {**TYPES, "i": None}
    assert not check_filter("i = 'x' or i > 3 or i", columns).problems
    assert not check_measure("sum(i) + max(length(i))", columns, ()).problems
    assert not check_measure("max(i)", columns, ()).problems


def test_expression_keeps_the_declared_text_and_quotes_fields() -> None:
    columns = {"order": TYPES["i"], "s": TYPES["s"]}
    expression = check_filter("Order > 3 AND s <> 'it\\'s'", columns).expression
    assert expression is not None
    assert expression.declared == "Order > 3 AND s <> 'it\\'s'"
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
    "max(unix_timestamp(timestamp '9999-12-31 23:59:59.999999'))": 253402300799,
    "max(unix_timestamp(timestamp '1969-12-31 23:59:59.999999'))": 0,
    "max(round(2.4999999999999996e0))": 2.0,
    "max(round(0.12344999999999999e0, 4))": 0.1234,
    "max(round(4.9999999999e-10, 9))": 0.0,
    "max(round(-1.5e16, 9))": -1.5e16,
    "max(abs(-2147483647 - 1))": None,
    "max(ceil(x * 1e300 * 1e300 - x * 1e300 * 1e300))": 0,
    "count_if(l between 9007199254740993 and 1e300)": 1,
    "count_if(contains('', null))": 0,
    "count_if(coalesce(-null, s) = 'abc')": 1,
    "max(trim(-null))": None,
    "coalesce(min(case when b then null end), 1) + count(*)": 9,
    "count_if(w > 2L and w > 2.)": 1,
    "count(*) filter (where 0.99999999999999999999999999999999999999 < 0.99999999999999999999999999999999999998)": 0,
    "max(abs(-(9223372036854775808)))": Decimal(9223372036854775808),
    "count_if(w > 0 and w < 1000000000 and -1 < w)": 3,
}

LONGEST = [
    *(f"i{f' {sign} i' * 76} is null" for sign in "+-*%"),
    f"x{' / x' * 76} is null",
    f"s{' || s' * 76} is null",
    *("b" + f" {word} b" * 600 for word in ("and", "or")),
    "not " * 70 + "b",
    *(f"{'f(' * 36}{name}{', 0)' * 36} > 0".replace("f(", "coalesce(") for name in "ixd"),
    "abs(" * 76 + "i" + ")" * 76 + " > 0",
    "round(" * 4 + "x" + ", 2)" * 4 + " > 0",
    "-(" * 38 + "l" + ")" * 38 + " > 0",
    "case when b then " * 38 + "b" + " end" * 38,
    "if(b, " * 38 + "i" + ", 0)" * 38 + " > 0",
    "cast(" * 76 + "i" + " as long)" * 76 + " > 0",
    "upper(" * 76 + "s" + ")" * 76 + " = 'A'",
    "(" * 76 + "b" + ")" * 76,
    "concat(s" + ", s" * 1300 + ") = 'a'",
    "i in (" + "1, " * 1300 + "2)",
    *(f"x {sign} (" * 8 + "x" + ")" * 8 + " > 0" for sign in "/%"),
    "i div (" * 8 + "i" + ")" * 8 + " > 0",
    "nullif(" * 8 + "i" + ", 1)" * 8 + " > 0",
]


@pytest.mark.parametrize("text", LONGEST)
def test_what_is_deep_and_accepted_can_be_run_and_whoever_calls_does_not_decide(
    text: str, duck: duckdb.DuckDBPyConnection
) -> None:
    def deeper(frames: int) -> CheckedExpression[Expression]:
        return deeper(frames - 1) if frames else check_filter(text, TYPES)

    checked = deeper(500)
    assert checked.expression is not None, told(checked)
    duck.execute(f"SELECT count(*) FILTER ({checked.expression.duckdb}) FROM t").fetchall()
    measure = check_measure(f"count_if({text})", TYPES, ()).expression
    assert measure is not None
    duck.execute(f"SELECT {measure.duckdb} FROM t").fetchall()


@pytest.fixture(scope="module")
def duck() -> duckdb.DuckDBPyConnection:
    return in_duckdb()


@pytest.fixture(scope="module")
def hostile(duck: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A table `u` like `t`, which each test fills for itself."""
    return duck.execute("CREATE TABLE u AS FROM t LIMIT 0")


@pytest.mark.parametrize("text", DUCKDB_VALUES)
def test_duckdb_gives_what_the_expression_means_in_spark(text: str, duck: duckdb.DuckDBPyConnection) -> None:
    expression = check_measure(text, TYPES, ()).expression
    assert expression is not None
    (value,) = duck.execute(f"SELECT {expression.duckdb} FROM t").fetchall()[0]
    expected = DUCKDB_VALUES[text]
    assert value == (pytest.approx(expected) if isinstance(expected, float) else expected)


ATOMS = st.sampled_from(
    ["i", "j", "l", "x", "d", "s", "b", "ts", "dt", "null", "1", "2.5", "1e", "1e3", "'a'", "true", "*", "q", "(", "'"]
)
PIECES = st.sampled_from(
    listed(SCALARS)
    + listed(MEASURES)
    + ["over ()", "distinct", "select", "interval 1 day", "--", "/*", "{{", "@", "$1", "::int", "[1]", "->"]
)


@settings(max_examples=400)
@given(
    st.lists(ATOMS | PIECES | st.text(max_size=4), min_size=1, max_size=6),
    st.sampled_from([" ", "(", ") and (", ",", "+"]),
)
def test_no_text_gives_a_stack_trace(parts: list[str], glue: str) -> None:
    text = glue.join(parts)
    for checked in (check_filter(text, TYPES), check_measure(text, TYPES, ("i",))):
        assert (checked.expression is None) == bool(checked.problems)


def view_of(*texts: str, by: tuple[str, ...] = ()) -> View | None:
    """A view with these measures; None if one of them is refused."""
    declared = {"window": "1 hour", "by": list(by), "measures": {f"m{n}": text for n, text in enumerate(texts)}}
    report = Report("a.yaml")
    view = checked_view(read_section(View, declared, ("views", "v"), report, name="v"), TYPES, report)
    return None if report.faults else view


def whole_and_by_parts(
    duck: duckdb.DuckDBPyConnection, view: View, table: str
) -> tuple[duckdb.DuckDBPyRelation, duckdb.DuckDBPyRelation]:
    """The view's measures over the rows of a table, and the same from the parts alone, by group."""
    groups = "".join(f'"{name}", ' for name in view.by)
    end = f"GROUP BY {groups}TRUE"
    whole = ", ".join(measure.duckdb for measure in view.measures.values())
    arguments = ", ".join(f"{part.argument} AS {part.name}" for part in view.parts)
    parts = ", ".join(f"{part.function}({part.name}) AS {part.name}" for part in view.parts)
    after = ", ".join(measure.after for measure in view.measures.values())
    kept = f"SELECT {groups}{parts} FROM (SELECT {groups}{arguments} FROM {table}) {end}"
    one = duck.sql(f"SELECT {groups}{whole} FROM {table} {end}")
    return one, duck.sql(f"SELECT {groups}{after} FROM ({kept})")


def full_name(duck: duckdb.DuckDBPyConnection, kind: FieldType) -> str:
    """The type's name as DuckDB tells it."""
    return str(duck.sql(f"SELECT NULL::{kind.duckdb}").types[0])


def assert_alike(duck: duckdb.DuckDBPyConnection, view: View, table: str = "t") -> None:
    """Values of the whole and of the parts are the same, and have the type that the measure says."""
    one, other = whole_and_by_parts(duck, view, table)
    told = [full_name(duck, measure.type) for measure in view.measures.values()]
    assert [str(kind) for kind in one.types[len(view.by) :]] == told
    assert [str(kind) for kind in other.types[len(view.by) :]] == told
    arguments = duck.sql(f"SELECT {', '.join(part.argument for part in view.parts)} FROM {table}")
    assert [str(kind) for kind in arguments.types] == [full_name(duck, part.type) for part in view.parts]
    declared = [*view.by, *(measure.declared for measure in view.measures.values())]
    left, right = (sorted(rows.fetchall(), key=lambda row: repr(row[: len(view.by)])) for rows in (one, other))
    assert len(left) == len(right)
    for ours, theirs in zip(left, right, strict=True):
        pairs = zip(declared, ours, theirs, strict=True)
        assert [pair for pair in pairs if not same(pair[1], pair[2])] == []


@pytest.mark.parametrize("by", [(), ("b",), ("i", "s")])
def test_parts_give_what_the_whole_aggregate_gives(by: tuple[str, ...], duck: duckdb.DuckDBPyConnection) -> None:
    view = view_of(*listed(MEASURES), by=by)
    assert view is not None
    assert_alike(duck, view)


def test_equal_parts_of_a_view_are_one_whatever_the_order_of_its_measures() -> None:
    texts = ["avg(j)", "sum(d) / count(*)", "count(j)", "max(j)", "count_if(b)"]
    one, other = view_of(*texts), view_of(*reversed(texts))
    assert one is not None
    assert other is not None
    assert one.parts == other.parts
    assert [part.name for part in one.parts] == ["_tw_p0", "_tw_p1", "_tw_p2", "_tw_p3", "_tw_p4", "_tw_p5"]
    assert [part.function for part in one.parts] == ["count", "count", "count", "max", "sum", "sum"]
    assert [measure.after for measure in one.measures.values()] == [
        measure.after for measure in reversed(other.measures.values())
    ]


@pytest.mark.parametrize(
    ("values", "total"),
    [
        (["9" * 34 + ".9999"] * 2, None),
        (["9" * 34 + ".9999", "-" + "9" * 34 + ".9998"] * 2, Decimal("0.0002")),
        (["-" + "9" * 34 + ".9999", "9" * 34 + ".9999"] * 3 + ["-0.0001"], Decimal("-0.0001")),
        (["9" * 34 + ".9998", "0.0001"], Decimal("9" * 34 + ".9999")),
        (["9" * 34 + ".9999", "0.0001"], None),
        (["9" * 34 + ".9999", "0.0001", "-0.0002"], Decimal("9" * 34 + ".9998")),
        (["-" + "9" * 34 + ".9999", "-0.0001"], None),
    ],
)
def test_sum_of_the_widest_decimals_is_exact_or_null(
    values: list[str], total: Decimal | None, hostile: duckdb.DuckDBPyConnection
) -> None:
    hostile.execute("DELETE FROM u")
    hostile.executemany("INSERT INTO u (w) VALUES (CAST(? AS DECIMAL(38,4)))", [(value,) for value in values])
    view = view_of("sum(w)")
    assert view is not None
    assert [rows.fetchall() for rows in whole_and_by_parts(hostile, view, "u")] == [[(total,)], [(total,)]]


VALUES = st.tuples(
    st.integers(-(1 << 31), (1 << 31) - 1),
    st.integers(-3, 3),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals("-99999999.99", "99999999.99", places=2),
    st.integers(-(10**38) + 1, 10**38 - 1).map(lambda unscaled: Decimal(unscaled).scaleb(-4, Context(prec=38))),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
    st.booleans(),
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)),
    st.dates(date(1, 1, 1), date(9999, 1, 1)),
)
ROW = VALUES.flatmap(lambda row: st.tuples(*(st.sampled_from([value, value, value, None]) for value in row)))


@st.composite
def measures(draw: st.DrawFn) -> str:
    """A measure of the manual's grammar, sound or not."""
    aggregate = draw(st.sampled_from(["count", "count_if", "sum", "min", "max", "avg"]))
    text = f"{aggregate}({draw(st.sampled_from(listed(SCALARS)))})"
    if draw(st.booleans()):
        text += f" filter (where {draw(st.sampled_from(['b', 'i > 0', 's is null', 'j in (1, 2)', 'x < d']))})"
    if draw(st.integers(0, 3)) == 0:
        form = draw(
            st.sampled_from(["{} + {}", "{} / {}", "greatest({}, {})", "coalesce({}, {})", "{} = {}", "{} - {}"])
        )
        return form.format(text, draw(measures()))
    return text


@settings(max_examples=150)
@given(
    texts=st.lists(measures(), min_size=1, max_size=4),
    rows=st.lists(ROW, min_size=1, max_size=8),
    by=st.sampled_from([(), ("j",)]),
)
def test_parts_of_any_measures_give_what_they_give_over_any_rows(
    hostile: duckdb.DuckDBPyConnection, texts: list[str], rows: list[tuple[Any, ...]], by: tuple[str, ...]
) -> None:
    view = view_of(*(text for text in texts if view_of(text, by=by)), by=by)
    assume(view)
    assert view is not None
    hostile.execute("DELETE FROM u")
    hostile.executemany(f"INSERT INTO u VALUES ({', '.join('?' * len(TYPES))})", rows)
    assert_alike(hostile, view, "u")
