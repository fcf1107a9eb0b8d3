"""The shape of a sample's records: which paths they have, and the values at each, record by record.

    {"a": {"b": 1}, "c": [{"d": 2}]} ─► columns a.b, c          each: c ─► columns d, $.a.b

Objects are opened as long as that leaves few enough columns to read: those first that are there most often. What stays
closed is json. An object whose keys are data (`{"u-17": …, "u-18": …}`) stays closed; of one with many keys those are
taken whose names tell most.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Any

import msgspec

from twofold.contract.literals import BOOLEAN, NUMBER, OTHER, TEXT, Literal
from twofold.definition.field_source import FieldSource, is_key
from twofold.draft.kinds import Kind, nearly, vocabulary, words

MOST_COLUMNS = 40
_MOST_STEPS = 12
_MANY, _FEW = 20, 8
_LINKS = ("url", "_links", "node_id", "href")
Documents = Sequence[dict[str, Any]]
TELLING_WORDS = vocabulary("id name login type kind status state title number action created updated count total key")
"""What names of an object's keys have that are worth a column, where it has many."""


class Token(str):
    """A number with a point or an exponent, as it was written."""


DECODER = msgspec.json.Decoder(float_hook=Token)
"""JSON with the digits that it had."""


@dataclass(frozen=True)
class Column:
    """The values at one path, in the order of the records; None where a value is absent or null."""

    source: FieldSource
    values: Sequence[Literal | None]
    kind: Kind | None = None
    """What the file itself says, where it does."""

    @property
    def found(self) -> list[Literal]:
        """All values that are there."""
        return [value for value in self.values if value is not None]

    @property
    def key(self) -> str:
        """Its last key, or the header's name."""
        beside = "" if self.source.in_value else self.source.header or self.source.kind
        return next((step for step in reversed(self.source.steps) if isinstance(step, str)), beside)

    @property
    def depth(self) -> int:
        """How far within records it lies; farther than any, what lies beside them."""
        return len(self.source.steps) if self.source.in_value else _MOST_STEPS + 1

    @property
    def is_always_there(self) -> bool:
        """Whether there are records, and none is without it."""
        return bool(self.values) and all(value is not None for value in self.values)


@dataclass
class _Node:
    """What lies at a path, over all records."""

    objects: int = 0
    others: int = 0
    arrays: int = 0
    batches: int = 0
    """Arrays of objects only, at least one."""
    empty: int = 0
    """Arrays of nothing."""
    below: dict[str, _Node] = field(default_factory=dict)

    def add(self, value: object, times: int) -> None:
        if isinstance(value, dict):
            self.objects += times
            for key, inner in value.items():
                self.below.setdefault(key, _Node()).add(inner, times)
        elif value is not None:
            self.others += times
            if isinstance(value, list):
                self.arrays += times
                self.batches += times * (bool(value) and all(isinstance(element, dict) for element in value))
                self.empty += times * (not value)

    @property
    def there(self) -> int:
        return self.objects + self.others

    @property
    def opens(self) -> bool:
        """Whether its keys are names rather than data, and nearly all its values have them."""
        if not self.below or not nearly(self.others, self.there) or not all(map(is_key, self.below)):
            return False
        return len(self.below) <= _MANY or max(node.there for node in self.below.values()) * 2 >= self.objects

    def worth(self, *, is_root: bool) -> list[str]:
        """The keys to look at: of many at the top those that are there often, of many below those that tell most."""
        keys = [key for key in self.below if is_key(key)]
        if is_root:
            return keys if len(keys) <= _MANY else [key for key in keys if self.below[key].there * 50 >= self.objects]
        told = [key for key in keys if not key.lower().endswith(_LINKS)] or keys
        if len(told) > _MANY:
            told = [key for key in told if self.below[key].there * 4 >= self.objects]
        if len(told) <= _MANY:
            return told
        best = sorted(told, key=lambda key: not TELLING_WORDS & set(words(key)))[:_FEW]
        return [key for key in told if key in best]


def tree(documents: Documents, times: Iterable[int] = repeat(1)) -> _Node:
    """All paths of some records, each of which counts so many times."""
    root = _Node()
    for document, often in zip(documents, times, strict=False):
        root.add(document, often)
    return root


def batch_path(root: _Node) -> tuple[str, ...] | None:
    """The one path at which every record has an array of objects, if there is just one such array in any record."""
    found = list(_arrays_of_objects(root, ()))
    if len(found) != 1:
        return None
    [(path, node)] = found
    batches = node.batches + node.empty if node.batches > node.empty else node.batches
    is_stable = nearly(root.objects - batches, root.objects) and nearly(node.there - node.arrays, node.there)
    return path if is_stable and all(map(is_key, path)) else None


def _arrays_of_objects(node: _Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Node]]:
    if node.batches:
        yield path, node
    for key, below in node.below.items():
        yield from _arrays_of_objects(below, (*path, key))


def columns(
    documents: Documents, times: Iterable[int] = repeat(1), *, without: tuple[str, ...] = (), most: int = MOST_COLUMNS
) -> tuple[list[Column], int]:
    """The columns of some records, in the order of their keys; and how many keys were left out as too many.

    A record is read once, however many `times` it counts: that around elements counts for each of them.
    """
    root = tree(documents, times)
    opened, left_out = _opened(root, most)
    paths = [path for path in opened if path != without]
    if len(paths) > most:
        often = set(sorted(paths, key=lambda path: -_at(root, path).there)[:most])
        left_out += len(paths) - most
        paths = [path for path in paths if path in often]
    found = []
    for path in paths:
        values = (literal(_value(document, path)) for document in documents)
        found.append(Column(FieldSource(path), [*chain.from_iterable(map(repeat, values, times))]))
    return found, left_out


def _at(root: _Node, path: tuple[str, ...]) -> _Node:
    for key in path:
        root = root.below[key]
    return root


def _opened(root: _Node, most: int) -> tuple[list[tuple[str, ...]], int]:
    """The paths that become columns, in the order of their keys, and how many keys on the way do not."""
    paths: list[tuple[str, ...]] = [()]
    waiting: list[tuple[int, int, tuple[str, ...]]] = [(0, 0, ())]
    left_out = 0
    while waiting:
        _, depth, path = heapq.heappop(waiting)
        node = _at(root, path)
        keys = node.worth(is_root=not path)
        if not path or (len(paths) - 1 + len(keys) <= most and depth < _MOST_STEPS):
            place = paths.index(path)
            paths[place : place + 1] = [(*path, key) for key in keys]
            left_out += len(node.below) - len(keys)
            for key in keys:
                if (below := node.below[key]).opens:
                    heapq.heappush(waiting, (-below.there, depth + 1, (*path, key)))
    return paths, left_out


def _value(document: Any, path: Sequence[str]) -> Any:  # noqa: ANN401
    for key in path:
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


def literal(value: object) -> Literal | None:
    """A decoded value as the contract has values.

    >>> literal(Token("1.50")), literal("a"), literal([1])
    (Literal(form='number', text='1.50'), Literal(form='text', text='a'), Literal(form='other', text='[1]'))
    """
    match value:
        case None:
            return None
        case Token():
            return Literal(NUMBER, str(value))
        case str():
            return Literal(TEXT, value)
        case bool():
            return Literal(BOOLEAN, str(value).lower())
        case int():
            # Not above what Python writes out; such a number has no type but text anyway.
            return Literal(NUMBER, str(value) if value.bit_length() < 1 << 12 else "1e9999")
    return Literal(OTHER, msgspec.json.encode(value, enc_hook=str).decode())


def elements(document: dict[str, Any], path: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects in a record's array, if it is one."""
    found = _value(document, path)
    return [element for element in found if isinstance(element, dict)] if isinstance(found, list) else []


def around(found: Sequence[Column]) -> list[Column]:
    """Columns of the records around elements: their paths begin at the record, which a key with a dot cannot."""
    whole = [replace(column, source=replace(column.source, whole=True)) for column in found]
    return [column for column in whole if str(column.source).startswith("$.")]
