"""Which SQL may run: one statement that only reads."""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
import sqlglot
from duckdb import DuckDBPyConnection, StatementType
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from twofold.errors import QueryError
from twofold.reader import engine
from twofold.reader.names import words

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
    found = _parsed(connection, body, hint)
    if len(found) != 1:
        raise QueryError(f"expected one SQL statement, found {len(found)}", "send them one by one")
    if found[0].type not in _READING:
        raise QueryError(
            f"only reading statements are run here, not {found[0].type.name}",
            "begin with SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE, PIVOT or EXPLAIN; "
            "`--output` writes the result to a file",
        )
    end = next((token.start for token in _tokens(body) if token.token_type == TokenType.SEMICOLON), len(body))
    return Statement(head, body[:end])


def is_show_tables(sql: str) -> bool:
    """Whether the names themselves are asked for."""
    return words(sql) in (["show", "tables"], ["show", "all", "tables"])


def _parsed(connection: DuckDBPyConnection, sql: str, hint: str) -> list[duckdb.Statement]:
    try:
        return list(connection.extract_statements(sql))
    except duckdb.Error as error:
        raise engine.failure(error, hint) from None


def _tokens(sql: str) -> list[Token]:
    try:
        return list(sqlglot.tokenize(sql, read="duckdb"))
    except TokenError as error:
        raise QueryError(f"the query cannot be read: {error}") from None
