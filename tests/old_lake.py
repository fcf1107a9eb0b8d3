"""A small lake as release 26b388a left it, literally: no code of today says how its tables looked.

9 records sent ─► stream_log in two commits (the view has read the first); a landed file, and one set aside
                  events and batch_by_kind cover the first commit and the file ─► tables at <bucket>/<pipeline>/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests import at_work, small_world
from tests.at_work import Work
from tests.small_world import HOUR, Row, event
from twofold import catalog as catalogs
from twofold import kafka
from twofold.catalog import LakeCatalog
from twofold.settings import CATALOG, Settings

_FIELDS = {"id": "string", "at": "time", "kind": "string", "value": "int", "hidden": "boolean"}
_JUDGED = {"outcome": "string", "reason": "string", "payload": "binary"}
_FILE = {"landing": "long", "file": "string", "row": "long"}
_KAFKA = {"kafka_partition": "int", "kafka_offset": "long", "kafka_timestamp": "time"}
_WINDOWS = {"window_start": "time", "window_end": "time", "kind": "string"}
_MEASURES = {"events": "long", "mean": "double", "total": "long"}
COLUMNS: dict[str, dict[str, str]] = {
    "stream_log": {**_FIELDS, **_JUDGED, **_KAFKA, "landing": "long"},
    "batch_log": {**_FIELDS, **_JUDGED, **_FILE, "landed_at": "time"},
    "events": {**_FIELDS, "layer": "string", "withdrawn": "boolean", **_FILE, **_KAFKA},
    "landed_files": {
        "landing": "long",
        "file": "string",
        "size_bytes": "long",
        "version": "string",
        "sha256": "string",
        "rows": "long",
        "reason": "string",
        "landed_at": "time",
    },
    "stream_by_kind": {**_WINDOWS, **_MEASURES},
    "batch_by_kind": {**_WINDOWS, **_MEASURES},
}
_DAY_OF = {
    "stream_log": "kafka_timestamp",
    "batch_log": "landed_at",
    "events": "at",
    "landed_files": "landed_at",
    "stream_by_kind": "window_start",
    "batch_by_kind": "window_start",
}
_TYPES: dict[str, IcebergType] = {
    "string": StringType(),
    "time": TimestamptzType(),
    "int": IntegerType(),
    "long": LongType(),
    "double": DoubleType(),
    "boolean": BooleanType(),
    "binary": BinaryType(),
}
_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}
_CONF = {
    "spark.sql.optimizer.pruneFiltersCanPruneStreamingSubplan": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.streaming.aggregation.stateFormatVersion": "2",
    "spark.sql.streaming.flatMapGroupsWithState.stateFormatVersion": "2",
    "spark.sql.streaming.join.stateFormatVersion": "2",
    "spark.sql.streaming.multipleWatermarkPolicy": "min",
    "spark.sql.streaming.stateStore.compression.codec": "lz4",
    "spark.sql.streaming.stateStore.encodingFormat": "unsaferow",
    "spark.sql.streaming.stateStore.providerClass": (
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
    ),
    "spark.sql.streaming.stateStore.rocksdb.formatVersion": "5",
    "spark.sql.streaming.statefulOperator.useStrictDistribution": "true",
}
"""What Spark wrote down with each batch."""
_LOGS = ("stream_log", "batch_log")
_VIEWS = ("stream_by_kind", "batch_by_kind")
DEFINITION = "86c1f55634580771"
"""Fingerprint that the release gave the view `by_kind` of `tests.conftest.DEFINITION`."""

STREAMED = [event(f"s{i}", 9 * i, "abc"[i % 3], i) for i in range(4)]
UNREAD = [event("s4", 36, "b", 4), event("s0", 0, "a", 0), event("s5", 40, "a", 5)]
"""Landed, but neither unioned nor read by the view; s0 once more."""
LENIENT = b'{"id": 1.10, "at": "2024-05-01T00:31:00Z", "kind": "a", "value": 7, "hidden": null, "x": NaN}'
"""The release took this, with the id 1.1; today it is rejected."""
NO_JSON = b"not JSON"
LANDED = [event("s1", 9, "c", 100), event("s2", 18, "c", 2, hidden=True), event("b0", 20, "b", 1)]
"""A correction, a withdrawal, and an event of its own."""
BROKEN = "broken.parquet"


def as_before(settings: Settings) -> LakeCatalog:
    """The catalog as earlier releases opened it: tables are made in the bucket's own folder."""
    properties = {"uri": settings.postgres_url("postgresql+psycopg"), "warehouse": settings.warehouse}
    return LakeCatalog(CATALOG, **properties, **catalogs.file_io(settings))


def fill(work: Work) -> None:
    """Topic, tables, files and checkpoints of a pipeline that is defined as `tests.conftest.DEFINITION`."""
    assert work.spark
    topic_id = kafka.ensure(work.settings, work.pipeline).topic_id
    name, lake = work.pipeline.name, as_before(work.settings)
    made = {table: _make(lake, name, table) for table in COLUMNS}

    work.send(*STREAMED)
    work.send(event("s6", 50, "b", 6, hidden=True), partition=1)
    _send(work, NO_JSON, {"outcome": "rejected", "reason": "not JSON: expected one object", "payload": NO_JSON})
    first = list(work.rows)
    _land(made["stream_log"], name, 1, first, topic_id)
    _checkpoint(work, 0, first)
    _read(work.spark, work.settings, work.pipeline.name)
    work.send(*UNREAD)
    _send(work, LENIENT, {**event("1.1", 31, "a", 7), "outcome": "accepted"})
    _land(made["stream_log"], name, 2, work.rows[len(first) :], topic_id, held=first)
    _checkpoint(work, 1, work.rows)

    files = _put(work)
    lines = [*({**row, "reason": None} for row in work.batch), _rejected_line(len(LANDED) + 1)]
    at = datetime.now(UTC)
    rows = [{**line, "landed_at": at} for line in lines]
    account = {"pipeline": name, "landing": 1, "topic_id": None, "offsets": {}}
    listed = [{**file, "landed_at": at.isoformat()} for file in files]
    _append(made["batch_log"], rows, {"twofold.landed": {**account, "files": listed}})
    _append(made["landed_files"], [{**file, "landed_at": at} for file in files])

    events = small_world.winners(first, work.batch)
    highest, covered = max(row["at"] for row in STREAMED), {"offsets": _ends(first), "landing": 1}
    boundary = {"max_event_time": highest.isoformat(), "touched_days": ["2024-05-01"], "rebuilt": False}
    account = {"pipeline": name, "topic_id": topic_id, **covered, **boundary}
    united = _append(made["events"], events, {"twofold.boundary": account})
    shown = small_world.fold([row for row in events if not row["withdrawn"]], HOUR, HOUR)
    sealed = (highest - timedelta(minutes=10)).isoformat()
    folded = {"snapshot": united, "definition": DEFINITION, "sealed_through": sealed}
    _append(made["batch_by_kind"], shown.to_pylist(), {"twofold.folded": folded})


def _make(lake: LakeCatalog, pipeline: str, table: str) -> Table:
    columns = COLUMNS[table]
    schema = Schema(*(NestedField(i, name, _TYPES[kind]) for i, (name, kind) in enumerate(columns.items(), 1)))
    day = schema.find_field(_DAY_OF[table])
    spread = ("none", "true") if table in _LOGS else ("hash", "false")
    properties = {"write.distribution-mode": spread[0], "write.spark.fanout.enabled": spread[1]}
    properties |= {"twofold.definition": DEFINITION} if table in _VIEWS else {"twofold.id": "id", "twofold.time": "at"}
    properties |= {"write.wap.enabled": "true"} if table == "events" else {}
    lake.create_namespace_if_not_exists(pipeline)
    return lake.create_table(
        (pipeline, table),
        schema,
        partition_spec=PartitionSpec(PartitionField(day.field_id, 1000, DayTransform(), f"{day.name}_day")),
        properties={**_PROPERTIES, **properties},
    )


def _append(table: Table, rows: Iterable[Mapping[str, Any]], summary: Mapping[str, Any] | None = None) -> int | None:
    """One commit; returns its snapshot."""
    schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
    filled = [{name: row.get(name) for name in schema.names} for row in rows]
    properties = {key: json.dumps(account) for key, account in (summary or {}).items()}
    table.append(pa.Table.from_pylist(filled, schema=schema), snapshot_properties=properties)
    return table.metadata.current_snapshot_id


def _send(work: Work, value: bytes, judged: Row) -> None:
    with at_work.producing(work.settings) as producer:
        answer = producer.send(work.pipeline.topic.name, value, partition=1).get(timeout=60)
    work.rows.append(small_world.landed_row(judged, judged["outcome"], answer, 0))


def _land(log: Table, pipeline: str, landing: int, rows: list[Row], topic_id: str, held: Iterable[Row] = ()) -> None:
    account = {"pipeline": pipeline, "landing": landing, "topic_id": topic_id}
    account |= {"offsets": _ends([*held, *rows]), "files": []}
    _append(log, [{**row, "landing": landing} for row in rows], {"twofold.landed": account})


def _ends(rows: Iterable[Row]) -> dict[str, int]:
    ends: dict[str, int] = {}
    for row in rows:
        partition = str(row["kafka_partition"])
        ends[partition] = max(ends.get(partition, 0), row["kafka_offset"] + 1)
    return ends


def _checkpoint(work: Work, batch: int, rows: Iterable[Row]) -> None:
    """Of the landing query: a batch that is committed."""
    name = work.pipeline.name
    folder = work.settings.home / "bucket" / "checkpoints" / name / "log"
    begun = json.dumps({"batchWatermarkMs": 0, "batchTimestampMs": 1795636080953 + batch, "conf": _CONF})
    files = {
        "metadata": '{"id":"8433901a-9d47-459e-bce7-fc13bd82a5ed"}',
        f"offsets/{batch}": f"v1\n{begun}\n{json.dumps({name: _ends(rows)})}",
        f"commits/{batch}": 'v1\n{"nextBatchWatermarkMs":0}',
        "sources/0/0": "\0v1\n" + json.dumps({name: {"0": 0, "1": 0}}),
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def _read(spark: SparkSession, settings: Settings, pipeline: str) -> None:
    """The view's query, on what is landed: its state calls the windows `window`."""
    log = spark.readStream.format("iceberg").load(f"twofold.{pipeline}.stream_log").where("outcome = 'accepted'")
    distinct = log.withWatermark("at", "600000 milliseconds").dropDuplicatesWithinWatermark(["id"])
    window = F.window("at", "3600000000 microseconds", "3600000000 microseconds").alias("window")
    total, mean = F.expr("try_sum(`value`)").alias("total"), F.expr("avg(CAST(`value` AS DOUBLE))").alias("mean")
    folded = distinct.groupBy(window, "kind").agg(F.expr("count(*)").alias("events"), mean, total)
    shown = folded.select("window.start", "window.end", "kind", *_MEASURES).toDF(*_WINDOWS, *_MEASURES)
    head = as_before(settings).load_table((pipeline, "stream_log")).metadata.current_snapshot_id
    account = json.dumps({"snapshot": head, "definition": DEFINITION, "sealed_through": None})

    def write(updates: DataFrame, _batch: int) -> None:
        writer = updates.writeTo(f"twofold.{pipeline}.stream_by_kind")
        writer.option("snapshot-property.twofold.folded", account).append()

    writer = shown.writeStream.outputMode("update").foreachBatch(write)
    checkpoint = settings.checkpoint(pipeline, "by_kind")
    query = writer.option("checkpointLocation", checkpoint).trigger(availableNow=True).start()
    query.awaitTermination()


def _put(work: Work) -> list[Row]:
    """Files of landing 1 in the inbox, as `landed_files` has them."""
    folder = work.settings.home / "bucket" / "landing" / work.pipeline.name
    folder.mkdir(parents=True)
    lines = [*map(small_world.as_json, LANDED), NO_JSON]
    listed = []
    for name, data, rows, reason in (
        ("old.jsonl", b"\n".join(lines) + b"\n", len(lines), None),
        (BROKEN, b"PAR1 nonsense", 0, "not a Parquet file, or a broken one"),
    ):
        (folder / name).write_bytes(data)
        found = (folder / name).stat()
        version = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"
        taken = {"landing": 1, "file": name, "size_bytes": len(data), "version": version}
        listed.append({**taken, "sha256": hashlib.sha256(data).hexdigest(), "rows": rows, "reason": reason})
    for number, row in enumerate(LANDED, 1):
        outcome = "filtered" if row["hidden"] else "accepted"
        work.batch.append({**row, "outcome": outcome, "landing": 1, "file": "old.jsonl", "row": number})
    return listed


def _rejected_line(number: int) -> Row:
    judged = {"outcome": "rejected", "reason": "not JSON: expected one object", "payload": NO_JSON}
    return {**judged, "landing": 1, "file": "old.jsonl", "row": number}
