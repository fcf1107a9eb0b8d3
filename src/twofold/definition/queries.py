"""The syntax of `replay.query`, as DuckDB's own parser sees it. Whether its columns fit shows when it runs."""

from __future__ import annotations

import duckdb

from twofold.definition.fault import shortened


def query_fault(query: str) -> str:
    """Why a text is not one SELECT; empty if it is.

    >>> query_fault("SELECT 1"), query_fault("DROP TABLE source")
    ('', 'a statement of another kind')
    """
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        return shortened(str(error), 120)
    if len(statements) != 1:
        return f"{len(statements)} statements"
    return "" if statements[0].type == duckdb.StatementType.SELECT else "a statement of another kind"
