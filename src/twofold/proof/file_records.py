"""The records of a file of the inbox, read again: JSON and CSV by Python's own modules, Parquet by pyarrow's scalars.

    lines, elements of an array ─► FileRecord.text         rows of CSV, of Parquet ─► FileRecord.cells

Numbered as docs/inbox.md says. `Irregular` says why what follows in the file cannot be told.
"""

from __future__ import annotations

import base64
import csv
import gzip
import io
import math
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from twofold import inbox
from twofold.definition.model import Field, Files, Pipeline
from twofold.proof import recount, typed_values
from twofold.proof.avro_body import as_json
from twofold.proof.json_text import OtherShape, has_half_surrogate
from twofold.proof.recount import Irregular
from twofold.proof.typed_values import NoValue, Untold
from twofold.topic import Range

LARGEST_ARRAY = 64 << 20
"""Characters of one array, which is read whole."""
_ROWS_AT_ONCE = 1024
_BETWEEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{},]', re.DOTALL)


@dataclass(frozen=True)
class FileRecord:
    """One record: a JSON text, or what is found of each field."""

    number: int
    text: bytes | None = None
    cells: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    fault: str = ""
    """What is wrong with the row as a whole."""


class Wanted:
    """Numbers of records in some ranges, which are in order.

    >>> wanted = Wanted([(3, 5), (9, 10)])
    >>> [number for number in range(12) if number in wanted], wanted.end
    ([3, 4, 9], 10)
    """

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._lows, self._ends = [low for low, _ in ranges], [end for _, end in ranges]
        self.end = self._ends[-1]

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._lows, number) - 1
        return place >= 0 and number < self._ends[place]


def read(folder: inbox.Source, name: str, pipeline: Pipeline, wanted: Wanted) -> Iterator[FileRecord]:
    """The wanted records of a file, in order; Irregular where the rest cannot be told."""
    form = inbox.format_of(name)
    if form is None:
        raise Irregular("an unknown ending")
    with folder.open(name) as stream:
        if form.kind == "parquet":
            yield from _parquet(stream, pipeline, wanted)
            return
        try:
            text = _text(gzip.GzipFile(fileobj=stream) if form.gzipped else stream, form.kind)
            records = _json(text) if form.kind == "json" else _csv(text, pipeline, wanted)
            for record in takewhile(lambda record: record.number < wanted.end, records):
                if record.number in wanted:
                    yield record
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Irregular(f"broken gzip: {error}") from None


def _text(stream: Any, kind: str) -> io.TextIOWrapper:  # noqa: ANN401
    """The text, its line ends as they are; bytes that are no text as lone surrogates."""
    encoding, mark = recount.encoding(stream.read(4), kind)
    stream.seek(len(mark))
    if encoding == "latin-1":
        return io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline="")
    return io.TextIOWrapper(stream, encoding, "surrogatepass", newline="")


def _bytes(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a pair of UTF-16
        return text.encode(errors="surrogatepass")


def _json(text: io.TextIOWrapper) -> Iterator[FileRecord]:
    for number, line in enumerate(text, 1):
        begins = line.strip(" \t\r\n")
        if begins.startswith("["):
            yield from _elements(line + text.read(LARGEST_ARRAY + 1))
            return
        if begins:
            yield from _lines(number, line, text)
            return


def _lines(number: int, first: str, text: io.TextIOWrapper) -> Iterator[FileRecord]:
    yield FileRecord(number, _bytes(_without_end(first)))
    for place, line in enumerate(text, number + 1):
        if line.strip(" \t\r\n"):
            yield FileRecord(place, _bytes(_without_end(line)))


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _elements(text: str) -> Iterator[FileRecord]:
    r"""The elements of one array.

    >>> [one.text for one in _elements('[{"a": "]"}, 7 ,[1, 2]]\n')]
    [b'{"a": "]"}', b'7', b'[1, 2]']
    """
    if len(text) > LARGEST_ARRAY:
        raise Irregular("an array of more than 64 MiB")
    depth, number = 0, 1
    start = text.index("[") + 1
    for match in _BETWEEN.finditer(text, start - 1):
        token = match[0]
        if depth == 1 and token in (",", "]"):
            element = text[start : match.start()].strip(" \t\r\n")
            if element:
                yield FileRecord(number, _bytes(element))
            number, start = number + 1, match.end()
        depth += (token in "[{") - (token in "]}")


def _found_in_files(pipeline: Pipeline) -> list[Field]:
    return [one for one in pipeline.event.fields.values() if one.is_in_cells]


class _Lines:
    """Lines for Python's CSV reader, which keeps those that it took since the last row."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._text)
        self.taken.append(line)
        return line


def _csv(text: io.TextIOWrapper, pipeline: Pipeline, wanted: Wanted) -> Iterator[FileRecord]:
    fields, files = _found_in_files(pipeline), pipeline.files
    csv.field_size_limit(recount.LONGEST_CELL)
    lines = _Lines(text)
    delimiter, names = _header(lines, {one.source.column for one in fields}, files)
    places = {one.name: names.index(one.source.column) for one in fields if one.source.column in names}
    number = 0
    for cells, fault in _rows(lines, delimiter):
        if len(names) > 1 and len(cells) == 1 and not fault and not (cells[0][1] or "").strip(" \t"):
            continue  # a line of blanks
        number += 1
        if number not in wanted and number < wanted.end:
            continue
        if not fault and len(cells) != len(names):
            fault = f"it has {len(cells)} cells, not {len(names)}"
        if fault:
            yield FileRecord(number, fault=fault)
            continue
        declared = [cells[place][1] for place in places.values()]
        size = sum(len(_bytes(cell)) for cell in declared)
        found = {one.name: partial(_cell, one, files, *cells[places[one.name]]) for one in fields if one.name in places}
        too_large = f"its cells have {size:,} bytes" if size > pipeline.event.max_bytes else ""
        yield FileRecord(number, cells=found, fault=too_large)


def _header(lines: _Lines, wanted: set[str], files: Files) -> tuple[str, list[str]]:
    """The delimiter, and the names of the columns: declared, or of the first row that is not blank."""
    if files.header:
        # Without names in the file nothing tells delimiters apart.
        return files.delimiter or ",", list(files.header)
    first = next((line for line in lines if line.strip(" \t\r\n")), "")
    found = []
    for delimiter in [files.delimiter] if files.delimiter else [",", ";", "\t"]:
        try:
            names = [name.strip(" \t") for name in next(csv.reader([first], delimiter=delimiter, strict=True), [])]
        except csv.Error:
            continue  # also of a header over several lines
        found.append((len(wanted & set(names)), delimiter, names))
    if not found or not any(declared for declared, *_ in found):
        raise Irregular("no declared column in the first line")
    lines.taken.clear()
    _, delimiter, names = max(found, key=lambda option: option[0])
    return delimiter, names


Cell = tuple[bool, str]
"""Whether it is quoted, and what it says."""


def _rows(lines: _Lines, delimiter: str) -> Iterator[tuple[list[Cell], str]]:
    """The cells of each row that is not empty, or what is wrong with it."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    cell = re.compile(rf'("(?:[^"]++|"")*+")|[^"\r\n{re.escape(delimiter)}]*+')
    while True:
        lines.taken.clear()
        fault = ""
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            values, fault = [], str(error)
        raw = "".join(lines.taken)
        if fault and len(lines.taken) > 1:
            raise Irregular(f"the row of line {reader.line_num} has quotes that go over lines: {fault}")
        if not fault and not values:
            continue
        quoted = _quoted(_without_end(raw), cell, delimiter)
        if not fault and (quoted is None or len(quoted) != len(values)):
            if len(lines.taken) > 1:
                raise Irregular(f"the row of line {reader.line_num} has quotes that go over lines")
            fault = "a quote stands within a cell"
        yield ([], fault) if fault or quoted is None else (list(zip(quoted, values, strict=True)), "")


def _quoted(raw: str, cell: re.Pattern[str], delimiter: str) -> list[bool] | None:
    """Which cells of a row are quoted; None where quotes stand where none may."""
    found, at = [], 0
    while match := cell.match(raw, at):
        found.append(match[1] is not None)
        at = match.end()
        if at == len(raw):
            return found
        if raw[at] != delimiter:
            return None
        at += 1
    return None


_COMMA_NUMBER = re.compile(r"[^.,]*(,[^.,]*)?")


def _cell(one: Field, files: Files, quoted: bool, text: str) -> Any:  # noqa: ANN401
    if text in files.null_values or not (quoted or text):
        return None
    if has_half_surrogate(text):
        raise NoValue("no UTF-8")
    if one.type.name == "boolean" and text in (*files.true_values, *files.false_values):
        return text in files.true_values
    if files.decimal == "," and (one.type.is_number or one.format.startswith("epoch_")):
        if not _COMMA_NUMBER.fullmatch(text):
            raise NoValue(f"another decimal sign: {text[:40]}")
        text = text.replace(",", ".")
    return typed_values.of_text(one, text)


def _parquet(stream: IO[bytes], pipeline: Pipeline, wanted: Wanted) -> Iterator[FileRecord]:
    try:
        with pq.ParquetFile(pa.PythonFile(stream, mode="r")) as file:
            names, fields = file.schema_arrow.names, _found_in_files(pipeline)
            ways = {one.name for one in file.schema_arrow if pa.types.is_nested(one.type)}
            columns = {one.name: _column(names, ways, one) for one in fields}
            declared = [name for name in names if name in columns.values()]
            number = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=declared):
                if number + 1 >= wanted.end:
                    return
                for row in range(batch.num_rows):
                    number += 1
                    if number in wanted:
                        cells = {name: _natural(batch[name][row]) for name in declared}
                        yield _of_parquet(number, cells, fields, columns, pipeline)
    except pa.ArrowException as error:
        raise Irregular(str(error).partition("\n")[0]) from None


def _column(names: Sequence[str], ways: Collection[str], one: Field) -> str:
    """The file's column that a path leads to: one of its first key, if values lie in it, or one of its whole name."""
    first, *more = one.source.steps
    return str(first) if (more and first in ways) or one.source.column not in names else one.source.column


def _of_parquet(
    number: int,
    row: Mapping[str, pa.Scalar],
    fields: Sequence[Field],
    columns: Mapping[str, str],
    pipeline: Pipeline,
) -> FileRecord:
    size = sum(cell.as_buffer().size for cell in row.values() if cell.is_valid and _is_text(cell.type))
    found = {one.name: partial(_scalar, one, columns[one.name], row) for one in fields if columns[one.name] in row}
    too_large = f"its texts have {size:,} bytes" if size > pipeline.event.max_bytes else ""
    return FileRecord(number, cells=found, fault=too_large)


def _scalar(one: Field, column: str, row: Mapping[str, pa.Scalar]) -> Any:  # noqa: ANN401
    """What lies at a field's path within the value of a column."""
    within = row[column]
    for step in () if column == one.source.column else one.source.steps[1:]:
        if not within.is_valid:
            return None
        if isinstance(step, str) and pa.types.is_struct(within.type):
            if within.type.get_field_index(step) < 0:
                return None
            within = _natural(within[step])
        elif isinstance(step, str) and isinstance(within, pa.MapScalar):
            found = [pair["value"] for pair in within.values if pair["key"].as_py() in (step, step.encode())]
            if not found:
                return None
            within = _natural(found[-1])
        elif isinstance(step, int) and isinstance(within, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
            if step >= len(within.values):
                return None
            within = _natural(within.values[step])
        else:
            raise OtherShape(f"no way to {step!r} in Parquet's type {within.type}")
    if within.is_valid and pa.types.is_nested(within.type) and one.type.name in ("string", "json"):
        return as_json(_tree(within))
    return typed_values.of_parquet(one, within) if within.is_valid else None


def _tree(scalar: pa.Scalar) -> Any:  # noqa: ANN401
    """A value with those within it as Python has them; a text for what JSON does not have."""
    scalar = _natural(scalar)
    if not scalar.is_valid:
        return None
    match scalar:
        case pa.StructScalar():
            return {scalar.type.field(place).name: _tree(scalar[place]) for place in range(scalar.type.num_fields)}
        case pa.MapScalar():
            pairs = [[_tree(pair["key"]), _tree(pair["value"])] for pair in scalar.values]
            return dict(pairs) if _is_text(scalar.type.key_type) else pairs
        case pa.ListScalar() | pa.LargeListScalar() | pa.FixedSizeListScalar():
            return [_tree(element) for element in scalar.values]
        case pa.TimestampScalar():
            return typed_values.moment(scalar)
        case pa.Time32Scalar() | pa.Time64Scalar() | pa.DurationScalar():
            raise Untold(f"a value of Parquet's type {scalar.type} within another")
    value = scalar.as_py()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _is_text(kind: pa.DataType) -> bool:
    known = ("string", "large_string", "binary", "large_binary", "fixed_size_binary")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in known)


def _natural(scalar: pa.Scalar) -> pa.Scalar:
    """Without a dictionary, or a type that is only a name for another; a UUID as its text."""
    if isinstance(scalar, pa.UuidScalar) and scalar.is_valid:
        return pa.scalar(str(scalar.as_py()))
    while scalar.is_valid and (pa.types.is_dictionary(scalar.type) or isinstance(scalar, pa.ExtensionScalar)):
        scalar = scalar.value
    return scalar
