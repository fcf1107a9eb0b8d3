"""JSON texts by Python's own parser, made strict: a second opinion on what the product accepts, apart from its decoder.

    b'{"a": [1.50, "x"]}' ─► record ─► Value ─► member "a" ─► element 0 ─► Value("1.50")

Every value keeps its exact text, and is taken apart only where a path leads into it. Numbers stay texts.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from json.decoder import JSONArray, JSONObject  # type: ignore[attr-defined] # typeshed leaves them out
from typing import NoReturn

from twofold.definition.field_source import Step

MOST_LEVELS = 1000
"""Objects and arrays within each other, as the pipeline file's documentation says."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_BLANKS = " \t\n\r"
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|([\[{])|([\]}])', re.DOTALL)
# The parser counts levels with Python's own frames.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 4 * MOST_LEVELS))


class NoWay(Exception):
    """A path meets a value that is no object, or no array."""


@dataclass(frozen=True)
class Value:
    """One value."""

    text: str
    """As it was sent, without the blanks around it."""
    string: str | None = None
    """What a JSON string says; None for any other kind."""

    @property
    def plain(self) -> str:
        """What a `string` field takes: a string's own value, the text of anything else."""
        return self.text if self.string is None else self.string

    @property
    def is_null(self) -> bool:
        """Whether it is JSON's null."""
        return self.text == "null"

    @cached_property
    def members(self) -> dict[str, Value]:
        """Of an object; the last one of a name counts."""
        found: dict[str, Value] = JSONObject((self.text, 1), True, _value, None, None)[0]
        return found

    @cached_property
    def elements(self) -> list[Value]:
        """Of an array, in order."""
        found: list[Value] = JSONArray((self.text, 1), _value)[0]
        return found

    def at(self, steps: tuple[Step, ...]) -> Value | None:
        """The value that a path leads to; None where there is none, or null. NoWay, where it cannot be followed.

        >>> record(b'{"a": [{"b": 1.50}]}').at(("a", 0, "b")), record(b'{"a": null}').at(("a", "b"))
        (Value(text='1.50', string=None), None)
        """
        value: Value | None = self
        for step in steps:
            if value is None or value.is_null:
                return None
            opening, wanted = ("{", "object") if isinstance(step, str) else ("[", "array")
            if not value.text.startswith(opening):
                raise NoWay(f"no {wanted} on the way to {step!r}: {value.text[:40]}")
            if isinstance(step, str):
                value = value.members.get(step)
            else:
                value = value.elements[step] if step < len(value.elements) else None
        return None if value is None or value.is_null else value


def record(data: bytes) -> Value:
    r"""Exactly one JSON object in UTF-8, with nothing around it but blanks; ValueError says what else it is.

    >>> record(b' {"id": 1.50, "a": [1.0 ,2]} ').members["a"].text
    '[1.0 ,2]'
    >>> record(b'{"id": "a\\u0062"}').members["id"].plain
    'ab'
    >>> for text in (b'{"a":1}{"b":2}', b'{"a":NaN}', b'[1]', b'{"a":1,}', b'', b'{"a":"\xff"}', b'\xef\xbb\xbf{}'):
    ...     try: record(text)
    ...     except ValueError as error: print(type(error).__name__)
    ValueError
    ValueError
    ValueError
    JSONDecodeError
    ValueError
    UnicodeDecodeError
    ValueError
    """
    text = data.decode().strip(_BLANKS)
    if not text.startswith("{"):
        raise ValueError(f"it begins with {text[:10]!r}, not with an object")
    return one(text)


def one(text: str) -> Value:
    """Exactly one JSON value, with nothing around it but blanks; ValueError where it is none."""
    if text.count("[") + text.count("{") > MOST_LEVELS and _levels(text) > MOST_LEVELS:
        raise ValueError(f"more than {MOST_LEVELS} levels")
    text = text.strip(_BLANKS)
    parsed, at = _DECODER.raw_decode(text)
    if at < len(text):
        raise ValueError(f"more follows at character {at}")
    if _HALF.search(text) and has_half_surrogate(json.dumps(_PAIRS.decode(text), ensure_ascii=False)):
        raise ValueError("half of a surrogate pair")
    return Value(text, parsed if text[0] == '"' else None)


def has_half_surrogate(text: str) -> bool:
    r"""Whether a text is none that UTF-8 can write.

    >>> has_half_surrogate("\ud83d"), has_half_surrogate("\U0001f600")
    (True, False)
    """
    return any("\ud800" <= character <= "\udfff" for character in text)


def _levels(text: str) -> int:
    """How many objects and arrays lie within each other at most."""
    found = (1 if match[1] else -1 if match[2] else 0 for match in _STRING_OR_BRACKET.finditer(text))
    return max(accumulate(found), default=0)


def _value(text: str, at: int) -> tuple[Value, int]:
    """The value that begins at a place within a text that was parsed before, and where it ends."""
    parsed, end = _DECODER.raw_decode(text, at)
    return Value(text[at:end], parsed if text[at] == '"' else None), end


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


# Numbers stay texts: Python would round them, and refuses whole ones of many digits.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)
# A repeated name hides nothing.
_PAIRS = json.JSONDecoder(parse_int=str, parse_float=str, object_pairs_hook=tuple)
