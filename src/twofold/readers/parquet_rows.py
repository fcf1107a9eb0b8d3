"""Parquet: the declared columns in the types that the file has, some rows at a time.

    footer ─► which columns, how many rows to read at once ─► batches ─► columns without dictionaries

Columns that are not declared are not read, whatever they hold. Rows that went in are counted against the footer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from twofold.contract import reasons
from twofold.contract.literals import BEYOND, JSON, MOMENT, OTHER, TEXT, cell_literal, is_json, is_text, json_value
from twofold.contract.reasons import Reason
from twofold.contract.records import CellRecords, too_large
from twofold.definition.field_source import FieldSource, Step
from twofold.definition.model import Event, Field, Pipeline
from twofold.errors import first_line
from twofold.readers.texts import BLOCK_BYTES, PIECE_BYTES, RECORDS_A_PIECE, SetAside, WatchedStream

_Placed = tuple[Field, str, Sequence[Step]]
"""A field, the column that it is in, and its path within the values of that."""
_FEWEST_ROWS = 64
"""However wide the columns are that are not read."""


def read(source: WatchedStream, pipeline: Pipeline) -> Iterator[CellRecords]:
    """All rows, numbered from 1; SetAside where they cannot all be read."""
    try:
        yield from _rows(source, pipeline.event)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # What the stream raised, or the system, is no fault of the file.
        if source.failure is not None or getattr(error, "errno", None) is not None:
            raise
        raise SetAside(f"unreadable Parquet: {first_line(error)}; write the file again") from error


def _rows(source: WatchedStream, event: Event) -> Iterator[CellRecords]:
    # Columns are read page by page: a row group may be as large as the file. Where pages have a checksum, it counts.
    file = pq.ParquetFile(
        pa.PythonFile(source, "r"), pre_buffer=False, buffer_size=BLOCK_BYTES, page_checksum_verification=True
    )
    fields = [one for one in event.fields.values() if one.is_in_cells]
    columns = {one.name: _column(file.schema_arrow, one.source) for one in fields}
    declared = _declared(file.schema_arrow.names, set(columns.values()))
    found = [
        (one, columns[one.name], () if columns[one.name] == one.source.column else one.source.steps[1:])
        for one in fields
        if columns[one.name] in declared
    ]
    number = 1
    for group in range(file.num_row_groups):
        batch_rows = _rows_at_once(file.metadata.row_group(group))
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=declared, use_threads=False):
            yield _records(batch, declared, found, number, event)
            number += batch.num_rows
    if number - 1 != file.metadata.num_rows:
        raise SetAside(
            f"unreadable Parquet: the file says that it has {file.metadata.num_rows} rows, {number - 1} could be read; "
            "write the file again"
        )


def _column(schema: pa.Schema, source: FieldSource) -> str:
    """The file's column that a path leads to: the one of its first key, if values lie in that, else of its whole name.

    So `a.b` is found in the struct `a` before the column `a.b`, which is what `["a.b"]` means alone.
    """
    first = str(source.steps[0])
    is_way = len(source.steps) > 1 and any(pa.types.is_nested(one.type) for one in schema if one.name == first)
    return first if is_way or source.column not in schema.names else source.column


def _declared(names: list[str], fields: set[str]) -> list[str]:
    """The declared columns, in the file's order."""
    declared = [name for name in names if name in fields]
    if not declared:
        shown = ", ".join(repr(name[:40]) for name in names[:5])
        raise SetAside(f"the file has no declared column, it begins with {shown}; name its columns as the fields")
    if twice := sorted({name for name in declared if declared.count(name) > 1}):
        raise SetAside(f"the file has the column {', '.join(twice)} more than once; leave one of the name")
    return declared


def _rows_at_once(group: pq.RowGroupMetaData) -> int:
    """How many rows of a group are about a piece, if all its columns were read.

    The sizes of single columns would be more exact, yet asking pyarrow for them ends the whole process where the footer
    is damaged in its statistics ("terminate called ... histogram size mismatch").
    """
    fit = PIECE_BYTES * group.num_rows // max(group.total_byte_size, 1)
    return int(min(max(fit, _FEWEST_ROWS), RECORDS_A_PIECE))


def _records(
    batch: pa.RecordBatch, names: list[str], fields: Sequence[_Placed], number: int, event: Event
) -> CellRecords:
    read = {name: _plain(batch.column(batch.schema.get_field_index(name))) for name in names}
    faults = too_large(read.values(), event.max_bytes)
    found = {one.name: _within(read[column], steps, one, faults) for one, column, steps in fields}
    # Of fields of one value the id counts, by which the record is found.
    last = sorted(fields, key=lambda placed: placed[0].name in event.id)

    def payload(index: int) -> bytes:
        kept: Any = {name: json_value(column[index], described=True) for name, column in read.items()}
        for one, column, steps in last:
            _spell(kept, (column, *steps), found[one.name][index], one)
        return JSON.encode(kept)

    return CellRecords(found, range(number, number + batch.num_rows), payload, faults)


def _spell(kept: Any, steps: Sequence[Step], cell: pa.Scalar, field: Field) -> None:  # noqa: ANN401
    """Put the text that the field reads of a value in its place, as far as there is one: read again it is the same."""
    try:
        literal = cell_literal(cell, field.type)
    except UnicodeDecodeError:
        return
    if literal is None or literal.form == BEYOND:
        return
    for step in steps[:-1]:
        kept = kept[step]
    if literal.form == OTHER:
        kept[steps[-1]] = json_value(cell)
    elif literal.form in (TEXT, MOMENT):
        kept[steps[-1]] = literal.text
    elif is_json(literal.text):
        kept[steps[-1]] = msgspec.Raw(literal.text.encode())


def _within(array: pa.Array, steps: Sequence[Step], field: Field, faults: dict[int, Reason]) -> pa.Array:
    """What lies at a path within the values of a column; values of another shape are a fault of their rows."""
    for taken, step in enumerate(steps):
        kind = array.type
        if isinstance(step, str) and pa.types.is_struct(kind):
            place = kind.get_field_index(step)
            array = pa.nulls(len(array)) if place < 0 else pc.struct_field(array, [place])
        elif isinstance(step, str) and pa.types.is_map(kind) and is_text(kind.key_type):
            array = pc.map_lookup(array, pa.scalar(step).cast(kind.key_type), "last")
        elif isinstance(step, int) and pa.types.is_large_list(kind):
            array = _element(array, step)
        elif pa.types.is_null(kind):
            return array
        else:
            path = FieldSource(field.source.steps)
            for index in pc.indices_nonzero(pc.is_valid(array)).to_pylist():
                value = json_value(array[index], described=True)
                faults.setdefault(index, reasons.wrong_shape(field.label, path, taken + 1, value))
            return pa.nulls(len(array))
    return array


def _element(array: pa.Array, place: int) -> pa.Array:
    """One element of each list; null past its end. (Arrow's own `list_slice` ends the process on lists of lists.)"""
    starts = array.offsets.slice(0, len(array))
    long = pc.and_(pc.is_valid(array), pc.fill_null(pc.greater(pc.list_value_length(array), place), False))
    return array.values.take(pc.if_else(long, pc.add(starts, place), None))


def _plain(array: pa.Array) -> pa.Array:
    """The same values without dictionaries, views and extension types, with large lists in the place of all others.

    Texts are bytes where not all of them are UTF-8. (Arrow's own cast reads list views past their end.)
    """
    if isinstance(array.type, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_nested(kind):
        return _plain_nested(array)
    if pa.types.is_fixed_size_binary(kind) or kind in (pa.string_view(), pa.binary_view()):
        array = array.cast(pa.binary())
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        if not is_text(kind):
            raise
        # Parquet does not hold its writers to UTF-8. As bytes, each cell can be judged for itself.
        array = array.cast(pa.large_binary() if pa.types.is_large_string(kind) else pa.binary())
        array.validate(full=True)
    return array


def _plain_nested(array: pa.Array) -> pa.Array:
    none = array.is_null()
    if pa.types.is_struct(array.type):
        return pa.StructArray.from_arrays([*map(_plain, array.flatten())], array.type.names, mask=none)
    if pa.types.is_map(array.type):
        offsets = pa.array(array.offsets.to_numpy(), pa.int32())
        return pa.MapArray.from_arrays(offsets, _plain(array.keys), _plain(array.items), mask=none)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, _plain(pc.list_flatten(array)), mask=none)
