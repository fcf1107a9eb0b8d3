"""Up to 10,000 records of a file or a topic: as columns to draw conclusions from, and as the contract takes them.

JSON lines, array ─► documents ─┐                CSV ─(delimiter, header)─► columns of cells
records of Kafka ───────────────┴► Sample        Parquet ─► columns, types as the file has them
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from twofold import inbox
from twofold.contract import kafka_records
from twofold.contract.kafka_records import PREFIX_BYTES, Schemas
from twofold.contract.literals import BEYOND, TEXT, Literal, cell_literal
from twofold.contract.records import CellRecords, Records, part
from twofold.definition.field_source import KEY, FieldSource, is_key
from twofold.definition.model import AVRO, CONFLUENT_JSON, JSON, Files, Pipeline
from twofold.definition.types import FieldType
from twofold.draft.kinds import CUT_OFF, also, held, kind_of, nearly
from twofold.draft.shapes import DECODER, Column
from twofold.errors import UsageError
from twofold.kafka import KafkaRecord
from twofold.readers import SetAside, csv_rows, json_texts, read
from twofold.readers.texts import BLOCK_BYTES, WatchedStream, blocks
from twofold.schema_registry import UnknownSchema

MOST_RECORDS = 10_000
MOST_BYTES = 64 << 20
_MOST_HEADERS = 5
_DELIMITERS = (",", ";", "\t", "|")
_MOST_ROWS = 200
"""That tell what separates cells."""
_NOTHING = ("\\N", "NULL", "null", "NA", "N/A", "n/a", "nan", "NaN", "None", "-", "--", "?", "#N/A", "(null)")
_YES_NO = (("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"), ("ja", "nein"), ("oui", "non"))
_COMMA_NUMBER = re.compile(r"-?[0-9]+(,[0-9]+)?")


@dataclass(frozen=True)
class Sample:
    """Some records; `documents` where they are JSON, else `columns`."""

    count: int
    again: Callable[[Pipeline], Iterator[Records]]
    """The same records, for the contract."""
    documents: Sequence[dict[str, Any]] = ()
    columns: Sequence[Column] = ()
    beside: Sequence[Column] = ()
    """What lies beside the documents: Kafka's key, headers."""
    is_cells: bool = False
    files: Files = field(default_factory=Files)
    format: str = JSON
    largest_bytes: int = 0
    unnamed: int = 0
    """How many of the file's columns have no text, no name of their own, or none that a path can have."""


def of_file(opened: Callable[[], IO[bytes]], name: str, *, is_cut: bool = False) -> Sample:
    """The first records of a file; SetAside, or UsageError, where it cannot be read as what its name says.

    How one ends that `is_cut`, the beginning of another, is no fault.
    """
    form = inbox.format_of(name)
    if form is None:
        raise UsageError(f"{name!r} has an unknown ending", f"accepted are {inbox.ACCEPTED_NAMES}; say it with --as")

    def again(pipeline: Pipeline) -> Iterator[Records]:
        with opened() as stream:
            yield from first(read(stream, name, pipeline), is_cut=is_cut)

    with opened() as stream:
        if form.kind == "parquet":
            return _of_parquet(pq.ParquetFile(stream), again)
        text = blocks(WatchedStream(stream), form.kind, gzipped=form.gzipped)
        if form.kind == "csv":
            head = b"".join(islice(text, MOST_BYTES // BLOCK_BYTES))
            return _of_csv(head, again, is_cut=is_cut or next(text, None) is not None)
        values = [value for records in first(json_texts.read(text), is_cut=is_cut) for value in records.values]
        return Sample(len(values), again, list(_documents(values).values()), largest_bytes=_largest(values))


def of_records(records: Sequence[KafkaRecord], schemas: Schemas) -> Sample:
    """Records of a topic; values are JSON texts, or JSON or Avro behind a magic byte and a schema id."""
    values, now = [one.value for one in records], datetime.now(UTC)

    def again(pipeline: Pipeline) -> Iterator[Records]:
        headers = [[{"key": key, "value": value} for key, value in one.headers] for one in records]
        batch = pa.RecordBatch.from_pydict({
            "value": pa.array(values, pa.binary()),
            "timestamp": pa.array([now] * len(values), pa.timestamp("us", "UTC")),
            "key": pa.array([one.key for one in records], pa.binary()),
            "headers": pa.array(headers, pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
        })  # fmt: skip
        yield kafka_records.of(pipeline, batch, schemas)

    framed = [value if value is not None and value[:1] == b"\0" else None for value in values]
    forms: list[tuple[str, Iterable[bytes | None]]] = [(JSON, values)]
    if sum(value is not None for value in framed) * 2 > len(values):
        forms = [(CONFLUENT_JSON, [value and value[PREFIX_BYTES:] for value in framed]), (AVRO, _avro(framed, schemas))]
    for form, bodies in forms:
        if (documents := _documents(bodies)) or form == JSON:
            beside = tuple(_beside([records[index] for index in documents]))
            found = list(documents.values())
            return Sample(len(values), again, found, beside=beside, format=form, largest_bytes=_largest(values))
    raise UsageError(
        "the topic's values begin with a magic byte and a schema id, and hold neither JSON nor Avro of that schema",
        "see that TWOFOLD_SCHEMA_REGISTRY_URL names the registry of this topic",
    )


def _largest(values: Iterable[bytes | None]) -> int:
    return max((len(value) for value in values if value), default=0)


def _avro(framed: Sequence[bytes | None], schemas: Schemas) -> Iterator[bytes | None]:
    """The records as JSON, those that can be read."""
    from twofold.contract import avro

    for value in framed:
        if value is None:
            yield None
            continue
        try:
            read = avro.reader(schemas(int.from_bytes(value[1:PREFIX_BYTES])))
            yield avro.json_text(read(value[PREFIX_BYTES:]))
        except (UnknownSchema, avro.Unfit, UnicodeDecodeError):
            yield None


def _beside(records: Sequence[KafkaRecord]) -> Iterator[Column]:
    """Kafka's key, and headers, that all records have as text."""
    headers = [dict(one.headers) for one in records]
    names = [name for name in headers[0] if name] if headers else []
    found = [(FieldSource(kind="header", header=name), [one.get(name) for one in headers]) for name in names]
    for source, values in [(KEY, [one.key for one in records]), *found[:_MOST_HEADERS]]:
        with suppress(UnicodeDecodeError):
            column = Column(source, [None if value is None else Literal(TEXT, value.decode()) for value in values])
            if column.is_always_there:
                yield column


def _documents(values: Iterable[bytes | None]) -> dict[int, dict[str, Any]]:
    """Those of the values that are JSON objects, by their places."""
    documents = {}
    for place, value in enumerate(values):
        try:
            found = DECODER.decode(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(found, dict):
            documents[place] = found
    return documents


def first(pieces: Iterable[Records], *, is_cut: bool = False) -> Iterator[Any]:
    """The first records of some pieces, up to the most of a sample; SetAside, unless the file is cut there."""
    left = MOST_RECORDS
    try:
        for piece in pieces:
            yield piece if len(piece) <= left else part(piece, 0, left)
            left -= min(len(piece), left)
            if not left:
                return
    except SetAside:
        if not is_cut or left == MOST_RECORDS:
            raise


def _of_csv(text: bytes, again: Callable[[Pipeline], Iterator[Records]], *, is_cut: bool) -> Sample:
    delimiter = max(_DELIMITERS, key=lambda one: _rows_alike(text, one.encode()))
    names = _first_cells(text, delimiter.encode())
    has_header = not any(map(_is_value, names))
    header = () if has_header else tuple(f"column_{number}" for number in range(1, len(names) + 1))
    wanted = _nameable(header or names)
    if not wanted and (names == [""] or "\0" in "".join(names)):
        next(csv_rows.read(iter([text]), set()))  # raises what the reader says of a header that names nothing
    rows = csv_rows.read(iter([text]), set(wanted), delimiter=delimiter, header=header) if wanted else iter(())
    pieces: list[CellRecords] = list(first(rows, is_cut=is_cut))
    # Of a row that is none nothing is known: its cells are null.
    found = {name: [cell for piece in pieces for cell in _texts(piece, name)] for name in wanted}
    columns = [Column(FieldSource((name,)), values) for name, values in found.items()]
    files = Files(delimiter=delimiter if header or delimiter not in ",;\t" else None, header=header)
    columns, files = _as_written(columns, files)
    count, unnamed = sum(map(len, pieces)), len(names) - len(wanted)
    return Sample(count, again, columns=columns, is_cells=True, files=files, unnamed=unnamed)


def _rows_alike(text: bytes, delimiter: bytes) -> tuple[int, int]:
    """How many of the first rows have the number of cells that most have, and that number; no rows of one cell.

    They end where a quoted cell is not closed.
    """
    counts: Counter[int] = Counter()
    position = csv_rows.first_row(text)
    with suppress(csv_rows.Unfinished):
        while position < len(text) and counts.total() < _MOST_ROWS:
            row = csv_rows.row_at(text, position, delimiter)
            if not csv_rows.is_blank(text[row.start : row.end], 2):
                counts[0 if row.fault else len(row.cells)] += 1
            position = row.after
    rows, cells = max(((rows, cells) for cells, rows in counts.items()), default=(0, 0))
    return (rows, cells) if cells > 1 else (0, cells)


def _first_cells(text: bytes, delimiter: bytes) -> list[str]:
    """The cells of the first row; a NUL where it cannot be read."""
    with suppress(csv_rows.Unfinished, UnicodeDecodeError):
        row = csv_rows.row_at(text, csv_rows.first_row(text), delimiter)
        if not row.fault:
            return [(cell or b"").decode().strip(" \t") for cell in row.cells]
    return ["\0"]


def _nameable(names: Sequence[str]) -> list[str]:
    """Those names of columns that just one has, and that a path can have."""
    counts = Counter(names)
    return [name for name in names if name and counts[name] == 1 and is_key(name)]


def _is_value(name: str) -> bool:
    """Whether it is a number, a moment or a day, and so no name of a column."""
    found = kind_of([Literal(TEXT, name)], "at", cells=True)
    return bool(name) and (name.isdigit() or found.type.name != "string" or bool(found.note))


def _texts(piece: CellRecords, name: str) -> list[Literal | None]:
    cells = [cell for index, cell in enumerate(piece.columns[name].to_pylist()) if index not in piece.faults]
    return [None if cell is None else Literal(TEXT, cell.decode(errors="replace")) for cell in cells]


def _of_parquet(file: pq.ParquetFile, again: Callable[[Pipeline], Iterator[Records]]) -> Sample:
    batches = list(islice(file.iter_batches(MOST_RECORDS), 1))
    names = file.schema_arrow.names
    wanted = _nameable(names)
    columns = [column for batch in batches for name in wanted for column in _columns_of((name,), batch[name])]
    told = [column for column in columns if column is not None]
    count, unnamed = sum(batch.num_rows for batch in batches), len(names) - len(wanted) + len(columns) - len(told)
    return Sample(count, again, columns=told, unnamed=unnamed)


def _columns_of(path: tuple[str, ...], array: pa.Array) -> Iterator[Column | None]:
    """The columns that a column of Parquet has: those of structs are theirs; None for one that no type gives back."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_struct(kind) and kind.num_fields and len(_nameable(kind.names)) == kind.num_fields:
        for place, name in enumerate(kind.names):
            yield from _columns_of((*path, name), pc.struct_field(array, [place]))
        return
    yield _column(path, array)


def _column(path: tuple[str, ...], array: pa.Array) -> Column | None:
    """A column without the exceptions that its type does not give back; None where no type gives back the others."""
    declared = _declared(array.type)
    values = [_cell(cell, declared or FieldType("string")) for cell in array]
    found = [value for value in values if value is not None]
    chosen = held(declared, found) if declared else kind_of(found, path[-1])
    is_fine = pa.types.is_timestamp(array.type) and array.type.unit == "ns"
    if is_fine and (array.cast(pa.int64()).drop_null().to_numpy() % 1000).any():
        chosen = also(chosen, CUT_OFF)
    if not nearly(sum(value in chosen.lost for value in found), len(found)):
        return None
    return Column(FieldSource(path), [None if value in chosen.lost else value for value in values], chosen)


def _cell(cell: pa.Scalar, declared: FieldType) -> Literal | None:
    try:
        return cell_literal(cell, declared)
    except UnicodeDecodeError:
        return Literal(BEYOND, "bytes that are no UTF-8")


def _declared(kind: pa.DataType) -> FieldType | None:
    """The type that a column of Parquet says itself; None of texts, which may mean more."""
    types = pa.types
    if types.is_decimal(kind) and kind.precision <= 38 and 0 <= kind.scale <= kind.precision:
        return FieldType("decimal", kind.precision, kind.scale)
    if types.is_uint64(kind):
        return FieldType("decimal", 20, 0)
    named = (
        ("boolean", types.is_boolean(kind)),
        ("int", (types.is_integer(kind) and kind.bit_width < 32) or types.is_int32(kind)),
        ("long", types.is_integer(kind)),
        ("double", types.is_floating(kind)),
        ("timestamp", types.is_timestamp(kind)),
        ("date", types.is_date(kind)),
        ("json", types.is_nested(kind)),
        ("string", types.is_time(kind) or types.is_null(kind) or types.is_decimal(kind)),
    )
    return next((FieldType(name) for name, fits in named if fits), None)


def _as_written(columns: Sequence[Column], files: Files) -> tuple[list[Column], Files]:
    """The columns with the file's own texts replaced, and those texts: nothing, true, false, the decimal sign.

    12,50 in a column of numbers ─► decimal: ","       - in a column of dates ─► null_values: ["-"]
    """
    nothing = tuple(text for text in _NOTHING if any(_means_nothing(column, text) for column in columns))
    if nothing:
        columns = [_rewritten(column, lambda text: None if text in nothing else text) for column in columns]
        files = replace(files, null_values=nothing)
    columns, files = _with_point(columns, files)
    return _with_words(columns, files)


def _means_nothing(column: Column, text: str) -> bool:
    """Whether it stands where without it all values are of a type that it is not of."""
    if not any(value.text == text for value in column.found):
        return False
    others = [value for value in column.found if value.text not in _NOTHING]
    return bool(others) and kind_of(others, column.key, cells=True).type.name != "string"


def _with_point(columns: Sequence[Column], files: Files) -> tuple[Sequence[Column], Files]:
    """Numbers with a comma get a point, unless other numbers have one already."""
    commas = {column.source for column in columns if _has_commas(column)}
    has_points = any(
        kind_of(column.found, column.key, cells=True).type.name in ("double", "decimal") for column in columns
    )
    if not commas or has_points:
        return columns, files
    pointed = [
        _rewritten(column, lambda text: text.replace(",", ".")) if column.source in commas else column
        for column in columns
    ]
    return pointed, replace(files, decimal=",")


def _has_commas(column: Column) -> bool:
    texts = {value.text for value in column.found}
    return any("," in text for text in texts) and all(map(_COMMA_NUMBER.fullmatch, texts))


def _with_words(columns: Sequence[Column], files: Files) -> tuple[list[Column], Files]:
    """Columns of two words that mean true and false, in one spelling of each."""
    true: set[str] = set()
    false: set[str] = set()
    found = []
    for column in columns:
        texts = {value.text for value in column.found}
        for yes, no in _YES_NO:
            if {text.lower() for text in texts} == {yes, no}:
                true |= {text for text in texts if text.lower() == yes}
                false |= {text for text in texts if text.lower() == no}
                column = _rewritten(column, {text: str(text.lower() == yes).lower() for text in texts}.get)
        found.append(column)
    return found, replace(files, true_values=tuple(sorted(true)), false_values=tuple(sorted(false)))


def _rewritten(column: Column, text: Callable[[str], str | None]) -> Column:
    new = (value and text(value.text) for value in column.values)
    return replace(column, values=[None if one is None else Literal(TEXT, one) for one in new])
