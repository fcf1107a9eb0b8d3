"""Kafka's records as the contract takes them: the value by the topic's format, and what is found beside it.

batch of value, key, headers, partition, offset, timestamp ─► JsonRecords
"""

from __future__ import annotations

import pyarrow as pa

from twofold.contract.records import JsonRecords
from twofold.definition.model import Pipeline


def columns_beside(pipeline: Pipeline) -> list[str]:
    """What of Kafka's records is asked for besides value, partition, offset and timestamp: `key`, `headers`."""
    kinds = {field.source.kind for field in pipeline.event.fields.values()}
    return [column for kind, column in (("key", "key"), ("header", "headers")) if kind in kinds]


def of(pipeline: Pipeline, batch: pa.RecordBatch) -> JsonRecords:
    """The records of a batch; fields found in Kafka's key or headers, and the arrival, lie beside their values."""
    beside: dict[str, pa.Array] = {}
    for field in pipeline.event.fields.values():
        if field.is_arrival:
            beside[field.name] = batch["timestamp"]
        elif field.source.kind == "key":
            beside[field.name] = batch["key"]
        elif field.source.kind == "header":
            beside[field.name] = _header(batch["headers"], field.source.header)
    return JsonRecords(batch["value"].to_pylist(), range(batch.num_rows), beside)


def _header(headers: pa.Array, name: str) -> pa.Array:
    """The value of each record's last header of a name."""
    found = [
        next((header["value"] for header in reversed(listed or ()) if header["key"] == name), None)
        for listed in headers.to_pylist()
    ]
    return pa.array(found, pa.binary())
