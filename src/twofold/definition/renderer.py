"""One walk over a parsed expression: checks it and writes it in DuckDB's SQL.

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
from twofold.definition.types import FieldType

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
"""Filled by `functions`, `conditions` and `expressions`."""
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
