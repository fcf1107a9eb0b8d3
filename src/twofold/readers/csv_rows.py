"""CSV in columns: the places of all separators, row ends and quotes of a block at once, and cells cut by them.

    block ─► places of , " CR LF ─► outside or inside quotes, by counting quotes ─► cells of all rows ─► columns
                                     └► a quote where none may stand: this row and what follows in the block
                                        row by row, by `row_at`

`row_at` reads by the letter of RFC 4180, and is what the columns are held to. A row ends at LF, CR or both, outside
quotes. A row in which a quote stands where none may is faulty, and ends at the first row end at or after the start of
the faulty cell, so that a stray quote takes no sound row with it.

A million rows take a second; each record counts exactly once, whatever it holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from twofold.contract import reasons
from twofold.contract.decoder import is_utf8
from twofold.contract.reasons import Reason
from twofold.contract.records import CellRecords, part, too_large
from twofold.definition.model import Field, Files, Pipeline
from twofold.definition.time_formats import EPOCHS
from twofold.readers.texts import BLOCK_BYTES, MAX_RECORD_BYTES, RECORDS_A_PIECE, SetAside, Text, lines_in

_Places = npt.NDArray[np.int64]
_SEPARATOR, _ROW_END, _QUOTE = 1, 2, 3
SEPARATORS = (b",", b";", b"\t")
_QUOTED = re.compile(rb'"((?:[^"]++|"")*+)"')
_TO_ROW_END = re.compile(rb"[\r\n]")
_ROW_ENDS = (b"\n", b"\r")
_COMMA_NUMBER = rb"\A[^.,]*(,[^.,]*)?\z"
QUOTE_WITHIN = "a quote stands within an unquoted cell; quote the whole cell and double the quotes in it"
AFTER_QUOTE = "a quoted cell continues after its closing quote; double the quotes within it"


def read(
    blocks: Iterator[bytes],
    wanted: set[str],
    *,
    delimiter: str | None = None,
    header: Sequence[str] = (),
    max_record_bytes: int = MAX_RECORD_BYTES,
    window_bytes: int = 2 * BLOCK_BYTES,
) -> Iterator[CellRecords]:
    """The rows after the header, numbered from 1; SetAside where the file as a whole has none of the wanted columns.

    Without a `delimiter` it is the one under which most wanted columns are found; a file whose `header` is given begins
    with its first row. `window_bytes` are worked on at once, which takes some forty times their memory at worst; a
    longer row is read separately.
    """
    for rows in _read(Text(blocks, max_record_bytes), wanted, delimiter, header, window_bytes):
        records = rows.records()
        for first in range(0, len(records), RECORDS_A_PIECE):
            yield cast(CellRecords, part(records, first, RECORDS_A_PIECE))


def of_fields(blocks: Iterator[bytes], pipeline: Pipeline, window_bytes: int) -> Iterator[CellRecords]:
    """The rows of a file, numbered from 1; SetAside where the file as a whole is no CSV of this pipeline.

    Its columns by fields, cells as every CSV has them: as declared, `-` is null, `yes` is true, `12,50` is 12.50.
    """
    files = pipeline.files
    fields = [one for one in pipeline.event.fields.values() if one.is_in_cells]
    wanted = {one.source.column for one in fields}
    for records in read(blocks, wanted, delimiter=files.delimiter, header=files.header, window_bytes=window_bytes):
        # As the cells stand in the file: what they are read as may be shorter, or longer.
        large = too_large(records.columns.values(), pipeline.event.max_bytes)
        faults: dict[int, Reason] = {}
        columns = {}
        for field in fields:
            if (cells := records.columns.get(field.source.column)) is not None:
                columns[field.name] = _as_declared(cells, field, files, faults)
        yield replace(records, columns=columns, faults={**faults, **large, **records.faults})


def _as_declared(cells: pa.Array, field: Field, files: Files, faults: dict[int, Reason]) -> pa.Array:
    """The cells of a field; a number with another decimal sign than declared is a fault."""
    if files.null_values:
        cells = pc.if_else(pc.is_in(cells, _texts(files.null_values)), None, cells)
    if field.type.name == "boolean":
        given = cells
        for word, texts in (("true", files.true_values), ("false", files.false_values)):
            if texts:
                cells = pc.if_else(pc.is_in(given, _texts(texts)), word.encode(), cells)
    if files.decimal == "," and (field.type.is_number or field.format in EPOCHS):
        plain = pc.fill_null(pc.match_substring_regex(cells, _COMMA_NUMBER), True)
        for index in pc.indices_nonzero(pc.invert(plain)).to_pylist():
            text = cells[index].as_py().decode(errors="replace")
            faults.setdefault(index, reasons.wrong_type(field.label, str(field.type), text))
        cells = pc.if_else(plain, pc.replace_substring(cells, b",", b"."), None)
    return cells


def _texts(values: tuple[str, ...]) -> pa.Array:
    return pa.array([value.encode() for value in values], pa.binary())


def as_they_are(
    blocks: Iterator[bytes], wanted: set[str], *, delimiter: str | None = None, header: Sequence[str] = ()
) -> Iterator[tuple[Header, list[bytes]]]:
    """The bytes of the rows that `read` gives, in order, and the header that they are read by."""
    for rows in _read(Text(blocks, MAX_RECORD_BYTES), wanted, delimiter, header, 2 * BLOCK_BYTES):
        yield rows.header, [rows.data[start:end] for start, end in zip(rows.starts, rows.ends, strict=True)]


class _Rows(NamedTuple):
    """Rows of one buffer: where each lies in it, what is wrong with it, and the declared columns."""

    data: bytes
    header: Header
    starts: _Places
    ends: _Places
    columns: dict[str, pa.Array]
    faults: dict[int, str]
    before: int
    """How many rows of the file came before them."""

    def records(self) -> CellRecords:
        def payload(row: int) -> bytes:
            raw = self.data[self.starts[row] : self.ends[row]]
            return raw if row in self.faults else _as_json(raw, self.header)

        numbers = range(self.before + 1, self.before + 1 + len(self.starts))
        faults = {row: reasons.malformed(why) for row, why in self.faults.items()}
        return CellRecords(self.columns, numbers, payload, faults)


def _as_json(raw: bytes, header: Header) -> bytes:
    """All cells by their names; the row as it is where a cell is no UTF-8, which JSON cannot hold."""
    try:
        cells = [None if cell is None else cell.decode() for cell in row_at(raw, 0, header.separator).cells]
    except UnicodeDecodeError:
        return raw
    return json.dumps(dict(zip(header.names, cells, strict=True)), ensure_ascii=False).encode()


def _check_length(text: Text, size: int, row: int, opened: int = -1) -> None:
    """SetAside where a row, from 1, or the header, 0, is too long."""
    if size > text.max_record_bytes:
        limit = f"is longer than {text.max_record_bytes} bytes"
        if opened >= 0:
            limit += f"; {_open(text, opened)}"
        raise SetAside(f"{f'row {row}' if row else 'the header'} {limit}: split it, or close its quotes")


def _open(text: Text, opened: int) -> str:
    line = text.lines_before + lines_in(text.data[:opened]) + 1
    return f"the quoted cell that opens in line {line} is not closed"


def _header_of(text: Text, wanted: set[str], separators: Sequence[bytes]) -> Header:
    """Read past the header."""
    while True:
        text.more()
        view = text.view()
        start = first_row(view)
        if not view[start:].strip(b" \t"):
            if text.final:
                raise SetAside("the file has no header: its first row must hold the names of the fields")
            text.drop(start)
            continue
        try:
            header = _header_at(view, start, wanted, separators, text.final)
        except Unfinished as unfinished:
            if text.final:
                raise SetAside(f"the header has no end: {_open(text, unfinished.opened)}") from None
            _check_length(text, len(view) - start, 0, unfinished.opened)
            continue
        _check_length(text, len(view[start : header.after].rstrip(b"\r\n")), 0)
        text.drop(header.after)
        return header


def _read(
    text: Text, wanted: set[str], delimiter: str | None, names: Sequence[str], window_bytes: int
) -> Iterator[_Rows]:
    """All rows after the header, some at a time."""
    separators = (delimiter.encode(),) if delimiter else SEPARATORS
    header = Header.of(names, wanted, separators[0]) if names else _header_of(text, wanted, separators)
    window_bytes = min(window_bytes, text.max_record_bytes)  # so no record within one is too long
    before = 0
    while not (text.final and not text.data):
        data = text.view()
        window = data[:window_bytes]
        is_cut = len(window) < len(data)
        if is_cut:
            window = window.removesuffix(b"\r")
        final = text.final and not is_cut
        rows, after, faulty = _sound_rows(window, header, before, final)
        if len(rows.starts):
            yield rows
            before += len(rows.starts)
        text.drop(after)
        held = len(text.data)
        if faulty or (final and len(window) > after) or (is_cut and not after):
            for rows in _strict_rows(text, header, before, max(len(window) - after, 1)):
                yield rows
                before += len(rows.starts)
        stuck = not after and held == len(text.data)
        if not text.final and (stuck or len(text.data) < window_bytes):
            text.more()


def _strict_rows(text: Text, header: Header, before: int, until: int) -> Iterator[_Rows]:
    """Row by row, those that begin before `until`, or to a row that is not whole yet."""
    data, final = text.view(), text.final
    found: list[Row] = []
    position = 0
    while position < min(until, len(data)):
        number = before + len(found) + 1
        try:
            row = row_at(data, position, header.separator, final=final)
        except Unfinished as unfinished:
            if final:
                raise SetAside(
                    f"row {number}: {_open(text, unfinished.opened)}; close it, or double the quotes that belong to a "
                    "value"
                ) from None
            _check_length(text, len(data) - position, number, unfinished.opened)
            break
        _check_length(text, max(row.end, row.looked_at) - row.start, number)
        if len(row.cells) > 1 or row.fault or not is_blank(data[row.start : row.end], header.columns):
            found.append(row)
        position = row.after
        if len(found) == RECORDS_A_PIECE:
            yield _rows_of(data, header, before, found)
            before += len(found)
            found = []
    if found:
        yield _rows_of(data, header, before, found)
    text.drop(position)


def _wrong_count(columns: int, found: int) -> str:
    return f"wrong number of columns: the header has {columns}, the row {found}"


def _rows_of(data: bytes, header: Header, before: int, rows: list[Row]) -> _Rows:
    faults = {
        index: row.fault or _wrong_count(header.columns, len(row.cells))
        for index, row in enumerate(rows)
        if row.fault or len(row.cells) != header.columns
    }
    columns = {
        name: pa.array([None if index in faults else row.cells[place] for index, row in enumerate(rows)], pa.binary())
        for name, place in header.declared.items()
    }
    starts, ends = (np.array([getattr(row, side) for row in rows], np.int64) for side in ("start", "end"))
    return _Rows(data, header, starts, ends, columns, faults, before)


def _sound_rows(data: bytes, header: Header, before: int, final: bool) -> tuple[_Rows, int, bool]:
    """The rows before the first one with a quote where none may stand; where they end; whether there is such a one."""
    size = len(data)
    if final and not data.endswith(_ROW_ENDS):
        data += b"\n"
    marks = _marks(data, header.separator)
    row_ends = np.flatnonzero(marks.is_row_end)
    if not len(row_ends):
        return _rows_of(data, header, before, []), 0, marks.faulty
    cells = row_ends[-1] + 1
    ends, ranks = marks.ends[:cells], marks.ranks[:cells]
    after = min(int(ends[-1]) + 1, size)
    starts = np.concatenate(([0], ends[:-1] + 1))
    first_cells = np.concatenate(([0], row_ends[:-1] + 1))
    counts = row_ends - first_cells + 1
    kept = ~_blank(data, starts[first_cells], ends[row_ends], counts, header.columns)
    first_cells, counts = first_cells[kept], counts[kept]
    wrong = counts != header.columns
    all_cells = _cells(data, after, ends, ends - ranks, ends > starts, marks.dropped)
    mask = wrong if wrong.any() else None
    columns = {
        name: all_cells.take(pa.array(first_cells + place, mask=mask)) for name, place in header.declared.items()
    }
    faults = {int(row): _wrong_count(header.columns, int(counts[row])) for row in np.flatnonzero(wrong)}
    rows = _Rows(data, header, starts[first_cells], ends[row_ends[kept]], columns, faults, before)
    return rows, after, marks.faulty


class _Marks(NamedTuple):
    """The places where cells end, in order, as far as quotes are sound."""

    ends: _Places
    is_row_end: npt.NDArray[np.bool_]
    ranks: _Places
    """How many bytes before each end belong to no cell's value."""
    dropped: _Places
    """The places of all bytes that belong to no cell's value: separators, row ends, quotes."""
    faulty: bool


def _marks(data: bytes, separator: bytes) -> _Marks:
    kinds = np.frombuffer(data.translate(_table(separator)), np.uint8)
    places = np.flatnonzero(kinds)
    kind = kinds[places]
    quotes = kind == _QUOTE
    faulty = False
    if quotes.any():
        opened = np.cumsum(quotes, dtype=np.int32) & 1 == 1  # after each mark
        before = np.concatenate(([_ROW_END], kinds[:-1]))[places]
        follows = np.concatenate((kinds[1:], [_ROW_END]))[places]
        # Outside, a quote opens a cell, or is the second of a doubled one; inside, it closes one, or is the first.
        wrong = quotes & (np.where(opened, before, follows) == 0)
        sound = len(places)
        if wrong.any():
            faulty = True
            sound = int(wrong.argmax())
        cell_ends = ~(quotes | opened)
        drops = cell_ends | (quotes & ~(opened & (before == _QUOTE)))
        places, kind, cell_ends, drops = places[:sound], kind[:sound], cell_ends[:sound], drops[:sound]
        ranks = (np.cumsum(drops) - drops)[cell_ends]
        dropped, ends, kind = places[drops], places[cell_ends], kind[cell_ends]
    else:
        dropped, ends, ranks = places, places, np.arange(len(places))
    return _Marks(ends, kind == _ROW_END, ranks, dropped, faulty)


def _table(separator: bytes) -> bytes:
    kinds = {separator: _SEPARATOR, b"\n": _ROW_END, b"\r": _ROW_END, b'"': _QUOTE}
    return bytes(kinds.get(bytes([byte]), 0) for byte in range(256))


def _blank(data: bytes, starts: _Places, ends: _Places, counts: _Places, columns: int) -> npt.NDArray[np.bool_]:
    """Which lines are no records; that of LF after CR is one of them."""
    blank: npt.NDArray[np.bool_] = starts == ends
    if columns > 1:
        for line in np.flatnonzero((counts == 1) & ~blank):
            blank[line] = is_blank(data[starts[line] : ends[line]], columns)
    return blank


def _cells(
    data: bytes, after: int, ends: _Places, value_ends: _Places, filled: npt.NDArray[np.bool_], dropped: _Places
) -> pa.Array:
    """All cells of all rows in one array: with what belongs to no value taken out, each begins where one ends."""
    keeps = np.ones(after, np.bool_)
    keeps[dropped[: np.searchsorted(dropped, after)]] = False
    values = np.frombuffer(data, np.uint8, after)[keeps]
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = value_ends
    validity = np.packbits(filled, bitorder="little")
    return pa.Array.from_buffers(
        pa.binary(), len(ends), [pa.py_buffer(validity), pa.py_buffer(offsets), pa.py_buffer(values)]
    )


class Row(NamedTuple):
    """One row: its bytes are `start` to `end`, the next one's begin at `after`; its fault shows at `looked_at`."""

    cells: list[bytes | None]
    start: int
    end: int
    after: int
    fault: str = ""
    looked_at: int = 0


class Unfinished(Exception):
    """The bytes end before the row does; `opened` is the place of a quote that is still open, or -1."""

    def __init__(self, opened: int = -1) -> None:
        super().__init__("the row continues past the available bytes")
        self.opened = opened


@cache
def _plain(separator: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'[^"\r\n' + separator + rb"]*+")


def row_at(data: bytes, start: int, separator: bytes, *, final: bool = True) -> Row:
    """The row that begins at `start`; Unfinished where it may continue, unless the data is `final`.

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
            looked_at, end = end, _first_row_end(data, position, final)
            return Row(cells, start, end, _after_row_end(data, end), AFTER_QUOTE if quoted else QUOTE_WITHIN, looked_at)


def _after_row_end(data: bytes, end: int) -> int:
    return min(end + (2 if data.startswith(b"\r\n", end) else 1), len(data))


def _first_row_end(data: bytes, position: int, final: bool) -> int:
    found = _TO_ROW_END.search(data, position)
    if found is None and not final:
        raise Unfinished
    return found.start() if found else len(data)


def is_blank(line: bytes, columns: int) -> bool:
    """Whether a line is no record: nothing, or only blanks where a record would have several cells."""
    return not line or (columns > 1 and not line.strip(b" \t"))


def first_row(text: bytes) -> int:
    """Where the first line begins that is not blank: what stands in it before the first name belongs to that."""
    start = len(text) - len(text.lstrip(b" \t\r\n"))
    return len(text[:start].rstrip(b" \t"))


class Header(NamedTuple):
    """The first row: the names of all columns, where the wanted ones are, and what separates cells."""

    names: list[str]
    declared: dict[str, int]
    separator: bytes
    after: int

    @classmethod
    def of(cls, names: Sequence[str], wanted: set[str], separator: bytes, after: int = 0) -> Header:
        """Of a file with these columns, whose rows begin at `after`."""
        return cls(list(names), {name: place for place, name in enumerate(names) if name in wanted}, separator, after)

    @property
    def columns(self) -> int:
        """How many cells a row must have."""
        return len(self.names)


def _header_at(data: bytes, start: int, wanted: set[str], separators: Sequence[bytes], final: bool) -> Header:
    """Read the header by the separator under which most wanted columns are found; SetAside where it names none."""
    found = [_header(data, start, wanted, separator, final) for separator in separators]
    header = max(found, key=lambda one: len(one.declared))
    if not header.declared:
        raise SetAside(_no_header(data, start, found[0].names, final))
    if twice := [name for name in header.declared if header.names.count(name) > 1]:
        raise SetAside(f"the header has {', '.join(twice)} more than once; leave one column of the name")
    return header


def _header(data: bytes, start: int, wanted: set[str], separator: bytes, final: bool) -> Header:
    """The header under one separator; without names where it is no sound row under it."""
    row = row_at(data, start, separator, final=final)
    try:
        names = [] if row.fault else [(cell or b"").decode().strip(" \t") for cell in row.cells]
    except UnicodeDecodeError:
        names = []
    return Header.of(names, wanted, separator, row.after)


def _no_header(data: bytes, start: int, names: list[str], final: bool) -> str:
    """Why the first row is no header of this pipeline."""
    line = data[start : _first_row_end(data, start, True)]
    row = row_at(data, start, b",", final=final)
    if b"\0" in line:
        return "the header has NUL characters: it is neither UTF-8 nor UTF-16 with a byte order mark; save it as UTF-8"
    if not is_utf8(line):
        return "the header is not UTF-8; save the file as UTF-8, or as UTF-16 with a byte order mark"
    if row.fault:
        return f"the header is malformed: {row.fault}"
    shown = ", ".join(repr(name[:40]) for name in names[:5])
    return (
        f"the header names no declared field, it begins with {shown}; "
        "the first row must hold field names, separated by comma, semicolon or tab"
    )
