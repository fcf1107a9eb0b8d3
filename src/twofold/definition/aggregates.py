"""The aggregates of measures: those that a stream can keep up to date, and that both engines compute alike."""

from __future__ import annotations

from sqlglot import exp

from twofold.definition.number_types import NUMBERS, total_type
from twofold.definition.render import DOUBLE, LONG, Rendered, Renderer, both, renders

_ORDERED = ("int", "long", "double", "decimal", "string", "boolean", "timestamp", "date")


@renders(exp.Count, args="this big_int", aggregate=True, name="count")
def _count(renderer: Renderer, node: exp.Expr) -> Rendered:
    if isinstance(node.this, exp.Star):
        return Rendered(LONG, "count(*)", "count(*)")
    return both(LONG, "count({0})", renderer.render(node.this))


@renders(exp.CountIf, aggregate=True, name="count_if")
def _count_if(renderer: Renderer, node: exp.Expr) -> Rendered:
    condition = renderer.need(renderer.render(node.this), ("boolean",), "in count_if()")
    return both(LONG, "count_if({0})", condition, duckdb="count(*) FILTER (WHERE {0})")


@renders(exp.Sum, aggregate=True, name="sum")
def _sum(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(renderer.render(node.this), NUMBERS, "in sum()")
    kind = total_type(value.kind)
    if kind == DOUBLE:
        return both(DOUBLE, "sum({0})", value)
    return both(kind, "try_sum({0})", value, duckdb=f"TRY_CAST(sum({{0}}) AS {kind.duckdb})")


@renders(exp.Avg, aggregate=True, name="avg")
def _avg(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(renderer.render(node.this), NUMBERS, "in avg()")
    return both(DOUBLE, "avg(CAST({0} AS DOUBLE))", value)


@renders(exp.Min, exp.Max, aggregate=True, name="min max")
def _extreme(renderer: Renderer, node: exp.Expr) -> Rendered:
    function = type(node).__name__.lower()
    value = renderer.need(renderer.render(node.this), _ORDERED, f"in {function}()")
    return both(value.kind, f"{function}({{0}})", value)


@renders(exp.Filter, args="this expression")
def _filtered(renderer: Renderer, node: exp.Expr) -> Rendered:
    """`sum(x) FILTER (WHERE …)`; written as an aggregate of a CASE, where the condition must stand by itself."""
    if not isinstance(node.this, exp.Count | exp.CountIf | exp.Sum | exp.Avg | exp.Min | exp.Max):
        return renderer.refuse("FILTER after something else", "FILTER after count, sum, min, max or avg")
    condition = node.expression.this
    inner = node.this.copy()
    value = exp.Literal.number(1) if isinstance(inner.this, exp.Star) else inner.this
    inner.set("this", exp.Case(ifs=[exp.If(this=condition.copy(), true=value.copy())]))
    if isinstance(inner, exp.CountIf):
        inner.set("this", exp.and_(condition.copy(), value.copy()))
    return renderer.render(inner)
