"""A file of the inbox without some of its records: as many records, by the same numbers, the others byte by byte.

    lines ─► {} in place of a record; blank lines stay       elements ─► {} within one array
    rows of CSV ─► empty cells below the same header         rows of Parquet ─► nulls

With `event.each` only some elements of a record's array may have to go: they become null. Texts are written as UTF-8.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Collection, Iterator, Mapping
from typing import IO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from twofold import inbox
from twofold.definition.field_source import FieldSource, Step
from twofold.definition.model import Pipeline
from twofold.inbox import Format
from twofold.readers import csv_rows, json_texts
from twofold.readers.texts import WatchedStream, blocks

Gone = Mapping[int, Collection[int]]
"""Number of a record → the numbers of its elements that go, from 1; none: all of it goes."""
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]|[^\s"{}\[\],:]++', re.DOTALL)
_PARQUET_ROWS = 16_384
_NO_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def without(folder: inbox.Folder, name: str, pipeline: Pipeline, gone: Gone, target: IO[bytes]) -> None:
    """Write a file, of which the readers could read all, without some records."""
    form = inbox.format_of(name)
    assert form is not None
    if form.kind == "parquet":
        with folder.open(name) as source:
            _parquet(source, gone, target)
        return
    lines = (_csv if form.kind == "csv" else _json)(folder, name, form, pipeline, gone)
    if not form.gzipped:
        target.writelines(lines)
        return
    # Without the moment and the name the same content gives the same bytes.
    with gzip.GzipFile("", "wb", fileobj=target, mtime=0) as packed:
        packed.writelines(lines)


def _blocks(source: IO[bytes], form: Format) -> Iterator[bytes]:
    return blocks(WatchedStream(source), form.kind, gzipped=form.gzipped)


def _json(folder: inbox.Folder, name: str, form: Format, pipeline: Pipeline, gone: Gone) -> Iterator[bytes]:
    with folder.open(name) as source:
        begins = next((text.lstrip()[:1] for text in _blocks(source, form) if text.strip()), b"")
    with folder.open(name) as source:
        records = (
            (number, _left(value or b"", pipeline.event.each, gone[number]) if number in gone else value or b"")
            for some in json_texts.read(_blocks(source, form))
            for number, value in zip(some.numbers, some.values, strict=True)
        )
        if begins == b"[":
            yield b"[\n"
            yield from (value if number == 1 else b",\n" + value for number, value in records)
            yield b"\n]\n"
            return
        at = 1
        for number, value in records:
            yield b"\n" * (number - at) + value + b"\n"
            at = number + 1


def _left(record: bytes, each: FieldSource | None, elements: Collection[int]) -> bytes:
    """What is left of a record.

    >>> _left(b'{"n": [{"id": 1}, {"id": 2}]}', FieldSource(("n",)), [2]), _left(b'{"id": 1}', None, [])
    (b'{"n": [{"id": 1}, null]}', b'{}')
    """
    if each is None or not elements:
        return b"{}"
    at = record.index(b"{")
    for step in each.steps:
        at = dict(_within(record, at))[step].start
    # By their places: the same text may stand elsewhere in the record, or be a part of what does.
    places, done, left = dict(_within(record, at)), 0, []
    for number in sorted(elements):
        place = places[number - 1]
        left += [record[done : place.start], b"null"]
        done = place.stop
    return b"".join([*left, record[done:]])


def _within(text: bytes, at: int) -> Iterator[tuple[Step, slice]]:
    """Where the values of the object or array lie that begins there in a sound JSON text: key, or place from 0.

    >>> dict(_within(b'{"a": [1, 2]}', 6))
    {0: slice(7, 8, None), 1: slice(10, 11, None)}
    """
    key: Step = 0
    depth = begin = end = 0
    for token in _TOKEN.finditer(text, at):
        word = token[0]
        if depth == 1 and word in b",:]}":
            if word == b":":
                key = msgspec.json.decode(text[begin:end], type=str)
            elif begin:
                yield key, slice(begin, end)
                key = key + 1 if isinstance(key, int) else key
            begin = 0
        elif depth and not begin:
            begin = token.start()
        depth += (word in b"[{") - (word in b"]}")
        if not depth:
            return
        end = token.end()


def _csv(folder: inbox.Folder, name: str, form: Format, pipeline: Pipeline, gone: Gone) -> Iterator[bytes]:
    files = pipeline.files
    wanted = {one.source.column for one in pipeline.event.fields.values() if one.is_in_cells}
    with folder.open(name) as source:
        first = 0
        for header, rows in csv_rows.as_they_are(
            _blocks(source, form), wanted, delimiter=files.delimiter, header=files.header
        ):
            if not first and not files.header:
                names = (b'"' + cell.replace('"', '""').encode() + b'"' for cell in header.names)
                yield header.separator.join(names) + b"\n"
            empty = b'""' + header.separator * (header.columns - 1)
            first = first or 1
            yield from ((empty if number in gone else row) + b"\n" for number, row in enumerate(rows, first))
            first += len(rows)


def _parquet(source: IO[bytes], gone: Gone, target: IO[bytes]) -> None:
    file = pq.ParquetFile(pa.PythonFile(source, "r"))
    schema = pa.schema(map(_with_nulls, file.schema_arrow), file.schema_arrow.metadata)
    with pq.ParquetWriter(target, schema) as writer:
        first = 1
        for group in range(file.num_row_groups):
            # Each for itself, as Arrow reads lists of dictionaries only within one group.
            for batch in file.iter_batches(_PARQUET_ROWS, row_groups=[group]):
                kept = pa.array([None if first + row in gone else row for row in range(batch.num_rows)], pa.int64())
                columns = [
                    (column if column.type == kind else column.cast(kind)).take(kept)
                    for column, kind in zip(batch.columns, schema.types, strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
                first += batch.num_rows


def _with_nulls(field: pa.Field) -> pa.Field:
    """The field where each value may be null, also within structs, of types that Arrow takes rows of.

    No dictionaries, as these keep the values of rows that went.
    """
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        kind = pa.struct(map(_with_nulls, kind.fields))
    elif pa.types.is_map(kind):
        kind = pa.map_(_with_nulls(kind.key_field).with_nullable(False), _with_nulls(kind.item_field))
    elif pa.types.is_fixed_size_list(kind):
        kind = pa.list_(_with_nulls(kind.value_field), kind.list_size)
    elif pa.types.is_list(kind):
        kind = pa.list_(_with_nulls(kind.value_field))
    elif pa.types.is_large_list(kind):
        kind = pa.large_list(_with_nulls(kind.value_field))
    else:
        kind = _NO_VIEWS.get(kind, kind)
    return field.with_type(kind).with_nullable(True)
