"""Where the records of a landed file begin and end, and how many it has, apart from the product's readers.

    bytes ─► gzip ─► text ─► lines, elements of an array, or rows, each with its number

A record at a time is in memory, no longer than LONGEST; `Irregular` says why what follows cannot be told.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, dropwhile, tee
from operator import itemgetter
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from twofold import inbox
from twofold.definition.model import Field, Files, Pipeline

Bytes = IO[bytes] | gzip.GzipFile

BLOCK_CHARACTERS = 1 << 20
LONGEST = 64 << 20
"""Bytes of a line, an element or a row in UTF-8, without its end; a longer one is not read, for want of memory."""
DEEPEST = 1_000_000  # levels of an element

_BLANKS = " \t\r\n"


class Irregular(Exception):
    """A file whose records cannot be told."""


def in_cells(pipeline: Pipeline) -> list[Field]:
    """The fields that rows of CSV or Parquet may hold."""
    return [one for one in pipeline.event.fields.values() if one.is_in_cells]


def records(folder: inbox.Source, name: str, wanted: Collection[str], files: Files) -> int:
    """The number of records in a file, by the rules of `docs/inbox.md`; of CSV by the `wanted` columns."""
    with opened(folder, name) as (stream, kind):
        if kind == "parquet":
            with pq.ParquetFile(pa.PythonFile(stream, mode="r")) as parquet:
                return int(parquet.metadata.num_rows)
        text = text_of(stream, kind)
        return sum(1 for _ in (json_records(text) if kind == "json" else csv_records(text, wanted, files).rows))


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
        except (pa.ArrowException, OSError) as error:
            # Without a number it is pyarrow's, of a broken file; EBUSY is S3's, of one replaced while it is read.
            if isinstance(error, OSError) and error.errno not in (None, errno.EBUSY):
                raise
            raise Irregular(str(error).partition("\n")[0]) from None


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


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    """All lines, of those that are too long the beginning and more."""
    return iter(partial(text.readline, LONGEST + len("\r\n")), "")


def _size(text: str) -> int:
    """Of bytes; one that is no UTF-8 is a lone surrogate here, and replaced by one byte."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _require_held(size: int, name: str) -> None:
    if size > LONGEST:
        raise Irregular(f"{name} is too long to be read to its end")


def json_records(text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    r"""Elements where the first character that is not blank opens an array, else lines that are not blank.

    >>> def of(text): return list(json_records(io.TextIOWrapper(io.BytesIO(text), newline="")))
    >>> of(b'\n{"a": 1}\r\n\r\n \t\r{"a": 2}')
    [(2, '{"a": 1}'), (5, '{"a": 2}')]
    >>> of(b'\n [1, {"a": [2, "]"]}, oops]\n')
    [(1, '1'), (2, '{"a": [2, "]"]}'), (3, 'oops')]
    """
    is_begun = False
    for number, line in enumerate(_lines(text), 1):
        if not is_begun and line.lstrip(_BLANKS).startswith("["):
            yield from enumerate(_elements(chain([line], iter(partial(text.read, BLOCK_CHARACTERS), ""))), 1)
            return
        record = _without_end(line)
        _require_held(_size(record), f"line {number}")
        if record.strip(_BLANKS):
            is_begun = True
            yield number, record


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


_CLOSED_BY = {"[": "]", "{": "}"}
_STRING = '""'


def _elements(blocks: Iterator[str]) -> Iterator[str]:
    """Elements of one array, to which nothing follows; broken ones, too, whose brackets close."""
    tokens, count, end = _tokens(blocks), 0, ","
    next(tokens)  # the opening bracket
    while end == ",":
        element, end = _element(tokens, f"element {count + 1} of the array")
        if element:
            yield element
            count += 1
        elif end == "," or count:
            raise Irregular(f"element {count + 1} of the array is missing")
    if next(tokens, None):
        raise Irregular("something follows the array")


def _element(tokens: Iterator[tuple[str, str]], name: str) -> tuple[str, str]:
    """The text of an element, and the comma or bracket that ends it."""
    awaited: list[str] = []  # closing brackets, the outermost first
    pieces: list[str] = []
    is_whole, size = False, 0
    for token, piece in tokens:
        is_end = not awaited and token in (",", "]")
        size += _size(piece) - is_end
        _require_held(size, name)
        if not awaited:
            if is_end:
                return "".join([*pieces, piece[:-1]]).strip(_BLANKS), token
            if is_whole or (pieces and token in (_STRING, *_CLOSED_BY)):
                raise Irregular(f"no comma after {name}")
            is_whole = token == _STRING
        pieces.append(piece)
        if token in _CLOSED_BY:
            awaited.append(_CLOSED_BY[token])
            if len(awaited) > DEEPEST:
                raise Irregular(f"{name} is too deep")
        elif token in _CLOSED_BY.values():
            if not awaited or awaited.pop() != token:
                raise Irregular(f"{name} has brackets that do not match")
            is_whole = not awaited
    raise Irregular("the array never ends")


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
        _require_held(len(since), "a string")
    if quoted:
        raise Irregular("a string never ends")


Cell = tuple[bool, str]
"""Whether it is quoted, and what it says."""
_SEPARATORS = (",", ";", "\t")
_LINE_ENDS = ("", "\r", "\n", "\r\n")
_IN_QUOTES = re.compile(r'(?:[^"]++|"")*+')


@dataclass(frozen=True)
class CsvRecords:
    """The rows below the header, each as its text, and the names of their cells."""

    separator: str
    names: list[str]
    rows: Iterator[str]

    def cells(self, row: str) -> list[Cell] | None:
        """The cells of a row; None where quotes stand where none may."""
        return _cells(row, self.separator)


def csv_records(text: io.TextIOWrapper, wanted: Collection[str], files: Files) -> CsvRecords:
    r"""Rows that are not blank; a quoted cell may hold row ends, a faulty one ends its row.

    >>> def of(text, *known): return csv_records(io.TextIOWrapper(io.BytesIO(text), newline=""), *known)
    >>> found = of(b'id,at\r1,"x\ny"\r\n\r\n2,z', {"id", "at"}, Files())
    >>> [found.cells(row) for row in found.rows]
    [[(False, '1'), (True, 'x\ny')], [(False, '2'), (False, 'z')]]
    >>> list(of(b"1|x\n2|z\n", {"id"}, Files(delimiter="|", header=("id", "at"))).rows)
    ['1|x', '2|z']
    """
    lines = _lines(text)
    if files.header:
        # Without names in the file nothing tells separators apart.
        separator, names = files.delimiter or _SEPARATORS[0], list(files.header)
        rows = _rows(lines, separator)
    else:
        filled = dropwhile(lambda line: not line.strip(_BLANKS), lines)
        separator, names, rows = _header(filled, wanted, files.delimiter)
    # Blanks alone are a cell where there is one column; tabs that separate cells are no blanks.
    blanks = "" if len(names) == 1 else " \t".replace(separator, "")
    return CsvRecords(separator, names, (row for row in rows if row.strip(blanks)))


def _header(
    lines: Iterator[str], wanted: Collection[str], delimiter: str | None
) -> tuple[str, list[str], Iterator[str]]:
    """The separator under which most declared fields are found, the names of the columns, and the rows below them."""
    best = -1, "", list[str]()
    for separator in (delimiter,) if delimiter else _SEPARATORS:
        lines, looked_at = tee(lines)
        with suppress(Irregular):
            row = next(_rows(looked_at, separator), "")
            names = [name.strip(" \t") for _, name in _cells(row, separator) or ()]
            best = max(best, (len({*names} & {*wanted}), separator, names), key=itemgetter(0))
    declared, separator, names = best
    if declared < 1:
        raise Irregular("no declared column")
    rows = _rows(lines, separator)
    next(rows)
    return separator, names, rows


def _rows(lines: Iterator[str], separator: str) -> Iterator[str]:
    """All rows, without their ends: of a line, or of several where a quoted cell goes on."""
    cell = rf'(?:"{_IN_QUOTES.pattern}"|[^"\r\n{re.escape(separator)}]*+)'
    whole_cells = re.compile(f"(?:{cell}{re.escape(separator)})*+")
    again: list[str] = []
    """Lines that were taken for a part of the row before, the next one last."""

    def next_line() -> str:
        return again.pop() if again else next(lines, "")

    while line := next_line():
        held, at, size = [line], 0, 0
        while '"' in line and line.startswith('"', at := _end(whole_cells, line, at)):
            begun, end = len(held), _end(_IN_QUOTES, line, at + 1)
            while end == len(line):
                size += _size(line)
                line = next_line()
                if not line:
                    raise Irregular("a quote is never closed")
                held.append(line)
                end = _end(_IN_QUOTES, line, 0)
                _require_held(size + _size(line[: end + 1]), "a row")
            at = end + 1
            if line.startswith(separator, at):
                at += 1
                continue
            if line[at:] not in _LINE_ENDS:
                # A faulty cell ends its row where the line ends that it begins in.
                again += reversed(held[begun:])
                del held[begun:]
            break
        row = _without_end("".join(held))
        _require_held(_size(row), "a row")
        yield row


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where what a pattern matches from a place ends; it matches nothing at all, too."""
    match = pattern.match(text, at)
    assert match is not None
    return match.end()


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
