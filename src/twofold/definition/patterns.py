"""Regular expressions of rules and filters, judged by RE2 (Arrow, DuckDB): the part that Java and Python read alike.

A pattern must match the whole value. `whole_value(pattern)` is its form for engines that search. RE2 takes time
that grows with the value's length only, and is itself asked whether it takes a pattern.
"""

from __future__ import annotations

import re
import warnings
from functools import cache

import duckdb

from twofold.definition.fault import shortened

EXPECTED_PATTERN = "a regular expression that Java and Python read alike"
_GROUPS = re.compile(r"\?(:|[ism]+\)|[ism]+:)")
_REPETITION = re.compile(r"\{\d+(,\d*)?\}")
_UNLIKE_ESCAPES = {"Z": "\\Z", "z": "\\z", "A": "\\A", "G": "\\G", "N": "\\N", "0": "\\0"}


def whole_value(pattern: str) -> str:
    r"""The pattern for a searching engine such as Java's `find` or RE2: no `$`, which would allow a final newline.

    >>> whole_value("a|b")
    '\\A(?:a|b)\\z'
    """
    return rf"\A(?:{pattern})\z"


def pattern_fault(pattern: str) -> str:
    """Why a pattern cannot be used; empty if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "possible nested set": Java would read it as one
            re.compile(pattern)
    except (re.error, FutureWarning, DeprecationWarning, OverflowError, RecursionError) as error:
        return str(error)
    return _unlike(pattern) or _refused_by_re2(pattern)


def _refused_by_re2(pattern: str) -> str:
    """What RE2 says against it: repetitions above 1000, programs above its memory.

    >>> _refused_by_re2("a{1000}"), _refused_by_re2("a{1001}")
    ('', 'RE2 refuses it: invalid repetition size: {1001}')
    """
    try:
        _duckdb().cursor().execute("SELECT regexp_matches('', ?)", [whole_value(pattern)]).fetchall()
    except duckdb.Error as error:
        return f"RE2 refuses it: {shortened(str(error).split(': ', 1)[-1], 120)}"
    return ""


@cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def _unlike(pattern: str) -> str:
    """The first construct that the engines read differently, or that only some have."""
    position, in_class = 0, False
    while position < len(pattern):
        rest = pattern[position:]
        if rest[0] == "\\":
            if fault := _unlike_escape(rest):
                return fault
            position += 2
            continue
        if fault := _unlike_in_class(rest) if in_class else _unlike_outside(rest):
            return f"{fault} at character {position + 1}"
        in_class = (in_class or rest[0] == "[") and rest[0] != "]"
        position += 1
    return ""


def _unlike_escape(rest: str) -> str:
    escaped = rest[1]
    if escaped in _UNLIKE_ESCAPES:
        return f"{_UNLIKE_ESCAPES[escaped]} differs between engines; the pattern matches the whole value anyway"
    return "a back-reference" if escaped.isdigit() else ""


def _unlike_in_class(rest: str) -> str:
    if rest[0] == "[":
        return "an unescaped [ within [ ]"
    return "&& within [ ]" if rest.startswith("&&") else ""


def _unlike_outside(rest: str) -> str:
    if rest.startswith(("[]", "[^]")):
        return "an unescaped ] at the start of [ ]"
    if rest[0] == "{" and not _REPETITION.match(rest):
        return "an unescaped { that is no repetition"
    if rest.startswith("(?") and not _GROUPS.match(rest[1:]):
        return "a look-around, named or atomic group"
    if rest[:2] in ("*+", "++", "?+", "}+"):
        return "a possessive repetition"
    return ""
