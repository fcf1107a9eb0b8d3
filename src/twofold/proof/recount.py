"""Where the records of a landed file begin and end, and how many it has, apart from the product's readers.

    bytes ─► gzip ─► text ─► lines, elements of an array, or rows, each with its number

A record at a time is in memory; `Irregular` says why what follows cannot be told.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import IO, Self, cast

import pyarrow as pa
import pyarrow.parquet as pq

from twofold import inbox
from twofold.definition.model import Files, Pipeline

Bytes = IO[bytes] | gzip.GzipFile

BLOCK_CHARACTERS = 1 << 20
LONGEST_CELL = 64 << 20
"""Characters; a longer quoted cell is not followed to its end."""
DEEPEST = 100_000

_LINE_END = re.compile(r"[\r\n]")
_BLANKS = " \t\r\n"


class Irregular(Exception):
    """A file whose records cannot be told."""


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


def records(folder: inbox.Source, name: str, columns: Columns) -> int:
    """The number of records in a file, by the rules of `docs/inbox.md`."""
    with opened(folder, name) as (stream, kind):
        if kind == "parquet":
            return _parquet_rows(stream)
        text = text_of(stream, kind)
        return sum(1 for _ in (json_records(text) if kind == "json" else csv_records(text, columns).rows))


@contextmanager
def opened(folder: inbox.Source, name: str) -> Iterator[tuple[Bytes, str]]:
    """A file's bytes, unpacked, and its kind; Irregular where they turn out to be of no such file."""
    form = inbox.format_of(name)
    if form is None:
        raise Irregular("an unknown ending")
    with folder.open(name) as stream:
        try:
            yield gzip.GzipFile(fileobj=stream) if form.gzipped else stream, form.kind
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Irregular(f"broken gzip: {error}") from None
        except UnicodeDecodeError as error:
            raise Irregular(f"broken text: {error}") from None
        except pa.ArrowException as error:
            raise Irregular(str(error).partition("\n")[0]) from None


def _parquet_rows(stream: Bytes) -> int:
    with pq.ParquetFile(pa.PythonFile(stream, mode="r")) as parquet:
        return int(parquet.metadata.num_rows)


def text_of(stream: Bytes, kind: str) -> io.TextIOWrapper:
    """A file's text without a byte order mark, its line ends as they are; bytes that are no text as lone surrogates."""
    encoding, mark = _encoding(stream.read(4), kind)
    stream.seek(len(mark))
    errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    return io.TextIOWrapper(cast(IO[bytes], stream), encoding, errors, newline="")


def _encoding(head: bytes, kind: str) -> tuple[str, bytes]:
    """Encoding by the first four bytes, and the byte order mark among them."""
    if head in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        raise Irregular("UTF-32")
    for mark, form in (
        (codecs.BOM_UTF8, "utf-8"),
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
        return "utf-8", b""
    if zeros in ("x000", "000x"):
        raise Irregular("UTF-32")
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros, "utf-8"), b""


def _blocks(text: io.TextIOWrapper) -> Iterator[str]:
    return iter(lambda: text.read(BLOCK_CHARACTERS), "")


def json_records(text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    r"""Elements where the first character that is not blank opens an array, else lines that are not blank.

    >>> def of(text): return list(json_records(io.TextIOWrapper(io.BytesIO(text), newline="")))
    >>> of(b'\n{"a": 1}\r\n\r\n \t\r{"a": 2}')
    [(2, '{"a": 1}'), (5, '{"a": 2}')]
    >>> of(b'\n [1, {"a": [2, "]"]}, oops]\n')
    [(1, '1'), (2, '{"a": [2, "]"]}'), (3, 'oops')]
    """
    lines = enumerate(text, 1)
    for number, line in lines:
        if line.lstrip(_BLANKS).startswith("["):
            yield from enumerate(_elements(chain([line], _blocks(text))), 1)
            return
        if line.strip(_BLANKS):
            for place, one in chain([(number, line)], lines):
                if one.strip(_BLANKS):
                    yield place, _without_end(one)


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _elements(blocks: Iterator[str]) -> Iterator[str]:
    """Elements of one array, to which nothing follows."""
    array, pieces = _Array(), list[str]()
    for token, piece in _tokens(blocks):
        count = array.count
        pieces.append(piece)
        array.take(token)
        if array.count > count:
            yield "".join(pieces)[:-1].strip(_BLANKS)
        if not array.filled:
            pieces.clear()
    if not array.closed:
        raise Irregular("the array never ends")


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
        self.filled = False
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
            if not self.filled and (token == "," or self.count):
                raise Irregular(f"element {self.count + 1} of the array is missing")
            self.count += self.filled
            self.filled = False
            self.closed = token == "]"
            return False
        if self.filled and (self._ended or token in (_STRING, *_CLOSED_BY)):
            raise Irregular(f"no comma after element {self.count + 1} of the array")
        self.filled = True
        return True


_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|["\[\]{},]|[^ \t\r\n"\[\]{},]+', re.DOTALL)
_IN_STRING = re.compile(r'["\\]')


def _tokens(blocks: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Brackets, commas, words, and `""` for each string, which ends at the first quote that is not escaped.

    Each with all of the text since the one before it.
    """
    quoted = escaped = False
    since = ""
    for block in blocks:
        at, escaped, start = int(escaped), False, 0
        while match := (_IN_STRING if quoted else _TOKEN).search(block, at):
            at = match.end()
            if match[0] == '"':
                quoted = not quoted
            elif quoted:
                at, escaped = at + 1, at == len(block)
            if not quoted:
                yield _STRING if match[0][0] == '"' else match[0], since + block[start:at]
                since, start = "", at
        since += block[start:]
    if quoted:
        raise Irregular("a string never ends")


Cell = tuple[bool, str]
"""Whether it is quoted, and what it says."""


@dataclass(frozen=True)
class CsvRecords:
    """The rows below the header, each as its text, and the names of their cells."""

    separator: str
    names: list[str]
    rows: Iterator[str]

    def cells(self, row: str) -> list[Cell] | None:
        """The cells of a row; None where quotes stand where none may."""
        return _cells(row, self.separator)


def csv_records(text: io.TextIOWrapper, known: Columns) -> CsvRecords:
    r"""Rows that are not blank; a quoted cell may hold row ends, a faulty one ends its row.

    >>> def of(text, known): return csv_records(io.TextIOWrapper(io.BytesIO(text), newline=""), known)
    >>> found = of(b'id,at\r1,"x\ny"\r\n\r\n2,z', Columns({"id", "at"}))
    >>> [found.cells(row) for row in found.rows]
    [[(False, '1'), (True, 'x\ny')], [(False, '2'), (False, 'z')]]
    >>> list(of(b"1|x\n2|z\n", Columns({"id"}, Files(delimiter="|", header=("id", "at")))).rows)
    ['1|x', '2|z']
    """
    held, files = _Text(_blocks(text)), known.files
    if files.header:
        # Without names in the file nothing tells separators apart.
        separator, names, end = files.delimiter or _SEPARATORS[0], list(files.header), -1
    else:
        while (end := held.find(_LINE_END, 0, 0)) < len(held.held) and not held.held[:end].strip(" \t"):
            held.drop(end + 1)
        separator, names, end = _header(held, known)
    return CsvRecords(separator, names, _rows(held, separator, len(names), end))


def _rows(text: _Text, separator: str, columns: int, end: int) -> Iterator[str]:
    """The rows after the character at `end`, which ends the one before them; -1: none is before them."""
    blanks = " \t".replace(separator, "")
    while text.character(max(end, 0)):
        # One of CR and LF ends the row; the second of a CRLF is then an empty line, which is none.
        start = text.drop_to(end + 1)
        end = text.find(_LINE_END, start, start)
        if '"' in text.held[start:end]:
            end = _row_end(text, start, separator)
        row = text.held[start:end]
        # Blanks alone are a cell where there is one column; tabs that separate cells are no blanks.
        if row if columns == 1 else row.strip(blanks):
            yield row


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
        if at < BLOCK_CHARACTERS:
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


def _row_end(text: _Text, start: int, separator: str) -> int:
    """Where the row that begins at a place ends."""
    end = _cell_end(text, start, separator)
    while text.character(end) == separator:
        end = _cell_end(text, end + 1, separator)
    return end


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


def _header(text: _Text, known: Columns) -> tuple[str, list[str], int]:
    """The separator under which most declared fields are found, the names of the columns, and where the header ends."""
    found = []
    for separator in (known.files.delimiter,) if known.files.delimiter else _SEPARATORS:
        try:
            end = _row_end(text, 0, separator)
        except Irregular:
            continue
        names = [name.strip(" \t") for _, name in _cells(text.held[:end], separator) or ()]
        found.append((len({*names} & {*known.wanted}), separator, names, end))
    if not any(declared for declared, *_ in found):
        raise Irregular("no declared column")
    return max(found, key=lambda option: option[0])[1:]


@cache
def _cell(separator: str) -> re.Pattern[str]:
    return re.compile(rf'"((?:[^"]++|"")*+)"|[^"\r\n{re.escape(separator)}]*+')


def _cells(row: str, separator: str) -> list[Cell] | None:
    found, at = [], 0
    while match := _cell(separator).match(row, at):
        found.append((match[1] is not None, match[0] if match[1] is None else match[1].replace('""', '"')))
        at = match.end()
        if at == len(row):
            return found
        if row[at] != separator:
            return None
        at += 1
    return None
