"""Kafka's records as the contract takes them: the value by the topic's format, and what is found beside it.

    value ──────────────────── json ────────────────► JsonRecords ◄── text ──┐
    0, schema id, JSON ─────── confluent-json ──────► JsonRecords            │ (event.each)
    0, schema id, Avro body ── avro ── by the writer's schema ──► records ───┴─► CellRecords

A value that is not of the format is rejected with all its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from twofold.contract import reasons
from twofold.contract.reasons import Reason
from twofold.contract.records import CellRecords, JsonRecords
from twofold.definition.model import AVRO, CONFLUENT_JSON, Pipeline
from twofold.schema_registry import Registered, UnknownSchema

if TYPE_CHECKING:
    from twofold.contract.avro import Record

Schemas = Callable[[int], Registered]
"""What a schema's id stands for, as `Registry.schema` says it."""
PREFIX_BYTES = 5
"""A zero, and the schema's id in four bytes, the highest first."""
_PAST_ANY_END = 1 << 30
"""Of no value; asked for the rest without one, Arrow fails."""


def columns_beside(pipeline: Pipeline) -> list[str]:
    """What of Kafka's records is asked for besides value, partition, offset and timestamp: `key`, `headers`."""
    kinds = {field.source.kind for field in pipeline.event.fields.values()}
    return [column for kind, column in (("key", "key"), ("header", "headers")) if kind in kinds]


def of(pipeline: Pipeline, batch: pa.RecordBatch, schemas: Schemas) -> JsonRecords | CellRecords:
    """The records of a batch; fields found in Kafka's key or headers, and the arrival, lie beside their values."""
    beside: dict[str, pa.Array] = {}
    for field in pipeline.event.fields.values():
        if field.is_arrival:
            # A record from before Kafka had time stamps, or whose sender gave none, says -1: none is known.
            known = pc.greater_equal(batch["timestamp"], pa.scalar(0, batch["timestamp"].type))
            beside[field.name] = pc.if_else(known, batch["timestamp"], None)
        elif field.source.kind == "key":
            beside[field.name] = batch["key"]
        elif field.source.kind == "header":
            beside[field.name] = _header(batch["headers"], field.source.header)
    values, numbers = batch["value"], range(batch.num_rows)
    if pipeline.topic.format == AVRO:
        return _avro(pipeline, values, beside, schemas)
    if pipeline.topic.format == CONFLUENT_JSON:
        faults = _without_prefix(values)
        texts = pc.binary_slice(values, PREFIX_BYTES, _PAST_ANY_END).to_pylist()
        return JsonRecords(texts, numbers, beside, faults, values)
    return JsonRecords(values.to_pylist(), numbers, beside)


def _header(headers: pa.Array, name: str) -> pa.Array:
    """The value of each record's last header of a name."""
    found = [{one["key"]: one["value"] for one in listed or ()}.get(name) for listed in headers.to_pylist()]
    return pa.array(found, pa.binary())


def _without_prefix(values: pa.Array) -> dict[int, Reason]:
    """Values that do not begin as the registry's serializers write them; no value at all is found out later."""
    right = pc.and_(pc.starts_with(values, b"\0"), pc.greater_equal(pc.binary_length(values), PREFIX_BYTES))
    wrong = pc.indices_nonzero(pc.fill_null(pc.invert(right), False)).to_pylist()
    return dict.fromkeys(wrong, reasons.no_schema_id())


def _avro(
    pipeline: Pipeline, values: pa.Array, beside: Mapping[str, pa.Array], schemas: Schemas
) -> JsonRecords | CellRecords:
    # Only here: most streams have none, and their workers start sooner.
    from twofold.contract import avro

    records, faults = _decoded(values, pipeline.event.max_bytes, schemas)
    numbers = range(len(values))
    if pipeline.event.each is not None:
        texts = _made(lambda some: [*map(avro.json_text, some)], records, faults)
        return JsonRecords(texts, numbers, beside, faults, values, measured=True)
    in_value = [field for field in pipeline.event.fields.values() if field.is_in_value]
    columns, shapes = _made(partial(avro.columns, in_value), records, faults)
    return CellRecords({**columns, **beside}, numbers, lambda index: values[index].as_py(), {**shapes, **faults})


def _made(make: Callable[[list[Record]], Any], records: list[Record], faults: dict[int, Reason]) -> Any:  # noqa: ANN401
    """What is made of all records; one of which nothing can be made goes to the faults, and ends no batch."""
    try:
        return make(records)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - of the records one by one it is seen which of them fail
        for index, record in enumerate(records):
            try:
                make([record])
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - as the judge does with what it fails on
                records[index], faults[index] = {}, reasons.not_judged(error)
    return make(records)


def _decoded(values: pa.Array, max_bytes: int, schemas: Schemas) -> tuple[list[Record], dict[int, Reason]]:
    """A record of each value, an empty one where there is none; and the index of such a value → why."""
    from twofold.contract import avro

    @cache
    def reader(number: int) -> Callable[[bytes], Record]:
        try:
            return avro.reader(schemas(number))
        except UnknownSchema:
            return avro.reader(None)

    records: list[Record] = [{}] * len(values)
    faults = _without_prefix(values)
    for index, value in enumerate(values.to_pylist()):
        if value is None:
            faults[index] = reasons.empty()
        elif len(value) > max_bytes:
            faults[index] = reasons.too_large(len(value), max_bytes)
        elif index not in faults:
            number = int.from_bytes(value[1:PREFIX_BYTES])
            try:
                records[index] = reader(number)(value[PREFIX_BYTES:])
            except avro.Unfit as error:
                faults[index] = reasons.not_of_schema(number, str(error))
            except UnicodeDecodeError:
                faults[index] = reasons.not_utf8()
    return records, faults
