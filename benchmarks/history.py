"""A pipeline with a long past, made in minutes: what its stream and its unions would have left behind.

numbers ─► DuckDB ─► data files ─► `twofold.commits`: four commits of stream_log and one of `events` for each day
empty records ─► the topic, deleted again, as retention does: its offsets begin where the log ends
"""

from __future__ import annotations

from datetime import UTC

from confluent_kafka import Producer, TopicPartition

from benchmarks import data
from benchmarks.aging import KEPT
from spark_jobs.days import scratch
from twofold import commits, kafka, schemas, table_state, tables
from twofold.definition import fingerprint
from twofold.definition.model import View
from twofold.lake import Lake
from twofold.reader.pinned import pin
from twofold.table_files import Place
from twofold.table_state import Boundary, Folded, Landed
from twofold.versions import StreamView

A_DAY = 1_000_000
"""Records of a day of event time."""
STEP_US = 86_400_000_000 // A_DAY
_COMMITS_A_DAY = 4
_SENT_AT_ONCE = 100_000
_KAFKA_TIMEOUT_S = 120.0


def make(lake: Lake, events: int) -> None:
    """That many records, of whole days, in the topic's offsets, in stream_log, and united in `events`."""
    state, made = kafka.ensure(lake.settings, lake.pipeline), lake.ensure()
    log, united, spread = made[tables.STREAM_LOG], made[tables.EVENTS], len(state.partitions)
    _give_out(lake, dict.fromkeys(state.partitions, events // spread))
    step, order = A_DAY // _COMMITS_A_DAY, ", ".join(tables.events(lake.pipeline).sort)
    ends: dict[int, int] = {}
    with scratch(lake.settings) as duck:
        for day in range(0, events, A_DAY):
            duck.connection.execute(f"CREATE OR REPLACE TEMP TABLE _day AS {_placed(day, spread)}")
            for first in range(day, day + A_DAY, step):
                landing, ends = first // step + 1, dict.fromkeys(state.partitions, (first + step) // spread)
                outcome = f"if(cancelled, '{tables.FILTERED}', '{tables.ACCEPTED}') AS outcome"
                lacking = f"NULL AS reason_kind, NULL AS reason, NULL AS payload, {landing} AS landing"
                rows = f"SELECT *, {outcome}, {lacking} FROM _day WHERE n >= {first} AND n < {first + step}"
                files = duck.write(Place.of(log), rows, "kafka_timestamp")
                landed = Landed(lake.name, landing, state.topic_id, ends)
                log = commits.append(log, files, table_state.encode(landed), [schemas.same_definition(log)])
                if landing % commits.MERGED_AT_ONCE == 0:
                    log = commits.tidy(log, [one.id for one in table_state.history_of(log).ancestors()][KEPT:])
            source = f"'{tables.STREAM_LAYER}' AS layer, false AS withdrawn"
            lacking = 'NULL AS landing, NULL AS "file", NULL AS "row"'
            # The hundredth record of each hundred repeats an id.
            first_of_id = f"SELECT *, {source}, {lacking} FROM _day WHERE n % 100 <> 99 AND NOT cancelled"
            files = duck.write(Place.of(united), first_of_id, order)
            ((latest, days),) = duck.connection.execute(
                "SELECT max(scheduled_at), list(DISTINCT scheduled_at::DATE) FROM _day"
            ).fetchall()
            latest, touched = latest.replace(tzinfo=UTC), tuple(sorted(days))
            edge = Boundary(lake.name, state.topic_id, ends, 0, latest, touched, seen=latest)
            united = commits.append(united, files, table_state.encode(edge))


def _placed(first: int, spread: int) -> str:
    """The records of a day, with the offsets that they have in the topic."""
    timestamp = f"TIMESTAMP '2026-01-01' + to_microseconds(n * {STEP_US} + 1_000_000) AS kafka_timestamp"
    place = f"(n % {spread})::INTEGER AS kafka_partition, n // {spread} AS kafka_offset"
    return f"SELECT *, {place}, {timestamp} FROM ({data.rows(first, A_DAY, STEP_US)})"


def _give_out(lake: Lake, ends: dict[int, int]) -> None:
    """Let the topic's partitions begin, and end, at these offsets."""
    name = lake.pipeline.topic.name
    batches = {"batch.num.messages": _SENT_AT_ONCE, "compression.type": "lz4", "enable.idempotence": True}
    sender = Producer({**kafka.librdkafka(lake.settings), **batches})
    for partition, end in ends.items():
        for at in range(0, end, _SENT_AT_ONCE):
            messages = [{"value": b""}] * min(_SENT_AT_ONCE, end - at)
            sender.produce_batch(name, messages, partition=partition)
            sender.flush()
    begins = [TopicPartition(name, partition, end) for partition, end in ends.items()]
    with kafka.admin(lake.settings) as client:
        for deleted in client.delete_records(begins, request_timeout=_KAFKA_TIMEOUT_S).values():
            deleted.result()


def fill_stream_view(lake: Lake, view: View) -> None:
    """What the streaming job would have in `stream_<view>` by now: as no record is late, the rows of `batch_<view>`."""
    catalog, name = lake.catalog(), tables.stream_view_name(view)
    made = schemas.ensure_view(catalog, lake.pipeline, view, name)
    log = lake.history(tables.STREAM_LOG)
    batch = pin(catalog, lake.name, tables.batch_view_name(view))
    with scratch(lake.settings) as duck:
        rows = f"SELECT *, 1 AS {tables.VERSION} FROM {duck.read(batch, batch.all_files)}"
        files = duck.write(Place.of(made), rows, "window_start")
    StreamView(lake, view).fill(files, Folded(log.head, fingerprint.view(lake.pipeline, view), version=1))
