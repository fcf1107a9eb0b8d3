"""Records in, rows of a log out: event columns, outcome, reason and payload. Fast where records are plainly right.

    JsonRecords ─(event.each: an event of each element)─► decoder ─┐
    CellRecords (a column of cells per field) ─────────────────────┴─► typed arrays, rules in columns
                                                                                     │
                                          all plain ──► filter ─► accepted, filtered ◄┤
                    the others ──► reference ─► values ─► filter │ rejected, reason ◄─┘

Whatever error a record causes in this code, only that record is rejected: a batch that fails is halved until the record
is found. Where a record ends the whole process, `judge_apart` finds it in the same way, in child processes.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, cached_property, reduce

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from twofold import shell, tables
from twofold.contract import reasons
from twofold.contract.columns import arrow_type, kept_rules, typed
from twofold.contract.decoder import Decoder
from twofold.contract.literals import is_text
from twofold.contract.reasons import Reason
from twofold.contract.records import CellRecords, ElementRecords, JsonRecords, Records, halves, moments
from twofold.contract.reference import NOTHING, Judgement, Reference
from twofold.definition.model import Pipeline
from twofold.definition.names import ELEMENT

_ROWS = "_tw_rows"


@dataclass(frozen=True)
class Judged:
    """Rows in the order of their records: the event columns (null where rejected), and tables.JUDGED."""

    rows: pa.RecordBatch
    parents: pa.Array | None = None
    """The index of the record that each row comes from, where a record may have several; else row i is record i."""

    def of_records(self, array: pa.Array) -> pa.Array:
        """What is known of each record, for each row."""
        return array if self.parents is None else array.take(self.parents)

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
        fields, most = pipeline.event.fields.values(), pipeline.event.max_bytes
        found = [field for field in fields if field.is_in_value]
        each = pipeline.event.each is not None
        self._decoder = Decoder([field for field in found if field.source.whole or not each], most)
        self._of_elements = Decoder([field for field in found if each and not field.source.whole], most, True)

    def judge(self, records: Records, received_at: datetime | pa.Array) -> Judged:
        """Judge all; `received_at` is one moment, or one per record (timestamps in UTC)."""
        return self.by_event(records, received_at, Judge._halving)

    def by_event(
        self, records: Records, received_at: datetime | pa.Array, judging: Callable[[Judge, Records, pa.Array], Judged]
    ) -> Judged:
        """What `judging` makes of some records and their moments of arrival, or of the events that lie in them."""
        judge = self._of_any_size if isinstance(records, JsonRecords) and records.measured else self
        arrived = moments(received_at, len(records))
        if self.pipeline.event.each is None or not isinstance(records, JsonRecords):
            return judging(judge, records, arrived)
        elements = judge.elements(records)
        parents = pa.array(elements.parents, pa.int64())
        return Judged(judging(judge, elements, arrived.take(parents)).rows, parents)

    @cached_property
    def _of_any_size(self) -> Judge:
        """Of what was measured already."""
        event = replace(self.pipeline.event, max_bytes=sys.maxsize)
        return Judge(replace(self.pipeline, event=event))

    def elements(self, records: JsonRecords) -> ElementRecords:
        """A row for every element of the arrays at `event.each`, in order, and one for each record without any."""
        values: list[bytes | None] = []
        numbers: list[int] = []
        parents: list[int] = []
        faults: dict[int, Reason] = {}
        for index, value in enumerate(records.values):
            found = records.faults.get(index) or self._reference.elements(value)
            if isinstance(found, Reason):
                faults[len(values)] = found
                found = []
            rows: Iterator[tuple[int, bytes | None]] = enumerate(found, 1) if found else iter([(0, None)])
            for number, text in rows:
                values.append(text)
                numbers.append(number)
                parents.append(index)
        return ElementRecords(values, numbers, parents, records, faults)

    def _halving(self, records: Records, arrived: pa.Array) -> Judged:
        try:
            return self._judge(records, arrived)
        except MemoryError:
            raise
        except Exception as error:
            if not len(records):
                raise
            if len(records) == 1:
                return self.not_judged(records, error)
        return whole([self._halving(*half) for half in halves(records, arrived)])

    def rejected(self, records: Records, fault: Reason) -> Judged:
        """All records rejected for one reason, unjudged."""
        fields, length = self.pipeline.event.fields.values(), len(records)
        nothing = {field.name: pa.nulls(length, arrow_type(field.type)) for field in fields}
        return self._rows(nothing, dict.fromkeys(range(length), fault), records)

    def _judge(self, records: Records, arrived: pa.Array) -> Judged:
        columns, unclear = self._plain(records, arrived)
        if not unclear:
            return self._rows(columns, {}, records)
        judged = {index: self._by_reference(records, index, arrived[index].as_py()) for index in unclear}
        return self._rows(*self._patched(columns, judged), records)

    def _plain(self, records: Records, arrived: pa.Array) -> tuple[dict[str, pa.Array], list[int]]:
        """Typed columns, and the indexes of rows that are not plainly right."""
        arrays, unclear = self._arrays(records)
        unclear = {*unclear, *records.faults}
        columns, masks = {}, []
        for field in self.pipeline.event.fields.values():
            array = arrays.get(field.name)
            if array is None:
                array = arrived if field.is_arrival else pa.nulls(len(records))
            column, right = typed(field, array, decoded=not isinstance(records, CellRecords) and field.source.in_value)
            columns[field.name] = column
            masks += [] if right is None else [right]
            masks += kept_rules(self.pipeline, field, column)
        latest = pc.add(arrived, pa.scalar(self.pipeline.event.max_future, pa.duration("us")))
        masks.append(pc.less_equal(columns[self.pipeline.event.time], latest))
        right = reduce(pc.and_, (pc.fill_null(mask, True) for mask in masks))
        return columns, sorted({*unclear, *pc.indices_nonzero(pc.invert(right)).to_pylist()})

    def _arrays(self, records: Records) -> tuple[Mapping[str, pa.Array], Iterable[int]]:
        """What was found of each field, and the indexes of rows of which that says nothing."""
        if isinstance(records, CellRecords):
            return self._cells(records)
        around = records.records if isinstance(records, ElementRecords) else records
        found = self._decoder.decode(pa.array(around.values, pa.binary()))
        beside, bad = {}, set(found.refused)
        for name, array in around.beside.items():
            beside[name], undecoded = _decoded(array) if is_text(array.type) else (array, [])
            bad.update(undecoded)
        if not isinstance(records, ElementRecords):
            return {**found.columns, **beside}, bad
        parents = pa.array(records.parents, pa.int64())
        inner = self._of_elements.decode(pa.array(records.values, pa.binary()))
        taken = {name: array.take(parents) for name, array in {**found.columns, **beside}.items()}
        outer = (index for index, parent in enumerate(records.parents) if parent in bad)
        return {**taken, **inner.columns}, {*inner.refused, *outer}

    @staticmethod
    def _cells(records: CellRecords) -> tuple[dict[str, pa.Array], Sequence[int]]:
        """Columns with texts decoded, and rows that are faulty or no UTF-8."""
        unclear = set(records.faults)
        columns = {}
        for name, array in records.columns.items():
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            if is_text(array.type):
                array, bad = _decoded(array)
                unclear.update(bad)
            columns[name] = array
        return columns, sorted(unclear)

    def _by_reference(self, records: Records, index: int, arrived: datetime) -> Judgement:
        if index in records.faults:
            return Judgement(None, records.faults[index])
        if isinstance(records, ElementRecords):
            if not records.numbers[index]:
                return NOTHING
            parent = records.parents[index]
            beside = {name: array[parent] for name, array in records.records.beside.items()}
            return self._reference.json(records.records.values[parent], arrived, beside, records.values[index])
        if isinstance(records, JsonRecords):
            beside = {name: array[index] for name, array in records.beside.items()}
            return self._reference.json(records.values[index], arrived, beside)
        return self._reference.cells({name: array[index] for name, array in records.columns.items()}, arrived)

    def _patched(
        self, columns: Mapping[str, pa.Array], judged: Mapping[int, Judgement]
    ) -> tuple[dict[str, pa.Array], dict[int, Reason]]:
        """Put what the reference read in the place of what the columns hold, and nulls where it was rejected."""
        read = {index: one.values for index, one in judged.items() if one.values is not None}
        faults = {index: one.fault for index, one in judged.items() if one.fault is not None}
        nothing = [index for index, one in judged.items() if one == NOTHING]
        length = len(next(iter(columns.values())))
        places: list[int | None] = list(range(length))
        for index in (*faults, *nothing):
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
        element = {}
        if self.pipeline.event.each is not None:
            numbers = records.numbers if isinstance(records, ElementRecords) else [0] * length
            element = {ELEMENT: pa.array(numbers, pa.int32())}
            # A record without elements is read, and holds no event.
            outcome = pc.if_else(pc.equal(element[ELEMENT], 0), tables.FILTERED, outcome)
        judged = {
            tables.OUTCOME: pc.if_else(pc.is_valid(kind), tables.REJECTED, outcome),
            tables.REASON_KIND: kind,
            tables.REASON: pa.array(texts, pa.string()),
            tables.PAYLOAD: pa.array(payloads, pa.binary()),
        }
        return Judged(pa.RecordBatch.from_pydict({**columns, **judged, **element}))

    def not_judged(self, records: Records, error: BaseException) -> Judged:
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
        # A filter that gives null means filtered.
        asked = f"SELECT coalesce({self.pipeline.filter.duckdb}, FALSE) AS wanted FROM {_ROWS}"
        try:
            wanted = self._filtering.sql(asked).to_arrow_table()["wanted"].combine_chunks()
        finally:
            self._filtering.unregister(_ROWS)
        return pc.if_else(wanted, tables.ACCEPTED, tables.FILTERED)

    @cached_property
    def _filtering(self) -> duckdb.DuckDBPyConnection:
        connection = _database().cursor()
        connection.execute("SET TimeZone = 'UTC'")
        return connection


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """One for each process: to begin it takes longer than to judge a few hundred records, and tasks come and go."""
    return duckdb.connect(config={
        "python_enable_replacements": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        # One task has one core, and rows must come back in their order.
        "threads": "1",
    })  # fmt: skip


def whole(parts: Sequence[Judged]) -> Judged:
    """The rows of consecutive parts as one."""
    return Judged(pa.Table.from_batches([one.rows for one in parts]).combine_chunks().to_batches()[0])


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


_CHILD = "from twofold.contract.judge import judge_stdin; judge_stdin()"


class Crashed(Exception):
    """The process that judged records ended without an answer, or the bytes of one cannot be had: that is the cause."""


def judge_apart(judge: Judge, records: Records, received_at: datetime | pa.Array) -> Judged:
    """As `Judge.judge`; a record at which the child ends is rejected as not judged."""
    return judge.by_event(records, received_at, _apart)


def _apart(judge: Judge, records: Records, arrived: pa.Array) -> Judged:
    try:
        return Judged(_in_child(judge, records, arrived))
    except Crashed as error:
        if not len(records):
            raise
        if len(records) == 1:
            return judge.not_judged(records, error.__cause__ or error)
    return whole([_apart(judge, *half) for half in halves(records, arrived)])


def _in_child(judge: Judge, records: Records, received_at: datetime | pa.Array) -> pa.RecordBatch:
    # What makes payloads need not be picklable: rejected rows get theirs here.
    sent = replace(records, payload=dict[int, bytes]().get) if isinstance(records, CellRecords) else records
    asked = pickle.dumps((judge.pipeline, sent, received_at))
    done = subprocess.run([sys.executable, "-c", _CHILD], input=asked, capture_output=True, check=False)
    if done.returncode:
        raise Crashed(f"the process that judged it ended with {done.returncode}")
    with pa.ipc.open_stream(done.stdout) as stream:
        rows = stream.read_next_batch()
    return _with_payloads(rows, records) if isinstance(records, CellRecords) else rows


def _with_payloads(rows: pa.RecordBatch, records: CellRecords) -> pa.RecordBatch:
    payloads: list[bytes | None] = [None] * len(records)
    for index in pc.indices_nonzero(pc.equal(rows[tables.OUTCOME], tables.REJECTED)).to_pylist():
        try:
            payloads[index] = records.payload(index)
        except MemoryError:
            raise
        except Exception as error:
            raise Crashed("the bytes of a record cannot be had") from error
    return rows.set_column(rows.schema.get_field_index(tables.PAYLOAD), tables.PAYLOAD, pa.array(payloads, pa.binary()))


def judge_stdin() -> None:
    """The child: pickled pipeline, records and moments in, rows in Arrow's stream format out."""
    shell.without_pandas()
    pipeline, records, received_at = pickle.load(sys.stdin.buffer)
    rows = Judge(pipeline).judge(records, received_at).rows
    with pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as stream:
        stream.write_batch(rows)
