"""Literals, operators and conditions of filters and measures."""

from __future__ import annotations

import re
from datetime import timedelta

from sqlglot import exp

from twofold.definition.fields import typed_value
from twofold.definition.patterns import pattern_fault
from twofold.definition.render import (
    ANY,
    BOOLEAN,
    DATE,
    DOUBLE,
    INT,
    INTERVAL,
    LONG,
    NULL,
    STRING,
    TIMESTAMP,
    UNKNOWN,
    Rendered,
    Renderer,
    article,
    filled,
    renders,
)
from twofold.definition.types import (
    MAX_DECIMAL_PRECISION,
    NUMBERS,
    FieldType,
    as_decimal,
    common_number,
    product_type,
    sum_type,
)

_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
}
_EXPECTED_INTERVAL = "a whole number of seconds, minutes, hours, days or weeks"
_SIGNS: dict[type[exp.Expr], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Mod: "%"}
_UNITS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400, "WEEK": 604_800}


@renders(exp.Paren)
def _paren(renderer: Renderer, node: exp.Expr) -> Rendered:
    inner = renderer.render(node.this)
    return filled(inner.kind, "({0})", inner)


@renders(exp.Column)
def _column(renderer: Renderer, node: exp.Expr) -> Rendered:
    if not isinstance(node.this, exp.Identifier):
        return renderer.refuse("*", "the plain name of a field")
    return renderer.column(node.name)


@renders(exp.Boolean)
def _boolean(renderer: Renderer, node: exp.Expr) -> Rendered:
    return Rendered(BOOLEAN, "TRUE" if node.this else "FALSE")


@renders(exp.Null, args="")
def _null(renderer: Renderer, node: exp.Expr) -> Rendered:
    return Rendered(NULL, "NULL")


@renders(exp.Literal, exp.RawString, args="this is_string")
def _literal(renderer: Renderer, node: exp.Expr) -> Rendered:
    text = str(node.this)
    if isinstance(node, exp.RawString) or node.is_string:
        return text_literal(text)
    digits = re.fullmatch(r"(\d*)(?:\.(\d*))?", text)
    if digits is None:
        return Rendered(DOUBLE, text)
    scale = len(digits[2] or "")
    precision = max(len(digits[1].lstrip("0")) + scale, scale, 1)
    if precision > MAX_DECIMAL_PRECISION:
        return renderer.refuse(f"a number of {precision} digits", f"at most {MAX_DECIMAL_PRECISION} digits")
    if scale == 0 and int(digits[1] or 0) < 1 << 63:
        return Rendered(INT if int(digits[1]) < 1 << 31 else LONG, digits[1])
    return Rendered(FieldType("decimal", precision, scale), text)


def text_literal(text: str) -> Rendered:
    """A quoted text."""
    doubled = text.replace("'", "''")
    return Rendered(STRING, f"'{doubled}'")


@renders(exp.And, exp.Or, args="this expression")
def _connect(renderer: Renderer, node: exp.Expr) -> Rendered:
    word = "AND" if isinstance(node, exp.And) else "OR"
    parts = [
        renderer.need(renderer.render(side), ("boolean",), f"beside {word}") for side in (node.this, node.expression)
    ]
    return filled(BOOLEAN, f"({{0}} {word} {{1}})", *parts)


@renders(exp.Not)
def _not(renderer: Renderer, node: exp.Expr) -> Rendered:
    return filled(BOOLEAN, "(NOT {0})", renderer.need(renderer.render(node.this), ("boolean",), "after NOT"))


@renders(*_COMPARISONS, args="this expression")
def _compare(renderer: Renderer, node: exp.Expr) -> Rendered:
    return filled(
        BOOLEAN, f"({{0}} {_COMPARISONS[type(node)]} {{1}})", *comparable(renderer, [node.this, node.expression])
    )


@renders(exp.NullSafeEQ, exp.NullSafeNEQ, args="this expression")
def _compare_nulls(renderer: Renderer, node: exp.Expr) -> Rendered:
    sides = comparable(renderer, [node.this, node.expression])
    if isinstance(node, exp.NullSafeEQ):
        return filled(BOOLEAN, "({0} IS NOT DISTINCT FROM {1})", *sides)
    return filled(BOOLEAN, "({0} IS DISTINCT FROM {1})", *sides)


@renders(exp.Is, args="this expression")
def _is(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.render(node.this)
    if isinstance(node.expression, exp.Null):
        return filled(BOOLEAN, "({0} IS NULL)", value)
    if isinstance(node.expression, exp.Boolean):
        word = "TRUE" if node.expression.this else "FALSE"
        return filled(BOOLEAN, f"({{0}} IS {word})", renderer.need(value, ("boolean",), f"before IS {word}"))
    return renderer.refuse("IS with a value", "IS [NOT] NULL, TRUE or FALSE")


@renders(exp.In, args="this expressions")
def _in(renderer: Renderer, node: exp.Expr) -> Rendered:
    value, *listed = comparable(renderer, [node.this, *node.expressions])
    places = ", ".join(f"{{{index + 1}}}" for index in range(len(listed)))
    return filled(BOOLEAN, f"({{0}} IN ({places}))", value, *listed)


@renders(exp.Between, args="this low high")
def _between(renderer: Renderer, node: exp.Expr) -> Rendered:
    parts = comparable(renderer, [node.this, node.args["low"], node.args["high"]])
    return filled(BOOLEAN, "({0} BETWEEN {1} AND {2})", *parts)


@renders(exp.Like, exp.ILike, args="this expression negate")
def _like(renderer: Renderer, node: exp.Expr) -> Rendered:
    pattern = node.expression
    if not (isinstance(pattern, exp.Literal) and pattern.is_string) or "\\" in pattern.this:
        return renderer.refuse("this pattern of LIKE", "a quoted text without backslashes")
    value = renderer.need(renderer.render(node.this), ("string",), "before LIKE")
    word = f"{'NOT ' if node.args.get('negate') else ''}{'ILIKE' if isinstance(node, exp.ILike) else 'LIKE'}"
    return filled(BOOLEAN, f"({{0}} {word} {{1}})", value, text_literal(pattern.this))


@renders(exp.RegexpLike, args="this expression", name="rlike regexp_like")
def _rlike(renderer: Renderer, node: exp.Expr) -> Rendered:
    pattern = node.expression
    if not isinstance(pattern, exp.RawString) and not (isinstance(pattern, exp.Literal) and pattern.is_string):
        return renderer.refuse("a computed regular expression", "a quoted one")
    if fault := pattern_fault(pattern.this):
        return renderer.refuse(f"a regular expression with {fault}", "one that Java and RE2 read alike")
    value = renderer.need(renderer.render(node.this), ("string",), "before RLIKE")
    return filled(BOOLEAN, "regexp_matches({0}, {1})", value, text_literal(pattern.this))


@renders(exp.Add, exp.Sub, exp.Mul, exp.Mod, args="this expression")
def _arithmetic(renderer: Renderer, node: exp.Expr) -> Rendered:
    sides = [renderer.render(node.this), renderer.render(node.expression)]
    if isinstance(node, exp.Add | exp.Sub) and sides[0].kind == TIMESTAMP and sides[1].kind == INTERVAL:
        return filled(TIMESTAMP, f"({{0}} {'+' if isinstance(node, exp.Add) else '-'} {{1}})", *sides)
    left, right = (renderer.need(side, NUMBERS, "in arithmetic") for side in sides)
    if ANY in (left.kind, right.kind) or NULL in (left.kind, right.kind):
        return UNKNOWN
    return arithmetic(renderer, type(node), left, right)


def arithmetic(renderer: Renderer, operator: type[exp.Expr], left: Rendered, right: Rendered) -> Rendered:
    """`+ - * %` on two numbers; NULL where the result overflows or the divisor is 0."""
    kind = (product_type if operator is exp.Mul else sum_type)(left.kind, right.kind)
    if kind is None:
        found = f"arithmetic on {left.kind} and {right.kind}, which needs more than {MAX_DECIMAL_PRECISION} digits"
        return renderer.refuse(found, "narrower decimals, or a cast to double")
    sign = _SIGNS[operator]
    first, last = (f"CAST({side.sql} AS {_operand_type(side.kind, kind, sign)})" for side in (left, right))
    text = f"({first} {sign} {f'nullif({last}, 0)' if sign == '%' else last})"
    if kind.name in ("int", "long"):
        text = f"TRY_CAST({text} AS {kind.duckdb})"
    return Rendered(kind, text)


def _operand_type(operand: FieldType, result: FieldType, sign: str) -> str:
    """The type to compute in, as DuckDB stops at an overflow: wide enough that there is none."""
    if result.name != "decimal":
        return "DOUBLE" if result.name == "double" else "HUGEINT"
    if sign != "*":
        return str(result)
    exact = as_decimal(operand)
    # Products of two decimals of up to 18 digits would be held to 18 digits.
    return str(FieldType("decimal", max(19, exact.precision), exact.scale))


@renders(exp.Div, args="this expression typed safe")
def _divide(renderer: Renderer, node: exp.Expr) -> Rendered:
    sides = [renderer.need(renderer.render(side), NUMBERS, "in a division") for side in (node.this, node.expression)]
    return filled(DOUBLE, "(CAST({0} AS DOUBLE) / nullif(CAST({1} AS DOUBLE), 0))", *sides)


@renders(exp.IntDiv, args="this expression")
def _divide_whole(renderer: Renderer, node: exp.Expr) -> Rendered:
    sides = [
        renderer.need(renderer.render(side), ("int", "long"), "beside DIV") for side in (node.this, node.expression)
    ]
    template = "TRY_CAST(CAST({0} AS HUGEINT) // nullif(CAST({1} AS HUGEINT), 0) AS BIGINT)"
    return filled(LONG, template, *sides)


@renders(exp.Neg)
def _negate(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(renderer.render(node.this), NUMBERS, "after a minus")
    if isinstance(node.this, exp.Literal) or value.kind.name in ("any", "null", "double", "decimal"):
        return filled(value.kind, "(- {0})", value)
    return arithmetic(renderer, exp.Sub, Rendered(INT, "0"), value)


@renders(exp.Interval, args="this unit")
def _interval(renderer: Renderer, node: exp.Expr) -> Rendered:
    unit, count = str(node.args.get("unit") or "").upper().removesuffix("S"), str(node.this.this if node.this else "")
    if unit not in _UNITS or not re.fullmatch(r"\d{1,6}", count):
        return renderer.refuse(f"the interval {node.sql('spark')}", _EXPECTED_INTERVAL)
    seconds = timedelta(seconds=int(count) * _UNITS[unit]) // timedelta(seconds=1)
    return Rendered(INTERVAL, f"INTERVAL '{seconds}' SECOND")


def comparable(renderer: Renderer, nodes: list[exp.Expr]) -> list[Rendered]:
    """Values that may be compared: all numbers, or all of one type. Quoted texts beside dates are read as dates."""
    parts = [renderer.render(node) for node in nodes]
    kinds = {part.kind.name for part in parts}
    for moment in (TIMESTAMP, DATE):
        if moment.name in kinds:
            parts = [moment_literal(renderer, node, part, moment) for node, part in zip(nodes, parts, strict=True)]
            break
    families = {_family(part.kind) for part in parts} - {"any", "null"}
    if len(families) > 1 or "interval" in families:
        found = " compared with ".join(dict.fromkeys(article(part.kind) for part in parts))
        hint = "write numbers without quotes" if families >= {"string", "number"} else ""
        renderer.refuse(found, "values of the same type", hint)
    return parts


def _family(kind: FieldType) -> str:
    return "number" if kind.is_number else {"date": "timestamp"}.get(kind.name, kind.name)


def moment_literal(renderer: Renderer, node: exp.Expr, part: Rendered, kind: FieldType) -> Rendered:
    """A quoted text as a date or timestamp; anything else as it is."""
    if not (isinstance(node, exp.Literal) and node.is_string):
        return part
    try:
        value = typed_value(node.this, kind)
    except ValueError as error:
        return renderer.refuse(f"'{node.this}'", str(error))
    return Rendered(kind, f"CAST('{value}' AS {kind.duckdb})")


def unified(renderer: Renderer, nodes: list[exp.Expr]) -> tuple[FieldType, list[Rendered]]:
    """Values of which one is chosen, and the type that holds them all."""
    parts = comparable(renderer, nodes)
    kinds = [part.kind for part in parts if part.kind not in (ANY, NULL)]
    if not kinds:
        return (ANY if any(part.kind == ANY for part in parts) else NULL), parts
    if not all(kind.is_number for kind in kinds):
        return (TIMESTAMP if TIMESTAMP in kinds else kinds[0]), parts
    kind = common_number(kinds)
    if kind is None:
        renderer.refuse("decimals that no common type can hold", "narrower decimals, or a cast to double")
    return kind or ANY, parts
