"""Names that a pipeline file may give to pipelines, topics, views, fields and measures, and those it may not.

Pure; imports nothing of ours, so any module may take its constants from here.
"""

from __future__ import annotations

import re

GENERATED = "_tw_"
"""How every name begins that generated SQL makes up for itself: relations, aliases, helper columns. Pipelines and
views cannot begin so (they begin with a letter), fields and measures must not."""

KEY = f"{GENERATED}id"
"""Column of the id where it is not one field: the values of several as a JSON array, or where the record lies."""
ELEMENT = "element"
"""Column of `event.each`: the place of the event in its record's array, from 1; 0 where the record has none."""
ARRIVAL = "arrived_at"
"""Column of the event time where that is the arrival."""

RESERVED_COLUMNS = frozenset({
    "outcome", "reason", "reason_kind", "payload", "layer", "landing", "file", "row", "landed_at",
    "kafka_partition", "kafka_offset", "kafka_timestamp", "element", "withdrawn",
    "window_start", "window_end", "final", "send_at",
})  # fmt: skip
"""Columns of our own tables, and `send_at` of replay queries: no event field may take these names."""

ICEBERG_COLUMNS = frozenset({
    "_file", "_pos", "_deleted", "_spec_id", "_partition", "_row_id", "_last_updated_sequence_number",
    "_change_type", "_change_ordinal", "_commit_snapshot_id", "_corrupt_record",
    "__row_id", "__row_operation", "__row_from_source", "__row_from_target",
})  # fmt: skip
"""Metadata columns of Iceberg and Spark, and columns of a running MERGE: a field of the same name could not be read
back."""

PARTITION_OF_WINDOWS = "window_start_day"
"""What Spark calls the partition of a view's tables, and so no column of theirs may be called."""

RESERVED_VIEWS = frozenset({"events", "log"})
"""A view of these names would take the table `unified_events`, `stream_log` or `batch_log`."""

RESERVED_PIPELINES = frozenset({"main", "temp", "system", "information_schema", "pg_catalog", "default", "global_temp"})
"""Schemas and catalogs that DuckDB or Spark already has. Words of SQL are no such thing: they are quoted."""

SERVICES = ("producer", "stream")
"""Of each pipeline, in the order in which they are started."""

_FIELD = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

EXPECTED_NAME = "a name of a-z, 0-9 and _, starting with a letter, at most 48 characters"
EXPECTED_TOPIC = "a Kafka topic name: letters, digits, `.`, `_` and `-`, at most 249, not `.`, `..` or `__…`"


def field_fault(name: str) -> str:
    """What is expected of a field or measure name that breaks the rules; empty if it keeps them."""
    if not _FIELD.fullmatch(name):
        return "a name of a-z, 0-9 and _, not starting with a digit, at most 63 characters"
    if name.startswith(GENERATED):
        return f"a name that does not begin with `{GENERATED}`, as those do that Twofold's own SQL makes up"
    if name in RESERVED_COLUMNS or name in ICEBERG_COLUMNS:
        return "a name that Twofold's own columns do not use"
    return ""


def view_column_fault(name: str) -> str:
    """What is expected of a group or measure whose name a view's tables cannot have; empty if they can."""
    if name == PARTITION_OF_WINDOWS:
        return f"a name other than `{PARTITION_OF_WINDOWS}`, which the days of a view's tables are called"
    return ""


def view_fault(name: str) -> str:
    """What is expected of a view name that breaks the rules; empty if it keeps them."""
    if not _NAME.fullmatch(name):
        return EXPECTED_NAME
    return "a name other than `events` and `log`, which are tables of their own" if name in RESERVED_VIEWS else ""


def pipeline_fault(name: str) -> str:
    """What is expected of a pipeline name that breaks the rules; empty if it keeps them."""
    if not _NAME.fullmatch(name):
        return EXPECTED_NAME
    return "a name that is not a schema of DuckDB or Spark" if name in RESERVED_PIPELINES else ""


def topic_fault(name: str) -> str:
    """What is expected of a topic name that breaks Kafka's rules; empty if it keeps them."""
    legal = _TOPIC.fullmatch(name) and name not in (".", "..") and not name.startswith("__")
    return "" if legal else EXPECTED_TOPIC
