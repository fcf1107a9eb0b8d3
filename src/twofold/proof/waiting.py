"""On a live stream: wait until the job has passed the stable ends that Kafka had when the proof began."""

from __future__ import annotations

import time
from collections.abc import Callable

from pyiceberg.catalog import Catalog

from twofold import catalog as catalogs
from twofold import database, table_state, tables
from twofold.definition.model import Pipeline
from twofold.proof.report import counted
from twofold.proof.sent import Sent
from twofold.settings import Settings
from twofold.table_state import Folded, History

POLL_S = 0.5

Say = Callable[[str], None]
"""Where progress goes, a line at a time."""


def wait(settings: Settings, catalog: Catalog, pipeline: Pipeline, sent: Sent, longest_s: float, say: Say) -> None:
    """Return once log and views have passed the stable ends, the job has ended, or `longest_s` went by in vain."""
    deadline, best = time.monotonic() + longest_s, None
    while (left := remaining(catalog, pipeline, sent)) and database.is_held(settings, pipeline.name, "stream"):
        if best is None or left < best:
            deadline, best = time.monotonic() + longest_s, left
            say(f"waiting for the streaming job: {counted(left, 'offset')} to go")
        if time.monotonic() >= deadline:
            return
        time.sleep(POLL_S)


def remaining(catalog: Catalog, pipeline: Pipeline, sent: Sent) -> int:
    """Offsets up to `sent.stable_ends` that the log, and then that each view has yet to read."""
    log = table_state.history_of(catalogs.find(catalog, pipeline.name, tables.STREAM_LOG))
    state = table_state.landed(log, pipeline.name)
    if sent.topic_id is None or state.topic_id not in (None, sent.topic_id):
        return 0
    left = sent.offsets_behind(state.offsets)
    for view in pipeline.views:
        table = catalogs.find(catalog, pipeline.name, tables.stream_view_name(view))
        left += sent.offsets_behind(read_up_to(log, table_state.folded(table_state.history_of(table)), pipeline.name))
    return left


def read_up_to(log: History, folded: Folded | None, pipeline: str) -> dict[int, int]:
    """Kafka offsets (exclusive) that a view of the speed layer has read from the log."""
    if folded is None or folded.snapshot is None:
        return {}
    return table_state.landed(History(log.snapshots, folded.snapshot), pipeline).offsets
