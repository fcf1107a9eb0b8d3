"""How many records a landed file has, counted again: plain scanners over its text, apart from the product's readers.

    bytes ─► gzip ─► text, a block at a time ─► lines, elements of an array, or rows ─► a number

Only what bears on the number is looked at, and memory is bounded; `Irregular` says why nothing was counted.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, pairwise
from typing import IO, Self, cast

import pyarrow as pa
import pyarrow.parquet as pq

from twofold import inbox
from twofold.definition.model import Files, Pipeline

Bytes = IO[bytes] | gzip.GzipFile

BLOCK_BYTES = 1 << 20
LONGEST_CELL = 64 << 20
"""Characters; a longer quoted cell is not followed to its end."""
DEEPEST = 100_000

_LINE_END = re.compile(r"[\r\n]")
_BLANKS = " \t\r\n"


class Irregular(Exception):
    """A file whose records cannot be counted."""


@dataclass(frozen=True)
class Columns:
    """What is known of the columns of CSV files: those that fields are found in; and how the pipeline says that they
    are written."""

    wanted: Collection[str]
    files: Files = field(default_factory=Files)

    @classmethod
    def of(cls, pipeline: Pipeline) -> Self:
        """Of a pipeline's file."""
        found = (one for one in pipeline.event.fields.values() if one.is_in_cells)
        return cls({one.source.column for one in found}, pipeline.files)


def records(folder: inbox.Source, name: str, columns: Columns, block_bytes: int = BLOCK_BYTES) -> int:
    """The number of records in a file, by the rules of `docs/inbox.md`."""
    with folder.open(name) as stream:
        if _kind(name) == "parquet":
            return _parquet_rows(stream)
        try:
            blocks = texts(_plain(stream, name), _kind(name), block_bytes)
            return json_records(blocks) if _kind(name) == "json" else csv_records(blocks, columns)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Irregular(f"broken gzip: {error}") from None


def records_before(folder: inbox.Source, name: str) -> int:
    """The same by the rules of earlier releases: lines end by a line feed, and CSV is what Python's reader takes."""
    if _kind(name) == "parquet":
        return records(folder, name, Columns(()))
    with folder.open(name) as stream:
        try:
            plain = _plain(stream, name)
            return _lines_before(plain) if _kind(name) == "json" else _rows_before(plain)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Irregular(f"broken gzip: {error}") from None


def _kind(name: str) -> str:
    declared = inbox.format_of(name)
    if declared is None:
        raise Irregular("an unknown ending")
    return declared.kind


def _plain(stream: IO[bytes], name: str) -> Bytes:
    return gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else stream


def _parquet_rows(stream: IO[bytes]) -> int:
    try:
        with pq.ParquetFile(pa.PythonFile(stream, mode="r")) as parquet:
            return int(parquet.metadata.num_rows)
    except pa.ArrowException as error:
        raise Irregular(str(error).partition("\n")[0]) from None


def texts(stream: Bytes, kind: str, block_bytes: int = BLOCK_BYTES) -> Iterator[str]:
    r"""A file's text in blocks that are not empty, without a byte order mark.

    UTF-8 is read as Latin-1: all that structures a file is ASCII, whose bytes stand for nothing else in UTF-8.

    >>> ["".join(texts(io.BytesIO(bytes), "csv")) for bytes in (b"\xef\xbb\xbfid", "\ufeffid,a".encode("utf-16-be"))]
    ['id', 'id,a']
    """
    head = b""
    while len(head) < 4 and (more := stream.read(4 - len(head))):
        head += more
    form, mark = encoding(head, kind)
    decoder = codecs.getincrementaldecoder(form)("replace")
    for block in chain([head[len(mark) :]], iter(lambda: stream.read(block_bytes), b"")):
        if text := decoder.decode(block):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def encoding(head: bytes, kind: str) -> tuple[str, bytes]:
    """Encoding by the first four bytes (UTF-8 as Latin-1), and the byte order mark among them."""
    if head in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        raise Irregular("UTF-32")
    for mark, form in (
        (codecs.BOM_UTF8, "latin-1"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if head.startswith(mark):
            return form, mark
    # Without a mark, zeros decide; in JSON only before the character that a JSON file begins with, else they are a
    # line's own fault.
    begins = head.strip(b"\0")[:1]
    zeros = "".join("0" if byte == 0 else "x" for byte in head)
    if kind == "json" and (not begins or begins not in b"{[" + _BLANKS.encode()):
        return "latin-1", b""
    if zeros in ("x000", "000x"):
        raise Irregular("UTF-32")
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros, "latin-1"), b""


def json_records(blocks: Iterator[str]) -> int:
    r"""Elements where the first character that is not blank opens an array, else lines that are not blank.

    >>> json_records(iter(['{"a": 1}\r\n\r\n \t', '\r{"a"', ': 2}']))
    2
    >>> json_records(iter(["\n [1, {", '"a": [2, "]"]', "}, oops]\n"]))
    3
    """
    for block in blocks:
        if text := block.lstrip(_BLANKS):
            rest = chain([text], blocks)
            return _elements(rest) if text[0] == "[" else _lines(rest)
    return 0


def _lines(blocks: Iterator[str]) -> int:
    """Lines by LF, CRLF or CR; a CRLF that counts as two ends has only a blank line between."""
    count, filled = 0, False
    for block in blocks:
        first, *others = _LINE_END.split(block)
        filled = filled or _is_filled(first)
        for piece in others:
            count, filled = count + filled, _is_filled(piece)
    return count + filled


def _is_filled(piece: str) -> bool:
    return bool(piece.strip(" \t"))


def _elements(blocks: Iterator[str]) -> int:
    """Elements of one array, to which nothing follows."""
    array = _Array()
    for token in _tokens(blocks):
        array.take(token)
    if not array.closed:
        raise Irregular("the array never ends")
    return array.count


_CLOSED_BY = {"[": "]", "{": "}"}
_BRACKETS = frozenset("[]{}")
_STRING = '""'


class _Array:
    """Follows the brackets of one array, and counts the elements; broken ones, too, whose brackets close."""

    def __init__(self) -> None:
        self.count = 0
        self.closed = False
        self._awaited: list[str] = []
        """Closing brackets, the outermost first."""
        self._filled = False
        """The element has begun."""
        self._ended = False
        """The element is a string or has brackets, and these are closed."""

    def take(self, token: str) -> None:
        """The next bracket, comma, string (as two quotes) or word."""
        if self.closed:
            raise Irregular("something follows the array")
        if len(self._awaited) > 1 and token not in _BRACKETS:
            return
        if len(self._awaited) == 1 and not self._between(token):
            return
        if token in _CLOSED_BY:
            self._awaited.append(_CLOSED_BY[token])
            if len(self._awaited) > DEEPEST:
                raise Irregular(f"element {self.count + 1} of the array is too deep")
        elif token in _CLOSED_BY.values() and self._awaited.pop() != token:
            raise Irregular(f"element {self.count + 1} of the array has brackets that do not match")
        self._ended = len(self._awaited) == 1 and token in (_STRING, *_CLOSED_BY.values())

    def _between(self, token: str) -> bool:
        """Directly within the array: whether the token is of an element."""
        if token in (",", "]"):
            if not self._filled and (token == "," or self.count):
                raise Irregular(f"element {self.count + 1} of the array is missing")
            self.count += self._filled
            self._filled = False
            self.closed = token == "]"
            return False
        if self._filled and (self._ended or token in (_STRING, *_CLOSED_BY)):
            raise Irregular(f"no comma after element {self.count + 1} of the array")
        self._filled = True
        return True


_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|["\[\]{},]|[^ \t\r\n"\[\]{},]+', re.DOTALL)
_IN_STRING = re.compile(r'["\\]')


def _tokens(blocks: Iterator[str]) -> Iterator[str]:
    """Brackets, commas, words, and `""` for each string, which ends at the first quote that is not escaped."""
    quoted = escaped = False
    for block in blocks:
        at, escaped = int(escaped), False
        while match := (_IN_STRING if quoted else _TOKEN).search(block, at):
            at = match.end()
            if match[0] == '"':
                if quoted:
                    yield _STRING
                quoted = not quoted
            elif quoted:
                at, escaped = at + 1, at == len(block)
            else:
                yield _STRING if match[0][0] == '"' else match[0]
    if quoted:
        raise Irregular("a string never ends")


def csv_records(blocks: Iterator[str], known: Columns) -> int:
    r"""Rows below the header that are not blank; a quoted cell may hold row ends, a faulty one ends its row.

    >>> csv_records(iter(['id,at\r1,"x\n', 'y"\r\n\r\n2,z']), Columns({"id", "at"}))
    2
    >>> csv_records(iter(["1|x\n2|z\n"]), Columns({"id"}, Files(delimiter="|", header=("id", "at"))))
    2
    """
    text, files = _Text(blocks), known.files
    if files.header:
        return _rows(text, files.delimiter or _SEPARATORS[0], len(files.header), -1)
    while (end := text.find(_LINE_END, 0, 0)) < len(text.held) and not _is_filled(text.held[:end]):
        text.drop(end + 1)
    separator, columns, end = _header(text, known)
    return _rows(text, separator, columns, end)


def _rows(text: _Text, separator: str, columns: int, end: int) -> int:
    """The rows after the character at `end`, which ends the one before them; -1: none is before them."""
    blanks = " \t".replace(separator, "")
    count = 0
    while text.character(max(end, 0)):
        # One of CR and LF ends the row; the second of a CRLF is then an empty line, which is none.
        start = text.drop_to(end + 1)
        end = text.find(_LINE_END, start, start)
        if '"' in text.held[start:end]:
            end = _row(text, start, separator)[-1] - 1
        # Blanks alone are a cell where there is one column; tabs that separate cells are no blanks.
        count += end > start if columns == 1 else bool(text.held[start:end].strip(blanks))
    return count


class _Text:
    """The part of a text that is looked at; what was counted is dropped."""

    def __init__(self, blocks: Iterator[str]) -> None:
        self._blocks = blocks
        self.held = ""

    def character(self, at: int) -> str:
        """One character; nothing past the end."""
        while at >= len(self.held) and self._more(at):
            pass
        return self.held[at : at + 1]

    def find(self, pattern: re.Pattern[str], at: int, start: int) -> int:
        """Where a pattern of one character is met first, from `at`; past the end where it never is."""
        while not (match := pattern.search(self.held, at)):
            at = max(at, len(self.held))
            if not self._more(start):
                return len(self.held)
        return match.start()

    def drop(self, characters: int) -> None:
        """Let go of the first characters."""
        self.held = self.held[characters:]

    def drop_to(self, at: int) -> int:
        """Let go of all before a place, where it is worth it; the place as it is then counted."""
        if at < BLOCK_BYTES:
            return at
        self.drop(at)
        return 0

    def _more(self, since: int) -> bool:
        if len(self.held) - since > LONGEST_CELL:
            raise Irregular("a cell is too long to be followed to its end")
        block = next(self._blocks, "")
        self.held += block
        return bool(block)


_SEPARATORS = (",", ";", "\t")


@cache
def _cell_ends(separator: str) -> re.Pattern[str]:
    return re.compile(f'[{re.escape(separator)}"\r\n]')


_QUOTE = re.compile('"')


def _row(text: _Text, start: int, separator: str) -> list[int]:
    """Where each cell of a row begins, and one past the row's end: cell i ends before place i + 1 less one."""
    begins = [start]
    while True:
        at = begins[-1]
        end = _cell_end(text, at, separator)
        begins.append(end + 1)
        if text.character(end) != separator:
            return begins


def _cell_end(text: _Text, start: int, separator: str) -> int:
    """Where a cell ends: at a separator or a row's end; a faulty one at the first row's end after its start."""
    if text.character(start) == '"':
        end = _closed(text, start)
        faulty = text.character(end) not in ("", "\r", "\n", separator)
    else:
        end = text.find(_cell_ends(separator), start, start)
        faulty = text.character(end) == '"'
    return text.find(_LINE_END, start, start) if faulty else end


def _closed(text: _Text, start: int) -> int:
    """Past the quote that closes a cell; a doubled one does not."""
    at = start + 1
    while True:
        at = text.find(_QUOTE, at, start) + 1
        if at > len(text.held):
            raise Irregular("a quote is never closed")
        if text.character(at) != '"':
            return at
        at += 1


def _header(text: _Text, known: Columns) -> tuple[str, int, int]:
    """The separator under which most declared fields are found, the number of columns, and where the header ends."""
    found = []
    for separator in (known.files.delimiter,) if known.files.delimiter else _SEPARATORS:
        try:
            begins = _row(text, 0, separator)
        except Irregular:
            continue
        names = {_name(text.held[low : high - 1]) for low, high in pairwise(begins)}
        found.append((len(names & set(known.wanted)), separator, len(begins) - 1, begins[-1] - 1))
    if not found or not any(declared for declared, *_ in found):
        raise Irregular("no declared column")
    _, separator, columns, end = max(found, key=lambda option: option[0])
    return separator, columns, end


def _name(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1].replace('""', '"').strip() if cell.startswith('"') else cell


def _lines_before(stream: Bytes) -> int:
    r"""Lines that are not blank.

    >>> _lines_before(io.BytesIO(b'{"a": 1}\r\n\r\n  \n{"a": 2}'))
    2
    """
    return sum(1 for line in stream if line.strip(b" \t\r\n"))


def _rows_before(stream: Bytes) -> int:
    r"""Records below the header; a quoted cell may hold line ends.

    >>> _rows_before(io.BytesIO(b'a,b\r\n1,"x\r\ny"\r\n\r\n2,z'))
    2
    """
    try:
        return max(0, sum(1 for row in csv.reader(_unended(stream), strict=True) if row) - 1)
    except csv.Error as error:
        raise Irregular(str(error)) from None


def _unended(stream: Bytes) -> Iterator[str]:
    """Lines without their end; a carriage return elsewhere ends a line for some readers and not for others."""
    for line in io.TextIOWrapper(cast(IO[bytes], stream), encoding="latin-1", newline="\n"):
        text = line.removesuffix("\n").removesuffix("\r")
        if "\r" in text:
            raise Irregular("a carriage return within a line")
        yield text
