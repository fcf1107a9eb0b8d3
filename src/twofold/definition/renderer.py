"""One walk over a parsed expression: checks it and writes it in DuckDB's SQL; conditions and choices among its nodes.

No record's values may stop a job, and a replay must give the same values. So only the nodes in `HANDLERS` are let in,
and each is written in a form that is total: what overflows or divides by zero is NULL. sqlglot's transpiler and its
`annotate_types` are not enough: Spark SQL, the language of the file, differs from DuckDB in rounding, casts, week days
and overflow; and sqlglot keeps no widths of decimals, and refuses no operand. Sessions must run in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal, NamedTuple

from sqlglot import exp

from twofold.definition.fault import near_miss, one_of, shortened
from twofold.definition.types import FieldType, common_number, pattern_fault, typed_value

BOOLEAN, STRING, INT, LONG, DOUBLE = (FieldType(name) for name in ("boolean", "string", "int", "long", "double"))
TIMESTAMP, DATE = FieldType("timestamp"), FieldType("date")
NULL, INTERVAL, ANY = FieldType("null"), FieldType("interval"), FieldType("any")
"""Kinds that no field has; `any` stands for what is at fault already, and fits everywhere."""

CONDITION, TEXT = ("boolean",), ("string",)
"""What a place takes where it takes one type only."""

Columns = Mapping[str, FieldType | None] | None
"""Declared fields and their types; None for a type at fault, or where the fields as a whole are."""
Function = Literal["count", "sum", "min", "max"]
PartKey = tuple[Function, str]
"""An aggregate function and its argument in DuckDB's SQL."""


class ExpressionFault(NamedTuple):
    """One fault of an expression."""

    found: str
    expected: str
    hint: str = ""


class Rendered(NamedTuple):
    """A part of an expression: the type of its value and its text in DuckDB's SQL."""

    kind: FieldType
    sql: str


UNKNOWN = Rendered(ANY, "NULL")


class _Handler(NamedTuple):
    """How one kind of node is rendered, and which of its arguments that takes into account."""

    render: Callable[[Renderer, exp.Expr], Rendered]
    args: frozenset[str]
    aggregate: bool


MOST_LEVELS = 80
"""Of an expression: what one of them is written as has up to 7 in DuckDB's SQL, which takes 1000."""
_MOST_SQL = 1 << 16
"""Characters that an expression is written in: DuckDB takes up to 3 s to plan so many."""
HANDLERS: dict[type[exp.Expr], _Handler] = {}
"""Filled below, by `functions` and by `expressions`."""
FUNCTIONS: set[str] = set()
"""Names of the supported functions, for suggestions and the manual."""


def renders(
    *nodes: type[exp.Expr], args: str = "this", name: str = "", aggregate: bool = False
) -> Callable[[Callable[[Renderer, exp.Expr], Rendered]], Callable[[Renderer, exp.Expr], Rendered]]:
    """Register a handler. A node with any other argument set is refused, so nothing is dropped silently."""

    def register(handler: Callable[[Renderer, exp.Expr], Rendered]) -> Callable[[Renderer, exp.Expr], Rendered]:
        HANDLERS.update(dict.fromkeys(nodes, _Handler(handler, frozenset(args.split()), aggregate)))
        FUNCTIONS.update(name.split())
        return handler

    return register


class Renderer:
    """Renders one expression; without `by` it is a filter, with it a measure.

    With `names`, the text has the names of parts in place of aggregates.
    """

    def __init__(
        self, columns: Columns, by: tuple[str, ...] | None = None, names: Mapping[PartKey, str] | None = None
    ) -> None:
        self.columns = columns
        self.by = by
        self.names = names
        self.problems: list[ExpressionFault] = []
        self.parts: dict[PartKey, FieldType] = {}
        """Plain aggregates met, with the type of their arguments."""
        self._within_aggregate = False

    def render_whole(self, node: exp.Expr) -> Rendered:
        """Render the root of an expression."""
        level, levels = [node], 0
        while level:
            level, levels = [child for one in level for child in children_of(one)], levels + 1
        if levels > MOST_LEVELS:
            return self.refuse(f"{levels} levels of operators and functions", f"at most {MOST_LEVELS}")
        return self.render(node)

    def render(self, node: exp.Expr | None) -> Rendered:
        """Render one node and all below it; what is at fault is noted and rendered as unknown."""
        if node is None:
            return self.refuse("nothing", "a value")
        handler = HANDLERS.get(type(node))
        if handler is None or {name for name, value in node.args.items() if value} - handler.args:
            return self.refuse(*refusal(node))
        if not handler.aggregate:
            return self._settled(handler.render(self, node))
        if self.by is None:
            return self.refuse(f"the aggregate {name_of(node)} in a filter", "a condition over one event")
        if self._within_aggregate:
            return self.refuse(f"the aggregate {name_of(node)} within an aggregate", "an expression over one event")
        self._within_aggregate = True
        rendered = handler.render(self, node)
        self._within_aggregate = False
        return self._settled(rendered)

    def _settled(self, rendered: Rendered) -> Rendered:
        """NULL bare, as it fits everywhere. Nested functions that write arguments several times grow no further."""
        if rendered.kind == NULL:
            return Rendered(NULL, "NULL")
        if len(rendered.sql) > _MOST_SQL:
            return self.refuse(f"more than {_MOST_SQL} characters of DuckDB's SQL for it", "a simpler expression")
        return rendered

    def part(self, function: Function, argument: str, kind: FieldType, whole: str = "") -> str:
        """The text for a plain aggregate over rows (`whole`, if that is not the function of the argument)."""
        self.parts[function, argument] = kind
        return self.names[function, argument] if self.names else whole or f"{function}({argument})"

    def refuse(self, found: str, expected: str, hint: str = "") -> Rendered:
        """Note a problem; what is at fault fits everywhere, so that one fault is reported once."""
        problem = ExpressionFault(found, expected, hint)
        if problem not in self.problems:
            self.problems.append(problem)
        return UNKNOWN

    def column(self, name: str) -> Rendered:
        """A reference to a field. Names are matched as Spark does, whatever their case."""
        column = name.lower()
        if self.columns is None:
            return UNKNOWN
        if column not in self.columns:
            return self.refuse(
                f"the unknown field {shortened(name)}", "a declared field", near_miss(name, self.columns)
            )
        if self.by is not None and not self._within_aggregate and column not in self.by:
            expected = f"it inside an aggregate, such as max({column}), or among the fields in `by`"
            return self.refuse(f"the field {column} outside an aggregate", expected)
        return Rendered(self.columns[column] or ANY, f'"{column}"')

    def need(self, node: exp.Expr | None, kinds: Collection[str], where: str) -> Rendered:
        """A node whose type must be one of `kinds`; else a problem."""
        return self.needed(self.render(node), kinds, where)

    def needed(self, part: Rendered, kinds: Collection[str], where: str) -> Rendered:
        """`part`, if its type is one of `kinds`; else a problem. NULL fits everywhere."""
        if part.kind.name in (*kinds, "any", "null"):
            return part
        return self.refuse(f"{article(part.kind)} {where}", one_of(kinds))


def typed(text: str, kind: FieldType) -> str:
    """The text, its value of exactly this type: DuckDB's own are wider here and there, as that of length() is."""
    return text if kind in (ANY, NULL) else f"CAST({text} AS {kind.duckdb})"


def text_literal(text: str) -> str:
    """A text, quoted."""
    return "'" + text.replace("'", "''") + "'"


def article(kind: FieldType) -> str:
    """A type with its article: `an int`, `a string`."""
    return f"{'an' if kind.name[0] in 'aeiou' else 'a'} {kind}"


def name_of(node: exp.Expr) -> str:
    """How the user wrote the function, or a piece of the text for anything else."""
    if isinstance(node, exp.Anonymous):
        return f"{shortened(str(node.this))}()"
    if isinstance(node, exp.Func) and not isinstance(node, exp.Binary | exp.Case | exp.Cast):
        return f"{node.sql_name().lower()}()"
    return shortened(written(node))


def children_of(node: exp.Expr) -> list[exp.Expr]:
    """What is one level below a node; a chain of ANDs, or of ORs, is one level."""
    return list(node.flatten(unnest=False) if isinstance(node, exp.And | exp.Or) else node.iter_expressions())


def written(node: exp.Expr) -> str:
    """A node as Spark's SQL; sqlglot fails to write some."""
    try:
        return node.sql("spark")
    except (AttributeError, LookupError, TypeError, ValueError):
        return type(node).__name__.lower()


_CHANGING = (
    exp.Rand, exp.Randn, exp.CurrentTimestamp, exp.CurrentDate, exp.CurrentTime, exp.CurrentUser, exp.Uuid,
)  # fmt: skip
_CHANGING_NAMES = {"now", "random", "monotonically_increasing_id", "input_file_name", "localtimestamp"}
_INSTEAD = {"mean": "avg", "isnull": "x is null", "isnotnull": "x is not null", "len": "length", "iff": "if"}


def refusal(node: exp.Expr) -> ExpressionFault:
    """Why a node is not let in."""
    if node.find(exp.Query) is not None:
        return ExpressionFault("a subquery", "an expression over the fields of one event")
    if isinstance(node, exp.Window):
        return ExpressionFault(
            "a window function", "a plain aggregate or expression", "views have windows of their own"
        )
    named = isinstance(node, exp.Anonymous) and str(node.this).lower() in _CHANGING_NAMES
    if named or isinstance(node, _CHANGING):
        found = f"{name_of(node)}, which changes from run to run"
        return ExpressionFault(found, "an expression that a replay gives the same value")
    if isinstance(node, exp.Distinct):
        return ExpressionFault(
            "distinct", "an aggregate without it", "a stream would have to keep every value it has seen"
        )
    if isinstance(node, exp.AggFunc):
        found = f"the aggregate {name_of(node)}"
        return ExpressionFault(found, "count, count_if, sum, min, max or avg", "streams support these")
    if isinstance(node, exp.Column):
        return ExpressionFault(shortened(written(node)), "the plain name of a field")
    if isinstance(node, exp.Func):
        name = name_of(node).removesuffix("()")
        instead = _INSTEAD.get(name.lower())
        hint = f'did you mean "{instead}"?' if instead else near_miss(name, FUNCTIONS)
        found = f"the function {name_of(node)}{' in this form' if type(node) in HANDLERS else ''}"
        return ExpressionFault(found, "one of those that the manual lists", hint)
    return ExpressionFault(shortened(written(node)), "a supported operator or function")


# Conditions and choices: what compares values, or takes one of several; such values have a type in common.

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
    return common_number(kinds) or renderer.refuse(*_TOO_WIDE).kind, texts


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
    return _case(renderer, exp.Case(ifs=[node], default=node.args.get("false") or exp.Null()))


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
