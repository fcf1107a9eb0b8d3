"""The fast path of the contract, in columns: what is plainly right, whole arrays at a time.

    array as decoded or read ─► typed(field) ─► array of the declared type, which values of it are plainly right
    typed arrays ─► kept rules ─► which rows keep all rules

A value that is not plainly right need not be wrong: the reference judges it. So nothing here says why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from twofold.contract.literals import BLANKS, EXACT_IN_A_DOUBLE, TEXT, Literal, NotOfType, is_json, read_value
from twofold.contract.reference import lowest, matches
from twofold.definition.model import Field, Pipeline
from twofold.definition.time_formats import EPOCHS, ISO
from twofold.definition.types import FieldType

ARROW = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "json": pa.string(),
}
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_ZONED = rf"\A{_DAY}T{_TIME}(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])\z"
_UNZONED = rf"\A{_DAY}T{_TIME}\z"
_FIRST_DAY, _LAST_DAY = "0001-01-01", "9999-12-31"
_DOUBLE = r"\A-?[0-9]{1,15}(\.[0-9]{1,15})?\z"


class Typed(NamedTuple):
    """An array of the declared type, and which of its values are plainly right (None: all); null counts as right."""

    array: pa.Array
    right: pa.Array | None = None


def arrow_type(kind: FieldType) -> pa.DataType:
    """The type of a field's column."""
    return pa.decimal128(kind.precision, kind.scale) if kind.name == "decimal" else ARROW[kind.name]


def typed(field: Field, array: pa.Array, *, decoded: bool = False) -> Typed:
    """The array as the field's type, as far as that is plain; what is null has the field's default.

    Of values `decoded` from JSON texts, those of a json field are sound JSON already.
    """
    found = _typed(field, array, decoded)
    if field.default is None or not array.null_count:
        return found
    default = pa.scalar(field.default, found.array.type)
    return found._replace(array=pc.if_else(pc.is_null(array), default, found.array))


def _typed(field: Field, array: pa.Array, decoded: bool) -> Typed:
    kind = field.type
    wanted = arrow_type(kind)
    if array.type == wanted and kind.name not in ("double", "timestamp", "date", "json"):
        return Typed(array)
    if pa.types.is_union(array.type):
        return Typed(pa.nulls(len(array), wanted), pa.repeat(False, len(array)))
    if array.null_count == len(array):
        return Typed(pa.nulls(len(array), wanted))
    if pa.types.is_string(array.type):
        if kind.name == "json":
            return Typed(array) if decoded else _json_texts(array)
        if field.format != ISO:
            return _formatted(field, array, wanted)
        return _FROM_TEXT[kind.name](kind, array)
    if field.format in EPOCHS and pa.types.is_integer(array.type):
        return _whole_epochs(field, array, wanted)
    return _from_values(kind, array, wanted)


def _json_texts(array: pa.Array) -> Typed:
    """Cells that hold JSON; only what the reference would take, too."""
    array = pc.if_else(pc.equal(pc.utf8_trim(array, BLANKS.decode()), "null"), None, array)
    return Typed(array, pa.array([text is None or is_json(text) for text in array.to_pylist()], pa.bool_()))


_EPOCH_TEXT = r"\A[0-9]{1,18}\z"


def _formatted(field: Field, texts: pa.Array, wanted: pa.DataType) -> Typed:
    if field.format in EPOCHS:
        right = pc.match_substring_regex(texts, _EPOCH_TEXT)
        kept = texts if _all(right) else pc.if_else(right, texts, None)
        found = _whole_epochs(field, kept.cast(pa.int64()), wanted)
        return found._replace(right=pc.and_kleene(right, found.right))
    return _one_by_one(field.type, field.format, texts, wanted)


def _whole_epochs(field: Field, numbers: pa.Array, wanted: pa.DataType) -> Typed:
    """Moments from counts of a unit since 1970."""
    counts = _cast(numbers, pa.int64())
    if field.type.name == "date" or counts.right is not None:
        return _nothing(numbers, wanted)
    return _moments(counts.array.view(pa.timestamp(field.format.removeprefix("epoch_"), "UTC")), wanted)


def _one_by_one(kind: FieldType, form: str, texts: pa.Array, wanted: pa.DataType) -> Typed:
    array = pa.array(map(_reading(kind, form), texts.to_pylist()), wanted)
    return Typed(array, pc.or_(pc.is_valid(array), pc.is_null(texts)))


@lru_cache(maxsize=16)
def _reading(kind: FieldType, form: str) -> Callable[[str | None], Any]:
    """Reads texts as the reference does, None where they are no values; those of neighbours are often equal."""

    @lru_cache(maxsize=65_536)
    def read(text: str | None) -> Any:  # noqa: ANN401
        try:
            return None if text is None else read_value(kind, Literal(TEXT, text), form)
        except NotOfType:
            return None

    return read


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
    return _nothing(array, wanted)


def _whole_doubles(kind: FieldType, doubles: pa.Array, wanted: pa.DataType) -> Typed:
    """Whole numbers that came as doubles, as pandas writes those of a column that also has nulls."""
    limit = float(1 << 31 if kind.name == "int" else EXACT_IN_A_DOUBLE)
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
        return _nothing(array, wanted)


def _nothing(array: pa.Array, wanted: pa.DataType) -> Typed:
    return Typed(pa.nulls(len(array), wanted), pc.is_null(array))


def _in_calendar(found: Typed) -> Typed:
    """Only years 1 to 9999: Arrow counts further than any calendar of ours."""
    if found.right is not None:
        return found
    days = found.array.cast(pa.date32(), safe=False) if pa.types.is_timestamp(found.array.type) else found.array
    low, high = (pa.scalar(day).cast(pa.date32()) for day in (_FIRST_DAY, _LAST_DAY))
    return Typed(found.array, pc.and_(pc.greater_equal(days, low), pc.less_equal(days, high)))


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
        return _one_by_one(kind, ISO, texts, wanted)
    return Typed(array, pc.and_kleene(right, _in_calendar(Typed(array)).right))


def _where(texts: pa.Array, form: str, wanted: pa.DataType) -> Typed:
    """The texts that have the form, cast."""
    right = pc.match_substring_regex(texts, form)
    if _all(right):
        return Typed(texts.cast(wanted))
    return Typed(pc.if_else(right, texts, None).cast(wanted), right)


def _all(right: pa.Array) -> bool:
    return bool(pc.all(right).as_py() in (True, None))


_FROM_TEXT: dict[str, Callable[[FieldType, pa.Array], Typed]] = {
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
