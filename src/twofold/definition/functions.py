"""Functions and conditionals of filters and measures."""

from __future__ import annotations

from sqlglot import exp

from twofold.definition.operators import arithmetic, comparable, moment_literal, unified
from twofold.definition.render import (
    ANY,
    BOOLEAN,
    DATE,
    DOUBLE,
    INT,
    LONG,
    STRING,
    TIMESTAMP,
    Rendered,
    Renderer,
    filled,
    name_of,
    renders,
)
from twofold.definition.types import NUMBERS, FieldType, rounded_type

_LONGEST = (1 << 63) - 1
_MOMENTS = ("timestamp", "date")
_TRUNCATIONS = ("MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR")
_CAST_TYPES = {
    exp.DType.INT: INT, exp.DType.BIGINT: LONG, exp.DType.DOUBLE: DOUBLE, exp.DType.TEXT: STRING,
    exp.DType.DATE: DATE, exp.DType.TIMESTAMP: TIMESTAMP, exp.DType.TIMESTAMPTZ: TIMESTAMP,
}  # fmt: skip
_CASTS = {
    "int": ("int", "long", "decimal", "double", "boolean"),
    "long": ("int", "long", "decimal", "double", "boolean"),
    "double": NUMBERS,
    "decimal": ("int", "long", "decimal"),
    "string": ("string", "int", "long", "boolean", "date"),
    "date": _MOMENTS,
    "timestamp": _MOMENTS,
}
"""Casts of one plain meaning. Text is not read as a number: declare the field with the type it has."""


@renders(exp.Case, args="this ifs default", name="case")
def _case(renderer: Renderer, node: exp.Expr) -> Rendered:
    branches: list[exp.Expr] = node.args["ifs"]
    tests = [branch.this for branch in branches]
    subject: list[Rendered] = []
    if node.this is not None:
        first, *conditions = comparable(renderer, [node.this, *tests])
        subject = [first]
    else:
        conditions = [renderer.need(renderer.render(test), ("boolean",), "after WHEN") for test in tests]
    default = [node.args["default"]] if node.args.get("default") is not None else []
    kind, results = unified(renderer, [*(branch.args["true"] for branch in branches), *default])
    return _case_text(kind, subject, conditions, results)


def _case_text(kind: FieldType, subject: list[Rendered], tests: list[Rendered], results: list[Rendered]) -> Rendered:
    parts, template = [*subject], "CASE {0}" if subject else "CASE"
    for test, result in zip(tests, results, strict=False):
        template += f" WHEN {{{len(parts)}}} THEN {{{len(parts) + 1}}}"
        parts += [test, result]
    if len(results) > len(tests):
        template += f" ELSE {{{len(parts)}}}"
        parts.append(results[-1])
    return filled(kind, f"{template} END", *parts)


@renders(exp.If, args="this true false", name="if")
def _if(renderer: Renderer, node: exp.Expr) -> Rendered:
    test = renderer.need(renderer.render(node.this), ("boolean",), "as the condition of if()")
    otherwise = node.args.get("false") or exp.Null()
    kind, results = unified(renderer, [node.args["true"], otherwise])
    return _case_text(kind, [], [test], results)


@renders(
    exp.Coalesce, exp.Greatest, exp.Least,
    args="this expressions ignore_nulls", name="coalesce nvl ifnull greatest least",
)  # fmt: skip
def _choose(renderer: Renderer, node: exp.Expr) -> Rendered:
    kind, parts = unified(renderer, [node.this, *node.expressions])
    if len(parts) < 2:
        return renderer.refuse(f"{name_of(node)} of one value", "at least two values")
    places = ", ".join(f"{{{index}}}" for index in range(len(parts)))
    return filled(kind, f"{type(node).__name__.lower()}({places})", *parts)


@renders(exp.Nullif, args="this expression", name="nullif")
def _nullif(renderer: Renderer, node: exp.Expr) -> Rendered:
    parts = comparable(renderer, [node.this, node.expression])
    return filled(parts[0].kind, "nullif({0}, {1})", *parts)


@renders(exp.Abs, name="abs")
def _abs(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(renderer.render(node.this), NUMBERS, "in abs()")
    if value.kind.name not in ("int", "long"):
        return filled(value.kind, "abs({0})", value)
    # The lowest whole number has no positive counterpart: DuckDB would stop at it.
    negated = arithmetic(renderer, exp.Sub, Rendered(INT, "0"), value)
    return filled(value.kind, "greatest({0}, {1})", value, negated)


@renders(exp.Round, args="this decimals", name="round")
def _round(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(renderer.render(node.this), NUMBERS, "in round()")
    digits = whole_literal(node.args.get("decimals"), 0)
    if digits is None or digits > 9:
        return renderer.refuse("these digits of round()", "a whole number from 0 to 9")
    if value.kind == DOUBLE:
        return _round_double(value, digits)
    if value.kind.name != "decimal" or digits >= value.kind.scale:
        return value
    kind = rounded_type(value.kind, digits)
    wide = FieldType("decimal", min(38, value.kind.precision + 1), value.kind.scale)
    return filled(kind, f"CAST(round(CAST({{0}} AS {wide}), {digits}) AS {kind})", value)


def _round_double(value: Rendered, digits: int) -> Rendered:
    """The shortest decimal form is rounded half up (2.675 to 2.68), where DuckDB rounds the binary value."""
    exact = f"TRY_CAST(CAST({{0}} AS VARCHAR) AS DECIMAL(38,{digits + 9}))"
    return filled(DOUBLE, f"coalesce(CAST(round({exact}, {digits}) AS DOUBLE), round({{0}}, {digits}))", value)


@renders(exp.Ceil, exp.Floor, name="ceil ceiling floor")
def _ceil(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(renderer.render(node.this), NUMBERS, f"in {name_of(node)}")
    function = type(node).__name__.lower()
    if value.kind.name == "double":
        # What is past the ends of the range is at them.
        ends = f"CASE WHEN {{0}} > 0 THEN {_LONGEST} WHEN {{0}} < 0 THEN -{_LONGEST} - 1 END"
        return filled(LONG, f"coalesce(TRY_CAST({function}({{0}}) AS BIGINT), {ends})", value)
    if value.kind.name != "decimal":
        return value
    kind = rounded_type(value.kind, 0)
    wide = FieldType("decimal", min(38, value.kind.precision + 1), value.kind.scale)
    return filled(kind, f"CAST({function}(CAST({{0}} AS {wide})) AS {kind})", value)


@renders(exp.Cast, exp.TryCast, args="this to safe _type", name="cast try_cast")
def _cast(renderer: Renderer, node: exp.Expr) -> Rendered:
    target = _cast_type(node.args["to"])
    if target is None:
        return renderer.refuse(f"a cast to {node.args['to'].sql('spark').lower()}", "a type that a field may have")
    value = renderer.render(node.this)
    if target.name in _MOMENTS:
        value = moment_literal(renderer, node.this, value, target)
    elif target.name == "decimal" and isinstance(node.this, exp.Literal) and node.this.is_string:
        value = Rendered(target, value.sql)
    value = renderer.need(value, _CASTS[target.name], f"in a cast to {target}")
    whole = target.name in ("int", "long") and value.kind.name in ("double", "decimal")
    return filled(target, f"TRY_CAST({'trunc({0})' if whole else '{0}'} AS {target.duckdb})", value)


def _cast_type(to: exp.DataType) -> FieldType | None:
    if to.this != exp.DType.DECIMAL:
        return _CAST_TYPES.get(to.this)
    sizes = [int(size.name) for size in to.expressions] or [10]
    try:
        return FieldType.parse(f"decimal({sizes[0]},{sizes[1] if len(sizes) > 1 else 0})")
    except ValueError:
        return None


@renders(exp.Upper, exp.Lower, name="upper lower")
def _change_case(renderer: Renderer, node: exp.Expr) -> Rendered:
    return filled(STRING, f"{type(node).__name__.lower()}({{0}})", text(renderer, node.this, name_of(node)))


@renders(exp.Length, args="this", name="length char_length")
def _length(renderer: Renderer, node: exp.Expr) -> Rendered:
    return filled(INT, "length({0})", text(renderer, node.this, "length()"))


@renders(exp.Trim, args="this position", name="trim ltrim rtrim")
def _trim(renderer: Renderer, node: exp.Expr) -> Rendered:
    function = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position")), "trim")
    # DuckDB's default takes other white space away too.
    return filled(STRING, f"{function}({{0}}, ' ')", text(renderer, node.this, "trim()"))


@renders(exp.Substring, args="this start length", name="substring substr")
def _substring(renderer: Renderer, node: exp.Expr) -> Rendered:
    start, length = whole_literal(node.args.get("start"), 0), whole_literal(node.args.get("length"), 1 << 30)
    if not start or length is None:
        return renderer.refuse("these positions of substring()", "whole numbers, the first from 1")
    return filled(STRING, f"substring({{0}}, {start}, {length})", text(renderer, node.this, "substring()"))


@renders(exp.Left, exp.Right, args="this expression", name="left right")
def _end(renderer: Renderer, node: exp.Expr) -> Rendered:
    length = whole_literal(node.expression, 0)
    if length is None:
        return renderer.refuse(f"this length of {name_of(node)}", "a whole number")
    return filled(STRING, f"{type(node).__name__.lower()}({{0}}, {length})", text(renderer, node.this, name_of(node)))


@renders(exp.DPipe, exp.Concat, args="this expression expressions safe coalesce", name="concat")
def _concat(renderer: Renderer, node: exp.Expr) -> Rendered:
    nodes = node.expressions or [node.this, node.expression]
    parts = [text(renderer, part, "in a concatenation") for part in nodes]
    places = " || ".join(f"{{{index}}}" for index in range(len(parts)))
    return filled(STRING, f"({places})", *parts)


@renders(exp.StartsWith, exp.EndsWith, exp.Contains, args="this expression", name="startswith endswith contains")
def _part_of(renderer: Renderer, node: exp.Expr) -> Rendered:
    function = type(node).__name__.lower()
    in_duckdb = {"startswith": "starts_with", "endswith": "ends_with"}.get(function, function)
    parts = [text(renderer, side, f"{function}()") for side in (node.this, node.expression)]
    return filled(BOOLEAN, f"{in_duckdb}({{0}}, {{1}})", *parts)


@renders(exp.TsOrDsToDate, args="this safe", name="to_date date")
def _to_date(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = moment_literal(renderer, node.this, renderer.render(node.this), DATE)
    return filled(DATE, "CAST({0} AS DATE)", renderer.need(value, _MOMENTS, "as a date"))


@renders(
    exp.Year, exp.Quarter, exp.Month, exp.Day, exp.DayOfMonth, exp.Hour, exp.Minute, exp.Second,
    name="year quarter month day dayofmonth hour minute second",
)  # fmt: skip
def _calendar(renderer: Renderer, node: exp.Expr) -> Rendered:
    function = type(node).__name__.lower()
    allowed = ("timestamp",) if function in ("hour", "minute", "second") else _MOMENTS
    return filled(INT, f"{function}({{0}})", renderer.need(renderer.render(node.this), allowed, f"in {function}()"))


@renders(exp.DayOfWeek, name="dayofweek")
def _day_of_week(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(renderer.render(node.this), _MOMENTS, "in dayofweek()")
    return filled(INT, "(dayofweek({0}) + 1)", value)


@renders(exp.TimestampTrunc, args="this unit", name="date_trunc")
def _truncate(renderer: Renderer, node: exp.Expr) -> Rendered:
    unit = str(node.args["unit"]).upper()
    if unit not in _TRUNCATIONS:
        return renderer.refuse(f"the unit {unit.lower()} of date_trunc()", "minute, hour, day, week, month or year")
    value = renderer.need(renderer.render(node.this), ("timestamp",), "in date_trunc()")
    return filled(TIMESTAMP, f"date_trunc('{unit}', {{0}})", value)


@renders(exp.StrToUnix, args="this format", name="unix_timestamp")
def _unix_timestamp(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.render(node.this)
    if value.kind not in (TIMESTAMP, ANY):
        return renderer.refuse("unix_timestamp() of something else", "unix_timestamp of a timestamp field")
    return filled(LONG, "CAST(floor(epoch({0})) AS BIGINT)", value)


def text(renderer: Renderer, node: exp.Expr, where: str) -> Rendered:
    """A part that must be text."""
    return renderer.need(renderer.render(node), ("string",), f"in {where.removeprefix('in ')}")


def whole_literal(node: exp.Expr | None, default: int) -> int | None:
    """The value of a whole number written out; `default` if there is none, None if it is something else."""
    if node is None:
        return default
    return int(node.name) if isinstance(node, exp.Literal) and node.name.isdecimal() and len(node.name) < 10 else None
