"""Which data files a query needs: conditions as Iceberg predicates, read off DuckDB's own plan of the query.

    plan of the query over empty stand-ins ─► the filters pushed into each scan ─► Iceberg predicate per source

A stand-in's columns are called _tw_s<number>__<column>: so a filter says which source it is of. Only what is
understood narrows; anything else leaves the source whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from functools import reduce
from itertools import pairwise
from typing import Any

import sqlglot
from duckdb import DuckDBPyConnection, Error
from pyiceberg import expressions
from pyiceberg.expressions import AlwaysFalse, AlwaysTrue, BooleanExpression
from sqlglot import exp
from sqlglot.errors import SqlglotError

from twofold.reader.statements import words
from twofold.text import quoted

EVERYTHING: BooleanExpression = AlwaysTrue()
# The constructors of pyiceberg's predicates take other arguments than their type annotations say.
_COMPARISONS: dict[str, Any] = {
    "=": expressions.EqualTo,
    ">": expressions.GreaterThan,
    ">=": expressions.GreaterThanOrEqual,
    "<": expressions.LessThan,
    "<=": expressions.LessThanOrEqual,
    "in": expressions.In,
}
_AND: Any = expressions.And
_OR: Any = expressions.Or
_OPERATORS: dict[type[exp.Expr], str] = {exp.EQ: "=", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<="}
_PREFIX = re.compile(r"\b_tw_s(\d+)__")


def compared(column: str, operator: str, value: object) -> BooleanExpression:
    """`column operator value`; moments and days are ISO texts.

    >>> compared("n", ">=", 1)
    GreaterThanOrEqual(term=Reference(name='n'), literal=LongLiteral(1))
    """
    result: BooleanExpression = _COMPARISONS[operator](column, value)
    return result


def all_of(conditions: Iterable[BooleanExpression]) -> BooleanExpression:
    """And over any number of conditions."""
    return reduce(_AND, conditions, EVERYTHING)


def any_of(conditions: Iterable[BooleanExpression]) -> BooleanExpression:
    """Or over any number of conditions."""
    return reduce(_OR, conditions, AlwaysFalse())


def overlapping(connection: DuckDBPyConnection, key: str, relation: str) -> BooleanExpression:
    """Rows whose `key` lies between the lowest and the highest one of a relation."""
    low, high = connection.execute(f"SELECT min({quoted(key)}), max({quoted(key)}) FROM {relation}").fetchall()[0]
    if not isinstance(low, str | int):
        return EVERYTHING
    return all_of([compared(key, ">=", low), compared(key, "<=", high)])


def past_offsets(offsets: dict[int, int]) -> BooleanExpression:
    """Stream rows at or past these offsets, or of a partition not named.

    Written as ranges of partitions, since NOT IN would leave no file out.
    """
    if not offsets:
        return EVERYTHING
    past = [
        all_of([compared("kafka_partition", "=", partition), compared("kafka_offset", ">=", offset)])
        for partition, offset in offsets.items()
    ]
    edges = [-1, *sorted(offsets)]
    gaps = [
        all_of([compared("kafka_partition", ">", low), compared("kafka_partition", "<", high)])
        for low, high in pairwise(edges)
        if high - low > 1
    ]
    return any_of([*past, *gaps, compared("kafka_partition", ">", edges[-1])])


def prefix(number: int) -> str:
    """What a stand-in puts before the names of its columns."""
    return f"_tw_s{number}__"


def may_help(sql: str) -> bool:
    """Whether the SQL has a condition at all."""
    return not {"where", "on", "using", "having", "qualify"}.isdisjoint(words(sql))


def bounds(connection: DuckDBPyConnection, sql: str) -> dict[int, BooleanExpression]:
    """What the query, planned over stand-ins, needs of each source, by its number; empty if its plan cannot be used."""
    try:
        plans = [json.loads(row[1]) for row in connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()]
    except (Error, json.JSONDecodeError):  # the query itself will say what is wrong with it
        return {}
    needed: dict[int, list[BooleanExpression]] = {}
    for scan in (node for plan in plans for root in plan for node in _scans(root)):
        filters = _as_list(scan.get("Filters"))
        texts = [*_as_list(scan.get("Projections")), *filters]
        seen = {int(number) for text in texts for number in _PREFIX.findall(text)}
        if len(seen) != 1:  # a scan of no columns could be of any source
            return {}
        needed.setdefault(seen.pop(), []).append(all_of(map(_needs_text, filters)))
    return {number: any_of(conditions) for number, conditions in needed.items()}


def _scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node["name"].strip() == "READ_PARQUET":
        yield node["extra_info"]
    for child in node.get("children", []):
        yield from _scans(child)


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _needs_text(condition: str) -> BooleanExpression:
    """What a filter of a scan leaves.

    >>> _needs_text("((_tw_s0__n >= 1) AND (_tw_s0__x % 2 = 0))")
    GreaterThanOrEqual(term=Reference(name='n'), literal=LongLiteral(1))
    """
    try:
        return _needs(sqlglot.parse_one(condition.replace("optional: ", ""), read="duckdb"))
    except SqlglotError:
        return EVERYTHING


def _needs(tree: exp.Expr) -> BooleanExpression:
    """At least every row that the condition is true of."""
    match tree:
        case exp.Paren():
            return _needs(tree.this)
        case exp.And():
            return all_of([_needs(tree.left), _needs(tree.right)])
        case exp.Or():
            return any_of([_needs(tree.left), _needs(tree.right)])
        case exp.In() if tree.expressions:
            values = [_value(item) for item in tree.expressions]
            return EVERYTHING if None in values else _compared(tree.this, "in", values)
    operator = _OPERATORS.get(type(tree))
    value = _value(tree.expression) if operator else None
    return EVERYTHING if operator is None or value is None else _compared(tree.this, operator, value)


def _compared(column: exp.Expr, operator: str, value: object) -> BooleanExpression:
    if not isinstance(column, exp.Column) or column.table or not (match := _PREFIX.match(column.name)):
        return EVERYTHING
    return compared(column.name[match.end() :], operator, value)


def _value(tree: exp.Expr) -> int | str | None:
    """An integer, or a moment or day as Iceberg reads it; None for anything else."""
    if isinstance(tree, exp.Neg) and isinstance(inner := _value(tree.this), int):
        return -inner
    if isinstance(tree, exp.Literal) and not tree.is_string and re.fullmatch(r"\d+", tree.name):
        return int(tree.name)
    if isinstance(tree, exp.Cast) and isinstance(tree.this, exp.Literal):
        return _moment(tree.this.name, tree.to.this)
    return None


def _moment(text: str, kind: object) -> str | None:
    try:
        if kind == exp.DataType.Type.TIMESTAMPTZ:
            return datetime.fromisoformat(text).isoformat()
        return date.fromisoformat(text).isoformat() if kind == exp.DataType.Type.DATE else None
    except ValueError:  # infinity, or a year that Python does not have
        return None
