"""A record's bytes read by Python's own JSON parser, made strict: a second opinion on what the product accepted.

Each member of the object keeps its exact text, as a `string` field takes the text of any JSON value as it was sent.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

_BLANK = re.compile(r"[ \t\n\r]*")
_BOM = "\ufeff"


@dataclass(frozen=True)
class Member:
    """One value of an object."""

    text: str
    """As it was sent, without the blanks around it."""
    string: str | None
    """The value of a JSON string; None for any other kind."""

    @property
    def plain(self) -> str:
        """What a `string` field takes: a string's own value, the text of anything else."""
        return self.text if self.string is None else self.string


def members(value: bytes) -> dict[str, Member]:
    r"""The members of exactly one JSON object in UTF-8; the last one of a name counts. ValueError says what else it is.

    >>> members(b'{"id": 1.50, "a": [1.0 ,2]}')["a"].text
    '[1.0 ,2]'
    >>> members(b'{"id": "a\\u0062"}')["id"].plain
    'ab'
    >>> for text in (b'{"a":1}{"b":2}', b'{"a":NaN}', b'[1]', rb'{"a":["\ud83d"]}', b'{"a":1,}', b'', b'{"a":"\xff"}'):
    ...     try: members(text)
    ...     except ValueError as error: print(type(error).__name__)
    ValueError
    ValueError
    ValueError
    UnicodeEncodeError
    JSONDecodeError
    ValueError
    UnicodeDecodeError
    """
    text = value.decode().removeprefix(_BOM)
    at = _expect(text, _past_blanks(text, 0), "{")
    found: dict[str, Member] = {}
    more = not text.startswith("}", at)
    while more:
        key, at = _string(text, at)
        start = _expect(text, at, ":")
        parsed, end = _DECODER.raw_decode(text, start)
        _refuse_half_surrogates(parsed)
        found[key] = Member(text[start:end], parsed if text[start] == '"' else None)
        at = _past_blanks(text, end)
        more = text.startswith(",", at)
        at = _past_blanks(text, at + more)
    at = _expect(text, at, "}")
    if at < len(text):
        raise ValueError(f"more follows the object, at character {at}")
    return found


def alike(kept: Any, sent: Member, kind: str) -> bool:  # noqa: ANN401
    """Whether a column of a type holds what was sent; a number or a boolean may have been sent in quotes.

    >>> sent = members(b'{"s": 1.50, "n": "5.0", "b": true}')
    >>> alike("1.50", sent["s"], "string"), alike(5, sent["n"], "int"), alike(True, sent["b"], "boolean")
    (True, True, True)
    >>> alike("1.5", sent["s"], "string"), alike(50, sent["n"], "int")
    (False, False)
    """
    if kind == "string":
        return bool(kept == sent.plain)
    if kind == "boolean":
        return str(kept).lower() == sent.plain.lower()
    try:
        if kind == "double":
            return bool(kept == float(sent.plain))
        return bool(Decimal(kept) == Decimal(sent.plain))
    except (ValueError, InvalidOperation):
        return False


def _string(text: str, at: int) -> tuple[str, int]:
    """The string at a place, and where the blanks after it end."""
    if not text.startswith('"', at):
        raise json.JSONDecodeError("a name in quotes is missing", text, at)
    key, end = _DECODER.raw_decode(text, at)
    _refuse_half_surrogates(key)
    return key, _past_blanks(text, end)


def _expect(text: str, at: int, character: str) -> int:
    """Past a character and the blanks that follow it."""
    if not text.startswith(character, at):
        raise ValueError(f"not one JSON object: no {character} at character {at}")
    return _past_blanks(text, at + 1)


def _past_blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refuse_half_surrogates(parsed: Any) -> None:  # noqa: ANN401
    """UnicodeEncodeError where a text, however deep, is none that UTF-8 can write."""
    json.dumps(parsed, ensure_ascii=False).encode()


# Numbers stay texts: Python would round them, and refuses whole ones of many digits.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)
