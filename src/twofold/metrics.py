"""Every metric that Twofold sends, declared once; `docs/metrics.md` is made from this (`make metrics`).

The name is the one that Prometheus shows; labels travel as tags of the StatsD line (`twofold.meter`). All metrics have
the label `pipeline`. Label values are words of a definition, or of the lists below: what records hold never names a
series. Stalls are judged by time stamps, since an exporter goes on serving a dead sender's gauges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twofold import tables
from twofold.contract import reasons
from twofold.services.record import SERVICES

Type = Literal["counter", "gauge", "histogram"]

WORDS: dict[str, tuple[str, ...]] = {
    "outcome": (tables.ACCEPTED, tables.FILTERED, tables.REJECTED),
    "reason": reasons.KINDS,
    "part": (
        "addBatch",
        "commitOffsets",
        "getBatch",
        "latestOffset",
        "queryPlanning",
        "triggerExecution",
        "walCommit",
    ),
    "result": ("new", "corrected", "duplicate"),
    "fate": ("taken", "set_aside"),
    "kind": ("services", "batch", "union", "compare", "maintenance", "replay", "prove"),
    "service": SERVICES,
    "invariant": ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"),
}
"""The only values of these labels; anything else is sent as `other`."""
FREE = {
    "query": "`log` (landing), or a view's name",
    "view": "a view's name",
    "table": "a table of the pipeline",
    "partition": "a partition of the topic",
}
"""Labels whose values come from the definition."""


@dataclass(frozen=True)
class Metric:
    """One metric. A histogram is sent as a StatsD timer, in seconds."""

    type: Type
    name: str
    unit: str
    by: str
    """Who sends it."""
    help: str
    labels: tuple[str, ...] = ()
    """Beside `pipeline`."""


def _of(type_: Type, part: str, by: str, name: str, unit: str, text: str, *labels: str) -> Metric:
    return Metric(type_, f"twofold_{part}_{name}", unit, by, text, labels)


def _producer(type_: Type, name: str, unit: str, text: str) -> Metric:
    return _of(type_, "producer", "producer", name, unit, text)


def _stream(type_: Type, name: str, unit: str, text: str, *labels: str) -> Metric:
    return _of(type_, "stream", "streaming job", name, unit, text, *labels)


_TIME = "Unix time"

PRODUCER_SENT = _producer("counter", "sent_total", "records", "Records handed to the Kafka client.")
PRODUCER_ACKED = _producer("counter", "acked_total", "records", "Records that the broker has acknowledged.")
PRODUCER_TOO_LARGE = _producer(
    "counter", "too_large_total", "records", "Records set aside because the broker never takes them."
)
PRODUCER_FAILED = _producer("counter", "failed_total", "runs", "Runs ended because the broker refuses for good.")
PRODUCER_BYTES = _producer("counter", "bytes_total", "bytes", "Bytes of the records handed to the Kafka client.")
PRODUCER_LATENCY = _producer(
    "histogram", "ack_seconds", "seconds", "From a batch's first record to its acknowledgement; one batch a second."
)
PRODUCER_QUEUE = _producer("gauge", "queue_records", "records", "Records sent and not yet acknowledged.")
PRODUCER_POSITION = _producer("gauge", "position", "records", "All records of the source before it are acknowledged.")
PRODUCER_WAITING = _producer("gauge", "waiting", "0 or 1", "1 while the broker does not acknowledge.")
PRODUCER_LAST_ACK = _producer("gauge", "last_ack_timestamp_seconds", _TIME, "When a record was last acknowledged.")
PRODUCER_HEARTBEAT = _producer("gauge", "heartbeat_timestamp_seconds", _TIME, "When the producer last told of itself.")
PRODUCER_RUNNING = _producer("gauge", "running", "0 or 1", "1 until it ends well or is stopped; stays 1 if killed.")

STREAM_RUNNING = _stream(
    "gauge", "running", "0 or 1", "1 until it ends well, is stopped, or wants a changed definition; stays 1 if killed."
)
STREAM_START = _stream("gauge", "start_timestamp_seconds", _TIME, "When the driver started.")
STREAM_HEARTBEAT = _stream("gauge", "heartbeat_timestamp_seconds", _TIME, "When the driver last told of itself.")
STREAM_TRIGGER = _stream("gauge", "trigger_seconds", "seconds", "The declared pause between batches.")
STREAM_PROGRESS = _stream(
    "gauge",
    "progress_timestamp_seconds",
    _TIME,
    "Last finished batch or word of nothing new, or the start.",
    "query",
)
STREAM_FRESH = _stream(
    "gauge", "fresh_timestamp_seconds", _TIME, "All that Kafka took in before is landed: its age is the freshness."
)
STREAM_BATCH = _stream("gauge", "batch_id", "number", "Number of the last finished batch.", "query")
STREAM_ROWS_IN = _stream("counter", "rows_in_total", "rows", "Rows read by finished batches.", "query")
STREAM_INPUT_RATE = _stream("gauge", "input_rows_per_second", "rows/s", "Rate at which rows arrived.", "query")
STREAM_RATE = _stream("gauge", "processed_rows_per_second", "rows/s", "Rate at which the last batch went.", "query")
STREAM_BATCH_SECONDS = _stream("histogram", "batch_seconds", "seconds", "Duration of the batches.", "query")
STREAM_BATCH_PART = _stream(
    "gauge", "batch_part_seconds", "seconds", "Duration of each part of the last batch.", "query", "part"
)
STREAM_BEHIND = _stream("gauge", "offsets_behind", "records", "Records in Kafka that are not landed.", "partition")
STREAM_OUTCOMES = _stream("counter", "outcomes_total", "records", "Landed records by what became of them.", "outcome")
STREAM_REJECTED = _stream("counter", "rejected_total", "records", "Rejected records by their first fault.", "reason")
STREAM_LATE = _stream("counter", "late_total", "rows", "Rows too late for a view; the next union heals them.", "query")
STREAM_WATERMARK = _stream("gauge", "watermark_timestamp_seconds", _TIME, "The watermark, in event time.", "query")
STREAM_STATE_ROWS = _stream("gauge", "state_rows", "rows", "Rows that a view's query keeps as state.", "query")
STREAM_STATE_BYTES = _stream("gauge", "state_bytes", "bytes", "Memory that this state takes.", "query")
STREAM_RETRIES = _stream("counter", "retries_total", "starts", "Queries started again after a failure.", "query")
STREAM_CHANGES = _stream(
    "counter",
    "definition_changes_total",
    "ends",
    "Ends for a changed definition; a service starts again with the new one.",
)

DISK_FREE = _of("gauge", "disk", "streaming job", "free_bytes", "bytes", "Free space of the home folder's file system.")
DISK_SIZE = _of("gauge", "disk", "streaming job", "size_bytes", "bytes", "Size of that file system.")

BATCH_OUTCOMES = _of(
    "counter", "batch", "batch job", "outcomes_total", "records", "Records of landed files by outcome.", "outcome"
)
BATCH_FILES = _of("counter", "batch", "batch job", "files_total", "files", "Files of the inbox.", "fate")

UNION_ROWS = _of("counter", "union", "union job", "rows_total", "rows", "Unioned rows by what they did.", "result")
UNION_BOUNDARY = _of(
    "gauge", "union", "union job", "boundary_timestamp_seconds", _TIME, "All that was landed by then is unioned."
)
UNION_SEALED = _of(
    "gauge",
    "union",
    "union job",
    "sealed_through_timestamp_seconds",
    _TIME,
    "Event time up to which windows of a view are final.",
    "view",
)

COMPARED_WINDOWS = _of(
    "gauge", "compare", "comparison", "windows", "rows", "Windows compared after the last union, by group.", "view"
)
COMPARED_DIFFERENT = _of("gauge", "compare", "comparison", "different_windows", "rows", "Those that differ.", "view")
COMPARED_DIFFERENCE = _of(
    "gauge", "compare", "comparison", "difference_ratio", "0 to 1", "Mean difference of the two layers.", "view"
)
COMPARED_HEALED = _of("gauge", "compare", "comparison", "healed_rows", "rows", "Late rows healed by the last unions.")
COMPARED_NEW = _of("gauge", "compare", "comparison", "new_events", "events", "Events that the last unions added.")

_TABLES = "union, maintenance"
TABLE_FILES = _of("gauge", "table", _TABLES, "files", "files", "Data files of a table.", "table")
TABLE_SMALL_FILES = _of("gauge", "table", _TABLES, "small_files", "files", "Data files below 8 MiB.", "table")
TABLE_BYTES = _of("gauge", "table", _TABLES, "bytes", "bytes", "Size of a table's data files.", "table")
TABLE_ROWS = _of("gauge", "table", _TABLES, "rows", "rows", "Rows of a table.", "table")
TABLE_SNAPSHOTS = _of("gauge", "table", _TABLES, "snapshots", "snapshots", "Snapshots kept.", "table")

PROVED_HOLDS = _of("gauge", "prove", "`twofold prove`", "holds", "0 or 1", "0 where it is violated.", "invariant")
PROVED_BEHIND = _of(
    "gauge", "prove", "`twofold prove`", "behind", "0 or 1", "1 where part of it is not there yet.", "invariant"
)

SERVICE_LEFT_DOWN = _of(
    "gauge",
    "service",
    "DAG `<p>_services`",
    "left_down",
    "0 or 1",
    "1 while it stays down, its restarts used up.",
    "service",
)

_RUNS = "each job"
RUN_GOOD = _of("gauge", "run", _RUNS, "good_timestamp_seconds", _TIME, "When a run last ended well.", "kind")
RUN_DUE = _of(
    "gauge",
    "run",
    _RUNS,
    "due_timestamp_seconds",
    _TIME,
    "When the next run starts by the schedule; sent with a good run, and only for scheduled kinds.",
    "kind",
)
RUN_SECONDS = _of("gauge", "run", _RUNS, "seconds", "seconds", "Duration of the last good run.", "kind")
RUN_FAILED = _of(
    "counter", "run", "Airflow's tasks", "failed_total", "tasks", "Tasks failed, their retries used up.", "kind"
)

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
