"""Where in a record a field's value is found: at a path, in Kafka's key, or in one of its headers.

user                       ("user",)
payload.items[0].sku       ("payload", "items", 0, "sku")
["@timestamp", "a.b"]      keys with dots or brackets in them, as a list
$  $.id                    from the whole record, where `event.each` makes an event of each element
.                          the element itself; [0] and [0].sku, where that is an array
{key: true}  {header: trace-id}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Step = str | int
"""A key of an object, or the place in an array, from 0."""

EXPECTED_PATH = (
    'a path such as `payload.user.id`, `items[0].sku` or `$.id`, a list of keys such as `["@timestamp"]`, '
    "`{key: true}` or `{header: NAME}`; no key with a quotation mark, a backslash or a control character"
)
EXPECTED_EACH = "the path of an array, such as `payload.items`"
_MOST_STEPS = 50
_KEY, _PLACE = r'[^.\[\]"\\\x00-\x1f]+', r"\[[0-9]{1,9}\]"
# Only the element of an array can be an array: no path from the record begins with a place.
_PATH = re.compile(rf"(?:(?:\$\.)?{_KEY}(?:{_PLACE})*|(?:{_PLACE})+)(?:\.{_KEY}(?:{_PLACE})*)*")
_STEP = re.compile(rf"{_PLACE}|{_KEY}")
_PLAIN_KEY = re.compile(r"[^.\[\]$]+")
_NO_KEY = re.compile(r'["\\\x00-\x1f]')


@dataclass(frozen=True)
class FieldSource:
    """The place of a value; of a path without steps the whole record, or with `event.each` the element."""

    steps: tuple[Step, ...] = ()
    kind: Literal["path", "key", "header"] = "path"
    whole: bool = False
    """The path begins at the record, also where `event.each` makes an event of each element."""
    header: str = ""

    @property
    def in_value(self) -> bool:
        """Whether it lies in the record's value, not beside it."""
        return self.kind == "path"

    @property
    def column(self) -> str:
        """The column of a CSV file that it is: its keys, joined by dots."""
        return joined(self.steps)

    def __str__(self) -> str:
        if self.kind == "key":
            return "Kafka's key"
        if self.kind == "header":
            return f"header {self.header}"
        if not self.steps:
            return "$" if self.whole else "."
        if all(isinstance(step, int) or _PLAIN_KEY.fullmatch(step) for step in self.steps):
            return ("$." if self.whole else "") + joined(self.steps)
        return str(list(self.steps))


KEY = FieldSource(kind="key")


def joined(steps: tuple[Step, ...]) -> str:
    """Keys with dots between them, and places in brackets."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def is_key(step: object) -> bool:
    """Whether a path may have this key: JSON's decoder knows no declared key that JSON writes with an escape."""
    return isinstance(step, str) and not _NO_KEY.search(step)


def parse_path(value: object) -> FieldSource:
    """Read a path as the file has it, a text or a list; ValueError says what is expected.

    >>> parse_path("payload.items[0].sku").steps, str(parse_path(["@timestamp"]))
    (('payload', 'items', 0, 'sku'), '@timestamp')
    >>> parse_path("[0][1].sku").steps, str(parse_path("[0][1].sku"))
    ((0, 1, 'sku'), '[0][1].sku')
    """
    whole = False
    if isinstance(value, str):
        if value in ("$", "."):
            return FieldSource(whole=value == "$")
        whole = value.startswith("$.")
        found = _STEP.findall(value.removeprefix("$.")) if _PATH.fullmatch(value) else []
        value = [int(step[1:-1]) if step[0] == "[" else step for step in found]
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_STEPS:
        raise ValueError(EXPECTED_PATH)
    for step in value:
        if isinstance(step, bool) or not (step >= 0 if isinstance(step, int) else is_key(step)):
            raise ValueError(EXPECTED_PATH)
    return FieldSource(tuple(value), whole=whole)


def parse_source(value: object) -> FieldSource:
    """Read what `from` may hold; ValueError says what is expected.

    >>> str(parse_source({"header": "trace-id"})), parse_source({"key": True}) == KEY
    ('header trace-id', True)
    """
    match value:
        case {"key": True, **rest} if not rest:
            return KEY
        case {"header": str(name), **rest} if name and not rest:
            return FieldSource(kind="header", header=name)
    return parse_path(value)
