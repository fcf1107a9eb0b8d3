"""Filters and measures: Spark SQL as declared ─► checked ─► DuckDB's SQL.

    text ─► sqlglot (Spark's grammar) ─► renderer: names, types, what is allowed ─► DuckDB's text, whole and in parts

The aggregates of measures are those that a stream can keep up to date: each rests on plain counts, sums, least and
greatest values of an argument (`Renderer.part`). An aggregate over the rows and an expression over such parts are the
same text but for what stands in their places.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.tokenizer_core import TokenType

from twofold.definition import functions  # noqa: F401  (it registers what may be rendered)
from twofold.definition.fault import shortened, shown
from twofold.definition.model import PART, Expression, Measure, Part
from twofold.definition.renderer import (
    DOUBLE,
    INT,
    LONG,
    MOST_LEVELS,
    NULL,
    Columns,
    ExpressionFault,
    Function,
    Rendered,
    Renderer,
    article,
    renders,
    typed,
)
from twofold.definition.types import MAX_DECIMAL_PRECISION, NUMBERS, FieldType

_LONGEST = 4000
# The parser needs up to 26 frames for a level: those of whoever calls must not decide what is too deep.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 36 * MOST_LEVELS))
_ORDERED = (*NUMBERS, "string", "boolean", "timestamp", "date")
_ROOM = 10
"""Digits that sums have beyond their values': ten thousand million values fit."""
_HALF = 10**19
"""A decimal of 38 digits is this many times its upper half, plus its lower half, of 19 digits each."""

E = TypeVar("E", bound=Expression)


class CheckedExpression(NamedTuple, Generic[E]):
    """An expression without problems, or its problems."""

    expression: E | None
    problems: list[ExpressionFault]


def check_filter(text: str, columns: Columns) -> CheckedExpression[Expression]:
    """Check a condition over one event."""
    renderer = Renderer(columns)
    rendered = render(text, renderer)
    if not renderer.problems and rendered.kind.name not in ("boolean", "any"):
        renderer.refuse(article(rendered.kind), "a condition, which is true or false")
    sound = None if renderer.problems else Expression(rendered.sql, text, rendered.kind)
    return CheckedExpression(sound, renderer.problems)


def check_measure(
    text: str, columns: Columns, by: tuple[str, ...], beside: Iterable[Measure] = ()
) -> CheckedExpression[Measure]:
    """Check an aggregate over the events of one window and group; its parts are numbered with those `beside` it."""
    renderer = Renderer(columns, by)
    rendered = render(text, renderer)
    kind = rendered.kind
    if not renderer.problems and not renderer.parts:
        expected = "an aggregate: count, sum, min, max, avg, or an expression over them"
        renderer.refuse(f"no aggregate in {shown(text)}", expected)
    if not renderer.problems and kind.name not in (*_ORDERED, "any"):
        renderer.refuse(article(kind), "a value that a column can hold")
    if renderer.problems:
        return CheckedExpression(None, renderer.problems)
    keys = {*renderer.parts, *((part.function, part.argument) for measure in beside for part in measure.parts)}
    names = {key: f"{PART}{number}" for number, key in enumerate(sorted(keys))}
    parts = tuple(Part(names[key], *key, its) for key, its in renderer.parts.items())
    after = render(text, Renderer(columns, by, names))
    return CheckedExpression(Measure(typed(rendered.sql, kind), text, kind, parts, typed(after.sql, kind)), [])


def render(text: str, renderer: Renderer) -> Rendered:
    """What the only expression in a text renders to; the renderer has the problems of both steps."""
    expected = "one Spark SQL expression"
    if not text.strip() or len(text) > _LONGEST:
        found = f"{len(text)} characters" if text.strip() else "an empty text"
        return renderer.refuse(found, f"{expected} of at most {_LONGEST} characters")
    try:
        tokens = sqlglot.tokenize(text, read="spark")
        # Only an expression: statements would be let through as raw commands, with a warning in the log.
        trees = sqlglot.Dialect.get_or_raise("spark").parse_into(exp.Condition, text)
    except ParseError as error:
        detail = error.errors[0] if error.errors else {}
        why = shortened(str(detail.get("description") or error).split(" for <class", maxsplit=1)[0], 80)
        hint = _backticks(text, renderer.columns) or f"{why} at line {detail.get('line')}, column {detail.get('col')}"
        return renderer.refuse(shown(text), "a Spark SQL expression", hint)
    except RecursionError:
        return renderer.refuse("brackets nested too deeply", f"at most {MOST_LEVELS} levels")
    except (SqlglotError, AttributeError, LookupError, TypeError, ValueError) as error:
        return renderer.refuse(shortened(str(error), 100), expected)
    if (TokenType.STRING, TokenType.STRING) in pairwise(token.token_type for token in tokens):
        return renderer.refuse("two quoted texts side by side", "one text", r"write a quote within a text as \'")
    if len(trees) != 1 or trees[0] is None:
        return renderer.refuse(f"{len(trees)} expressions", expected, _backticks(text, renderer.columns))
    return renderer.render_whole(trees[0])


def _backticks(text: str, columns: Columns) -> str:
    """The remedy for a text that has fields called like words of SQL; empty if there are none."""
    plain = (TokenType.VAR, TokenType.IDENTIFIER, TokenType.STRING)
    tokens = sqlglot.tokenize(text, read="spark")
    bare = (token.text.lower() for token in tokens if token.token_type not in plain)
    fields = [f"`{word}`" for word in dict.fromkeys(bare) if word in (columns or {})]
    return f"a field called like a word of SQL goes in backticks: {', '.join(fields)}" if fields else ""


@renders(exp.Count, args="this big_int", aggregate=True, name="count")
def _count(renderer: Renderer, node: exp.Expr) -> Rendered:
    if isinstance(node.this, exp.Star | exp.Literal):
        return Rendered(LONG, renderer.part("count", "1", INT, "count(*)"))
    return Rendered(LONG, _count_where(renderer, f"({renderer.render(node.this).sql} IS NOT NULL)"))


@renders(exp.CountIf, aggregate=True, name="count_if")
def _count_if(renderer: Renderer, node: exp.Expr) -> Rendered:
    return Rendered(LONG, _count_where(renderer, renderer.need(node.this, ("boolean",), "in count_if()").sql))


def _count_where(renderer: Renderer, condition: str) -> str:
    return renderer.part("count", f"CASE WHEN {condition} THEN 1 END", INT)


@renders(exp.Sum, aggregate=True, name="sum")
def _sum(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(node.this, NUMBERS, "in sum()")
    precision, scale = value.kind.precision, value.kind.scale
    if value.kind == DOUBLE:
        return Rendered(DOUBLE, renderer.part("sum", typed(value.sql, DOUBLE), DOUBLE))
    is_decimal = value.kind.name == "decimal"
    kind = FieldType("decimal", min(MAX_DECIMAL_PRECISION, precision + _ROOM), scale) if is_decimal else LONG
    if precision > MAX_DECIMAL_PRECISION - _ROOM:
        total = _sum_of_halves(renderer, value.sql, value.kind)
    else:
        # Longs are added in a third of the time of decimals: enough for four thousand million of the largest ints.
        wide = LONG if value.kind == INT else FieldType("decimal", MAX_DECIMAL_PRECISION, scale)
        total = renderer.part("sum", typed(value.sql, wide), wide, f"sum({value.sql})")
    return Rendered(kind, f"TRY_CAST({total} AS {kind.duckdb})")


def _sum_of_halves(renderer: Renderer, value: str, kind: FieldType) -> str:
    """The sum of decimals so wide that the sum itself could overflow, which stops DuckDB; NULL where it does."""
    whole = FieldType("decimal", MAX_DECIMAL_PRECISION, 0)
    digits = f"CAST(replace(CAST({value} AS VARCHAR), '.', '') AS HUGEINT)"
    upper, lower = (
        f"CAST({renderer.part('sum', f'CAST({digits} {sign} {_HALF} AS {whole})', whole)} AS HUGEINT)"
        for sign in ("//", "%")
    )
    carried = f"({upper} + {lower} // {_HALF})"
    total = f"TRY_CAST(CASE WHEN abs({carried}) <= {_HALF} THEN {carried} * {_HALF} + {lower} % {_HALF} END AS {whole})"
    if kind.scale == 0:
        return total
    return f"({total} * CAST(1e-{kind.scale} AS decimal({kind.scale},{kind.scale})))"


@renders(exp.Avg, aggregate=True, name="avg")
def _avg(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(node.this, NUMBERS, "in avg()").sql
    total = renderer.part("sum", typed(value, DOUBLE), DOUBLE)
    return Rendered(DOUBLE, f"({total} / {_count_where(renderer, f'({value} IS NOT NULL)')})")


@renders(exp.Min, exp.Max, aggregate=True, name="min max")
def _extreme(renderer: Renderer, node: exp.Expr) -> Rendered:
    function: Function = "min" if isinstance(node, exp.Min) else "max"
    value = renderer.need(node.this, _ORDERED, f"in {function}()")
    if value.kind == NULL:
        return value
    return Rendered(value.kind, renderer.part(function, typed(value.sql, value.kind), value.kind))


@renders(exp.Filter, args="this expression")
def _filtered(renderer: Renderer, node: exp.Expr) -> Rendered:
    """`sum(x) FILTER (WHERE …)`; written as an aggregate of a CASE, where the condition must stand by itself."""
    if not isinstance(node.this, exp.Count | exp.CountIf | exp.Sum | exp.Avg | exp.Min | exp.Max):
        return renderer.refuse("FILTER after something else", "FILTER after count, sum, min, max or avg")
    condition, inner = node.expression.this, node.this.copy()
    if isinstance(inner.this, exp.Star):
        return renderer.render(exp.CountIf(this=condition.copy()))
    if isinstance(inner, exp.CountIf):
        inner.set("this", exp.and_(condition.copy(), inner.this))
    else:
        inner.set("this", exp.Case(ifs=[exp.If(this=condition.copy(), true=inner.this)]))
    return renderer.render(inner)
