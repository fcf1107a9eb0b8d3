"""Words that a name may be: of SQL, of both engines, and those that the project's own SQL uses or used for itself."""

from __future__ import annotations

import re

import duckdb

SPARK_RESERVED = """
    all and anti any array as at authorization between both by case cast check collate column constraint create cross
    cube current current_date current_time current_timestamp current_user day default delete desc describe distinct
    drop else end escape except exists external extract false fetch filter for foreign from full function global grant
    group grouping having hour in inner insert intersect interval into is join key lateral leading left like limit local
    map merge minus minute month natural no not null of offset on only or order outer overlaps partition position
    primary range references revoke right rollback rollup row_number rows schema second select semi session_user set
    some start struct sum table tablesample temp temporary then time timestamp to trailing trim true truncate union
    unique unknown unpivot update user using values variable view where window with within year zone
""".split()  # noqa: SIM905
"""Reserved or strict non-reserved in Spark SQL, with types and functions that are written without parentheses."""

ONCE_USED = """
    a actual apart_us at_day b batch batch_pinned beaten before best contenders d days decided difference different
    doubtful e earlier earliest exempt expected far first fresh hits id in_batch in_stream invented is_exempt joined
    kind landed landings last latest line log logged lost near nth oldest partitions place placed r ranked received_at
    repeated rows_in_windows s s0__x s1 scratch size source stream stream_pinned t tail there times top tops touched u
    united unified_events up_to updates winning wins _window_start_us a_times e_times b_n s_n x
""".split()  # noqa: SIM905
"""What generated SQL called things when they shared a scope with declared names."""


def duckdb_words() -> set[str]:
    """Keywords that DuckDB does not take for a name everywhere, unless they are quoted."""
    query = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
    return {word for (word,) in duckdb.execute(query).fetchall()}


def of_texts(texts: list[str]) -> set[str]:
    """Every word of these SQL texts: keywords, functions, and names, those with the prefix also without it."""
    found = {word.lower() for text in texts for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)}
    return found | {word.removeprefix("_tw_") for word in found}
