"""Records in, rows of a log out: event columns, outcome, reason and payload. Fast where records are plainly right.

    JsonRecords ─(event.each: an event of each element)─► decoder ─┐
    CellRecords (a column of cells per field) ─────────────────────┴─► typed arrays, rules in columns
                                                                                     │
                                          all plain ──► filter ─► accepted, filtered ◄┤
                    the others ──► reference ─► values ─► filter │ rejected, reason ◄─┘

What lies around elements is found once for all of them; the row of each may hold all of it, so rows come in parts.

Whatever error a record causes in this code, only that record is rejected: a batch that fails is halved until the record
is found. Where a record ends the whole process, it is found in the same way, `apart`: in child processes.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, cached_property

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from twofold import shell, tables
from twofold.contract import reasons
from twofold.contract.columns import ARROW, arrow_type, kept_rules, typed
from twofold.contract.decoder import Decoder, indexes, not_utf8
from twofold.contract.literals import is_text
from twofold.contract.reasons import Reason
from twofold.contract.records import Around, CellRecords, ElementRecords, JsonRecords, Records, part, text_bytes
from twofold.contract.reference import NOTHING, Judgement, Reference
from twofold.definition.model import Field, Pipeline
from twofold.definition.names import ELEMENT

_ROWS = "_tw_rows"
HELD_BYTES = 64 << 20
"""Rows of more elements than one hold no more than this of the records around them."""
_Attempt = Callable[["Judge", Records, pa.Array], pa.RecordBatch | None]
"""Makes the rows of records, by their moments of arrival; None: they would hold too much."""


@dataclass(frozen=True)
class Judged:
    """Rows in the order of their records: the event columns (null where rejected), and tables.JUDGED."""

    rows: pa.RecordBatch
    parents: pa.Array
    """The index of the record that each row comes from."""

    def of_records(self, array: pa.Array) -> pa.Array:
        """What is known of each record, for each row."""
        return array.take(self.parents)

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

    def judge(self, records: Records, received_at: datetime | pa.Array, *, apart: bool = False) -> Judged:
        """Judge all; `received_at` is one moment, or one per record (timestamps in UTC)."""
        return whole(self.parts(records, received_at, apart=apart))

    def parts(self, records: Records, received_at: datetime | pa.Array, *, apart: bool = False) -> Iterator[Judged]:
        """As `judge`, in parts that fit into memory; `apart` in child processes: one that ends them is not judged."""
        judge = self._of_any_size if isinstance(records, JsonRecords) and records.measured else self
        if not isinstance(received_at, pa.Array):
            received_at = pa.repeat(pa.scalar(received_at, ARROW["timestamp"]), len(records))
        arrived, parents = received_at, pa.arange(0, len(records))
        if self.pipeline.event.each is not None and isinstance(records, JsonRecords):
            records = judge.elements(records)
            parents = pa.array(records.parents, pa.int64())
            arrived = arrived.take(parents)
        done = 0
        for rows in _together(judge.halving(records, arrived, _in_child if apart else Judge.attempt)):
            yield Judged(rows, parents.slice(done, rows.num_rows))
            done += rows.num_rows

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
            values += found or [None]
            numbers += range(1, len(found) + 1) or [0]
            parents += [index] * (len(found) or 1)
        return ElementRecords(values, numbers, parents, records, faults)

    def halving(self, records: Records, arrived: pa.Array, attempt: _Attempt) -> Iterator[pa.RecordBatch]:
        """The rows of records, or of each half of them where the attempt fails, or they would hold too much."""
        try:
            rows = attempt(self, records, arrived)
        except (MemoryError, OSError):
            raise  # no fault of a record
        except Exception as error:
            if not len(records):
                raise
            rows = self.not_judged(records, error) if len(records) == 1 else None
        if rows is not None:
            yield rows
            return
        middle = len(records) // 2
        for at, count in ((0, middle), (middle, len(records) - middle)):
            yield from self.halving(part(records, at, count), arrived.slice(at, count), attempt)

    def attempt(self, records: Records, arrived: pa.Array) -> pa.RecordBatch | None:
        """The rows of all; None: they would hold too much."""
        around = self._around(records) if isinstance(records, ElementRecords) else Around()
        fields = self.pipeline.event.fields
        others = [field for name, field in fields.items() if name not in around.columns]
        columns, unclear = self._plain(records, others, arrived)
        if isinstance(records, ElementRecords):
            if _are_too_much(around.sizes, records.parents):
                return None
            parents = pa.array(records.parents, pa.int64())
            columns |= {name: array.take(parents) for name, array in around.columns.items()}
            unclear.update(index for index, parent in enumerate(records.parents) if parent in around.unclear)
        latest = pc.add(arrived, pa.scalar(self.pipeline.event.max_future, pa.duration("us")))
        unclear |= indexes(pc.greater(columns[self.pipeline.event.time], latest))
        if isinstance(records, ElementRecords) and _are_too_much(records.sizes, unclear):
            return None
        judged = {index: self._by_reference(records, index, arrived[index].as_py()) for index in sorted(unclear)}
        return self._rows(*self._patched({name: columns[name] for name in fields}, judged), records)

    def _around(self, elements: ElementRecords) -> Around:
        """What the records around elements hold; what fails in columns is read record by record."""
        around, records = elements.around, elements.records
        if len(around.sizes) != len(records):
            names = {*records.beside, *(field.name for field in self._decoder.fields)}
            fields = [field for field in self.pipeline.event.fields.values() if field.name in names]
            try:
                around.columns, around.unclear = self._plain(records, fields)
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - record by record it is seen which of them fail
                around.columns, around.unclear = _nulls(fields, len(records)), set(range(len(records)))
            around.sizes = sum(map(text_bytes, around.columns.values()), np.zeros(len(records), np.int64))
        return around

    def _plain(
        self, records: Records, fields: Iterable[Field], arrived: pa.Array | None = None
    ) -> tuple[dict[str, pa.Array], set[int]]:
        """Typed columns of fields that lie in these records, and the indexes of rows that are not plainly right."""
        arrays, bad = self._arrays(records)
        unclear = {*bad, *records.faults}
        columns = {}
        for field in fields:
            array = arrays.get(field.name)
            if array is None:
                array = arrived if field.is_arrival else pa.nulls(len(records))
            column, right = typed(field, array, decoded=not isinstance(records, CellRecords) and field.source.in_value)
            columns[field.name] = column
            for mask in ([] if right is None else [right]) + kept_rules(self.pipeline, field, column):
                unclear |= indexes(pc.invert(mask))
        return columns, unclear

    def _arrays(self, records: Records) -> tuple[Mapping[str, pa.Array], Iterable[int]]:
        """What was found of each field, and the indexes of rows of which that says nothing."""
        if isinstance(records, CellRecords):
            return _decoded(records.columns)
        values = pa.array(records.values, pa.binary())
        if isinstance(records, ElementRecords):
            return self._of_elements.decode(values)
        columns, refused = self._decoder.decode(values)
        beside, bad = _decoded(records.beside)
        return {**columns, **beside}, {*refused, *bad}

    def _by_reference(self, records: Records, index: int, arrived: datetime) -> Judgement:
        if index in records.faults:
            return Judgement(None, records.faults[index])
        if isinstance(records, CellRecords):
            return self._reference.cells(_at(records.columns, index), arrived)
        if isinstance(records, JsonRecords):
            around = self._reference.around(records.values[index], _at(records.beside, index))
            return self._reference.event(around, arrived)
        if not records.numbers[index]:
            return NOTHING
        parent, whole, readings = records.parents[index], records.records, records.around.readings
        if parent not in readings:
            readings[parent] = self._reference.around(whole.values[parent], _at(whole.beside, parent))
        return self._reference.event(readings[parent], arrived, records.values[index])

    def _patched(
        self, columns: Mapping[str, pa.Array], judged: Mapping[int, Judgement]
    ) -> tuple[dict[str, pa.Array], dict[int, Reason]]:
        """Put what the reference read in the place of what the columns hold, and nulls where it was rejected."""
        if not judged:
            return dict(columns), {}
        read = [one.values for one in judged.values() if one.values is not None]
        length = len(next(iter(columns.values())))
        places: list[int | None] = list(range(length))
        anew = iter(range(length, length + len(read)))
        for index, one in judged.items():
            places[index] = None if one.values is None else next(anew)
        take = pa.array(places, pa.int64())
        patched = {}
        for name, array in columns.items():
            values = pa.array([one[name] for one in read], array.type)
            patched[name] = pa.concat_arrays([array, values]).take(take)
        return patched, {index: one.fault for index, one in judged.items() if one.fault is not None}

    def _rows(self, columns: Mapping[str, pa.Array], faults: Mapping[int, Reason], records: Records) -> pa.RecordBatch:
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
        return pa.RecordBatch.from_pydict({**columns, **judged, **element})

    def not_judged(self, records: Records, error: Exception) -> pa.RecordBatch:
        """The one record as it came, or without its bytes if it is they that cannot be had."""
        fault = reasons.not_judged(error)
        nothing = _nulls(self.pipeline.event.fields.values(), 1)
        try:
            return self._rows(nothing, {0: fault}, records)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - what failed before fails again: its reason is known
            return self._rows(nothing, {0: fault}, JsonRecords([None], records.numbers))

    def _outcomes(self, columns: Mapping[str, pa.Array], length: int) -> pa.Array:
        """`accepted` or `filtered` for each row."""
        if self.pipeline.filter is None or not length:
            return pa.array([tables.ACCEPTED] * length, pa.string())
        # A filter that gives null means filtered.
        asked = f"SELECT coalesce({self.pipeline.filter.duckdb}, FALSE) AS wanted FROM {_ROWS}"
        with _database().cursor() as connection:
            connection.register(_ROWS, pa.Table.from_pydict(dict(columns)))
            wanted = connection.sql(asked).to_arrow_table()["wanted"].combine_chunks()
        return pc.if_else(wanted, tables.ACCEPTED, tables.FILTERED)


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """One for each process: to begin it takes longer than to judge a few hundred records, and tasks come and go."""
    connection = duckdb.connect(config={
        "python_enable_replacements": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        # One task has one core, and rows must come back in their order.
        "threads": "1",
    })  # fmt: skip
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection


def whole(parts: Iterable[Judged]) -> Judged:
    """The rows of consecutive parts as one; ArrowInvalid where no array can hold them."""
    rows, parents = zip(*((one.rows, one.parents) for one in parts), strict=True)
    return Judged(pa.concat_batches(rows), pa.concat_arrays(parents))


def _together(parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Consecutive rows as one, as far as they may be held at once."""
    held: list[pa.RecordBatch] = []
    size = 0
    for rows in parts:
        if held and size + rows.nbytes > HELD_BYTES:
            yield held[0] if len(held) == 1 else pa.concat_batches(held)
            held, size = [], 0
        held.append(rows)
        size += rows.nbytes
    yield held[0] if len(held) == 1 else pa.concat_batches(held)


def _are_too_much(sizes: NDArray[np.int64], indexes: Collection[int]) -> bool:
    """Whether rows that hold so many bytes are not to be made at once."""
    return len(indexes) > 1 and sizes[list(indexes)].sum() > HELD_BYTES


def _nulls(fields: Iterable[Field], length: int) -> dict[str, pa.Array]:
    return {field.name: pa.nulls(length, arrow_type(field.type)) for field in fields}


def _at(arrays: Mapping[str, pa.Array], index: int) -> dict[str, pa.Scalar]:
    return {name: array[index] for name, array in arrays.items()}


def _decoded(columns: Mapping[str, pa.Array]) -> tuple[dict[str, pa.Array], set[int]]:
    """Texts and bytes as text; those that are no UTF-8 are null there, and their indexes listed."""
    decoded, bad = {}, set[int]()
    for name, array in columns.items():
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if is_text(array.type):
            cells = array if pa.types.is_binary(array.type) else array.cast(pa.binary())
            if wrong := not_utf8(cells):
                kept = (None if index in wrong else cell for index, cell in enumerate(cells.to_pylist()))
                cells = pa.array(kept, pa.binary())
                bad |= wrong
            array = cells.cast(pa.string())
        decoded[name] = array
    return decoded, bad


_CHILD = "from twofold.contract.judge import judge_stdin; judge_stdin()"


class Crashed(Exception):
    """The process that judged records ended without an answer."""


def _in_child(judge: Judge, records: Records, received_at: pa.Array) -> pa.RecordBatch | None:
    if isinstance(records, ElementRecords) and _are_too_much(records.sizes, range(len(records))):
        return None
    # What makes payloads need not be picklable: rejected rows get theirs here.
    sent = replace(records, payload=dict[int, bytes]().get) if isinstance(records, CellRecords) else records
    asked = pickle.dumps((judge.pipeline, sent, received_at))
    done = subprocess.run([sys.executable, "-c", _CHILD], input=asked, capture_output=True, check=False)
    if done.returncode:
        raise Crashed(f"the process that judged it ended with {done.returncode}")
    with pa.ipc.open_stream(done.stdout) as stream:
        rows = pa.concat_batches(stream)
    are_rejected = pc.equal(rows[tables.OUTCOME], tables.REJECTED).to_pylist()
    payloads = [records.payload(index) if is_rejected else None for index, is_rejected in enumerate(are_rejected)]
    return rows.set_column(rows.schema.get_field_index(tables.PAYLOAD), tables.PAYLOAD, pa.array(payloads, pa.binary()))


def judge_stdin() -> None:
    """The child: pickled pipeline, records and moments in, rows in Arrow's stream format out."""
    shell.without_pandas()
    pipeline, records, received_at = pickle.load(sys.stdin.buffer)
    rows = Judge(pipeline).judge(records, received_at).rows
    with pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as stream:
        stream.write_batch(rows)
