"""What the driver learns of a landed file before Spark reads it: its digest, its layout, or why it cannot be read.

    bytes ─► sha256 ──────────────────────────────────────┐
      └─► gunzipped to the end ─► first bytes ─► layout ──┴─► Inspection
      └─► Parquet footer ───────────────────────► layout

Files of one layout are read together, in one scan.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Buffer

from twofold.definition.model import Pipeline
from twofold.inbox import ACCEPTED_NAMES, File, Folder, Format, format_of, name_fault

_BLOCK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_SHOWN_COLUMNS = 5


@dataclass(frozen=True)
class Layout:
    """How a file is to be read."""

    kind: str
    columns: tuple[str, ...] = ()
    """CSV: the header. Parquet: the columns."""
    types: tuple[str, ...] = ()
    """Parquet: the type of each column, by which files that can be read together are told."""
    nanoseconds: frozenset[str] = frozenset()
    """Parquet: timestamps that count nanoseconds."""
    separator: str = "\n"
    """CSV: what ends a record."""
    bom: bool = False


@dataclass(frozen=True)
class Inspection:
    """One version of a file: its SHA-256 in hex, and its layout, or the reason to set it aside."""

    file: File
    sha256: str
    layout: Layout | None = None
    reason: str = ""


class Unreadable(Exception):
    """A file that cannot be read as what its name declares; the message says why."""


@dataclass
class Inspector:
    """Inspects files of one folder, each version once."""

    folder: Folder
    pipeline: Pipeline
    _known: dict[tuple[str, str], Inspection] = field(default_factory=dict)

    def inspect(self, file: File) -> Inspection:
        """Read the file to its end; FileNotFoundError where it is gone meanwhile."""
        key = (file.name, file.version)
        if key not in self._known:
            self._known[key] = self._read(file)
        return self._known[key]

    def set_aside(self, file: File, reason: str) -> None:
        """Note that Spark could not read this version, though it looked sound."""
        self._known[file.name, file.version] = replace(self.inspect(file), layout=None, reason=reason)

    def _read(self, file: File) -> Inspection:
        try:
            with self.folder.open(file.name) as stream:
                return self._digested(file, _Digesting(stream))
        except PermissionError as error:
            return Inspection(file, "", reason=f"cannot be opened: {error.strerror or error}")

    def _digested(self, file: File, stream: _Digesting) -> Inspection:
        declared = format_of(file.name)
        try:
            if fault := name_fault(file.name):
                raise Unreadable(f"its name cannot be taken: {fault}")
            # Hadoop's paths, which Spark reads by, take a colon for the end of a scheme.
            if ":" in file.name or "\\" in file.name:
                raise Unreadable("its name cannot be taken: it has a colon or a backslash")
            if declared is None:
                raise Unreadable(f"unknown ending; accepted are {ACCEPTED_NAMES}")
            layout = self._parquet(file) if declared.kind == "parquet" else self._text(declared, stream)
        except Unreadable as error:
            return Inspection(file, stream.sha256(), reason=str(error))
        return Inspection(file, stream.sha256(), layout)

    def _parquet(self, file: File) -> Layout:
        try:
            with self.folder.open(file.name) as stream, pq.ParquetFile(stream) as parquet:
                return parquet_layout(parquet, self.pipeline)
        except (pa.ArrowException, OSError) as error:
            raise Unreadable(f"not a Parquet file, or a broken one: {first_line(error)}") from None

    def _text(self, declared: Format, stream: _Digesting) -> Layout:
        head = _head_of_gzip(stream) if declared.gzipped else (stream.read(_BLOCK_BYTES) or b"")
        if declared.kind == "json":
            return Layout("json", bom=head.startswith(_BOM))
        return csv_layout(head, self.pipeline)


class _Digesting(io.RawIOBase):
    """A stream that hashes whatever is read through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        room = memoryview(buffer)
        block = self._stream.read(len(room))
        self._digest.update(block)
        room[: len(block)] = block
        return len(block)

    def sha256(self) -> str:
        """Digest of the whole stream; reads what is left of it."""
        while self.read(_BLOCK_BYTES):
            pass
        return self._digest.hexdigest()


def _head_of_gzip(stream: _Digesting) -> bytes:
    """The first bytes, once all of the stream was unpacked without a fault."""
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(stream, _BLOCK_BYTES)) as unpacked:
            head = unpacked.read(_BLOCK_BYTES)
            while unpacked.read(_BLOCK_BYTES):
                pass
            return head
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Unreadable(f"broken gzip: {first_line(error)}") from None


def csv_layout(head: bytes, pipeline: Pipeline) -> Layout:
    """Layout from the first bytes of a CSV file; Unreadable where its header is of no use.

    A header longer than `head` is cut, and then has columns of odd names at most.
    """
    text = io.StringIO(head.removeprefix(_BOM).decode("utf-8", "surrogateescape"), newline="")
    try:
        header = next(csv.reader(text), [])
    except csv.Error as error:
        raise Unreadable(f"no header can be read: {error}") from None
    columns = tuple(name.strip() for name in header)
    if any("\ud800" <= letter <= "\udfff" or letter == "\0" for name in columns for letter in name):
        raise Unreadable("the header is not UTF-8")
    _check_columns(columns, pipeline)
    # Spark looks for one separator: a \r before \n is taken off the last column instead, as files may mix both.
    separator = "\r" if b"\r" in head and b"\n" not in head else "\n"
    return Layout("csv", columns, separator=separator)


def parquet_layout(parquet: pq.ParquetFile, pipeline: Pipeline) -> Layout:
    """Layout from a Parquet footer; Unreadable where it has none of the declared columns."""
    schema = parquet.schema_arrow
    _check_columns(schema.names, pipeline)
    # Spark reads INT96 as a timestamp, but nanoseconds in an INT64 only as that number.
    stored = (parquet.schema.column(index) for index in range(len(parquet.schema)))
    whole = {column.path for column in stored if column.physical_type == "INT64"}
    nanoseconds = {name for name in schema.names if _is_nanoseconds(schema.field(name).type) and name in whole}
    types = tuple(str(kind) for kind in schema.types)
    return Layout("parquet", tuple(schema.names), types, frozenset(nanoseconds))


def _is_nanoseconds(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.unit == "ns")


def _check_columns(columns: Iterable[str], pipeline: Pipeline) -> None:
    names = list(columns)
    if not names:
        raise Unreadable("empty: there is no header")
    declared = [name for name in names if name in pipeline.columns]
    twice = sorted({name for name in declared if declared.count(name) > 1})
    if twice:
        raise Unreadable(f"columns named twice: {', '.join(twice)}")
    if not declared:
        shown = ", ".join(names[:_SHOWN_COLUMNS])[:200]
        raise Unreadable(f"none of the declared fields is a column; the first columns are {shown}")


def first_line(error: BaseException) -> str:
    """What an error says, in one line of at most 300 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
