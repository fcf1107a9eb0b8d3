"""The fast reading of JSON texts: msgspec decodes each straight into the declared types, then arrays are made.

    values ─► one UTF-8 check for all ─► msgspec, strict ─► an array per field, in its declared type or as text
                   └───────── what is refused here is judged by the reference ─────────┘

msgspec passes over what is not declared: it checks its form, but neither its encoding nor its depth; those two are
checked here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from twofold.contract.columns import arrow_type
from twofold.contract.reference import MAX_DEPTH, is_deep, struct
from twofold.definition.model import Pipeline
from twofold.definition.types import FieldType

_NULL = msgspec.Raw(b"null")
_TYPES: dict[str, tuple[Any, Any]] = {
    "string": (str | None, None),
    "int": (Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)] | None, None),
    "long": (Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None, None),
    "double": (float | None, None),
    # The token itself: a Decimal would read digits of other scripts and more.
    "decimal": (msgspec.Raw, _NULL),
    "boolean": (bool | None, None),
    "timestamp": (str | None, None),
    "date": (str | None, None),
}
_AT_ONCE = 4096
"""Records decoded before they are made into arrays: more than a processor's cache holds take three times as long."""
# The decoder counts levels with Python's own frames: those of whoever calls must not decide what is too deep.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 3 * MAX_DEPTH))
_REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Decoded(NamedTuple):
    """An array per declared field, and the indexes of records that were refused (null in all arrays)."""

    columns: Mapping[str, pa.Array]
    refused: Sequence[int]


@dataclass(frozen=True)
class Decoder:
    """Decodes the records of one pipeline."""

    pipeline: Pipeline

    def decode(self, values: pa.Array) -> Decoded:
        """All texts of a binary array."""
        refused = self._unreadable(values)
        texts = values.to_pylist()
        for index in refused:
            texts[index] = b"{}"
        parts = []
        for start in range(0, len(texts), _AT_ONCE):
            records, failed = _each(texts[start : start + _AT_ONCE], self._decoder.decode)
            refused.update(start + index for index in failed)
            parts.append(self._columns(records))
        if len(parts) == 1:
            return Decoded(parts[0], sorted(refused))
        columns = {name: pa.concat_arrays([part[name] for part in parts]) for name in self._kinds} if parts else {}
        return Decoded(columns, sorted(refused))

    def _unreadable(self, values: pa.Array) -> set[int]:
        """Records that are null, too large, too deep or no UTF-8."""
        lengths = pc.binary_length(values)
        small = pc.fill_null(pc.less_equal(lengths, self.pipeline.event.max_bytes), False)
        found = _where(pc.invert(small))
        # Each level has at least its two brackets.
        deep = _where(pc.fill_null(pc.greater(lengths, 2 * MAX_DEPTH), False))
        found.update(index for index in deep if index not in found and is_deep(values[index].as_py()))
        try:
            values.cast(pa.string() if pa.types.is_binary(values.type) else pa.large_string())
        except pa.ArrowInvalid:
            found.update(index for index, text in enumerate(values.to_pylist()) if not _is_utf8(text))
        return found

    def _columns(self, records: list[Any]) -> dict[str, pa.Array]:
        attributes = zip(self._kinds.items(), self._type.__struct_fields__, strict=True)
        return {name: _array(kind, list(map(attrgetter(one), records))) for (name, kind), one in attributes}

    @cached_property
    def _kinds(self) -> dict[str, FieldType]:
        return {field.name: field.type for field in self.pipeline.event.fields.values()}

    @cached_property
    def _type(self) -> type[msgspec.Struct]:
        types = {name: _TYPES[kind.name] for name, kind in self._kinds.items()}
        return struct(self.pipeline.event.fields, types)

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        return msgspec.json.Decoder(self._type)


def _each(texts: list[bytes], decode: Callable[[bytes], Any]) -> tuple[list[Any], list[int]]:
    """All decoded; a refused one as an empty record, its index in the second list."""
    records: list[Any] = []
    failed: list[int] = []
    append, empty, left = records.append, decode(b"{}"), iter(texts)
    while True:
        try:
            # An iterator goes on after the record at which a loop over it was left.
            for text in left:
                append(decode(text))
        except _REFUSALS:
            failed.append(len(records))
            append(empty)
        else:
            return records, failed


def _array(kind: FieldType, found: Sequence[Any]) -> pa.Array:
    if kind.name == "decimal":
        return _tokens(found)
    as_text = kind.name in ("string", "timestamp", "date")
    return pa.array(found, pa.string() if as_text else arrow_type(kind))


def _tokens(found: Sequence[msgspec.Raw]) -> pa.Array:
    """Number tokens as text, without the quotes of those in quotes (escapes in them fit no number)."""
    tokens = pa.array([bytes(token) for token in found], pa.binary()).cast(pa.string())
    texts = pc.utf8_trim(tokens, '"') if pc.any(pc.starts_with(tokens, '"')).as_py() else tokens
    return pc.if_else(pc.equal(tokens, "null"), None, texts)


def _where(mask: pa.Array) -> set[int]:
    return set(pc.indices_nonzero(mask).to_pylist()) if pc.any(mask).as_py() else set()


def _is_utf8(text: bytes | None) -> bool:
    try:
        (text or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
