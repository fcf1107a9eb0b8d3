"""What tells events apart where no single field does: the values of several, or the place where the record lies.

id: [tenant, number] ─► ["acme",7]        id: none ─► kafka/0/123, file/jan.csv/17, with event.each: kafka/0/123/2
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from twofold.definition.model import Pipeline
from twofold.definition.names import ELEMENT, KEY


def with_key(pipeline: Pipeline, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of a log with the column of the key, if the pipeline has one; null where the row is no event."""
    if pipeline.event.key != KEY:
        return rows
    if pipeline.event.id:
        key = of_values([rows[name] for name in pipeline.event.id])
    else:
        key = pc.if_else(pc.is_valid(rows[pipeline.event.time]), of_place(pipeline, rows), None)
    return rows.append_column(KEY, key)


def of_place(pipeline: Pipeline, rows: pa.RecordBatch) -> pa.Array:
    """The key that rows of a log have, or would have were they events, where it is the place of the record."""
    from_kafka = "kafka_offset" in rows.schema.names
    names = ["kafka_partition", "kafka_offset"] if from_kafka else ["file", "row"]
    parts = [rows[name].cast(pa.string()) for name in names + ([ELEMENT] if pipeline.event.each else [])]
    return pc.binary_join_element_wise("kafka" if from_kafka else "file", *parts, "/")


def of_values(arrays: Sequence[pa.Array]) -> pa.Array:
    """A JSON array of values, null where one of them is."""
    parts = []
    for array in arrays:
        text = array.cast(pa.string())
        if pa.types.is_string(array.type):
            for character in ("\\", '"'):
                text = pc.replace_substring(text, character, f"\\{character}")
            text = pc.binary_join_element_wise('"', text, '"', "")
        parts.append(text)
    return pc.binary_join_element_wise("[", pc.binary_join_element_wise(*parts, ","), "]", "")
