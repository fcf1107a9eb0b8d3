"""Readers: the bytes of one file become the contract's records, in pieces of bounded size, without Spark.

    bytes ─► texts: gzip, byte order mark, UTF-16 ─┬► csv_rows ──► CellRecords
                                                   └► json_texts ► JsonRecords
    bytes ─► parquet_rows ───────────────────────────────────────► CellRecords

    for records in readers.read(stream, "2013/jan.csv.gz", pipeline): ...

What a cell or a text means is the contract's business; here is only where each record begins and ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from twofold.contract.records import CellRecords, JsonRecords
from twofold.definition.model import Pipeline
from twofold.errors import first_line
from twofold.inbox import ACCEPTED_NAMES, format_of
from twofold.readers import csv_rows, json_texts, parquet_rows
from twofold.readers.texts import BLOCK_BYTES, SetAside, WatchedStream, blocks

__all__ = ["SetAside", "read"]


def read(
    stream: IO[bytes], name: str, pipeline: Pipeline, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[JsonRecords | CellRecords]:
    """The records of one file, in pieces of bounded size, in the file's order.

    Raises SetAside, also after some pieces, where the file cannot be read as what its name declares. What the stream
    raises (the store is away, no more files can be opened) goes through as it is, and so does a lack of memory: these
    pass, and are no fault of the file.
    """
    form = format_of(name)
    if form is None:
        raise SetAside(f"unknown ending: accepted are {ACCEPTED_NAMES}; name the file by what it is")
    if form.kind != "json" and pipeline.event.each is not None:
        raise SetAside(f"{form.kind} holds no arrays of events, as event.each declares them: write the file as JSON")
    source = WatchedStream(stream)
    try:
        if form.kind == "parquet":
            yield from parquet_rows.read(source, pipeline)
            return
        text = blocks(source, form.kind, gzipped=form.gzipped, block_bytes=block_bytes)
        is_csv = form.kind == "csv"
        yield from csv_rows.of_fields(text, pipeline, 2 * block_bytes) if is_csv else json_texts.read(text)
    except Exception as error:
        if source.failure is not None:
            raise source.failure from None
        if isinstance(error, SetAside | MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        # A fault of this code, which only this file brings out: it must not stop the others.
        said = f"{type(error).__name__}: {first_line(error)}"
        raise SetAside(f"the file could not be read: {said}; report it with the file") from error
