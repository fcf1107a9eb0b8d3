"""The aggregates of measures: those that a stream can keep up to date.

Each rests on plain counts, sums, least and greatest values of an argument (`Renderer.part`); an aggregate over the rows
and an expression over such parts are the same text but for what stands in their places.
"""

from __future__ import annotations

from sqlglot import exp

from twofold.definition.render import DOUBLE, INT, LONG, NULL, Function, Rendered, Renderer, renders, typed
from twofold.definition.types import MAX_DECIMAL_PRECISION, NUMBERS, FieldType, total_type

_ORDERED = ("int", "long", "double", "decimal", "string", "boolean", "timestamp", "date")
_ROOM = 10
"""Digits that sums have beyond their values': ten thousand million values fit."""
_HALF = 10**19
"""A decimal of 38 digits is so many times its upper half, plus its lower half, of 19 digits each."""


@renders(exp.Count, args="this big_int", aggregate=True, name="count")
def _count(renderer: Renderer, node: exp.Expr) -> Rendered:
    if isinstance(node.this, exp.Star | exp.Literal):
        return Rendered(LONG, renderer.part("count", "1", INT, "count(*)"))
    value = renderer.render(node.this)
    return Rendered(LONG, _count_where(renderer, f"({value.sql} IS NOT NULL)"))


def _count_where(renderer: Renderer, condition: str) -> str:
    return renderer.part("count", f"CASE WHEN {condition} THEN 1 END", INT)


@renders(exp.CountIf, aggregate=True, name="count_if")
def _count_if(renderer: Renderer, node: exp.Expr) -> Rendered:
    condition = renderer.need(renderer.render(node.this), ("boolean",), "in count_if()")
    return Rendered(LONG, _count_where(renderer, condition.sql))


@renders(exp.Sum, aggregate=True, name="sum")
def _sum(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(renderer.render(node.this), NUMBERS, "in sum()")
    kind = total_type(value.kind)
    if kind == DOUBLE:
        return Rendered(kind, renderer.part("sum", typed(value.sql, DOUBLE), kind))
    if value.kind.precision > MAX_DECIMAL_PRECISION - _ROOM:
        total = _sum_of_halves(renderer, value.sql, value.kind)
    else:
        # Spark adds longs in a third of the time of decimals: enough for four thousand million of the largest ints.
        wide = LONG if value.kind == INT else FieldType("decimal", MAX_DECIMAL_PRECISION, value.kind.scale)
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
    value = renderer.need(renderer.render(node.this), NUMBERS, "in avg()")
    total = renderer.part("sum", typed(value.sql, DOUBLE), DOUBLE)
    count = _count_where(renderer, f"({value.sql} IS NOT NULL)")
    return Rendered(DOUBLE, f"({total} / {count})")


@renders(exp.Min, exp.Max, aggregate=True, name="min max")
def _extreme(renderer: Renderer, node: exp.Expr) -> Rendered:
    function: Function = "min" if isinstance(node, exp.Min) else "max"
    value = renderer.need(renderer.render(node.this), _ORDERED, f"in {function}()")
    if value.kind == NULL:
        return value
    argument = typed(value.sql, value.kind)
    return Rendered(value.kind, renderer.part(function, argument, value.kind))


@renders(exp.Filter, args="this expression")
def _filtered(renderer: Renderer, node: exp.Expr) -> Rendered:
    """`sum(x) FILTER (WHERE …)`; written as an aggregate of a CASE, where the condition must stand by itself."""
    if not isinstance(node.this, exp.Count | exp.CountIf | exp.Sum | exp.Avg | exp.Min | exp.Max):
        return renderer.refuse("FILTER after something else", "FILTER after count, sum, min, max or avg")
    condition = node.expression.this
    inner = node.this.copy()
    if isinstance(inner.this, exp.Star):
        return renderer.render(exp.CountIf(this=condition.copy()))
    value = inner.this
    inner.set("this", exp.Case(ifs=[exp.If(this=condition.copy(), true=value.copy())]))
    if isinstance(inner, exp.CountIf):
        inner.set("this", exp.and_(condition.copy(), value.copy()))
    return renderer.render(inner)
