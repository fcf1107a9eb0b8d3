"""The SQL of a query: which plain names of pipelines it mentions, and whether it is one statement that only reads."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import duckdb
import sqlglot
from duckdb import DuckDBPyConnection, StatementType
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from twofold import tables
from twofold.definition.fault import near_miss
from twofold.definition.load import check_file, definition_files, load_pipeline
from twofold.definition.model import Pipeline
from twofold.errors import QueryError
from twofold.reader import engine
from twofold.settings import Settings
from twofold.text import quoted

UNIFIED_EVENTS = "unified_events"
_MISSING = re.compile(r'Table with name "?([\w.]+)"? does not exist')


def unified_view_name(view: str) -> str:
    """Plain name of a view that is exact at every instant."""
    return f"unified_{view}"


def live_view_name(view: str) -> str:
    """Plain name of a view as the layers have it computed."""
    return f"live_{view}"


def offered(pipeline: Pipeline) -> tuple[str, ...]:
    """Every plain name of a pipeline, the exact answers first."""
    views = (*map(unified_view_name, pipeline.views), *map(live_view_name, pipeline.views))
    return (UNIFIED_EVENTS, *views, *tables.names(pipeline))


def qualified(pipeline: Pipeline, name: str) -> str:
    """A plain name in SQL, with its pipeline; quoted, since a pipeline may be called `order`."""
    return f"{quoted(pipeline.name)}.{quoted(name)}"


def with_quotes(sql: str, pipelines: Mapping[str, Pipeline], keywords: Collection[str]) -> str:
    """The SQL with quotes around pipelines that are called like keywords: `order.events` can mean nothing else."""
    tokens = _tokens(sql)
    bare = [
        before
        for before, dot, name in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if dot.token_type == TokenType.DOT and before.token_type != TokenType.IDENTIFIER
        if (pipeline := before.text.lower()) in keywords and pipeline in pipelines
        if name.text.lower() in offered(pipelines[pipeline])
    ]
    for token in reversed(bare):
        sql = f"{sql[: token.start]}{quoted(token.text)}{sql[token.end + 1 :]}"
    return sql


def unquoted_hint(sql: str, pipelines: Iterable[Pipeline], keywords: Collection[str]) -> str:
    """What to do where DuckDB cannot parse a text that has declared names which are keywords; empty if it has none."""
    declared = {
        name
        for pipeline in pipelines
        for name in (pipeline.name, *pipeline.columns, *(m for view in pipeline.views.values() for m in view.measures))
    }
    bare = (token.text.lower() for token in _tokens(sql) if token.token_type != TokenType.IDENTIFIER)
    meant = [quoted(word) for word in dict.fromkeys(bare) if word in declared and word in keywords]
    return f"as a name, a word of SQL goes in double quotes: {', '.join(meant)}" if meant else ""


def _tokens(sql: str) -> list[Token]:
    try:
        return list(sqlglot.tokenize(sql, read="duckdb"))
    except TokenError:  # DuckDB will say it better
        return []


def words(sql: str) -> list[str]:
    """Identifiers, keywords and dots of a SQL text, in order and in lower case; no literals, no comments.

    >>> words("SELECT 'a' FROM Flights.\\"events\\" -- x")
    ['select', 'from', 'flights', '.', 'events']
    """
    return [token.text.lower() for token in _tokens(sql) if token.text and "STRING" not in token.token_type.name]


def mentioned(sql: str, pipelines: Mapping[str, Pipeline], default: str | None) -> dict[str, set[str]]:
    """Plain names per pipeline that a SQL text mentions. It may also mean a column: then a table is opened in vain."""
    found = words(sql)
    result: dict[str, set[str]] = {}
    for before, dot, name in zip(["", "", *found], ["", *found], found, strict=False):
        namespace = before if dot == "." else default
        if namespace is not None and namespace in pipelines and name in offered(pipelines[namespace]):
            result.setdefault(namespace, set()).add(name)
    return result


def unknown_table(sql: str, message: str, pipelines: Iterable[Pipeline], default: str | None) -> QueryError | None:
    """DuckDB's complaint about a table that does not exist, with the names that do; None for another complaint."""
    match = _MISSING.search(message)
    if match is None:
        return None
    found = words(sql)
    prefixes = [
        a for a, dot, name in zip(found, found[1:], found[2:], strict=False) if dot == "." and name == match[1].lower()
    ]
    name = f"{prefixes[0]}.{match[1]}" if prefixes else match[1]
    known = [
        plain if pipeline.name == default and not prefixes else f"{pipeline.name}.{plain}"
        for pipeline in pipelines
        for plain in offered(pipeline)
    ]
    hint = near_miss(name, known)
    listed = f"there are: {', '.join(known)}" if known else "no pipeline is defined; see --pipelines"
    return QueryError(f"no table {name}" + (f" ({hint})" if hint else ""), listed)


_READING = (StatementType.SELECT, StatementType.MULTI)
"""SELECT is also what DuckDB calls WITH, FROM, VALUES, DESCRIBE, SHOW and SUMMARIZE; a PIVOT is a MULTI."""
_EXPLAIN = re.compile(r"\s*explain\b\s*(analyze\b|\(\s*(analyze|format)\b[^)]*\))?", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """One reading statement: what comes before it (`EXPLAIN …`, or nothing), and the statement without semicolon."""

    explain: str
    body: str


def only_reading(connection: DuckDBPyConnection, sql: str, hint: str = "") -> Statement:
    """Split a SQL text; QueryError where it is no single reading statement, or (with `hint`) does not parse."""
    head = match[0] if (match := _EXPLAIN.match(sql)) else ""
    body = sql[len(head) :]
    try:
        found = connection.extract_statements(body)
    except duckdb.Error as error:
        raise engine.failure(error, hint) from None
    if len(found) != 1:
        raise QueryError(f"expected one SQL statement, found {len(found)}", "send them one by one")
    if found[0].type not in _READING:
        raise QueryError(
            f"only reading statements are run here, not {found[0].type.name}",
            "begin with SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, PIVOT or EXPLAIN; "
            "`--output` writes the result to a file",
        )
    try:
        tokens = sqlglot.tokenize(body, read="duckdb")
    except TokenError as error:
        raise QueryError(f"the query cannot be read: {error}") from None
    end = next((token.start for token in tokens if token.token_type == TokenType.SEMICOLON), len(body))
    return Statement(head, body[:end])


def is_show_tables(sql: str) -> bool:
    """Whether the names themselves are asked for."""
    return words(sql) in (["show", "tables"], ["show", "all", "tables"])


def mentioned_pipelines(settings: Settings, sql: str, default: str | None = None) -> dict[str, Pipeline]:
    """Every sound definition by name. A faulty one matters only where the SQL names it: DefinitionError."""
    files = {path: check_file(path)[0] for path in definition_files(settings.pipelines)}
    found = {pipeline.name: pipeline for pipeline in files.values() if pipeline is not None}
    named = {*words(sql), default}
    for path, pipeline in files.items():
        if pipeline is None and path.stem in named:
            load_pipeline(settings, path.stem)
    if default is not None and default not in found:
        load_pipeline(settings, default)
    return found
