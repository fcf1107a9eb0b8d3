"""Parquet: the declared columns in the types that the file has, some rows at a time.

    footer ─► which columns, how many rows to read at once ─► batches ─► columns without dictionaries

Columns that are not declared are not read, whatever they hold. Rows that went in are counted against the footer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from twofold.contract import reasons
from twofold.contract.literals import is_list, is_text, json_value
from twofold.contract.reasons import Reason
from twofold.contract.records import CellRecords
from twofold.definition.field_source import FieldSource, Step
from twofold.definition.model import Field, Pipeline
from twofold.errors import first_line
from twofold.readers.texts import BLOCK_BYTES, PIECE_BYTES, RECORDS_A_PIECE, SetAside, WatchedStream

_FEWEST_ROWS = 64
"""However wide the columns are that are not read."""
_JSON = msgspec.json.Encoder(decimal_format="number")


def read(source: WatchedStream, pipeline: Pipeline) -> Iterator[CellRecords]:
    """All rows, numbered from 1; SetAside where they cannot all be read."""
    try:
        fields = [one for one in pipeline.event.fields.values() if one.is_in_cells]
        yield from _rows(source, fields)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # What the stream raised, or the system, is no fault of the file.
        if source.failure is not None or getattr(error, "errno", None) is not None:
            raise
        raise SetAside(f"unreadable Parquet: {first_line(error)}; write the file again") from error


def _rows(source: WatchedStream, fields: Sequence[Field]) -> Iterator[CellRecords]:
    # Columns are read page by page: a row group may be as large as the file. Where pages have a checksum, it counts.
    file = pq.ParquetFile(
        pa.PythonFile(source, "r"), pre_buffer=False, buffer_size=BLOCK_BYTES, page_checksum_verification=True
    )
    columns = {one.name: _column(file.schema_arrow, one.source) for one in fields}
    declared = _declared(file.schema_arrow.names, set(columns.values()))
    found = [one for one in fields if columns[one.name] in declared]
    number = 1
    for group in range(file.num_row_groups):
        batch_rows = _rows_at_once(file.metadata.row_group(group))
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=declared, use_threads=False):
            yield _records(batch, declared, found, columns, number)
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
    batch: pa.RecordBatch, declared: list[str], fields: Sequence[Field], columns: Mapping[str, str], number: int
) -> CellRecords:
    read = {name: _plain(batch.column(batch.schema.get_field_index(name))) for name in declared}
    found = {}
    faults: dict[int, Reason] = {}
    for one in fields:
        column = columns[one.name]
        steps = () if column == one.source.column else one.source.steps[1:]
        found[one.name] = _within(read[column], steps, one, faults)
    return CellRecords(found, range(number, number + batch.num_rows), _payload_of(read), faults)


def _within(array: pa.Array, steps: Sequence[Step], field: Field, faults: dict[int, Reason]) -> pa.Array:
    """What lies at a path within the values of a column; values of another shape are a fault of their rows."""
    for taken, step in enumerate(steps):
        kind = array.type
        if isinstance(step, str) and pa.types.is_struct(kind):
            place = kind.get_field_index(step)
            array = pa.nulls(len(array)) if place < 0 else pc.struct_field(array, [place])
        elif isinstance(step, str) and pa.types.is_map(kind) and is_text(kind.key_type):
            array = pc.map_lookup(array, pa.scalar(step).cast(kind.key_type), "last")
        elif isinstance(step, int) and is_list(kind):
            array = _element(array, step)
        elif pa.types.is_null(kind):
            return array
        else:
            wanted = "an object" if isinstance(step, str) else "an array"
            place_of = FieldSource(field.source.steps[: taken + 1])
            for index in pc.indices_nonzero(pc.is_valid(array)).to_pylist():
                shape = reasons.wrong_shape(field.label, str(place_of), wanted, array[index])
                faults.setdefault(index, shape)
            return pa.nulls(len(array))
    if isinstance(array.type, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    return array


def _element(array: pa.Array, place: int) -> pa.Array:
    """One element of each list; null past its end. (Arrow's own `list_slice` ends the process on lists of lists.)"""
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        starts = pa.array(np.arange(array.offset, array.offset + len(array)) * kind.list_size)
    else:
        starts = array.offsets.slice(0, len(array)).cast(pa.int64())
    long = pc.and_(pc.is_valid(array), pc.fill_null(pc.greater(pc.list_value_length(array), place), False))
    return array.values.take(pc.if_else(long, pc.add(starts, place), None))


def _plain(array: pa.Array) -> pa.Array:
    """The same values without dictionaries and extension types; texts as bytes where not all of them are UTF-8."""
    if isinstance(array, pa.ExtensionArray) and not isinstance(array.type, pa.UuidType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    array = _cast(array, _plain_type(array.type))
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        # Parquet does not hold its writers to UTF-8. As bytes, each cell can be judged for itself.
        array = _cast(array, _plain_type(array.type, texts=False))
        array.validate(full=True)
    return array


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else array.cast(kind)


def _plain_type(kind: pa.DataType, *, texts: bool = True) -> pa.DataType:
    if isinstance(kind, pa.UuidType):
        return kind
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type, texts=texts)
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type, texts=texts)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type, texts=texts)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type, texts=texts), _plain_type(kind.item_type, texts=texts))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain_type(kind.value_type, texts=texts)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type, texts=texts)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type, texts=texts)), kind.list_size)
    if not texts and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()
    return kind


def _payload_of(columns: Mapping[str, pa.Array]) -> Callable[[int], bytes]:
    def payload(index: int) -> bytes:
        return _JSON.encode({name: _json_value(column[index]) for name, column in columns.items()})

    return payload


def _json_value(cell: pa.Scalar) -> object:
    """A cell as JSON has it, a moment with all its digits."""
    is_moment = cell.is_valid and pa.types.is_timestamp(cell.type)
    return f"{np.datetime64(cell.value, cell.type.unit)}Z" if is_moment else json_value(cell)
