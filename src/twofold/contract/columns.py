"""The fast path of the contract: what is plainly right, whole arrays at a time.

    JSON texts ─► one UTF-8 check for all ─► msgspec, strict ─► an array per field, in its declared type or as text
    array as decoded or read ─► typed(field) ─► array of the declared type, which values of it are plainly right
    typed arrays ─► kept rules ─► which rows keep all rules

A record that is refused here, or not plainly right, need not be wrong: the reference judges it. So nothing here says
why. msgspec passes over what is not declared: it checks its form, but neither its encoding nor its depth; those two are
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

from twofold.contract import reference
from twofold.contract.reference import MAX_DEPTH, Literal, NotOfType, is_deep, lowest, matches, struct
from twofold.definition.model import Field, Pipeline
from twofold.definition.types import FieldType

ARROW = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
}
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_ZONED = rf"\A{_DAY}T{_TIME}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])\z"
_UNZONED = rf"\A{_DAY}T{_TIME}\z"
_FIRST_DAY, _LAST_DAY = "0001-01-01", "9999-12-31"
_DOUBLE = r"\A-?[0-9]{1,15}(\.[0-9]{1,15})?\z"

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


class Typed(NamedTuple):
    """An array of the declared type, and which of its values are plainly right (None: all); null counts as right."""

    array: pa.Array
    right: pa.Array | None = None


def arrow_type(kind: FieldType) -> pa.DataType:
    """The type of a field's column."""
    return pa.decimal128(kind.precision, kind.scale) if kind.name == "decimal" else ARROW[kind.name]


def typed(kind: FieldType, array: pa.Array) -> Typed:
    """The array as the declared type, as far as that is plain."""
    wanted = arrow_type(kind)
    if array.type == wanted and kind.name not in ("double", "timestamp", "date"):
        return Typed(array)
    if array.null_count == len(array):
        return Typed(pa.nulls(len(array), wanted))
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    if pa.types.is_string(array.type):
        return _FROM_TEXT[kind.name](kind, array)
    return _from_values(kind, array, wanted)


def _from_values(kind: FieldType, array: pa.Array, wanted: pa.DataType) -> Typed:
    """Of values that have a type of their own."""
    is_whole, is_decimal = pa.types.is_integer(array.type), pa.types.is_decimal(array.type)
    if pa.types.is_floating(array.type) and kind.name == "double":
        # Minus zero becomes zero.
        doubles = pc.add(array.cast(wanted), 0.0)
        return Typed(doubles, pc.is_finite(doubles))
    if is_whole and kind.name in ("int", "long", "double", "string"):
        return _cast(array, wanted)
    if pa.types.is_floating(array.type) and kind.name in ("int", "long"):
        return _whole_doubles(kind, array.cast(pa.float64()), wanted)
    if is_whole and kind.name == "decimal":
        return _cast(array.cast(pa.decimal128(20, 0)), wanted)
    if is_decimal and kind.name in ("int", "long", "decimal"):
        return _cast(array, wanted)
    if pa.types.is_timestamp(array.type) and kind.name == "timestamp":
        return _moments(array.cast(pa.timestamp(array.type.unit, "UTC")), wanted)
    if pa.types.is_date32(array.type) and kind.name == "date":
        return _in_calendar(Typed(array))
    return _nothing(len(array), wanted, array)


def _whole_doubles(kind: FieldType, doubles: pa.Array, wanted: pa.DataType) -> Typed:
    """Whole numbers that came as doubles, as pandas writes those of a column that also has nulls."""
    limit = float(1 << 31 if kind.name == "int" else reference.EXACT_IN_A_DOUBLE)
    inside = pc.and_(pc.greater(doubles, -limit), pc.less(doubles, limit))
    right = pc.and_(inside, pc.equal(doubles, pc.floor(doubles)))
    return Typed(pc.if_else(right, doubles, None).cast(wanted), right)


def _moments(array: pa.Array, wanted: pa.DataType) -> Typed:
    if array.type.unit != "ns":
        return _in_calendar(_cast(array, wanted))
    # What is finer is cut off, here towards 1970: before it that is the wrong way.
    return Typed(array.cast(wanted, safe=False), pc.greater_equal(array, pa.scalar(0, array.type)))


def _cast(array: pa.Array, wanted: pa.DataType) -> Typed:
    """All of it, where nothing is lost; else nothing is plain."""
    try:
        return Typed(array.cast(wanted))
    except pa.ArrowInvalid:
        return _nothing(len(array), wanted, array)


def _nothing(length: int, wanted: pa.DataType, array: pa.Array) -> Typed:
    return Typed(pa.nulls(length, wanted), pc.is_null(array))


def _in_calendar(found: Typed) -> Typed:
    """Only years 1 to 9999: Arrow counts further than any calendar of ours."""
    if found.right is not None:
        return found
    days = found.array.cast(pa.date32(), safe=False) if pa.types.is_timestamp(found.array.type) else found.array
    low, high = (pa.scalar(day).cast(pa.date32()) for day in (_FIRST_DAY, _LAST_DAY))
    return Typed(found.array, pc.and_(pc.greater_equal(days, low), pc.less_equal(days, high)))


def _strings(_kind: FieldType, texts: pa.Array) -> Typed:
    return Typed(texts)


def _whole_numbers(kind: FieldType, texts: pa.Array) -> Typed:
    digits = {"int": 9, "long": 18}[kind.name]
    return _where(texts, rf"\A(-?[1-9][0-9]{{0,{digits - 1}}}|0)\z", arrow_type(kind))


def _doubles(kind: FieldType, texts: pa.Array) -> Typed:
    found = _where(texts, _DOUBLE, arrow_type(kind))
    return found._replace(array=pc.add(found.array, 0.0))


def _decimals(kind: FieldType, texts: pa.Array) -> Typed:
    before = kind.precision - kind.scale
    whole = f"[0-9]{{1,{before}}}" if before else "0"
    fraction = rf"(\.[0-9]{{1,{kind.scale}}})?" if kind.scale else ""
    return _where(texts, rf"\A-?{whole}{fraction}\z", arrow_type(kind))


def _booleans(_kind: FieldType, texts: pa.Array) -> Typed:
    true, false = pc.equal(texts, "true"), pc.equal(texts, "false")
    return Typed(true, pc.or_(true, false))


def _timestamps(kind: FieldType, texts: pa.Array) -> Typed:
    zoned = pc.match_substring_regex(texts, _ZONED)
    if not _all(zoned):
        unzoned = pc.match_substring_regex(texts, _UNZONED)
        if pc.any(unzoned).as_py():
            texts = pc.if_else(unzoned, pc.binary_join_element_wise(texts, "Z", ""), texts)
            zoned = pc.or_(zoned, unzoned)
    return _in_years(kind, texts, zoned)


def _dates(kind: FieldType, texts: pa.Array) -> Typed:
    return _in_years(kind, texts, pc.match_substring_regex(texts, rf"\A{_DAY}\z"))


def _in_years(kind: FieldType, texts: pa.Array, right: pa.Array) -> Typed:
    """Moments and days of the right form; one that no calendar has makes the reference read them all."""
    wanted = arrow_type(kind)
    kept = texts if _all(right) else pc.if_else(right, texts, None)
    try:
        array = kept.cast(wanted)
    except pa.ArrowInvalid:
        array = pa.array([_moment(kind, text) for text in kept.to_pylist()], wanted)
        return Typed(array, pc.or_(pc.is_valid(array), pc.is_null(texts)))
    inside = _in_calendar(Typed(array)).right
    return Typed(array, pc.and_kleene(right, inside))


def _moment(kind: FieldType, text: str | None) -> Any:  # noqa: ANN401
    try:
        return None if text is None else reference.read_value(kind, Literal(reference.TEXT, text))
    except NotOfType:
        return None


def _where(texts: pa.Array, form: str, wanted: pa.DataType) -> Typed:
    """The texts that have the form, cast."""
    right = pc.match_substring_regex(texts, form)
    if _all(right):
        return Typed(texts.cast(wanted))
    return Typed(pc.if_else(right, texts, None).cast(wanted), right)


def _all(right: pa.Array) -> bool:
    return bool(pc.all(right).as_py() in (True, None))


_FROM_TEXT: dict[str, Callable[[FieldType, pa.Array], Typed]] = {
    "string": _strings,
    "int": _whole_numbers,
    "long": _whole_numbers,
    "double": _doubles,
    "decimal": _decimals,
    "boolean": _booleans,
    "timestamp": _timestamps,
    "date": _dates,
}


def kept_rules(pipeline: Pipeline, field: Field, array: pa.Array) -> list[pa.Array]:
    """Per rule of the field, which values keep it; null for null, which only `required` forbids."""
    kept = [pc.is_valid(array)] if field.required and array.null_count else []
    low, kind = lowest(pipeline, field), array.type
    if low is not None:
        kept.append(pc.greater_equal(array, pa.scalar(low, kind)))
    if field.max is not None:
        kept.append(pc.less_equal(array, pa.scalar(field.max, kind)))
    if field.one_of:
        # is_in gives false for null.
        kept.append(pc.or_(pc.is_in(array, pa.array(field.one_of, kind)), pc.is_null(array)))
    if field.max_length is not None:
        short = pc.less_equal(pc.utf8_length(array), field.max_length)
        kept.append(short)
        # Only texts of allowed length are held against the pattern: Arrow searches even what lies behind a null.
        array = array if _all(short) else pc.if_else(short, array, "")
    if field.pattern is not None:
        kept.append(matches(array, field.pattern))
    return kept


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
        found = _indexes(pc.invert(small))
        # Each level has at least its two brackets.
        deep = _indexes(pc.fill_null(pc.greater(lengths, 2 * MAX_DEPTH), False))
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
            # An iterator continues after the record at which a loop over it was left.
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


def _indexes(mask: pa.Array) -> set[int]:
    return set(pc.indices_nonzero(mask).to_pylist()) if pc.any(mask).as_py() else set()


def _is_utf8(text: bytes | None) -> bool:
    try:
        (text or b"").decode()
    except UnicodeDecodeError:
        return False
    return True
