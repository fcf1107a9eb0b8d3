"""A small consistent pipeline, made without Spark: real Kafka records, tables written by pyiceberg, a landed file.

40 records sent ─► stream_log in two commits; `events` covers the first and the landed file ─► both view tables
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from kafka import KafkaProducer
from kafka.producer.future import RecordMetadata
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table

from twofold import catalog as catalogs
from twofold import inbox, journal, kafka, schemas, table_state, tables
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline
from twofold.settings import Settings
from twofold.table_state import Boundary, Folded, Landed

Row = dict[str, Any]

HOUR = timedelta(hours=1)
START = datetime(2024, 5, 1, tzinfo=UTC)
_KAFKA = ("kafka_timestamp", "kafka_partition", "kafka_offset")
_FILE = ("landing", "file", "row")


def event(key: str, minutes: float, kind: str = "a", value: int | None = 1, hidden: bool | None = None) -> Row:
    """One event, `minutes` after START."""
    return {"id": key, "at": START + timedelta(minutes=minutes), "kind": kind, "value": value, "hidden": hidden}


def as_json(row: Row) -> bytes:
    return json.dumps({**row, "at": row["at"].isoformat()}).encode()


STREAMED = [*(event(f"s{i}", 7 * i, "abc"[i % 3], i) for i in range(36)), event("s3", 21, "a", 3), event("s9", 1, "c")]
"""Accepted; the last two repeat an id: one agrees with the first, the other does not, and is late."""
LANDED = [
    event("s1", 7, "b", 100),
    event("s2", 14, "c", 2, hidden=True),
    *(event(f"b{i}", 11 * i, "b") for i in range(8)),
]
"""A correction of s1, a withdrawal of s2, and events of their own."""
REJECTED = (b"not JSON", b"\xff\xfe{")
_FIRST_LANDING = 20


@dataclass
class SmallWorld:
    """The pipeline and its tables. `rows` are those of stream_log, in the order sent."""

    settings: Settings
    pipeline: Pipeline
    catalog: Catalog
    topic_id: str = ""
    rows: list[Row] = field(default_factory=list)
    batch: list[Row] = field(default_factory=list)

    def table(self, name: str) -> Table:
        return self.catalog.load_table((self.pipeline.name, name))

    def append(self, name: str, rows: Iterable[Row], state: Landed | Boundary | Folded | None = None) -> None:
        """Append rows, and state in the same commit."""
        table = self.table(name)
        schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
        complete = [{column: row.get(column) for column in schema.names} for row in rows]
        properties = table_state.encode(state) if state else {}
        table.append(pa.Table.from_pylist(complete, schema=schema), snapshot_properties=properties)

    def ends(self, rows: Iterable[Row]) -> dict[int, int]:
        found: dict[int, int] = {}
        for row in rows:
            found[row["kafka_partition"]] = max(found.get(row["kafka_partition"], 0), row["kafka_offset"] + 1)
        return found


def build(settings: Settings, pipeline: Pipeline) -> SmallWorld:
    """All of it, so that every invariant holds."""
    world = SmallWorld(settings, pipeline, catalogs.load(settings))
    schemas.ensure_tables(world.catalog, pipeline)
    _send(world)
    first = world.rows[:_FIRST_LANDING]
    world.append(tables.STREAM_LOG, first, Landed(pipeline.name, 1, world.topic_id, world.ends(first)))
    rest = world.rows[_FIRST_LANDING:]
    world.append(tables.STREAM_LOG, rest, Landed(pipeline.name, 2, world.topic_id, world.ends(world.rows)))
    _land(world)
    covered = Boundary(pipeline.name, world.topic_id, world.ends(first), 1)
    events = winners(first, world.batch)
    world.append(tables.EVENTS, events, covered)
    _fill_views(world, events)
    return world


def _send(world: SmallWorld) -> None:
    state = kafka.ensure(world.settings, world.pipeline)
    world.topic_id = state.topic_id
    hidden = event("s99", 5, hidden=True)
    values = [*map(as_json, STREAMED), as_json(hidden)]
    values[5:5], values[30:30] = REJECTED[:1], REJECTED[1:]
    outcomes = {as_json(row): (row, tables.ACCEPTED) for row in STREAMED} | {values[-1]: (hidden, tables.FILTERED)}
    producer = KafkaProducer(bootstrap_servers=world.settings.kafka_bootstrap, acks="all", linger_ms=0)
    for number, value in enumerate(values):
        sent = producer.send(world.pipeline.topic.name, value, partition=number % 2).get(timeout=30)
        row, outcome = outcomes.get(value, ({}, tables.REJECTED))
        kept = {"reason_kind": "not_json", "reason": "not JSON", "payload": value} if outcome == tables.REJECTED else {}
        world.rows.append(landed_row({**row, **kept}, outcome, sent, 1 if number < _FIRST_LANDING else 2))
    producer.close()
    _write_journal(world)


def landed_row(row: Row, outcome: str, sent: RecordMetadata, landing_number: int) -> Row:
    """A row of stream_log, from what Kafka answered to the send."""
    at = datetime.fromtimestamp(sent.timestamp / 1000, UTC)
    place = {"kafka_partition": sent.partition, "kafka_offset": sent.offset, "kafka_timestamp": at}
    return {**row, "outcome": outcome, **place, "landing": landing_number}


def _write_journal(world: SmallWorld) -> None:
    name = world.pipeline.name
    acked = {p: journal.Delivered(end, end - 1) for p, end in world.ends(world.rows).items()}
    entries = {
        "mine": journal.Entry(name, name, world.topic_id, {}, {}, partitions=acked),
        "older": journal.Entry(name, name, "another-id", {}, {}, partitions={0: journal.Delivered(999, 998)}),
    }
    folder = journal.folder(world.settings, name)
    folder.mkdir(parents=True)
    for source, entry in entries.items():
        (folder / f"{source}.json").write_text(entry.to_json())


def _land(world: SmallWorld) -> None:
    folder = inbox.folder(world.settings, world.pipeline.name)
    text = b"\n\n".join(map(as_json, LANDED)) + b"\n"
    with tempfile.NamedTemporaryFile() as source:
        source.write(text)
        source.flush()
        folder.put(Path(source.name), "may.jsonl", lambda copied: None)
    (file,) = folder.files()
    at = datetime.now(UTC)
    for number, row in enumerate(LANDED):
        outcome = tables.FILTERED if row["hidden"] else tables.ACCEPTED
        place = {"landing": 1, "file": file.name, "row": 2 * number + 1, "landed_at": at}
        world.batch.append({**row, "outcome": outcome, **place})
    landed = {
        "landing": 1,
        "file": file.name,
        "size_bytes": file.size_bytes,
        "version": file.version,
        "sha256": hashlib.sha256(text).hexdigest(),
        "rows": len(LANDED),
        "reason": None,
    }
    # As after a crash between the two commits: only the marker of batch_log names the file.
    state = Landed(world.pipeline.name, 1, files=({**landed, "landed_at": at.isoformat()},))
    world.append(tables.BATCH_LOG, world.batch, state)


def winners(stream: Iterable[Row], batch: Iterable[Row]) -> list[Row]:
    """Rows of `events`: the last batch row of an id, else its first stream row."""
    found: dict[str, Row] = {}
    for row in sorted((r for r in stream if r["outcome"] == tables.ACCEPTED), key=lambda r: [r[c] for c in _KAFKA]):
        found.setdefault(row["id"], {**row, "layer": "stream", "withdrawn": False, "landing": None})
    for row in sorted(batch, key=lambda r: [r[c] for c in _FILE]):
        found[row["id"]] = {**row, "layer": "batch", "withdrawn": row["outcome"] == tables.FILTERED}
    return list(found.values())


def _fill_views(world: SmallWorld, events: list[Row]) -> None:
    streamed = winners(world.rows, ())
    counted = [row for row in events if not row["withdrawn"]]
    for view in world.pipeline.views.values():
        state = fingerprint.view(world.pipeline, view)
        for name, rows, log in (
            (tables.batch_view_name(view), counted, tables.EVENTS),
            (tables.stream_view_name(view), streamed, tables.STREAM_LOG),
        ):
            snapshot = snapshot_of(world, log)
            folded = fold(rows, view.window, view.every)
            declared = {schemas.DEFINITION: state}
            world.catalog.create_table((world.pipeline.name, name), folded.schema, properties=declared)
            world.table(name).append(folded, snapshot_properties=table_state.encode(Folded(snapshot, state)))


def snapshot_of(world: SmallWorld, name: str) -> int | None:
    return world.table(name).metadata.current_snapshot_id


def fold(rows: Iterable[Row], window: timedelta, every: timedelta) -> pa.Table:
    """count(*), sum(value), avg(value) per window and kind."""
    groups: dict[tuple[datetime, str], list[int]] = {}
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for row in rows:
        start = epoch + (row["at"] - epoch) // every * every
        while start + window > row["at"]:
            groups.setdefault((start, row["kind"]), []).append(row["value"])
            start -= every
    return pa.Table.from_pylist(
        [
            {"window_start": start, "window_end": start + window, "kind": kind}
            | {"events": len(values), "total": sum(values), "mean": sum(values) / len(values)}
            for (start, kind), values in sorted(groups.items())
        ]
    )
