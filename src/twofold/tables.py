"""The tables of a pipeline as data: columns, partitioning, sort order. The one home of their names.

stream_log, batch_log ──► events ──► batch_<view>
stream_log ──► stream_<view>
landed_files: which file was ingested by which landing, or set aside, and why
erased: which ids were erased for good, as hashes; made with the first of them
"""

from __future__ import annotations

from dataclasses import dataclass

from twofold.definition import names as declared_names
from twofold.definition.model import Pipeline, View
from twofold.settings import CATALOG

STREAM_LOG = "stream_log"
BATCH_LOG = "batch_log"
EVENTS = "events"
LANDED_FILES = "landed_files"
LEDGER = "erased"

ACCEPTED = "accepted"
FILTERED = "filtered"
REJECTED = "rejected"
OUTCOMES = (ACCEPTED, FILTERED, REJECTED)
ERASED = "erased"
"""The outcome of a record of which only the place is left."""

OUTCOME = "outcome"
REASON = "reason"
REASON_KIND = "reason_kind"
"""One of `twofold.contract.reasons.KINDS`."""
PAYLOAD = "payload"
LANDED_AT = "landed_at"

STREAM_LAYER = "stream"
BATCH_LAYER = "batch"

VERSION = "_tw_version"
"""Last column of `stream_<view>`: how far the log had been read when the row was written. The newest row of a window
and group is in force."""

VIEW_ROWS_PER_BATCH = 2_000_000
"""Rows of `stream_log` that a view's micro-batch takes at most, by whole files: only past it can a landing be split."""

# Measures keep the type the engine gives them, so view tables name types of their own.
_KAFKA = (("kafka_partition", "INT"), ("kafka_offset", "BIGINT"), ("kafka_timestamp", "TIMESTAMP"))
_JUDGED = ((OUTCOME, "STRING"), (REASON_KIND, "STRING"), (REASON, "STRING"), (PAYLOAD, "BINARY"))
_FILE = (("landing", "BIGINT"), ("file", "STRING"), ("row", "BIGINT"))


@dataclass(frozen=True)
class TableShape:
    """One Iceberg table. `columns` are (name, Spark type); `day_of` is the timestamp column whose day partitions it."""

    name: str
    columns: tuple[tuple[str, str], ...]
    day_of: str
    sort: tuple[str, ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names only, in order."""
        return tuple(name for name, _ in self.columns)


def event_columns(pipeline: Pipeline) -> tuple[tuple[str, str], ...]:
    """The event columns as (name, Spark type)."""
    kinds = {field.name: field.type.spark for field in pipeline.event.fields.values()}
    made = {declared_names.ELEMENT: "INT", declared_names.KEY: "STRING"}
    return tuple((name, kinds.get(name) or made[name]) for name in pipeline.columns)


def arrival(pipeline: Pipeline) -> str:
    """The column of `stream_log` that says when a record arrived.

    Kafka's time stamp, where Kafka itself sets it; of a topic of somebody else the moment of landing, as there the
    sender may choose the time stamp, and what a sender chooses decides neither partitions nor watermarks.
    """
    return "kafka_timestamp" if pipeline.topic.managed else LANDED_AT


def stream_log(pipeline: Pipeline) -> TableShape:
    """Every Kafka record once; `landing` numbers the commits, so that rows are ordered by their ingest."""
    landed_at = () if pipeline.topic.managed else ((LANDED_AT, "TIMESTAMP"),)
    columns = (*event_columns(pipeline), *_JUDGED, *_KAFKA, ("landing", "BIGINT"), *landed_at)
    return TableShape(STREAM_LOG, columns, arrival(pipeline))


def batch_log(pipeline: Pipeline) -> TableShape:
    """Every row of every ingested file once per landing of that file."""
    columns = (*event_columns(pipeline), *_JUDGED, *_FILE, ("landed_at", "TIMESTAMP"))
    return TableShape(BATCH_LOG, columns, "landed_at")


def events(pipeline: Pipeline) -> TableShape:
    """One row per event id; a withdrawn id stays as a hidden row."""
    columns = (*event_columns(pipeline), ("layer", "STRING"), ("withdrawn", "BOOLEAN"), *_FILE, *_KAFKA)
    return TableShape(EVENTS, columns, pipeline.event.time, sort=(pipeline.event.time, pipeline.event.key))


def landed_files() -> TableShape:
    """One row per file version taken (or set aside: `reason`), in the order of landings."""
    columns = (
        ("landing", "BIGINT"),
        ("file", "STRING"),
        ("size_bytes", "BIGINT"),
        ("version", "STRING"),
        ("sha256", "STRING"),
        ("rows", "BIGINT"),
        ("reason", "STRING"),
        ("landed_at", "TIMESTAMP"),
    )
    return TableShape(LANDED_FILES, columns, "landed_at")


def ledger() -> TableShape:
    """One row per id that was erased for good: its keyed hash, when, by whom, and why."""
    columns = (("hash", "STRING"), ("erased_at", "TIMESTAMP"), ("by", "STRING"), ("why", "STRING"))
    return TableShape(LEDGER, columns, "erased_at")


def stream_view_name(view: View | str) -> str:
    """Table of a view in the speed layer."""
    return f"stream_{view if isinstance(view, str) else view.name}"


def batch_view_name(view: View | str) -> str:
    """Table of a view in the batch layer."""
    return f"batch_{view if isinstance(view, str) else view.name}"


def names(pipeline: Pipeline) -> tuple[str, ...]:
    """Every table of a pipeline, by its name in the pipeline's namespace."""
    return (EVENTS, STREAM_LOG, BATCH_LOG, LANDED_FILES, *view_names(pipeline))


def view_names(pipeline: Pipeline) -> tuple[str, ...]:
    """The view tables of both layers."""
    return (*map(stream_view_name, pipeline.views), *map(batch_view_name, pipeline.views))


def view_keys(view: View) -> tuple[str, ...]:
    """Columns that identify one row of a view."""
    return ("window_start", "window_end", *view.by)


def qualified(pipeline: Pipeline | str, table: str) -> str:
    """Name in Spark SQL, quoted: a pipeline may be called `order`.

    >>> qualified("order", "events")
    '`twofold`.`order`.`events`'
    """
    namespace = pipeline if isinstance(pipeline, str) else pipeline.name
    return f"`{CATALOG}`.`{namespace}`.`{table}`"
