"""JSON texts in, an array per field out: msgspec's strict decoder, for what is plainly right.

    JSON texts ─► one UTF-8 check for all ─► msgspec: nested objects down to the declared paths ─► an array per field

A record that is refused here need not be wrong: the reference judges it. msgspec passes over what is not declared: it
checks its form, but neither its encoding nor its depth; those two are checked here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from twofold.contract.columns import arrow_type
from twofold.contract.literals import BLANKS, MAX_DEPTH, is_deep
from twofold.definition.field_source import Step
from twofold.definition.model import Field
from twofold.definition.time_formats import EPOCHS

_NULL = msgspec.Raw(b"null")
_RAW: tuple[Any, Any] = (msgspec.Raw, _NULL)
_TYPES: dict[str, tuple[Any, Any]] = {
    "string": (str | None, None),
    "int": (Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)] | None, None),
    "long": (Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None, None),
    "double": (float | None, None),
    # The token itself: a Decimal would read digits of other scripts and more.
    "decimal": _RAW,
    "boolean": (bool | None, None),
    "timestamp": (str | None, None),
    "date": (str | None, None),
    "json": _RAW,
}
"""Type and default of a value, by the type of its field."""
_AT_ONCE = 4096
"""Records decoded before they are made into arrays: more than a processor's cache holds take three times as long."""
# The decoder counts levels with Python's own frames: those of whoever calls must not decide what is too deep.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 3 * MAX_DEPTH))
_REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class Decoder:
    """Decodes records, or elements of records, into some of the fields."""

    fields: Sequence[Field]
    max_bytes: int
    of_elements: bool = False
    """An element of an array may be any value, a record is an object."""

    def decode(self, values: pa.Array) -> tuple[dict[str, pa.Array], list[int]]:
        """An array per field, of all texts of a binary array; and which were refused: their values say nothing."""
        refused = self._unreadable(values)
        texts = values.to_pylist()
        for index in refused:
            texts[index] = b"{}"
        parts = []
        for start in range(0, len(texts), _AT_ONCE):
            records, below = _each(texts[start : start + _AT_ONCE], *self._reading)
            parts.append(self._root.columns(records, below))
            refused.update(start + index for index in below)
        columns = {one.name: pa.concat_arrays([part[one.name] for part in parts]) for one in self.fields if parts}
        return columns, sorted(refused)

    def _unreadable(self, values: pa.Array) -> set[int]:
        """Records that are null, too large, too deep or no UTF-8."""
        lengths = pc.binary_length(values)
        found = indexes(pc.fill_null(pc.greater(lengths, self.max_bytes), True))
        # Each level has at least its two brackets.
        deep = indexes(pc.greater(lengths, 2 * MAX_DEPTH)) - found
        found.update(index for index in deep if is_deep(values[index].as_py()))
        found |= not_utf8(values)
        if not self._decodes_objects and not self.of_elements:
            texts = enumerate(values.to_pylist())
            found.update(index for index, text in texts if (text or b"").lstrip(BLANKS)[:1] != b"{")
        return found

    @property
    def _decodes_objects(self) -> bool:
        return not self._root.fields and all(isinstance(step, str) for step in self._root.children)

    @cached_property
    def _reading(self) -> tuple[Callable[[bytes], Any], Any]:
        """What decodes a text, and what stands for a refused one. A record is strictly an object: no null."""
        if not self._decodes_objects:
            return self._root.decoder.decode, self._root.declared[1]
        decode = msgspec.json.Decoder(self._root.struct).decode
        return decode, decode(b"{}")

    @cached_property
    def _root(self) -> _Node:
        root = _Node()
        for one in self.fields:
            node = root
            for step in one.source.steps:
                node = node.below(step)
            node.fields.append(one)
        return root


@dataclass
class _Node:
    """A place in records at which fields lie, or below which they do."""

    fields: list[Field] = field(default_factory=list)
    children: dict[Step, _Node] = field(default_factory=dict)

    def below(self, step: Step) -> _Node:
        """The place one step further."""
        return self.children.setdefault(step, _Node())

    @cached_property
    def declared(self) -> tuple[Any, Any]:
        """Type and default of what is here. Where it is wanted itself and in its parts, it is decoded twice."""
        if self.fields and self.children:
            return _RAW
        if self.fields:
            return _RAW if self.fields[0].format in EPOCHS else _TYPES[self.fields[0].type.name]
        shapes = {type(step) for step in self.children}
        if shapes == {str}:
            return self.struct | None, None
        # Elements of an array need not be alike: each is decoded as what is asked of it. What would have to be both an
        # array and an object can only be null.
        return (list[msgspec.Raw] | None if shapes == {int} else None), None

    @cached_property
    def struct(self) -> Any:  # noqa: ANN401
        """A type with an attribute per key; keys may be called as words of Python are."""
        names = {f"f{index}": str(key) for index, key in enumerate(self.children)}
        kinds = [(name, *child.declared) for name, child in zip(names, self.children.values(), strict=True)]
        return msgspec.defstruct("Record", kinds, rename=names, gc=False)

    @cached_property
    def decoder(self) -> msgspec.json.Decoder[Any]:
        """Of a text that is this place."""
        return msgspec.json.Decoder(self.declared[0])

    def columns(self, values: list[Any], refused: set[int]) -> dict[str, pa.Array]:
        """The fields at and below this place; where something below is no sound value, the index is refused."""
        if self.fields and self.children:
            texts = list(map(bytes, values))
            parts = (_Node(self.fields), _Node(children=self.children))
            return {name: array for part in parts for name, array in self._again(texts, part, refused).items()}
        columns = {one.name: _array(one, values) for one in self.fields}
        for number, (step, child) in enumerate(self.children.items()):
            if isinstance(step, str):
                columns |= child.columns(_attributes(values, f"f{number}", child.declared[1]), refused)
            else:
                columns |= self._again((_element(one, step) for one in values), child, refused)
        return columns

    def _again(self, texts: Iterable[bytes], place: _Node, refused: set[int]) -> dict[str, pa.Array]:
        values, failed = _each(texts, place.decoder.decode, place.declared[1])
        refused.update(failed)
        return place.columns(values, refused)


def _element(found: list[msgspec.Raw] | None, place: int) -> bytes:
    return bytes(found[place]) if found is not None and len(found) > place else b"null"


def _attributes(values: list[Any], name: str, default: Any) -> list[Any]:  # noqa: ANN401
    """One attribute of all; the default where there is no object."""
    try:
        return list(map(attrgetter(name), values))
    except AttributeError:
        return [default if one is None else getattr(one, name) for one in values]


def _each(texts: Iterable[bytes], decode: Callable[[bytes], Any], empty: Any) -> tuple[list[Any], set[int]]:  # noqa: ANN401
    """All decoded; a refused one as an empty record, its index in the set."""
    records: list[Any] = []
    failed = set[int]()
    append, left = records.append, iter(texts)
    while True:
        try:
            # An iterator continues after the record at which a loop over it was left.
            for text in left:
                append(decode(text))
        except _REFUSALS:
            failed.add(len(records))
            append(empty)
        else:
            return records, failed


def _array(one: Field, found: Sequence[Any]) -> pa.Array:
    is_json = one.type.name == "json"
    if not (is_json or one.type.name == "decimal" or one.format in EPOCHS):
        as_text = one.type.name in ("string", "timestamp", "date")
        return pa.array(found, pa.string() if as_text else arrow_type(one.type))
    texts = tokens = pa.array([bytes(token) for token in found], pa.binary()).cast(pa.string())
    if not is_json and pc.any(pc.starts_with(tokens, '"')).as_py():
        # Numbers in quotes, too: escapes in them fit no number.
        texts = pc.utf8_trim(tokens, '"')
    return pc.if_else(pc.equal(tokens, "null"), None, texts)


def indexes(mask: pa.Array) -> set[int]:
    """Where a mask is true."""
    return set(pc.indices_nonzero(mask).to_pylist()) if pc.any(mask).as_py() else set()


def not_utf8(values: pa.Array) -> set[int]:
    """Where bytes are no text; Arrow checks it only where bytes become text, also of what files call text."""
    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        return {index for index, text in enumerate(values.to_pylist()) if not is_utf8(text)}
    return set()


def is_utf8(text: bytes | None) -> bool:
    """Whether bytes are text; none are."""
    try:
        (text or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
