"""Values as text that loses nothing: moments in ISO 8601, decimals digit by digit, bytes as UTF-8 or else escaped.

type ─► SQL expression that renders a column of it
"""

from __future__ import annotations

from duckdb import DuckDBPyRelation
from duckdb.sqltypes import DuckDBPyType

_ISO = "'%Y-%m-%dT%H:%M:%S.%f'"


def names(relation: DuckDBPyRelation) -> list[str]:
    """The columns' names, told apart where SQL does not: a JSON object has each key once.

    `SELECT 1 AS a, 2 AS a` gives a, a_2.
    """
    seen: dict[str, int] = {}
    result = []
    for name in relation.columns:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return result


def rendered(relation: DuckDBPyRelation, *, finite: bool = False) -> DuckDBPyRelation:
    """The same rows and columns; moments and bytes as text, and with `finite` NaN and infinities as null."""
    columns = list(enumerate(zip(names(relation), relation.types, strict=True), 1))
    # By place first, since names may repeat; then by a name, as a place takes no field access.
    placed = relation.project(", ".join(f"#{place} AS _tw_c{place}" for place, _ in columns))
    texts = (f"{expression(f'_tw_c{place}', kind, finite=finite)} AS {quoted(name)}" for place, (name, kind) in columns)
    return placed.project(", ".join(texts))


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def expression(value: str, kind: DuckDBPyType, *, finite: bool) -> str:
    """SQL that renders `value`, an expression of this type."""
    match kind.id:
        case "timestamp with time zone":
            return f"replace(strftime({value}, {_ISO}) || 'Z', '.000000Z', 'Z')"
        case "timestamp":
            return f"regexp_replace(strftime({value}, {_ISO}), '\\.000000$', '')"
        case "blob":
            return f"coalesce(TRY(decode({value})), CAST({value} AS VARCHAR))"
        case "double" | "float" if finite:
            return f"CASE WHEN isfinite({value}) THEN {value} END"
        case "list":
            return _list(value, kind, finite=finite)
        case "struct":
            return _struct(value, kind, finite=finite)
    return value


def _list(value: str, kind: DuckDBPyType, *, finite: bool) -> str:
    inner = expression("_tw_x", _fields(kind)["child"], finite=finite)
    return value if inner == "_tw_x" else f"list_transform({value}, lambda _tw_x: {inner})"


def _struct(value: str, kind: DuckDBPyType, *, finite: bool) -> str:
    inner = {name: expression(f"{value}.{quoted(name)}", child, finite=finite) for name, child in _fields(kind).items()}
    if all(text == f"{value}.{quoted(name)}" for name, text in inner.items()):
        return value
    packed = ", ".join(f"{quoted(name)} := {text}" for name, text in inner.items())
    return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({packed}) END"


def _fields(kind: DuckDBPyType) -> dict[str, DuckDBPyType]:
    return {name: child for name, child in kind.children if isinstance(child, DuckDBPyType)}
