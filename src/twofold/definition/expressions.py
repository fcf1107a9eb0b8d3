"""Filters and measures: Spark SQL as declared ─► checked ─► DuckDB's SQL.

text ─► sqlglot (Spark's grammar, no JVM) ─► render: names, types, what is allowed ─► DuckDB's text, whole and in parts
"""

from __future__ import annotations

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
from twofold.definition.render import UNKNOWN, Columns, Problem, Rendered, Renderer, article, typed

_LONGEST = 4000
_OUTPUT_KINDS = ("int", "long", "double", "decimal", "string", "boolean", "timestamp", "date", "any")

E = TypeVar("E", bound=Expression)


class Checked(NamedTuple, Generic[E]):
    """An expression without problems, or its problems."""

    expression: E | None
    problems: list[Problem]


def check_filter(text: str, columns: Columns) -> Checked[Expression]:
    """Check a condition over one event."""
    renderer = Renderer(columns)
    _, rendered = _render(text, renderer)
    if not renderer.problems and rendered.kind.name not in ("boolean", "any"):
        renderer.refuse(article(rendered.kind), "a condition, which is true or false")
    if renderer.problems:
        return Checked(None, list(dict.fromkeys(renderer.problems)))
    return Checked(Expression(rendered.sql, text, rendered.kind), [])


def check_measure(text: str, columns: Columns, by: tuple[str, ...], beside: Iterable[Measure] = ()) -> Checked[Measure]:
    """Check an aggregate over the events of one window and group; its parts are numbered with those `beside` it."""
    renderer = Renderer(columns, by)
    tree, rendered = _render(text, renderer)
    if not renderer.problems and not renderer.parts:
        expected = "an aggregate: count, sum, min, max, avg, or an expression over them"
        renderer.refuse(f"no aggregate in {shown(text)}", expected)
    if not renderer.problems and rendered.kind.name not in _OUTPUT_KINDS:
        renderer.refuse(article(rendered.kind), "a value that a column can hold")
    if tree is None or renderer.problems:
        return Checked(None, list(dict.fromkeys(renderer.problems)))
    keys = {*renderer.parts, *((part.function, part.argument) for measure in beside for part in measure.parts)}
    names = {key: f"{PART}{number}" for number, key in enumerate(sorted(keys))}
    parts = tuple(Part(names[key], *key, kind) for key, kind in renderer.parts.items())
    after = Renderer(columns, by, names).render_whole(tree)
    whole, after_parts = (typed(one.sql, rendered.kind) for one in (rendered, after))
    return Checked(Measure(whole, text, rendered.kind, parts, after_parts), [])


def _render(text: str, renderer: Renderer) -> tuple[exp.Expr | None, Rendered]:
    """The tree of `text` and what it renders to; the renderer has the problems of both."""
    tree, problems = parse(text)
    if tree is None:
        renderer.problems += _with_backticks(problems, text, renderer.columns)
        return None, UNKNOWN
    return tree, renderer.render_whole(tree)


def parse(text: str) -> tuple[exp.Expr | None, list[Problem]]:
    """The tree of the only expression in `text`, or why there is none."""
    expected = "one Spark SQL expression"
    if not text.strip() or len(text) > _LONGEST:
        found = f"{len(text)} characters" if text.strip() else "an empty text"
        return None, [Problem(found, f"{expected} of at most {_LONGEST} characters")]
    try:
        tokens = sqlglot.tokenize(text, read="spark")
        # Only an expression: statements would be let through as raw commands, with a warning in the log.
        trees = sqlglot.Dialect.get_or_raise("spark").parse_into(exp.Condition, text)
    except ParseError as error:
        detail = error.errors[0] if error.errors else {}
        why = shortened(str(detail.get("description") or error).split(" for <class", maxsplit=1)[0], 80)
        hint = f"{why} at line {detail.get('line')}, column {detail.get('col')}"
        return None, [Problem(shown(text), "a Spark SQL expression", hint)]
    except (SqlglotError, RecursionError, ValueError) as error:
        return None, [Problem(shortened(str(error), 100), expected)]
    if (TokenType.STRING, TokenType.STRING) in pairwise(token.token_type for token in tokens):
        return None, [Problem("two quoted texts side by side", "one text", r"write a quote within a text as \'")]
    if len(trees) != 1 or trees[0] is None:
        return None, [Problem(f"{len(trees)} expressions", expected)]
    return trees[0], []


def _with_backticks(problems: list[Problem], text: str, columns: Columns) -> list[Problem]:
    """Problems of a text that has fields called like words of SQL, with the remedy: they go in backticks."""
    try:
        tokens = sqlglot.tokenize(text, read="spark")
    except SqlglotError:
        return problems
    plain = (TokenType.VAR, TokenType.IDENTIFIER, TokenType.STRING)
    bare = (token.text.lower() for token in tokens if token.token_type not in plain)
    fields = [f"`{word}`" for word in dict.fromkeys(bare) if word in (columns or {})]
    if not fields:
        return problems
    hint = f"a field called like a word of SQL goes in backticks: {', '.join(fields)}"
    return [problem._replace(hint=hint) for problem in problems]
