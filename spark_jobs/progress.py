"""What the streaming job tells of itself: StatsD metrics, /healthz, and a line on stderr.

Spark's listener (every finished batch) ──► Progress ──► metrics, /healthz
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

from twofold import tables
from twofold.definition.model import Pipeline
from twofold.metrics import Metrics, Stream

STALLED_AFTER_S = 60.0
"""Neither a batch nor word that there is nothing to read, for this long past the trigger: not healthy."""
_SAY_EVERY_S = 10.0


class Progress(StreamingQueryListener):
    """State of the job, written by Spark's listener thread, read by the health server's."""

    def __init__(self, pipeline: Pipeline, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._metrics = metrics
        self._log_query = f"{pipeline.name}_log"
        self._log_run = ""
        self._stalled_after_s = STALLED_AFTER_S + pipeline.stream.trigger.total_seconds()
        self._last_batch_at = time.time()
        self._said_at = 0.0
        self._outcomes: Counter[str] = Counter()
        self._state: dict[str, Any] = {"state": "starting", "batch": None, "offsets_behind": None, "idle": False}
        self._late: Counter[str] = Counter()

    def say(self, state: str, problem: str | None = None) -> None:
        """Change the state: starting, running, retrying, draining, stopping."""
        self._state.update(state=state, problem=problem)
        if problem:
            click.echo(f"{self._pipeline.name}: {state}: {problem}", err=True)

    def summary(self) -> str:
        """What was landed since the start, in one line."""
        counts = ", ".join(f"{self._outcomes[name]:,} {name}" for name in sorted(self._outcomes)) or "nothing new"
        return f"{self._pipeline.name}: landed {counts}; {sum(self._late.values()):,} rows late for a view"

    def heartbeat(self) -> None:
        """Tell that the driver lives; stalls are judged by this time stamp."""
        self._metrics.gauge(Stream.HEARTBEAT_TS, time.time())

    def landed(self, outcomes: Mapping[str, int]) -> None:
        """Rows per outcome of one landed batch."""
        self._outcomes.update(outcomes)
        self._metrics.count(Stream.ROWS, sum(outcomes.values()))
        self._metrics.count(Stream.REJECTED, outcomes[tables.REJECTED])
        self._metrics.count(Stream.FILTERED, outcomes[tables.FILTERED])

    def snapshot(self) -> dict[str, Any]:
        """The body of /healthz."""
        age_s = round(time.time() - self._last_batch_at, 1)
        stalled = age_s > self._stalled_after_s
        return {
            "pipeline": self._pipeline.name,
            **self._state,
            "last_batch_age_s": age_s,
            "rows": dict(self._outcomes),
            "rejected": self._outcomes[tables.REJECTED],
            "late": sum(self._late.values()),
            "late_by_view": dict(self._late),
            "healthy": self._state["state"] in ("starting", "running", "draining") and not stalled,
        }

    def onQueryStarted(self, event: QueryStartedEvent) -> None:
        """Remember the landing query: idle events name only their run."""
        if event.name == self._log_query:
            self._log_run = str(event.runId)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:
        """Kafka answered, and has nothing new. Views do not count: they idle while landing is stuck, too."""
        if str(event.runId) == self._log_run:
            self._last_batch_at = time.time()
            self._state["idle"] = True

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:
        """The supervisor sees to it."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:
        """One batch of one query is done."""
        progress = json.loads(event.progress.json)
        if progress["name"] == self._log_query:
            self._landing(progress)
        else:
            self._view(progress)

    def _landing(self, progress: Mapping[str, Any]) -> None:
        source = progress["sources"][0]
        behind = int(float((source.get("metrics") or {}).get("maxOffsetsBehindLatest") or 0))
        duration_ms = progress.get("batchDuration", 0)
        rate = progress["numInputRows"] * 1000 / duration_ms if duration_ms else 0.0
        self._last_batch_at = time.time()
        self._state.update(batch=progress["batchId"], offsets_behind=behind, idle=False, rows_per_second=round(rate, 1))
        self._metrics.gauge(Stream.BATCH_ID, progress["batchId"])
        self._metrics.gauge(Stream.OFFSETS_BEHIND, behind)
        self._metrics.gauge(Stream.ROWS_PER_SECOND, rate)
        self._metrics.gauge(Stream.BATCH_DURATION_MS, duration_ms)
        self._metrics.gauge(Stream.LAST_BATCH_TS, self._last_batch_at)
        self._say_landing(behind, rate)

    def _say_landing(self, behind: int, rate: float) -> None:
        if time.monotonic() - self._said_at < _SAY_EVERY_S:
            return
        self._said_at = time.monotonic()
        click.echo(f"{self.summary()}; {behind:,} behind; {rate:,.0f} rows/s", err=True)

    def _view(self, progress: Mapping[str, Any]) -> None:
        name = progress["name"].removeprefix(f"{self._pipeline.name}_")
        late = sum(operator.get("numRowsDroppedByWatermark", 0) for operator in progress["stateOperators"])
        self._late[name] += late
        self._metrics.count(Stream.LATE, late)
        if watermark := (progress.get("eventTime") or {}).get("watermark"):
            self._state["watermark"] = watermark
            self._metrics.gauge(Stream.WATERMARK_TS, datetime.fromisoformat(watermark).timestamp())
