"""The records of a file of the inbox, read again: JSON and CSV as `recount` takes them apart, Parquet by its scalars.

    lines, elements of an array ─► FileRecord.text         rows of CSV, of Parquet ─► FileRecord.cells

Numbered as docs/inbox.md says.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from twofold import inbox
from twofold.definition.model import Field, Files, Pipeline
from twofold.proof import recount, typed_values
from twofold.proof.json_text import NoWay, has_half_surrogate
from twofold.proof.typed_values import NoValue, as_json
from twofold.topic import Range, within

_ROWS_AT_ONCE = 1024
_One = TypeVar("_One")


@dataclass(frozen=True)
class FileRecord:
    """One record: a JSON text, or what is found of each field."""

    number: int
    text: bytes | None = None
    cells: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    fault: str = ""
    """What is wrong with the row as a whole."""
    payload: bytes | None = None
    """What a rejected row has of it, of a text; of Parquet nothing is known."""


def read(folder: inbox.Source, name: str, pipeline: Pipeline, wanted: Sequence[Range]) -> Iterator[FileRecord]:
    """The records of a file with numbers in some ranges, in order; Irregular where the rest cannot be told."""
    with recount.opened(folder, name) as (stream, kind):
        if kind == "parquet":
            yield from _parquet(stream, pipeline, wanted)
            return
        text = recount.text_of(stream, kind)
        if kind == "csv":
            yield from _csv(text, pipeline, wanted)
            return
        for number, record in _chosen(recount.json_records(text), wanted):
            yield FileRecord(number, _bytes(record, text), payload=_bytes(record, text))


def _chosen(numbered: Iterator[tuple[int, _One]], wanted: Sequence[Range]) -> Iterator[tuple[int, _One]]:
    """Of what is numbered in order, what is in some ranges; past these no more than one is read.

    >>> list(_chosen(iter([(1, "a"), (3, "b"), (4, "c"), (9, "d")]), [(3, 5), (8, 20)]))
    [(3, 'b'), (4, 'c'), (9, 'd')]
    """
    end = wanted[-1][1] if wanted else 0
    return within(takewhile(lambda one: one[0] < end, numbered), wanted, lambda one: one[0])


def _bytes(part: str, text: io.TextIOWrapper) -> bytes:
    """In UTF-8: bytes that are none as they were, or half a pair of UTF-16 as it would be written."""
    return part.encode(errors=text.errors or "strict")


def _csv(text: io.TextIOWrapper, pipeline: Pipeline, wanted: Sequence[Range]) -> Iterator[FileRecord]:
    fields, files = recount.in_cells(pipeline), pipeline.files
    found = recount.csv_records(text, {one.source.column for one in fields}, files)
    names = found.names
    places = {one.name: names.index(one.source.column) for one in fields if one.source.column in names}
    for number, row in _chosen(enumerate(found.rows, 1), wanted):
        cells = found.cells(row)
        if cells is None or len(cells) != len(names):
            fault = "a quote stands within a cell" if cells is None else f"it has {len(cells)} cells, not {len(names)}"
            yield FileRecord(number, fault=fault, payload=_bytes(row, text))
            continue
        size = sum(len(_bytes(cells[place][1], text)) for place in {*places.values()})
        read = {one.name: partial(_field, one, files, *cells[places[one.name]]) for one in fields if one.name in places}
        too_large = f"its cells have {size:,} bytes" if size > pipeline.event.max_bytes else ""
        yield FileRecord(number, cells=read, fault=too_large, payload=_as_object(names, cells) or _bytes(row, text))


def _as_object(names: Sequence[str], cells: Sequence[recount.Cell]) -> bytes:
    """All cells of a row of CSV by their names, as JSON; nothing where one is no UTF-8."""
    said = {name: text if quoted or text else None for name, (quoted, text) in zip(names, cells, strict=True)}
    try:
        "".join(text for _, text in cells).encode()  # of a name that is there twice, too
        return json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return b""


_COMMA_NUMBER = re.compile(r"[^.,]*(,[^.,]*)?")


def _field(one: Field, files: Files, quoted: bool, text: str) -> Any:  # noqa: ANN401
    if text in files.null_values or not (quoted or text):
        return None
    if has_half_surrogate(text):
        raise NoValue("no UTF-8")
    if one.type.name == "boolean" and text in (*files.true_values, *files.false_values):
        return text in files.true_values
    if files.decimal == "," and (one.type.is_number or one.format.startswith("epoch_")):
        if not _COMMA_NUMBER.fullmatch(text):
            raise NoValue(f"another decimal sign: {text[:40]}")
        text = text.replace(",", ".")
    return typed_values.of_text(one, text)


def _parquet(stream: recount.Bytes, pipeline: Pipeline, wanted: Sequence[Range]) -> Iterator[FileRecord]:
    with pq.ParquetFile(pa.PythonFile(stream, mode="r")) as file:
        names, fields = file.schema_arrow.names, recount.in_cells(pipeline)
        ways = {one.name for one in file.schema_arrow if pa.types.is_nested(one.type)}
        columns = {one.name: _column(names, ways, one) for one in fields}
        declared = [name for name in names if name in columns.values()]
        batches = file.iter_batches(_ROWS_AT_ONCE, columns=declared)
        rows = ((batch, row) for batch in batches for row in range(batch.num_rows))
        for number, (batch, row) in _chosen(enumerate(rows, 1), wanted):
            cells = {name: batch[name][row] for name in declared}
            size = sum(map(_text_bytes, cells.values()))
            found = {one.name: partial(_scalar, one, at, cells) for one in fields if (at := columns[one.name]) in cells}
            too_large = f"its texts have {size:,} bytes" if size > pipeline.event.max_bytes else ""
            yield FileRecord(number, cells=found, fault=too_large)


def _column(names: Sequence[str], ways: Collection[str], one: Field) -> str:
    """The file's column that a path leads to: one of its first key, if values lie in it, or one of its whole name."""
    first, *more = one.source.steps
    return str(first) if (more and first in ways) or one.source.column not in names else one.source.column


def _scalar(one: Field, column: str, row: Mapping[str, pa.Scalar]) -> Any:  # noqa: ANN401
    """What lies at a field's path within the value of a column."""
    within = _natural(row[column])
    for step in () if column == one.source.column else one.source.steps[1:]:
        if not within.is_valid:
            return None
        if isinstance(step, str) and pa.types.is_struct(within.type):
            if within.type.get_field_index(step) < 0:
                return None
            within = _natural(within[step])
        elif isinstance(step, str) and isinstance(within, pa.MapScalar) and _is_text(within.type.key_type):
            found = [pair["value"] for pair in within.values if _raw(pair["key"]) == step.encode()]
            if not found:
                return None
            within = _natural(found[-1])
        elif isinstance(step, int) and isinstance(within, pa.ListScalar) and not isinstance(within, pa.MapScalar):
            if step >= len(within.values):
                return None
            within = _natural(within.values[step])
        else:
            raise NoWay(f"no way to {step!r} in Parquet's type {within.type}")
    if within.is_valid and pa.types.is_nested(within.type) and one.type.name in ("string", "json"):
        return as_json(_tree(within))
    return typed_values.of_value(one, typed_values.own(within)) if within.is_valid else None


def _tree(scalar: pa.Scalar) -> Any:  # noqa: ANN401
    """A value with those within it as Python has them; a text for what JSON does not have."""
    scalar = _natural(scalar)
    if not scalar.is_valid:
        return None
    match scalar:
        case pa.StructScalar():
            return {scalar.type.field(place).name: _tree(scalar[place]) for place in range(scalar.type.num_fields)}
        case pa.MapScalar():
            pairs = [[_tree(pair["key"]), _tree(pair["value"])] for pair in scalar.values]
            return dict(pairs) if _is_text(scalar.type.key_type) else pairs
        case pa.ListScalar():
            return [_tree(element) for element in scalar.values]
        case pa.BinaryScalar():
            try:
                return _raw(scalar).decode()
            except UnicodeDecodeError:
                return base64.b64encode(_raw(scalar)).decode()
    value = typed_values.own(scalar)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _is_text(kind: pa.DataType) -> bool:
    while pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
    names = ("string", "binary", "large_string", "large_binary", "string_view", "binary_view", "fixed_size_binary")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def _raw(scalar: pa.Scalar) -> bytes:
    """The bytes of a text, or of bytes."""
    return _natural(scalar).as_buffer().to_pybytes() if scalar.is_valid else b""


def _text_bytes(scalar: pa.Scalar) -> int:
    """How many bytes the texts within a value have."""
    scalar = _natural(scalar)
    if not scalar.is_valid:
        return 0
    if isinstance(scalar, pa.StructScalar):
        return sum(_text_bytes(scalar[place]) for place in range(scalar.type.num_fields))
    if isinstance(scalar, pa.ListScalar):
        return sum(map(_text_bytes, scalar.values))
    return scalar.as_buffer().size if isinstance(scalar, pa.BinaryScalar) else 0


def _natural(scalar: pa.Scalar) -> pa.Scalar:
    """Without a dictionary, or a type that is only a name for another; a UUID as its text."""
    if isinstance(scalar, pa.UuidScalar) and scalar.is_valid:
        return pa.scalar(str(scalar.as_py()))
    while scalar.is_valid and (pa.types.is_dictionary(scalar.type) or isinstance(scalar, pa.ExtensionScalar)):
        scalar = scalar.value
    return scalar
