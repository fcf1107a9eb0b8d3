"""Conditions and choices: what compares values, or takes one of several; such values have a type in common."""

from __future__ import annotations

from sqlglot import exp

from twofold.definition.renderer import (
    ANY,
    BOOLEAN,
    CONDITION,
    DATE,
    INT,
    LONG,
    NULL,
    TEXT,
    TIMESTAMP,
    Rendered,
    Renderer,
    article,
    children_of,
    name_of,
    renders,
    text_literal,
)
from twofold.definition.types import FieldType, common_number, pattern_fault, typed_value

_TOO_WIDE = ("decimals that no common type can hold", "narrower decimals, or a cast to double")
_COMPARED: dict[type[exp.Expr], str] = {
    exp.EQ: "({} = {})",
    exp.NEQ: "({} <> {})",
    exp.GT: "({} > {})",
    exp.GTE: "({} >= {})",
    exp.LT: "({} < {})",
    exp.LTE: "({} <= {})",
    exp.NullSafeEQ: "({} IS NOT DISTINCT FROM {})",
    exp.NullSafeNEQ: "({} IS DISTINCT FROM {})",
    # DuckDB's own would compare all three in one type, which may be inexact for two of them.
    exp.Between: "({0} >= {1} AND {0} <= {2})",
}


@renders(exp.And, exp.Or, args="this expression")
def _chain(renderer: Renderer, node: exp.Expr) -> Rendered:
    word = type(node).__name__.upper()
    conditions = (renderer.need(part, CONDITION, f"beside {word}").sql for part in children_of(node))
    return Rendered(BOOLEAN, f"({f' {word} '.join(conditions)})")


# Spark reads these from left to right, and sqlglot by ranks of its own.
_BINDING_ALIKE = (*_COMPARED, exp.Not, exp.In, exp.Like, exp.ILike, exp.RegexpLike)


@renders(*_COMPARED, args="this expression low high")
def _compare(renderer: Renderer, node: exp.Expr) -> Rendered:
    operands = [node.this, *(node.args[name] for name in ("expression", "low", "high") if name in node.args)]
    if any(isinstance(operand, _BINDING_ALIKE) for operand in operands):
        return renderer.refuse("a comparison compared", "parentheses that say what is compared with what")
    compared = _comparable(renderer, operands, one_by_one=True)
    return Rendered(BOOLEAN, _COMPARED[type(node)].format(*(part.sql for part in compared)))


@renders(exp.In, args="this expressions")
def _in(renderer: Renderer, node: exp.Expr) -> Rendered:
    if not node.expressions:
        return renderer.refuse("IN without values", "at least one")
    value, *listed = (part.sql for part in _comparable(renderer, [node.this, *node.expressions]))
    return Rendered(BOOLEAN, f"({value} IN ({', '.join(listed)}))")


@renders(exp.Is, args="this expression")
def _is(renderer: Renderer, node: exp.Expr) -> Rendered:
    if not isinstance(node.expression, exp.Null | exp.Boolean):
        renderer.render(node.this)
        return renderer.refuse("IS with a value", "IS [NOT] NULL, TRUE or FALSE")
    word = renderer.render(node.expression).sql
    value = renderer.render(node.this)
    if word != "NULL":
        value = renderer.needed(value, CONDITION, f"before IS {word}")
    return Rendered(BOOLEAN, f"({value.sql} IS {word})")


@renders(exp.Like, exp.ILike, args="this expression negate")
def _like(renderer: Renderer, node: exp.Expr) -> Rendered:
    pattern = node.expression
    if not pattern.is_string or "\\" in pattern.this:
        return renderer.refuse("this pattern of LIKE", "a quoted text without backslashes")
    value = renderer.need(node.this, TEXT, "before LIKE")
    word = f"{'NOT ' if node.args.get('negate') else ''}{'ILIKE' if isinstance(node, exp.ILike) else 'LIKE'}"
    return Rendered(BOOLEAN, f"({value.sql} {word} {text_literal(pattern.this)})")


@renders(exp.RegexpLike, args="this expression", name="rlike regexp_like")
def _rlike(renderer: Renderer, node: exp.Expr) -> Rendered:
    pattern = node.expression
    if not isinstance(pattern, exp.RawString) and not pattern.is_string:
        return renderer.refuse("a computed regular expression", "a quoted one")
    if fault := pattern_fault(pattern.this):
        return renderer.refuse(f"a regular expression with {fault}", "one that RE2 and Python read alike")
    value = renderer.need(node.this, TEXT, "before RLIKE")
    return Rendered(BOOLEAN, f"regexp_matches({value.sql}, {text_literal(pattern.this)})")


def _comparable(renderer: Renderer, nodes: list[exp.Expr], *, one_by_one: bool = False) -> list[Rendered]:
    """Values that may be compared, all with all, or the first with each of the others."""
    parts = _alike(renderer, nodes)
    kinds = [_narrowest(node, part) for node, part in zip(nodes, parts, strict=True)]
    for group in [[kinds[0], other] for other in kinds[1:]] if one_by_one else [kinds]:
        numbers = [kind for kind in group if kind.is_number]
        if numbers and common_number(numbers) is None:
            renderer.refuse(*_TOO_WIDE)
    if any(kind.name == "json" for kind in kinds):
        renderer.refuse("a json value compared", "count() or IS NULL, which alone take one")
    return parts


def _alike(renderer: Renderer, nodes: list[exp.Expr]) -> list[Rendered]:
    """Values that are all numbers, or all of one type. Quoted texts beside dates are read as dates."""
    parts = [renderer.render(node) for node in nodes]
    kinds = [part.kind for part in parts]
    time = TIMESTAMP if TIMESTAMP in kinds else DATE if DATE in kinds else None
    if time:
        parts = [moment(renderer, node, part, time) for node, part in zip(nodes, parts, strict=True)]
    families = {_family(part.kind) for part in parts} - {"any", "null"}
    if len(families) > 1 or "interval" in families:
        found = " compared with ".join(dict.fromkeys(article(part.kind) for part in parts))
        hint = "write numbers without quotes" if families >= {"string", "number"} else ""
        renderer.refuse(found, "values of the same type", hint)
    return parts


def _narrowest(node: exp.Expr, part: Rendered) -> FieldType:
    """The type that is just wide enough for a number written out; of anything else its own."""
    while isinstance(node, exp.Neg | exp.Paren | exp.Cast):  # as 2L is one
        node = node.this
    digits = node.name.partition(".")[0] if isinstance(node, exp.Literal) and part.kind in (INT, LONG) else ""
    return FieldType("decimal", len(digits.lstrip("0")) or 1, 0) if digits.isdecimal() else part.kind


def _family(kind: FieldType) -> str:
    return "number" if kind.is_number else {"date": "timestamp"}.get(kind.name, kind.name)


def moment(renderer: Renderer, node: exp.Expr, part: Rendered, kind: FieldType) -> Rendered:
    """A quoted text as a date or timestamp; anything else as it is."""
    if not (isinstance(node, exp.Literal) and node.is_string):
        return part
    try:
        value = typed_value(node.this, kind)
    except ValueError as error:
        return renderer.refuse(f"'{node.this}'", str(error))
    return Rendered(kind, f"CAST('{value}' AS {kind.duckdb})")


def _unified(renderer: Renderer, nodes: list[exp.Expr]) -> tuple[FieldType, list[str]]:
    """Values of which one is chosen, and the type that holds them all."""
    parts = _alike(renderer, nodes)
    texts = [part.sql for part in parts]
    kinds = [part.kind for part in parts if part.kind not in (ANY, NULL)]
    if not kinds:
        return (ANY if any(part.kind == ANY for part in parts) else NULL), texts
    if not all(kind.is_number for kind in kinds):
        return (TIMESTAMP if TIMESTAMP in kinds else kinds[0]), texts
    kind = common_number(kinds)
    if kind is None:
        renderer.refuse(*_TOO_WIDE)
    return kind or ANY, texts


@renders(exp.Case, args="this ifs default", name="case")
def _case(renderer: Renderer, node: exp.Expr) -> Rendered:
    tests = [branch.this for branch in node.args["ifs"]]
    subject: list[str] = []
    if node.this is not None:
        subject_and_values = _comparable(renderer, [node.this, *tests], one_by_one=True)
        subject, conditions = [subject_and_values[0].sql], [value.sql for value in subject_and_values[1:]]
    else:
        conditions = [renderer.need(test, CONDITION, "after WHEN").sql for test in tests]
    default = node.args.get("default")
    chosen = [*(branch.args["true"] for branch in node.args["ifs"]), *([] if default is None else [default])]
    kind, results = _unified(renderer, chosen)
    branches = [f"WHEN {test} THEN {result}" for test, result in zip(conditions, results, strict=False)]
    otherwise = [] if default is None else [f"ELSE {results[-1]}"]
    return Rendered(kind, " ".join(["CASE", *subject, *branches, *otherwise, "END"]))


@renders(exp.If, args="this true false", name="if")
def _if(renderer: Renderer, node: exp.Expr) -> Rendered:
    test = renderer.need(node.this, CONDITION, "as the condition of if()")
    kind, (first, other) = _unified(renderer, [node.args["true"], node.args.get("false") or exp.Null()])
    return Rendered(kind, f"CASE WHEN {test.sql} THEN {first} ELSE {other} END")


@renders(
    exp.Coalesce, exp.Greatest, exp.Least,
    args="this expressions ignore_nulls", name="coalesce nvl ifnull greatest least",
)  # fmt: skip
def _choose(renderer: Renderer, node: exp.Expr) -> Rendered:
    kind, texts = _unified(renderer, [node.this, *node.expressions])
    if len(texts) < 2:
        return renderer.refuse(f"{name_of(node)} of one value", "at least two values")
    return Rendered(kind, f"{type(node).__name__.lower()}({', '.join(texts)})")


@renders(exp.Nullif, args="this expression", name="nullif")
def _nullif(renderer: Renderer, node: exp.Expr) -> Rendered:
    value, other = _comparable(renderer, [node.this, node.expression])
    return Rendered(value.kind, f"CASE WHEN {value.sql} = {other.sql} THEN NULL ELSE {value.sql} END")
