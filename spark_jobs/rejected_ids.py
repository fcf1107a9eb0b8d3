"""The ids of rejected records, which no column has: read once more of the record, as far as they can be read.

    rows being landed ─► their records, as they were judged ─┐
    rows of a log ─────► their payloads, by their format ────┴─► the ids of each, None for one that cannot be read

By these a record that breaks some rule is known as one of an erased id. Nobody asks where no id was erased.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from twofold import inbox, tables
from twofold.contract import kafka_records, reasons
from twofold.contract.event_keys import of_place, of_values
from twofold.contract.kafka_records import Schemas
from twofold.contract.literals import Literal, OtherShape, follow, json_literal
from twofold.contract.records import CellRecords, JsonRecords
from twofold.contract.reference import Reference, cell_of, token_of
from twofold.definition.field_source import FieldSource
from twofold.definition.model import Field, Pipeline
from twofold.schema_registry import UnknownSchema

Ids = frozenset[str | None]
"""Those of one record, of which every element may have one; None stands for those that cannot be read."""
NOTHING: Ids = frozenset()
UNREAD: Ids = frozenset([None])
_Find = Callable[[Field], Literal | None]


def no_registry(number: int) -> NoReturn:
    """For topics whose values have no schema."""
    raise UnknownSchema(f"no registry is there to ask for {number}")


@dataclass(frozen=True)
class RejectedIds:
    """Reads the ids of rejected records of one pipeline."""

    pipeline: Pipeline
    schemas: Schemas = no_registry

    def of_rows(
        self, rows: pa.RecordBatch, read: Callable[[pa.Array], Iterator[Ids]], parents: pa.Array | None = None
    ) -> dict[int, Ids]:
        """Those of the rejected among rows of a log, by index.

        `read` reads some records: those that the rows come from by `parents`, or as many as there are rows.
        """
        rejected = pc.fill_null(pc.equal(rows[tables.OUTCOME], tables.REJECTED), False)
        found = dict.fromkeys(pc.indices_nonzero(rejected).to_pylist(), UNREAD)
        if found and not self.pipeline.event.id:
            # Such a record has no key, but a place, which is what these ids are.
            places = of_place(self.pipeline, rows).to_pylist()
            return {index: frozenset([places[index]]) for index in found}
        # What could not be judged may end the process that reads it.
        judged = pc.fill_null(pc.not_equal(rows[tables.REASON_KIND], reasons.NOT_JUDGED), True)
        readable = pc.indices_nonzero(pc.and_(rejected, judged))
        if not len(readable):
            return found
        records = readable if parents is None else parents.take(readable)
        return found | dict(zip(readable.to_pylist(), read(records), strict=True))

    def of_kafka(self, batch: pa.RecordBatch, indexes: pa.Array) -> Iterator[Ids]:
        """Those of some records of Kafka, in a batch as `kafka_records.of` takes it; `indexes` may repeat."""
        distinct = indexes.unique()
        records = kafka_records.of(self._any_size, batch.take(distinct), self.schemas)
        yield from self.of_records(records, pc.index_in(indexes, distinct))

    def of_records(self, records: JsonRecords | CellRecords, indexes: pa.Array) -> Iterator[Ids]:
        """Those of some records; `indexes` may repeat, as with `event.each` those of rows of one record do."""
        known: dict[int, Ids] = {}
        for index in indexes.to_pylist():
            if index not in known:
                known[index] = self._tried(partial(self._of_record, records, index))
            yield known[index]

    def of_payloads(self, rows: pa.RecordBatch, indexes: pa.Array) -> Iterator[Ids]:
        """Those of some rows of a log, by what it keeps of their records: what lay beside a value is not there."""
        some = rows.take(indexes)
        payloads = some[tables.PAYLOAD].to_pylist()
        known: dict[tuple[bytes | None, bool], Ids] = {(None, False): NOTHING, (None, True): NOTHING}
        if "kafka_offset" in rows.schema.names:
            have_columns = [False] * len(payloads)
            values = pa.array({one for one in payloads if one is not None}, pa.binary())
            beside = {"key": pa.binary(), "headers": pa.null(), "timestamp": pa.timestamp("us", "UTC")}
            batch = pa.RecordBatch.from_pydict(
                {"value": values, **{name: pa.nulls(len(values), kind) for name, kind in beside.items()}}
            )
            found = self.of_kafka(batch, pa.arange(0, len(values)))
            known |= {(value, False): ids for value, ids in zip(values.to_pylist(), found, strict=True)}
        else:
            have_columns = [inbox.has_columns(name) for name in some["file"].to_pylist()]
        for payload, has_columns in zip(payloads, have_columns, strict=True):
            if (payload, has_columns) not in known:
                row = partial(self._of_columns if has_columns else self._of_text, payload)
                known[payload, has_columns] = self._tried(row)
            yield known[payload, has_columns]

    def _tried(self, read: Callable[[], Iterator[str | None]]) -> Ids:
        try:
            return frozenset(read())
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - as where it was judged: one record must not stop all others
            return UNREAD

    def _of_text(self, text: bytes) -> Iterator[str | None]:
        return self._of_record(JsonRecords([text], [1]), 0)

    def _of_record(self, records: JsonRecords | CellRecords, index: int) -> Iterator[str | None]:
        if isinstance(records, CellRecords):
            yield self._id(partial(cell_of, _at(records.columns, index)))
            return
        whole, beside, each = records.values[index], _at(records.beside, index), self.pipeline.event.each
        if index in records.faults or self._reference.no_object(whole):
            whole = None  # what lies beside it may still tell
        elements = self._reference.elements(whole) if each is not None else [whole]
        for element in (isinstance(elements, list) and elements) or [None]:
            yield self._id(partial(_found, beside, whole, element))

    def _of_columns(self, cells: bytes) -> Iterator[str | None]:
        """Of the row of a file that has columns: kept as an object of its cells, or as it was where it has no cells."""
        yield None if self._reference.no_object(cells) else self._id(partial(_in_column, cells))

    def _id(self, find: _Find) -> str | None:
        event = self.pipeline.event
        values = [self._reference.reading(event.fields[name], find).value for name in event.id]
        if None in values:
            return None
        return str(values[0]) if len(values) == 1 else of_values([pa.array([one]) for one in values])[0].as_py()

    @cached_property
    def _any_size(self) -> Pipeline:
        """Also of what is too large to be judged."""
        return replace(self.pipeline, event=replace(self.pipeline.event, max_bytes=sys.maxsize))

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self._any_size)


def _at(arrays: Mapping[str, pa.Array], index: int) -> dict[str, pa.Scalar]:
    return {name: array[index] for name, array in arrays.items()}


def _found(beside: Mapping[str, pa.Scalar], whole: bytes | None, element: bytes | None, field: Field) -> Literal | None:
    if field.name in beside:
        return cell_of(beside, field)
    return token_of(whole if field.source.whole else element, field)


def _in_column(cells: bytes, field: Field) -> Literal | None:
    """Within the column of its first key, or in the column of its whole name."""
    for source in (field.source, FieldSource((field.source.column,))) if field.is_in_cells else ():
        with suppress(OtherShape):
            if found := json_literal(follow(cells, source), field.type):
                return found
    return None
