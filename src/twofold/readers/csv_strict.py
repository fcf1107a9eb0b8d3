"""One CSV row at a time, by the letter of RFC 4180: the meaning that `csv_rows` keeps to, and what it falls back to.

A row ends at LF, CR or both, outside quotes. A row in which a quote stands where none may is faulty, and ends at the
first row end at or after the start of the faulty cell, so that a stray quote takes no sound row with it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from twofold.readers import SetAside

SEPARATORS = (b",", b";", b"\t")
_QUOTED = re.compile(rb'"((?:[^"]++|"")*+)"')
_ROW_END = re.compile(rb"[\r\n]")
_ROW_ENDS = (b"\n", b"\r")
QUOTE_WITHIN = "a quote stands within an unquoted cell; quote the whole cell and double the quotes in it"
AFTER_QUOTE = "a quoted cell goes on after its closing quote; double the quotes within it"


class Row(NamedTuple):
    """One row: its bytes are `start` to `end`, the next one's begin at `after`."""

    cells: list[bytes | None]
    start: int
    end: int
    after: int
    fault: str = ""


class Unfinished(Exception):
    """The bytes end before the row does; `opened` is the place of a quote that is still open, or -1."""

    def __init__(self, opened: int = -1) -> None:
        super().__init__("the row goes on past the bytes that are there")
        self.opened = opened


@cache
def _plain(separator: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'[^"\r\n' + separator + rb"]*+")


def row_at(data: bytes, start: int, separator: bytes, *, final: bool = True) -> Row:
    """The row that begins at `start`; Unfinished where it may go on, unless the data is `final`.

    >>> row_at(b'a,"b, ""c"" d",', 0, b",").cells
    [b'a', b'b, "c" d', None]
    """
    cells: list[bytes | None] = []
    plain = _plain(separator)
    position = start
    while True:
        quoted = data.startswith(b'"', position)
        found = (_QUOTED if quoted else plain).match(data, position)
        if found is None:
            raise Unfinished(position)
        if quoted:
            cells.append(found[1].replace(b'""', b'"'))
        else:
            cells.append(found[0] or None)
        end = found.end()
        follows = data[end : end + 1]
        if not follows and not final:
            raise Unfinished
        if follows == separator:
            position = end + 1
        elif not follows or follows in _ROW_ENDS:
            return Row(cells, start, end, _after_row_end(data, end))
        else:
            end = _first_row_end(data, position, final)
            return Row(cells, start, end, _after_row_end(data, end), AFTER_QUOTE if quoted else QUOTE_WITHIN)


def _after_row_end(data: bytes, end: int) -> int:
    return min(end + (2 if data.startswith(b"\r\n", end) else 1), len(data))


def _first_row_end(data: bytes, position: int, final: bool) -> int:
    found = _ROW_END.search(data, position)
    if found is None and not final:
        raise Unfinished
    return found.start() if found else len(data)


def is_blank(line: bytes, columns: int) -> bool:
    """Whether a line is no record: nothing, or only blanks where a record would have several cells."""
    return not line or (columns > 1 and not line.strip(b" \t"))


class Header(NamedTuple):
    """The first row: the names of all columns, where the declared ones are, and what separates cells."""

    names: list[str]
    declared: dict[str, int]
    separator: bytes
    after: int

    @property
    def columns(self) -> int:
        """How many cells a row must have."""
        return len(self.names)


def header_at(data: bytes, start: int, fields: set[str], *, final: bool) -> Header:
    """Read the header by the separator under which most declared fields are found; SetAside where it names none."""
    found = [_header(data, start, separator, final) for separator in SEPARATORS]
    names, after, separator = max(found, key=lambda header: len(fields.intersection(header[0])))
    declared = {name: place for place, name in enumerate(names) if name in fields}
    if not declared:
        raise SetAside(_no_header(data, start, found[0][0], final))
    if twice := [name for name in declared if names.count(name) > 1]:
        raise SetAside(f"the header has {', '.join(twice)} more than once; leave one column of the name")
    return Header(names, declared, separator, after)


def _header(data: bytes, start: int, separator: bytes, final: bool) -> tuple[list[str], int, bytes]:
    """The names under one separator; none where it is no sound row under it."""
    row = row_at(data, start, separator, final=final)
    if row.fault:
        return [], row.after, separator
    try:
        return [(cell or b"").decode().strip(" \t") for cell in row.cells], row.after, separator
    except UnicodeDecodeError:
        return [], row.after, separator


def _no_header(data: bytes, start: int, names: list[str], final: bool) -> str:
    """Why the first row is no header of this pipeline."""
    line = data[start : _first_row_end(data, start, True)]
    row = row_at(data, start, b",", final=final)
    if b"\0" in line:
        return "the header has NUL characters: it is neither UTF-8 nor UTF-16 with a byte order mark; save it as UTF-8"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "the header is not UTF-8; save the file as UTF-8, or as UTF-16 with a byte order mark"
    if row.fault:
        return f"the header is malformed: {row.fault}"
    shown = ", ".join(repr(name[:40]) for name in names[:5])
    return (
        f"the header names no declared field, it begins with {shown}; "
        "the first row must hold field names, separated by comma, semicolon or tab"
    )
