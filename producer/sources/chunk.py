"""Consecutive records of a source, and what every source offers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records `first`, `first + 1`, … of a source (counted from 0)."""

    first: int
    values: list[bytes]
    keys: list[bytes | None]
    """Event id of each, None where it is not known."""
    send_at: list[float] | None = None
    """When each was really sent, Unix seconds, never falling; None where the source does not say."""
    mine: bool | None = None
    """Whether this worker sends them all, or none of them, which are not made then; None where each id decides."""

    def __len__(self) -> int:
        return len(self.values)


class Source(Protocol):
    """Records in a fixed order: the same position always means the same record, or `version` differs."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the source is: names its journal."""

    @property
    def version(self) -> Mapping[str, Any]:
        """Its present content: a journal of another version starts anew."""

    @property
    def memory(self) -> Mapping[str, Any]:
        """What a later run must be told to give the same records."""

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take over the `memory` of the run before."""

    def total(self) -> int | None:
        """How many records there are, None if that is costly or impossible to know."""

    def chunks(self, start: int) -> Iterator[Chunk]:
        """All records from position `start` on."""


def key_finder(id_field: str) -> Callable[[bytes], bytes | None]:
    """How to find the event id in a JSON record, as key bytes; None if it does not parse or has no plain id.

    An id that comes first, as it mostly does, is read without parsing the rest: a third of the time.

    >>> find = key_finder("id")
    >>> find(b'{"id": "a", "x": 1}'), find(b'{"x": 1, "id": "a"}'), find(b'{"id": "\\u0061"}'), find(b'{"id": 7}')
    (b'a', b'a', b'a', b'7')
    >>> find(b'{"x":'), find(b'["id"]'), find(b'{"id": null}')
    (None, None, None)
    """
    leading = re.compile(rb"\s*\{\s*" + re.escape(orjson.dumps(id_field)) + rb'\s*:\s*"([^"\\]*)"').match

    def find(value: bytes) -> bytes | None:
        return found[1] if (found := leading(value)) else _parsed(value, id_field)

    return find


def _parsed(value: bytes, id_field: str) -> bytes | None:
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return key_bytes(event.get(id_field)) if type(event) is dict else None


def key_bytes(identifier: object) -> bytes | None:
    """Key bytes of an id value."""
    if type(identifier) is str:
        return identifier.encode()
    return str(identifier).encode() if type(identifier) is int else None
