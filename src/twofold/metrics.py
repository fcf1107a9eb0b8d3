"""Every metric that Twofold sends, declared once, and the StatsD client that sends them.

gauge(STREAM_BEHIND, 7, partition=3) ─► twofold_stream_offsets_behind,pipeline=flights,partition=3:7|g ─► exporter

A metric's name is the one that Prometheus shows; `docs/metrics.md` is generated from this module (`make docs`). All
metrics have the label `pipeline`. Label values are words of a definition, or of the lists below: the content of records
never names a series. Stalls are judged by time stamps, since an exporter keeps serving a dead sender's gauges.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial

from statsd import StatsClient

from twofold import tables
from twofold.contract import reasons
from twofold.definition.names import SERVICES
from twofold.settings import Settings

WORDS: dict[str, tuple[str, ...]] = {
    "outcome": tables.OUTCOMES,
    "reason": reasons.KINDS,
    "part": ("addBatch", "commitOffsets", "getBatch", "latestOffset", "queryPlanning", "triggerExecution", "walCommit"),
    "result": ("new", "corrected", "duplicate"),
    "fate": ("taken", "set_aside"),
    "kind": ("services", "batch", "union", "compare", "maintenance", "replay", "prove", "proof"),
    "service": SERVICES,
    "invariant": ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"),
}
"""The only values of these labels; anything else is sent as `other`."""
FREE = {
    "query": "`log` (the ingest), or a view's name",
    "view": "a view's name",
    "table": "a table of the pipeline",
    "partition": "a partition of the topic",
}
"""Labels whose values come from the definition."""
SENDERS = {
    "producer": "producer",
    "stream": "streaming job",
    "disk": "streaming job",
    "batch": "batch job",
    "union": "union job",
    "compare": "comparison",
    "table": "union, maintenance",
    "prove": "`twofold prove`",
    "service": "DAG `<p>_services`",
    "pipeline": "DAG `<p>_services`, of any pipeline",
    "run_failed": "Airflow's tasks",
    "run": "each job",
}
"""Who sends a metric, by how its name begins after `twofold_`."""


@dataclass(frozen=True)
class Metric:
    """One metric. A histogram is sent as a StatsD timer, in seconds."""

    type: str
    """counter, gauge or histogram."""
    name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    """Beside `pipeline`."""


def _metric(type_: str, name: str, unit: str, text: str, *labels: str) -> Metric:
    return Metric(type_, f"twofold_{name}", unit, text, labels)


def _time(name: str, text: str, *labels: str) -> Metric:
    return _metric("gauge", f"{name}_timestamp_seconds", "Unix time", text, *labels)


_counter, _gauge, _histogram = partial(_metric, "counter"), partial(_metric, "gauge"), partial(_metric, "histogram")

PRODUCER_SENT = _counter("producer_sent_total", "records", "Records handed to the Kafka client.")
PRODUCER_ACKED = _counter("producer_acked_total", "records", "Records that the broker has acknowledged.")
PRODUCER_TOO_LARGE = _counter(
    "producer_too_large_total", "records", "Records set aside because the broker never takes them."
)
PRODUCER_FAILED = _counter("producer_failed_total", "runs", "Runs ended because the broker refuses for good.")
PRODUCER_BYTES = _counter("producer_bytes_total", "bytes", "Bytes of the records handed to the Kafka client.")
PRODUCER_LATENCY = _histogram(
    "producer_ack_seconds", "seconds", "From a batch's first record to its acknowledgement; one batch a second."
)
PRODUCER_QUEUE = _gauge("producer_queue_records", "records", "Records sent and not yet acknowledged.")
PRODUCER_POSITION = _gauge("producer_position", "records", "All records of the source before it are acknowledged.")
PRODUCER_WAITING = _gauge("producer_waiting", "0 or 1", "1 while the broker does not acknowledge.")
PRODUCER_LAST_ACK = _time("producer_last_ack", "When a record was last acknowledged.")
PRODUCER_HEARTBEAT = _time("producer_heartbeat", "Time of the producer's last heartbeat.")
PRODUCER_RUNNING = _gauge("producer_running", "0 or 1", "1 until it ends well or is stopped; stays 1 if killed.")

STREAM_RUNNING = _gauge(
    "stream_running", "0 or 1", "1 until it ends well, is stopped, or wants a changed definition; stays 1 if killed."
)
STREAM_START = _time("stream_start", "When the driver started.")
STREAM_HEARTBEAT = _time("stream_heartbeat", "Time of the driver's last heartbeat.")
STREAM_TRIGGER = _gauge("stream_trigger_seconds", "seconds", "The declared pause between batches.")
STREAM_PROGRESS = _time("stream_progress", "Last finished batch or report of nothing new, or the start.", "query")
STREAM_FRESH = _time("stream_fresh", "All records received by then are ingested: its age is the freshness.")
STREAM_BATCH = _gauge("stream_batch_id", "number", "Number of the last finished batch.", "query")
STREAM_ROWS_IN = _counter("stream_rows_in_total", "rows", "Rows read by finished batches.", "query")
STREAM_INPUT_RATE = _gauge("stream_input_rows_per_second", "rows/s", "Rate at which rows arrived.", "query")
STREAM_RATE = _gauge(
    "stream_processed_rows_per_second", "rows/s", "Rows per second processed by the last batch.", "query"
)
STREAM_BATCH_SECONDS = _histogram("stream_batch_seconds", "seconds", "Duration of the batches.", "query")
STREAM_BATCH_PART = _gauge(
    "stream_batch_part_seconds", "seconds", "Duration of each part of the last batch.", "query", "part"
)
STREAM_BEHIND = _gauge("stream_offsets_behind", "records", "Records in Kafka that are not ingested.", "partition")
STREAM_LOST = _gauge(
    "stream_lost_offsets",
    "offsets",
    "Offsets that Kafka deleted before they were ingested, and that were accepted as lost.",
)
STREAM_OUTCOMES = _counter("stream_outcomes_total", "records", "Ingested records by their outcome.", "outcome")
STREAM_REJECTED = _counter("stream_rejected_total", "records", "Rejected records by their first fault.", "reason")
STREAM_LATE = _counter(
    "stream_late_total", "rows", "Rows too late for a view (events without an id: groups); a union heals them.", "query"
)
STREAM_WATERMARK = _time("stream_watermark", "The watermark, in event time.", "query")
STREAM_STATE_ROWS = _gauge("stream_state_rows", "rows", "Rows that a view's query keeps as state.", "query")
STREAM_STATE_BYTES = _gauge("stream_state_bytes", "bytes", "Memory of the state of a view's query.", "query")
STREAM_RETRIES = _counter("stream_retries_total", "starts", "Queries started again after a failure.", "query")
STREAM_REGISTRY_AWAY = _gauge(
    "stream_registry_away", "0 or 1", "1 while records wait for a schema registry that does not answer."
)
STREAM_CHANGES = _counter(
    "stream_definition_changes_total", "ends", "Ends for a changed definition; the service restarts with the new one."
)

DISK_FREE = _gauge("disk_free_bytes", "bytes", "Free space of the home folder's file system.")
DISK_SIZE = _gauge("disk_size_bytes", "bytes", "Size of the home folder's file system.")

BATCH_OUTCOMES = _counter("batch_outcomes_total", "records", "Records of landed files by outcome.", "outcome")
BATCH_FILES = _counter("batch_files_total", "files", "Files of the inbox.", "fate")

UNION_ROWS = _counter("union_rows_total", "rows", "Unioned rows by their effect.", "result")
UNION_BOUNDARY = _time("union_boundary", "Everything ingested by then is unioned.")
UNION_SEALED = _time("union_sealed_through", "Event time up to which windows of a view are final.", "view")

COMPARED_WINDOWS = _gauge("compare_windows", "rows", "Windows compared after the last union, per group.", "view")
COMPARED_DIFFERENT = _gauge("compare_different_windows", "rows", "Compared windows that differ.", "view")
COMPARED_DIFFERENCE = _gauge("compare_difference_ratio", "0 to 1", "Mean difference of the two layers.", "view")
COMPARED_HEALED = _gauge("compare_healed_rows", "rows", "Late rows healed by the last unions.")
COMPARED_NEW = _gauge("compare_new_events", "events", "Events that the last unions added.")

TABLE_FILES = _gauge("table_files", "files", "Data files of a table.", "table")
TABLE_SMALL_FILES = _gauge("table_small_files", "files", "Data files below 8 MiB.", "table")
TABLE_BYTES = _gauge("table_bytes", "bytes", "Size of a table's data files.", "table")
TABLE_ROWS = _gauge("table_rows", "rows", "Rows of a table.", "table")
TABLE_SNAPSHOTS = _gauge("table_snapshots", "snapshots", "Snapshots kept.", "table")

PROVED_HOLDS = _gauge("prove_holds", "0 or 1", "0 where it is violated.", "invariant")
PROVED_BEHIND = _gauge("prove_behind", "0 or 1", "1 where part of it is not there yet.", "invariant")
PROVED_WHOLLY = _gauge("prove_proved", "0 or 1", "0 where part of it could not be checked.", "invariant")
PROVED_HELD = _time("prove_held", "When a proof, in full or of what changed, last found nothing violated.")

SERVICE_LEFT_DOWN = _gauge("service_left_down", "0 or 1", "1 while it stays down, its restarts used up.", "service")

PIPELINE_REMOVED = _gauge("pipeline_removed", "0 or 1", "1 once its file is gone: what else there is of it is history.")

RUN_GOOD = _time("run_good", "When a run last ended well.", "kind")
RUN_DUE = _time("run_due", "When the schedule starts the next run after the last good one; 0 without one.", "kind")
RUN_SECONDS = _gauge("run_seconds", "seconds", "Duration of the last good run that had work.", "kind")
RUN_FAILED = _counter("run_failed_total", "tasks", "Tasks failed, their retries used up.", "kind")

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))

RESOLVE_EVERY_S = 60.0
"""The client resolves its host once; a new one is made this often, so that a moved or late exporter is found."""
OTHER = "other"
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Meter:
    """One pipeline's StatsD client. Sending is UDP and best effort: a missing exporter is never an error."""

    def __init__(self, settings: Settings, pipeline: str) -> None:
        self._settings, self._pipeline = settings, pipeline
        self._client: StatsClient | None = None
        self._resolve_at = 0.0

    def count(self, metric: Metric, increment: int, **labels: str | int) -> None:
        """Add `increment` to a counter; 0 makes the series known."""
        if client := self._connected():
            client.incr(self._line(metric, labels), increment)

    def gauge(self, metric: Metric, value: float, **labels: str | int) -> None:
        """Set a gauge."""
        if client := self._connected():
            client.gauge(self._line(metric, labels), value)

    def observe(self, metric: Metric, seconds: float, **labels: str | int) -> None:
        """Add one duration to a histogram."""
        if client := self._connected():
            client.timing(self._line(metric, labels), seconds * 1000)

    def _line(self, metric: Metric, labels: dict[str, str | int]) -> str:
        if set(labels) != set(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {tuple(labels)}")
        tags = {"pipeline": self._pipeline, **labels}
        return ",".join([metric.name, *(f"{label}={_word(label, str(value))}" for label, value in tags.items())])

    def _connected(self) -> StatsClient | None:
        now = time.monotonic()
        if now >= self._resolve_at:
            self._resolve_at = now + RESOLVE_EVERY_S
            try:
                self._client = StatsClient(self._settings.statsd_host, self._settings.statsd_port)
            except OSError:
                self._client = None
        return self._client


def _word(label: str, value: str) -> str:
    """A label's value where it is one of its words, else `other`: no record's content makes a series.

    >>> _word("reason", "missing"), _word("reason", "missing x:1|c"), _word("view", "by origin")
    ('missing', 'other', 'other')
    """
    known = value in WORDS[label] if label in WORDS else bool(_WORD.fullmatch(value))
    return value if known else OTHER
