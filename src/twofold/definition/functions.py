"""What expressions may be made of: each sqlglot node that is let in, its types and its SQL for DuckDB. Most are
a row of a table; `renderer` has what compares and chooses, `expressions` the aggregates.
"""

from __future__ import annotations

import re
from math import isinf

from sqlglot import exp

from twofold.definition.fault import shortened
from twofold.definition.renderer import (
    ANY,
    BOOLEAN,
    CONDITION,
    DATE,
    DOUBLE,
    INT,
    INTERVAL,
    LONG,
    NULL,
    STRING,
    TEXT,
    TIMESTAMP,
    UNKNOWN,
    Rendered,
    Renderer,
    moment,
    name_of,
    renders,
    text_literal,
    written,
)
from twofold.definition.types import MAX_DECIMAL_PRECISION, NUMBERS, FieldType, as_decimal, product_type, sum_type

_MOMENTS, _TIME = ("timestamp", "date"), ("timestamp",)

_DIVIDED = "(CASE WHEN {1} <> 0 THEN CAST({0} AS DOUBLE) / CAST({1} AS DOUBLE) END)"
_DIVIDED_WHOLE = "TRY_CAST(CASE WHEN {1} <> 0 THEN CAST({0} AS HUGEINT) // CAST({1} AS HUGEINT) END AS BIGINT)"
# Node: SQL, type of the value, types of the operands, where an operand of another type was found.
_PLAIN: dict[type[exp.Expr], tuple[str, FieldType, tuple[str, ...], str]] = {
    exp.Not: ("(NOT {0})", BOOLEAN, CONDITION, "after NOT"),
    exp.Div: (_DIVIDED, DOUBLE, NUMBERS, "in a division"),
    exp.IntDiv: (_DIVIDED_WHOLE, LONG, ("int", "long"), "beside DIV"),
    exp.Upper: ("upper({0})", STRING, TEXT, "in upper()"),
    exp.Lower: ("lower({0})", STRING, TEXT, "in lower()"),
    exp.Length: ("length({0})", INT, TEXT, "in length()"),
    exp.StartsWith: ("starts_with({0}, {1})", BOOLEAN, TEXT, "in startswith()"),
    exp.EndsWith: ("ends_with({0}, {1})", BOOLEAN, TEXT, "in endswith()"),
    exp.Contains: ("contains({0}, {1})", BOOLEAN, TEXT, "in contains()"),
    exp.Year: ("year({0})", INT, _MOMENTS, "in year()"),
    exp.Quarter: ("quarter({0})", INT, _MOMENTS, "in quarter()"),
    exp.Month: ("month({0})", INT, _MOMENTS, "in month()"),
    exp.Day: ("day({0})", INT, _MOMENTS, "in day()"),
    exp.DayOfMonth: ("dayofmonth({0})", INT, _MOMENTS, "in dayofmonth()"),
    exp.DayOfWeek: ("(dayofweek({0}) + 1)", INT, _MOMENTS, "in dayofweek()"),
    exp.Hour: ("hour({0})", INT, _TIME, "in hour()"),
    exp.Minute: ("minute({0})", INT, _TIME, "in minute()"),
    exp.Second: ("second({0})", INT, _TIME, "in second()"),
    exp.StrToUnix: ("(epoch_us({0}) // 1000000)", LONG, _TIME, "in unix_timestamp()"),
}
_SIGNS: dict[type[exp.Expr], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Mod: "%"}
_UNITS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400, "WEEK": 604_800}
_TRUNCATIONS = ("MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR")
_CAST_TYPES = {
    exp.DType.INT: INT, exp.DType.BIGINT: LONG, exp.DType.DOUBLE: DOUBLE, exp.DType.TEXT: STRING,
    exp.DType.DATE: DATE, exp.DType.TIMESTAMP: TIMESTAMP, exp.DType.TIMESTAMPTZ: TIMESTAMP,
}  # fmt: skip
_CASTS = {
    "int": (*NUMBERS, "boolean"),
    "long": (*NUMBERS, "boolean"),
    "double": NUMBERS,
    "decimal": ("int", "long", "decimal"),
    "string": ("string", "int", "long", "boolean", "date"),
    "date": _MOMENTS,
    "timestamp": _MOMENTS,
}
"""Casts of one plain meaning. Text is not read as a number: declare the field with the type it has."""
_LONGEST = (1 << 63) - 1
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


@renders(
    *_PLAIN,
    args="this expression typed safe format",
    name="upper lower length char_length startswith endswith contains "
    "year quarter month day dayofmonth dayofweek hour minute second unix_timestamp",
)
def _plain(renderer: Renderer, node: exp.Expr) -> Rendered:
    template, kind, allowed, where = _PLAIN[type(node)]
    operands = (node.this, node.expression) if "{1}" in template else (node.this,)
    return Rendered(kind, template.format(*(_operand_sql(renderer, operand, allowed, where) for operand in operands)))


def _operand_sql(renderer: Renderer, node: exp.Expr, allowed: tuple[str, ...], where: str) -> str:
    """The operand of a function that DuckDB may have for several types, and cannot choose one of for a bare NULL."""
    value = renderer.need(node, allowed, where)
    return f"CAST(NULL AS {FieldType(allowed[0]).duckdb})" if value.kind == NULL else value.sql


@renders(exp.Paren)
def _paren(renderer: Renderer, node: exp.Expr) -> Rendered:
    inner = renderer.render(node.this)
    return Rendered(inner.kind, f"({inner.sql})")


@renders(exp.Column)
def _column(renderer: Renderer, node: exp.Expr) -> Rendered:
    if not isinstance(node.this, exp.Identifier):
        return renderer.refuse("*", "the plain name of a field")
    return renderer.column(node.name)


@renders(exp.Boolean, exp.Null)
def _constant(renderer: Renderer, node: exp.Expr) -> Rendered:
    if isinstance(node, exp.Null):
        return Rendered(NULL, "NULL")
    return Rendered(BOOLEAN, "TRUE" if node.this else "FALSE")


@renders(exp.Literal, exp.RawString, args="this is_string")
def _literal(renderer: Renderer, node: exp.Expr) -> Rendered:
    text = str(node.this)
    if isinstance(node, exp.RawString) or node.is_string:
        return Rendered(STRING, text_literal(text))
    digits = re.fullmatch(r"(\d*)(?:\.(\d*))?", text)
    if digits is None:
        if not _NUMBER.fullmatch(text):
            return renderer.refuse(shortened(text), "a number")
        if isinf(float(text)):
            return renderer.refuse(text, "a number that a double can hold")
        return Rendered(DOUBLE, text)
    scale = len(digits[2] or "")
    precision = max(len(digits[1].lstrip("0")) + scale, scale, 1)
    if precision > MAX_DECIMAL_PRECISION:
        return renderer.refuse(f"a number of {precision} digits", f"at most {MAX_DECIMAL_PRECISION} digits")
    if scale == 0 and int(digits[1] or 0) <= _LONGEST:
        return Rendered(INT if int(digits[1]) < 1 << 31 else LONG, digits[1])
    kind = FieldType("decimal", precision, scale)
    return Rendered(kind, f"CAST('{text}' AS {kind})")  # DuckDB's own type for it is another here and there


@renders(*_SIGNS, args="this expression")
def _arithmetic(renderer: Renderer, node: exp.Expr) -> Rendered:
    left, right = renderer.render(node.this), renderer.render(node.expression)
    if isinstance(node, exp.Add | exp.Sub) and (left.kind, right.kind) == (TIMESTAMP, INTERVAL):
        return Rendered(TIMESTAMP, f"({left.sql} {_SIGNS[type(node)]} {right.sql})")
    left, right = (renderer.needed(side, NUMBERS, "in arithmetic") for side in (left, right))
    if ANY in (left.kind, right.kind):
        return UNKNOWN
    if NULL in (left.kind, right.kind):
        return Rendered(NULL, "NULL")
    return _computed(renderer, _SIGNS[type(node)], left, right)


def _computed(renderer: Renderer, sign: str, left: Rendered, right: Rendered) -> Rendered:
    """`+ - * %` on two numbers; NULL where the result overflows or the divisor is 0."""
    kind = (product_type if sign == "*" else sum_type)(left.kind, right.kind)
    if kind is None:
        found = f"arithmetic on {left.kind} and {right.kind}, which needs more than {MAX_DECIMAL_PRECISION} digits"
        return renderer.refuse(found, "narrower decimals, or a cast to double")
    first, last = (f"CAST({side.sql} AS {_operand_type(side.kind, kind, sign)})" for side in (left, right))
    text = f"({first} {sign} {last})"
    if sign == "%":
        # DuckDB writes nullif() as such a CASE itself, where nobody sees how large it grows.
        text = f"(CASE WHEN {last} <> 0 THEN {text} END)"
    return Rendered(kind, f"TRY_CAST({text} AS {kind.duckdb})" if kind in (INT, LONG) else text)


def _operand_type(operand: FieldType, result: FieldType, sign: str) -> str:
    """The type to compute in, as DuckDB stops at an overflow: wide enough that there is none."""
    if result.name != "decimal":
        return "DOUBLE" if result == DOUBLE else "HUGEINT"
    if sign != "*":
        return str(result)
    exact = as_decimal(operand)
    # Products of two decimals of up to 18 digits would be held to 18 digits.
    return str(FieldType("decimal", max(19, exact.precision), exact.scale))


@renders(exp.Neg)
def _negate(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(node.this, NUMBERS, "after a minus")
    if isinstance(node.this, exp.Literal) or value.kind not in (INT, LONG):
        return Rendered(value.kind, f"(- {value.sql})")
    return _computed(renderer, "-", Rendered(INT, "0"), value)


@renders(exp.Interval, args="this unit")
def _interval(renderer: Renderer, node: exp.Expr) -> Rendered:
    unit, count = str(node.args.get("unit") or "").upper().removesuffix("S"), str(node.this.this if node.this else "")
    if unit not in _UNITS or not re.fullmatch(r"\d{1,6}", count):
        expected = "a whole number of seconds, minutes, hours, days or weeks"
        return renderer.refuse(f"the interval {written(node)}", expected)
    return Rendered(INTERVAL, f"INTERVAL '{int(count) * _UNITS[unit]}' SECOND")


@renders(exp.Abs, name="abs")
def _abs(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(node.this, NUMBERS, "in abs()")
    if value.kind not in (INT, LONG):
        return Rendered(value.kind, f"abs({value.sql})")
    # The lowest whole number has no positive counterpart: DuckDB would stop at it.
    return Rendered(value.kind, f"TRY_CAST(abs(CAST({value.sql} AS HUGEINT)) AS {value.kind.duckdb})")


@renders(exp.Round, args="this decimals", name="round")
def _round(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(node.this, NUMBERS, "in round()")
    digits = _whole(node.args.get("decimals"), 0)
    if digits is None or digits > 9:
        return renderer.refuse("these digits of round()", "a whole number from 0 to 9")
    if value.kind == DOUBLE:
        # The shortest decimal form is rounded half up (2.675 to 2.68), where DuckDB rounds the binary value. It has 17
        # digits: from 1e11 on no more than 5 after the point, before that 27 hold all that decide; from 1e28 on none.
        exact = (f"TRY_CAST(CAST({value.sql} AS VARCHAR) AS DECIMAL(38,{scale}))" for scale in (27, 10))
        rounded = (f"CAST(CAST(round({one}, {digits}) AS VARCHAR) AS DOUBLE)" for one in exact)
        return Rendered(DOUBLE, f"coalesce({', '.join(rounded)}, {value.sql})")
    if value.kind.name != "decimal" or digits >= value.kind.scale:
        return value
    return _rounded(value, "round({}, {})", digits)


def _rounded(value: Rendered, call: str, digits: int) -> Rendered:
    """A decimal rounded by `call` to `digits`, which is below its scale: rounding up may need one digit more."""
    precision, scale = value.kind.precision, value.kind.scale
    wide = FieldType("decimal", min(MAX_DECIMAL_PRECISION, precision + 1), scale)
    kind = FieldType("decimal", min(MAX_DECIMAL_PRECISION, precision - scale + 1 + digits), digits)
    return Rendered(kind, f"CAST({call.format(f'CAST({value.sql} AS {wide})', digits)} AS {kind})")


@renders(exp.Ceil, exp.Floor, name="ceil ceiling floor")
def _ceil(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = renderer.need(node.this, NUMBERS, f"in {name_of(node)}")
    function = type(node).__name__.lower()
    if value.kind == DOUBLE:
        # What is past the ends of the range is at them; NaN, which is above all numbers, is 0.
        signs = f"WHEN {value.sql} > 0 THEN {_LONGEST} WHEN {value.sql} < 0 THEN -{_LONGEST} - 1"
        ends = f"CASE WHEN isnan({value.sql}) THEN 0 {signs} END"
        return Rendered(LONG, f"coalesce(TRY_CAST({function}({value.sql}) AS BIGINT), {ends})")
    if value.kind.name != "decimal":
        return value
    return _rounded(value, f"{function}({{}})", 0)


@renders(exp.Cast, exp.TryCast, args="this to safe _type", name="cast try_cast")
def _cast(renderer: Renderer, node: exp.Expr) -> Rendered:
    target = _cast_type(node.args["to"])
    if target is None:
        return renderer.refuse(f"a cast to {written(node.args['to']).lower()}", "a type that a field may have")
    value = renderer.render(node.this)
    if target.name in _MOMENTS:
        value = moment(renderer, node.this, value, target)
    elif target.name == "decimal" and isinstance(node.this, exp.Literal) and node.this.is_string:
        if not _NUMBER.fullmatch(node.this.name.strip()):
            return renderer.refuse(f"'{shortened(node.this.name)}'", "a number in quotes")
        value = Rendered(target, value.sql)
    value = renderer.needed(value, _CASTS[target.name], f"in a cast to {target}")
    whole = target in (INT, LONG) and value.kind.name in ("double", "decimal")
    return Rendered(target, f"TRY_CAST({f'trunc({value.sql})' if whole else value.sql} AS {target.duckdb})")


def _cast_type(to: exp.DataType) -> FieldType | None:
    if to.this != exp.DType.DECIMAL:
        return _CAST_TYPES.get(to.this)
    try:
        sizes = [int(size.name) for size in to.expressions] or [10]
        return FieldType.parse(f"decimal({sizes[0]},{sizes[1] if len(sizes) > 1 else 0})")
    except ValueError:
        return None


@renders(exp.Trim, args="this position", name="trim ltrim rtrim")
def _trim(renderer: Renderer, node: exp.Expr) -> Rendered:
    function = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position")), "trim")
    # DuckDB's default takes other white space away too.
    return Rendered(STRING, f"{function}({renderer.need(node.this, TEXT, 'in trim()').sql}, ' ')")


@renders(exp.Substring, args="this start length", name="substring substr")
def _substring(renderer: Renderer, node: exp.Expr) -> Rendered:
    start, length = _whole(node.args.get("start"), 0), _whole(node.args.get("length"), 1 << 30)
    if not start or length is None:
        return renderer.refuse("these positions of substring()", "whole numbers, the first from 1")
    value = renderer.need(node.this, TEXT, "in substring()")
    return Rendered(STRING, f"substring({value.sql}, {start}, {length})")


@renders(exp.Left, exp.Right, args="this expression", name="left right")
def _end(renderer: Renderer, node: exp.Expr) -> Rendered:
    length = _whole(node.expression, 0)
    if length is None:
        return renderer.refuse(f"this length of {name_of(node)}", "a whole number")
    value = renderer.need(node.this, TEXT, f"in {name_of(node)}")
    return Rendered(STRING, f"{type(node).__name__.lower()}({value.sql}, {length})")


@renders(exp.DPipe, exp.Concat, args="this expression expressions safe coalesce", name="concat")
def _concat(renderer: Renderer, node: exp.Expr) -> Rendered:
    nodes = node.expressions or [node.this, node.expression]
    return Rendered(STRING, _joined([renderer.need(part, TEXT, "in a concatenation").sql for part in nodes]))


def _joined(texts: list[str]) -> str:
    """As flat as can be: DuckDB takes each of a row of them for a level."""
    if len(texts) == 1:
        return texts[0]
    middle = len(texts) // 2
    return f"({_joined(texts[:middle])} || {_joined(texts[middle:])})"


@renders(exp.TsOrDsToDate, args="this safe", name="to_date date")
def _to_date(renderer: Renderer, node: exp.Expr) -> Rendered:
    value = moment(renderer, node.this, renderer.render(node.this), DATE)
    return Rendered(DATE, f"CAST({renderer.needed(value, _MOMENTS, 'as a date').sql} AS DATE)")


@renders(exp.TimestampTrunc, args="this unit", name="date_trunc")
def _truncate(renderer: Renderer, node: exp.Expr) -> Rendered:
    unit = str(node.args["unit"]).upper()
    if unit not in _TRUNCATIONS:
        return renderer.refuse(f"the unit {unit.lower()} of date_trunc()", "minute, hour, day, week, month or year")
    return Rendered(TIMESTAMP, f"date_trunc('{unit}', {_operand_sql(renderer, node.this, _TIME, 'in date_trunc()')})")


def _whole(node: exp.Expr | None, default: int) -> int | None:
    """The value of a whole number written out; `default` if there is none, None if it is something else."""
    if node is None:
        return default
    return int(node.name) if isinstance(node, exp.Literal) and node.name.isdecimal() and len(node.name) < 10 else None
