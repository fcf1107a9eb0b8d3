"""Records in, rows of a log out: event columns, outcome, reason and payload. Fast where records are plainly right.

    Kafka values, JSON lines, elements of an array ─► JsonRecords ─► decoder ─┐
    rows of CSV or Parquet ─► CellRecords (a column of cells per field) ──────┴─► typed arrays, rules in columns
                                                                                     │
                                          all plain ──► filter ─► accepted, filtered ◄┤
                    the others ──► reference ─► values ─► filter │ rejected, reason ◄─┘

Whatever error a record causes in this code, only that record is rejected: a batch that fails is halved until the record
is found. Where a record ends the whole process, `judge_apart` finds it in the same way, in child processes.
"""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, reduce
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from twofold import tables
from twofold.contract import reasons
from twofold.contract.columns import ARROW, Decoder, arrow_type, kept_rules, typed
from twofold.contract.reasons import Reason
from twofold.contract.reference import Judgement, Reference, is_text
from twofold.definition.model import Pipeline

_ROWS = "_tw_rows"


@dataclass(frozen=True)
class JsonRecords:
    """Records that are JSON texts; `numbers[i]` is the number of `values[i]` within its file, from 1."""

    values: Sequence[bytes | None]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.values)

    def payload(self, index: int) -> bytes | None:
        """The record as it came."""
        return self.values[index]


@dataclass(frozen=True)
class CellRecords:
    """Records that are rows of cells.

    `columns` has the declared fields that the file has, as Arrow arrays of equal length: CSV cells as binary arrays of
    the cells' own bytes in UTF-8 (null: an empty cell; `""` in the file: empty text), Parquet columns in the types that
    the file has.
    """

    columns: Mapping[str, pa.Array]
    numbers: Sequence[int]
    payload: Callable[[int], bytes]
    """The bytes to keep of a rejected row: a CSV row that is malformed as it was, any other row as a JSON object of
    all cells."""
    faults: Mapping[int, Reason] = dataclasses.field(default_factory=dict)
    """Index of a row → what is wrong with its form; its cells are null then."""

    def __len__(self) -> int:
        return len(self.numbers)


Records = JsonRecords | CellRecords


@dataclass(frozen=True)
class Judged:
    """Rows in the order of their records: the event columns (null where rejected), and tables.JUDGED."""

    rows: pa.RecordBatch

    def counts(self) -> dict[str, int]:
        """Rows by outcome, and the rejected ones by kind of reason."""
        names = (self.rows.column(name) for name in (tables.OUTCOME, tables.REASON_KIND))
        pairs = (pair for column in names for pair in pc.value_counts(pc.drop_null(column)).to_pylist())
        return {pair["values"]: pair["counts"] for pair in pairs}


class Judge:
    """Judges the records of one pipeline; made once, as it compiles decoder and filter."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._reference = Reference(pipeline)
        self._decoder = Decoder(pipeline)

    def judge(self, records: Records, received_at: datetime | pa.Array) -> Judged:
        """Judge all; `received_at` is one moment, or one per record (timestamps in UTC)."""
        arrived = moments(received_at, len(records))
        try:
            return self._judge(records, arrived)
        except MemoryError:
            raise
        except Exception as error:
            if not len(records):
                raise
            if len(records) == 1:
                return self._not_judged(records, error)
        return whole([self.judge(*half) for half in halves(records, arrived)])

    def rejected(self, records: Records, fault: Reason) -> Judged:
        """All records rejected for one reason, unjudged."""
        return self._rows(self._nothing(len(records)), dict.fromkeys(range(len(records)), fault), records)

    def _judge(self, records: Records, arrived: pa.Array) -> Judged:
        columns, unclear = self._plain(records, arrived)
        if not unclear:
            return self._rows(columns, {}, records)
        judged = {index: self._by_reference(records, index, arrived[index].as_py()) for index in unclear}
        return self._rows(*self._patched(columns, judged), records)

    def _plain(self, records: Records, arrived: pa.Array) -> tuple[dict[str, pa.Array], list[int]]:
        """Typed columns, and the indexes of rows that are not plainly right."""
        if isinstance(records, JsonRecords):
            found = self._decoder.decode(pa.array(records.values, pa.binary()))
            arrays, unclear = found.columns, found.refused
        else:
            arrays, unclear = self._cells(records)
        columns, masks = {}, []
        for field in self.pipeline.event.fields.values():
            array = arrays.get(field.name)
            column, right = typed(field.type, pa.nulls(len(records)) if array is None else array)
            columns[field.name] = column
            masks += [] if right is None else [right]
            masks += kept_rules(self.pipeline, field, column)
        latest = pc.add(arrived, pa.scalar(self._reference.max_future, pa.duration("us")))
        masks.append(pc.less_equal(columns[self.pipeline.event.time], latest))
        right = reduce(pc.and_, (pc.fill_null(mask, True) for mask in masks))
        return columns, sorted({*unclear, *pc.indices_nonzero(pc.invert(right)).to_pylist()})

    def _cells(self, records: CellRecords) -> tuple[dict[str, pa.Array], Sequence[int]]:
        """Columns with texts decoded, and rows that are malformed, too large or no UTF-8."""
        unclear = set(records.faults)
        columns = {}
        for name, array in records.columns.items():
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            if is_text(array.type):
                array, bad = _decoded(array)
                unclear.update(bad)
            columns[name] = array
        sizes = _sizes(columns.values(), len(records))
        unclear.update(pc.indices_nonzero(pc.greater(sizes, self.pipeline.event.max_bytes)).to_pylist())
        return columns, sorted(unclear)

    def _by_reference(self, records: Records, index: int, arrived: datetime) -> Judgement:
        if isinstance(records, JsonRecords):
            return self._reference.json(records.values[index], arrived)
        if index in records.faults:
            return Judgement(None, records.faults[index])
        return self._reference.cells({name: array[index] for name, array in records.columns.items()}, arrived)

    def _patched(
        self, columns: Mapping[str, pa.Array], judged: Mapping[int, Judgement]
    ) -> tuple[dict[str, pa.Array], dict[int, Reason]]:
        """Put what the reference read in the place of what the columns hold, and nulls where it was rejected."""
        read = {index: one.values for index, one in judged.items() if one.values is not None}
        faults = {index: one.fault for index, one in judged.items() if one.fault is not None}
        length = len(next(iter(columns.values())))
        places: list[int | None] = list(range(length))
        for index in faults:
            places[index] = None
        for number, index in enumerate(read):
            places[index] = length + number
        take = pa.array(places, pa.int64())
        patched = {}
        for name, array in columns.items():
            values = pa.array([one[name] for one in read.values()], array.type)
            patched[name] = pa.concat_arrays([array, values]).take(take)
        return patched, faults

    def _rows(self, columns: Mapping[str, pa.Array], faults: Mapping[int, Reason], records: Records) -> Judged:
        length = len(records)
        outcome = self._outcomes(columns, length)
        kinds: list[str | None] = [None] * length
        texts: list[str | None] = [None] * length
        payloads: list[bytes | None] = [None] * length
        for index, fault in faults.items():
            kinds[index], texts[index], payloads[index] = fault.kind, fault.text, records.payload(index)
        kind = pa.array(kinds, pa.string())
        judged = {
            tables.OUTCOME: pc.if_else(pc.is_valid(kind), tables.REJECTED, outcome),
            tables.REASON_KIND: kind,
            tables.REASON: pa.array(texts, pa.string()),
            tables.PAYLOAD: pa.array(payloads, pa.binary()),
        }
        return Judged(pa.RecordBatch.from_pydict({**columns, **judged}))

    def _not_judged(self, records: Records, error: Exception) -> Judged:
        """The one record as it came, or without its bytes if it is they that cannot be had."""
        fault = reasons.not_judged(error)
        try:
            return self.rejected(records, fault)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - what failed before fails again: its reason is known
            return self.rejected(JsonRecords([None], records.numbers), fault)

    def _outcomes(self, columns: Mapping[str, pa.Array], length: int) -> pa.Array:
        """`accepted` or `filtered` for each row."""
        if self.pipeline.filter is None or not length:
            return pa.array([tables.ACCEPTED] * length, pa.string())
        self._filtering.register(_ROWS, pa.Table.from_pydict(dict(columns)))
        try:
            wanted = self._filtering.sql(self._filter).to_arrow_table()["wanted"].combine_chunks()
        finally:
            self._filtering.unregister(_ROWS)
        return pc.if_else(wanted, tables.ACCEPTED, tables.FILTERED)

    @cached_property
    def _filtering(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config={
            "python_enable_replacements": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            # One task has one core, and rows must come back in their order.
            "threads": "1",
        })  # fmt: skip
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    @property
    def _filter(self) -> str:
        assert self.pipeline.filter is not None
        # A filter that gives null means filtered.
        return f"SELECT coalesce({self.pipeline.filter.duckdb}, FALSE) AS wanted FROM {_ROWS}"

    def _nothing(self, length: int) -> dict[str, pa.Array]:
        fields = self.pipeline.event.fields.values()
        return {field.name: pa.nulls(length, arrow_type(field.type)) for field in fields}


def moments(received_at: datetime | pa.Array, count: int) -> pa.Array:
    """A moment of arrival per record."""
    return (
        received_at
        if isinstance(received_at, pa.Array)
        else pa.repeat(pa.scalar(received_at, ARROW["timestamp"]), count)
    )


def whole(parts: Sequence[Judged]) -> Judged:
    """The rows of consecutive parts as one."""
    return Judged(pa.Table.from_batches([one.rows for one in parts]).combine_chunks().to_batches()[0])


def halves(records: Records, arrived: pa.Array) -> Iterator[tuple[Records, pa.Array]]:
    """The first and the second half of some records, with their moments of arrival."""
    middle = len(records) // 2
    for at, count in ((0, middle), (middle, len(records) - middle)):
        yield part(records, at, count), arrived.slice(at, count)


def part(records: Records, at: int, count: int) -> Records:
    """Some consecutive records of these."""
    numbers = records.numbers[at : at + count]
    if isinstance(records, JsonRecords):
        return JsonRecords(records.values[at : at + count], numbers)
    return replace(
        records,
        columns={name: array.slice(at, count) for name, array in records.columns.items()},
        numbers=numbers,
        payload=lambda index: records.payload(at + index),
        faults={index - at: fault for index, fault in records.faults.items() if at <= index < at + count},
    )


def _decoded(array: pa.Array) -> tuple[pa.Array, list[int]]:
    """Texts and bytes as text; those that are no UTF-8 are null there, and their indexes listed.

    Files say "text" of bytes that are none, and Arrow checks it only where bytes become text.
    """
    cells = array if pa.types.is_binary(array.type) else array.cast(pa.binary())
    try:
        return cells.cast(pa.string()), []
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        bad = []
        for index, cell in enumerate(cells.to_pylist()):
            try:
                texts.append(None if cell is None else cell.decode())
            except UnicodeDecodeError:
                texts.append(None)
                bad.append(index)
        return pa.array(texts, pa.string()), bad


def _sizes(arrays: Iterable[pa.Array], length: int) -> pa.Array:
    """Bytes of all texts of each row."""
    texts = [array for array in arrays if pa.types.is_string(array.type)]
    sizes: Any = pa.repeat(pa.scalar(0, pa.int64()), length)
    for array in texts:
        sizes = pc.add(sizes, pc.fill_null(pc.binary_length(array), 0).cast(pa.int64()))
    return sizes


_CHILD = "from twofold.contract.judge import judge_stdin; judge_stdin()"


class Crashed(Exception):
    """The process that judged a record ended without an answer."""


def judge_apart(judge: Judge, records: Records, received_at: datetime | pa.Array) -> Judged:
    """As `Judge.judge`; a record at which the child ends is rejected as not judged."""
    try:
        return Judged(_in_child(judge, records, received_at))
    except Crashed as error:
        if len(records) == 1:
            return judge.rejected(records, reasons.not_judged(error))
    return whole([judge_apart(judge, *half) for half in halves(records, moments(received_at, len(records)))])


def _in_child(judge: Judge, records: Records, received_at: datetime | pa.Array) -> pa.RecordBatch:
    if isinstance(records, CellRecords):
        # What makes payloads need not be picklable; rejected rows get theirs here.
        payloads = [records.payload(index) for index in range(len(records))]
        records = CellRecords(records.columns, list(records.numbers), payloads.__getitem__, dict(records.faults))
    asked = pickle.dumps((judge.pipeline, records, received_at))
    done = subprocess.run([sys.executable, "-c", _CHILD], input=asked, capture_output=True, check=False)
    if done.returncode:
        raise Crashed(f"the process that judged it ended with {done.returncode}")
    with pa.ipc.open_stream(done.stdout) as stream:
        return stream.read_next_batch()


def judge_stdin() -> None:
    """The child: pickled pipeline, records and moments in, rows in Arrow's stream format out."""
    pipeline, records, received_at = pickle.load(sys.stdin.buffer)
    rows = Judge(pipeline).judge(records, received_at).rows
    with pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as stream:
        stream.write_batch(rows)
