"""One walk over a parsed expression: checks it and writes it in DuckDB's SQL.

No record's values may stop a job, and a replay must give the same values. So only constructs of a known meaning are
let in (`HANDLERS`), and they are written in forms that are total: what overflows or divides by zero is NULL. A plain
transpiler is not enough for that: DuckDB differs from Spark SQL, the language of the file, in rounding, casts, week
days and overflow. Sessions must run in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from sqlglot import exp

from twofold.definition.fault import near_miss, one_of, shortened
from twofold.definition.types import FieldType

BOOLEAN, STRING, INT, LONG, DOUBLE = (FieldType(name) for name in ("boolean", "string", "int", "long", "double"))
TIMESTAMP, DATE = FieldType("timestamp"), FieldType("date")
NULL, INTERVAL, ANY = FieldType("null"), FieldType("interval"), FieldType("any")
"""Kinds that no field has; `any` stands for what is at fault already, and fits everywhere."""


Columns = Mapping[str, FieldType | None] | None
"""Declared fields and their types; None for a type at fault, or where the fields as a whole are."""


class Problem(NamedTuple):
    """One fault of an expression."""

    found: str
    expected: str
    hint: str = ""


Function = Literal["count", "sum", "min", "max"]
PartKey = tuple[Function, str]
"""An aggregate function and its argument in DuckDB's SQL."""


class Rendered(NamedTuple):
    """A part of an expression: the type of its value and its text in DuckDB's SQL."""

    kind: FieldType
    sql: str


UNKNOWN = Rendered(ANY, "NULL")


def typed(text: str, kind: FieldType) -> str:
    """The text, its value of exactly this type: DuckDB's own are wider here and there, as that of length() is."""
    return text if kind in (ANY, NULL) else f"CAST({text} AS {kind.duckdb})"


class Handler(NamedTuple):
    """How one kind of node is rendered, and which of its arguments that takes into account."""

    render: Callable[[Renderer, exp.Expr], Rendered]
    args: frozenset[str]
    aggregate: bool = False


HANDLERS: dict[type[exp.Expr], Handler] = {}
"""Filled by `twofold.definition.functions` and `.aggregates`."""

FUNCTIONS: set[str] = set()
"""Names of the supported functions, for suggestions and the manual."""


def renders(
    *nodes: type[exp.Expr], args: str = "this", name: str = "", aggregate: bool = False
) -> Callable[[Callable[[Renderer, exp.Expr], Rendered]], Callable[[Renderer, exp.Expr], Rendered]]:
    """Register a handler. A node with any other argument set is refused, so nothing is dropped in silence."""

    def register(handler: Callable[[Renderer, exp.Expr], Rendered]) -> Callable[[Renderer, exp.Expr], Rendered]:
        for node in nodes:
            HANDLERS[node] = Handler(handler, frozenset(args.split()), aggregate)
        FUNCTIONS.update(name.split())
        return handler

    return register


def filled(kind: FieldType, template: str, *parts: Rendered) -> Rendered:
    """Fill the texts of the parts into a template."""
    return Rendered(kind, template.format(*(part.sql for part in parts)))


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
        self.problems: list[Problem] = []
        self.parts: dict[PartKey, FieldType] = {}
        """Plain aggregates met, with the type of their arguments."""
        self._within_aggregate = False

    def render_whole(self, node: exp.Expr) -> Rendered:
        """Render the root of an expression."""
        try:
            return self.render(node)
        except RecursionError:
            return self.refuse("parentheses nested too deeply", "a simpler expression")

    def render(self, node: exp.Expr) -> Rendered:
        """Render one node and all below it; what is at fault is noted and rendered as unknown."""
        handler = HANDLERS.get(type(node))
        unused = {name for name, value in node.args.items() if value} - handler.args if handler else set()
        if handler is None or unused:
            return self.refuse(*refusal(node))
        if handler.aggregate:
            return self._aggregate(handler, node)
        return handler.render(self, node)

    def _aggregate(self, handler: Handler, node: exp.Expr) -> Rendered:
        if self.by is None:
            return self.refuse(f"the aggregate {name_of(node)} in a filter", "a condition over one event")
        if self._within_aggregate:
            return self.refuse(f"the aggregate {name_of(node)} within an aggregate", "an expression over one event")
        self._within_aggregate = True
        rendered = handler.render(self, node)
        self._within_aggregate = False
        return rendered

    def part(self, function: Function, argument: str, kind: FieldType, whole: str = "") -> str:
        """The text for a plain aggregate over rows (`whole`, if that is not the function of the argument)."""
        self.parts[function, argument] = kind
        return self.names[function, argument] if self.names else whole or f"{function}({argument})"

    def refuse(self, found: str, expected: str, hint: str = "") -> Rendered:
        """Note a problem; what is at fault fits everywhere, so that one fault is told once."""
        self.problems.append(Problem(found, expected, hint))
        return UNKNOWN

    def column(self, name: str) -> Rendered:
        """A reference to a field. Names are matched as Spark does, whatever their case."""
        column = name.lower()
        if self.columns is None:
            return UNKNOWN
        if column not in self.columns:
            hint = near_miss(name, self.columns)
            return self.refuse(f"the unknown field {shortened(name)}", "a declared field", hint)
        if self.by is not None and not self._within_aggregate and column not in self.by:
            expected = f"it inside an aggregate, such as max({column}), or among the fields in `by`"
            return self.refuse(f"the field {column} outside an aggregate", expected)
        return Rendered(self.columns[column] or ANY, f'"{column}"')

    def need(self, part: Rendered, kinds: Iterable[str], where: str) -> Rendered:
        """`part`, if its type is one of `kinds`; else a problem. NULL fits everywhere."""
        allowed = tuple(kinds)
        if part.kind.name in (*allowed, "any", "null"):
            return part
        return self.refuse(f"{article(part.kind)} {where}", one_of(allowed))


def article(kind: FieldType) -> str:
    """A type with its article: `an int`, `a string`."""
    return f"{'an' if kind.name[0] in 'aeiou' else 'a'} {kind}"


def name_of(node: exp.Expr) -> str:
    """How the user wrote the function, or a piece of the text for anything else."""
    if isinstance(node, exp.Anonymous):
        return f"{shortened(str(node.this))}()"
    if isinstance(node, exp.Func) and not isinstance(node, exp.Binary | exp.Case | exp.Cast):
        return f"{node.sql_name().lower()}()"
    return shortened(node.sql("spark"))


_CHANGING = (
    exp.Rand, exp.Randn, exp.CurrentTimestamp, exp.CurrentDate, exp.CurrentTime, exp.CurrentUser, exp.Uuid,
)  # fmt: skip
_CHANGING_NAMES = {"now", "random", "monotonically_increasing_id", "input_file_name", "localtimestamp"}
_INSTEAD = {"mean": "avg", "isnull": "x is null", "isnotnull": "x is not null", "len": "length", "iff": "if"}


def refusal(node: exp.Expr) -> tuple[str, str, str]:
    """Why a node is not let in: what was found, what is expected, a hint."""
    if node.find(exp.Query) is not None:
        return "a subquery", "an expression over the fields of one event", ""
    if isinstance(node, exp.Window):
        return "a window function", "a plain aggregate or expression", "views have windows of their own"
    named = isinstance(node, exp.Anonymous) and str(node.this).lower() in _CHANGING_NAMES
    if named or isinstance(node, _CHANGING):
        return f"{name_of(node)}, which changes from run to run", "an expression that a replay gives the same value", ""
    if isinstance(node, exp.Distinct):
        return "distinct", "an aggregate without it", "a stream would have to keep every value it has seen"
    if isinstance(node, exp.AggFunc):
        return f"the aggregate {name_of(node)}", "count, count_if, sum, min, max or avg", "streams support these"
    if isinstance(node, exp.Column):
        return shortened(node.sql("spark")), "the plain name of a field", ""
    if isinstance(node, exp.Func):
        name = name_of(node).removesuffix("()")
        known = near_miss(name, FUNCTIONS)
        hint = f'did you mean "{_INSTEAD[name.lower()]}"?' if name.lower() in _INSTEAD else known
        found = f"the function {name_of(node)}{' in this form' if type(node) in HANDLERS else ''}"
        return found, "one of those that the manual lists", hint
    return shortened(node.sql("spark")), "a supported operator or function", ""
