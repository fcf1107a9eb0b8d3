"""Which ranges a query needs, read off DuckDB's own plan of it, so that files outside of them are never opened.

    plan of the query over empty stand-ins ─► the filters pushed into each scan ─► Iceberg expression per source

A stand-in's columns are called _tw_s<number>__<column>: so a filter tells which source it is of. Only what is
understood narrows; anything else leaves the source whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Any

import sqlglot
from duckdb import DuckDBPyConnection, Error
from pyiceberg.expressions import BooleanExpression
from sqlglot import exp
from sqlglot.errors import SqlglotError

from twofold.reader.names import words
from twofold.reader.predicates import EVERYTHING, all_of, any_of, compared

Bounds = dict[int, BooleanExpression]
"""What the query needs of each source, by its number."""

_PREFIX = re.compile(r"\b_tw_s(\d+)__")
_OPERATORS: dict[type[exp.Expr], str] = {exp.EQ: "=", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<="}


def prefix(number: int) -> str:
    """What a stand-in puts before the names of its columns."""
    return f"_tw_s{number}__"


def may_help(sql: str) -> bool:
    """Whether the SQL has a condition at all."""
    return not {"where", "on", "using", "having", "qualify"}.isdisjoint(words(sql))


def bounds(connection: DuckDBPyConnection, sql: str) -> Bounds:
    """What the query, planned over stand-ins, needs of each source; empty where its plan does not tell."""
    try:
        plans = [json.loads(row[1]) for row in connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()]
    except (Error, json.JSONDecodeError):  # the query itself will say what is wrong with it
        return {}
    needed: dict[int, list[BooleanExpression]] = {}
    for scan in (node for plan in plans for root in plan for node in _scans(root)):
        seen = {int(number) for text in _texts(scan) for number in _PREFIX.findall(text)}
        if len(seen) != 1:  # a scan of no columns could be of any source
            return {}
        needed.setdefault(seen.pop(), []).append(needs(_as_list(scan.get("Filters"))))
    return {number: any_of(conditions) for number, conditions in needed.items()}


def _scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node["name"].strip() == "READ_PARQUET":
        yield node["extra_info"]
    for child in node.get("children", []):
        yield from _scans(child)


def _texts(scan: dict[str, Any]) -> list[str]:
    return [*_as_list(scan.get("Projections")), *_as_list(scan.get("Filters"))]


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def needs(filters: Iterable[str]) -> BooleanExpression:
    """What all these filters of one scan leave.

    >>> needs(["((_tw_s0__n >= 1) AND (_tw_s0__x = 'a'))"])
    GreaterThanOrEqual(term=Reference(name='n'), literal=LongLiteral(1))
    """
    return all_of(_needs(tree) for text in filters if (tree := _parsed(text)) is not None)


def _parsed(text: str) -> exp.Expr | None:
    try:
        return sqlglot.parse_one(text.replace("optional: ", ""), read="duckdb")
    except SqlglotError:
        return None


def _needs(tree: exp.Expr) -> BooleanExpression:
    """At least every row that the condition is true of."""
    if isinstance(tree, exp.Paren):
        return _needs(tree.this)
    if isinstance(tree, exp.And):
        return all_of([_needs(tree.left), _needs(tree.right)])
    if isinstance(tree, exp.Or):
        return any_of([_needs(tree.left), _needs(tree.right)])
    if isinstance(tree, exp.In) and tree.expressions:
        values = [_value(item) for item in tree.expressions]
        return EVERYTHING if None in values else _compared(tree.this, "in", values)
    operator = _OPERATORS.get(type(tree))
    if operator is None or (value := _value(tree.expression)) is None:
        return EVERYTHING
    return _compared(tree.this, operator, value)


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
