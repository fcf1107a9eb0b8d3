"""What the streaming job reports: StatsD metrics, /healthz, and a line on stderr.

Spark's listener (every finished batch) ──► StreamProgress ──► /healthz
                                                └─► Finished (JSON of `StreamingQueryProgress`) ──► metrics
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import click
from py4j.java_gateway import JavaObject
from pyspark.sql.streaming.listener import (
    JStreamingQueryListener,
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

from spark_jobs import spark_session
from spark_jobs.stream_log import QUERY as LOG
from twofold import metrics, tables
from twofold.contract import reasons
from twofold.definition.model import Pipeline
from twofold.errors import DefinitionChanged
from twofold.metrics import Meter

STALLED_AFTER_S = 60.0
"""Neither a batch nor a report that there is nothing to read, for this long past the trigger: not healthy."""
_SAY_EVERY_S = 10.0
_BEAT_EVERY_S = 1.0
_REPORTED_WITHIN_S = 30.0


@dataclass(frozen=True)
class Finished:
    """The figures of one batch; `query` is `log` or a view's name."""

    query: str
    progress: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return float(self.progress.get("batchDuration") or 0) / 1000

    @property
    def rate(self) -> float:
        """Rows per second of its duration."""
        return self.progress["numInputRows"] / self.seconds if self.seconds else 0.0

    @property
    def late(self) -> int:
        """Rows that the watermark left out; of events without an id, Spark counts groups of a batch's rows."""
        return sum(operator.get("numRowsDroppedByWatermark", 0) for operator in self.progress["stateOperators"])

    @property
    def watermark(self) -> str | None:
        """ISO 8601; None before the first event."""
        found = (self.progress.get("eventTime") or {}).get("watermark")
        return None if found is None else str(found)

    @property
    def behind(self) -> dict[str, int]:
        """Partition → records that were in Kafka when the batch began, and that it did not take."""
        source = self.progress["sources"][0]
        ends, latest = (_offsets(source.get(key)) for key in ("endOffset", "latestOffset"))
        return {partition: max(0, last - ends.get(partition, 0)) for partition, last in latest.items()}

    def fresh(self, newest: Mapping[int, float], asked_at: float) -> float | None:
        """Unix seconds: all that Kafka took in before is landed; None: not known.

        `newest` has, per partition, the newest time stamp of Kafka that this batch landed. Kafka stamps a partition's
        records in the order in which it takes them in, so where records were left behind, those before that stamp are
        landed, and the oldest of these stamps is the bound: the newest one would hide a partition that stays behind.
        Where none were left, all is landed that was there when Kafka was asked: as the batch began, or at `asked_at`
        where that was earlier. No stamp from the future, as of a broker whose clock is ahead, goes beyond that. A
        partition without a stamp (the batch was landed before a restart) leaves it unknown, until the next batch.
        """
        lagging = [int(partition) for partition, behind in self.behind.items() if behind]
        if not newest.keys() >= set(lagging):
            return None
        started_at = datetime.fromisoformat(self.progress["timestamp"]).timestamp()
        return min([started_at, asked_at, *(newest[partition] for partition in lagging)])


def _offsets(found: object) -> dict[str, int]:
    """Kafka's offsets by partition; {"topic": {"0": 12}} is all that one topic has."""
    topics = found.values() if isinstance(found, dict) else ()
    return {partition: int(offset) for offsets in topics for partition, offset in offsets.items()}


def send(meter: Meter, batch: Finished) -> None:
    """What every query has."""
    query = batch.query
    meter.gauge(metrics.STREAM_BATCH, batch.progress["batchId"], query=query)
    meter.count(metrics.STREAM_ROWS_IN, batch.progress["numInputRows"], query=query)
    meter.gauge(metrics.STREAM_INPUT_RATE, batch.progress.get("inputRowsPerSecond") or 0.0, query=query)
    meter.gauge(metrics.STREAM_RATE, batch.rate, query=query)
    meter.observe(metrics.STREAM_BATCH_SECONDS, batch.seconds, query=query)
    for part, duration_ms in (batch.progress.get("durationMs") or {}).items():
        meter.gauge(metrics.STREAM_BATCH_PART, duration_ms / 1000, query=query, part=part)


def send_log(meter: Meter, batch: Finished, newest: Mapping[int, float], asked_at: float = inf) -> None:
    """What only the log's query has; `newest` and `asked_at` as of `Finished.fresh`."""
    for partition, behind in batch.behind.items():
        meter.gauge(metrics.STREAM_BEHIND, behind, partition=partition)
    if (fresh := batch.fresh(newest, asked_at)) is not None:
        meter.gauge(metrics.STREAM_FRESH, fresh)


def send_view(meter: Meter, batch: Finished) -> None:
    """What only the views' queries have."""
    operators = batch.progress["stateOperators"]
    rows, size = (sum(one.get(name, 0) for one in operators) for name in ("numRowsTotal", "memoryUsedBytes"))
    meter.gauge(metrics.STREAM_STATE_ROWS, rows, query=batch.query)
    meter.gauge(metrics.STREAM_STATE_BYTES, size, query=batch.query)
    meter.count(metrics.STREAM_LATE, batch.late, query=batch.query)
    if batch.watermark:
        watermark = datetime.fromisoformat(batch.watermark).timestamp()
        meter.gauge(metrics.STREAM_WATERMARK, max(watermark, 0.0), query=batch.query)


class _Events(JStreamingQueryListener):
    """Takes a batch's progress as JSON: as it is, pyspark asks the JVM for each of some fifty members by name."""

    def onQueryProgress(self, jevent: JavaObject) -> None:
        self.pylistener.onQueryProgress(QueryProgressEvent.fromJson({"progress": json.loads(jevent.progress().json())}))


class StreamProgress(StreamingQueryListener):
    """State of the job, written by Spark's listener thread, read by the health server's."""

    def __init__(self, pipeline: Pipeline, meter: Meter, home: Path) -> None:
        self._pipeline, self._meter, self._home = pipeline, meter, home
        self._runs: dict[str, str] = {}
        self._stalled_after_s = STALLED_AFTER_S + pipeline.stream.trigger.total_seconds()
        self._started_at = self._last_batch_at = time.time()
        self._said_at = 0.0
        self._outcomes: Counter[str] = Counter()
        self._state: dict[str, Any] = {"state": "starting", "batch": None, "offsets_behind": None, "idle": False}
        self._late: Counter[str] = Counter()
        self._newest: dict[int, Mapping[int, float]] = {}
        self._asked_at = inf
        self._ended: set[str] = set()
        self._registry_away = False
        self.lost = 0
        """Offsets that `twofold accept-loss` accepted as lost; none is while the job runs."""
        self._ends = threading.Condition()

    @cached_property
    def _jlistener(self) -> JavaObject:
        return spark_session.jvm().PythonStreamingQueryListenerWrapper(_Events(self))

    def say(self, state: str, problem: str | None = None) -> None:
        """Change the state: starting, running, retrying, draining, stopping."""
        self._state.update(state=state, problem=problem)
        if state == "draining":
            # A drain takes what existed when it began; Kafka is not asked again.
            self._asked_at = time.time()
        if problem:
            click.echo(f"{self._pipeline.name}: {state}: {problem}", err=True)

    def summary(self) -> str:
        """What was ingested since the start, in one line."""
        counts = ", ".join(f"{self._outcomes[name]:,} {name}" for name in sorted(self._outcomes)) or "nothing new"
        return f"{self._pipeline.name}: landed {counts}; {sum(self._late.values()):,} rows late for a view"

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Send a heartbeat every second, as long as the block runs, and in the end that it ended well.

        In a thread of its own, as the start of a query may fill a view first. A job that is killed, or fails, leaves
        the report that it runs; one that ends for a changed definition does not, as it is to be started again and not
        missed.
        """
        # The start counts as progress: how long ago the job before it made progress says nothing of this one.
        self._meter.gauge(metrics.STREAM_PROGRESS, self._last_batch_at, query=LOG)
        # A counter whose first sample is not 0 hides the first batch from rates.
        self._count(Counter())
        self._meter.count(metrics.STREAM_CHANGES, 0)
        try:
            with spark_session.repeated(self._beat, _BEAT_EVERY_S, "heartbeat"):
                yield
        except DefinitionChanged:
            self._meter.count(metrics.STREAM_CHANGES, 1)
            self._meter.gauge(metrics.STREAM_RUNNING, 0)
            raise
        self._meter.gauge(metrics.STREAM_RUNNING, 0)

    def _beat(self) -> bool:
        disk = shutil.disk_usage(self._home)
        self._meter.gauge(metrics.STREAM_RUNNING, 1)
        self._meter.gauge(metrics.STREAM_START, self._started_at)
        self._meter.gauge(metrics.STREAM_HEARTBEAT, time.time())
        self._meter.gauge(metrics.STREAM_REGISTRY_AWAY, int(self._registry_away))
        self._meter.gauge(metrics.STREAM_LOST, self.lost)
        self._meter.gauge(metrics.STREAM_TRIGGER, self._pipeline.stream.trigger.total_seconds())
        self._meter.gauge(metrics.DISK_FREE, disk.free)
        self._meter.gauge(metrics.DISK_SIZE, disk.total)
        return True

    def retrying(self, query: str, problem: str, *, registry_away: bool = False) -> None:
        """A query has failed and is started again."""
        self._meter.count(metrics.STREAM_RETRIES, 1, query=query)
        if query == LOG:
            self._registry_away = registry_away
        self.say("retrying", problem)

    def ingested(self, batch: int, outcomes: Mapping[str, int], newest: Mapping[int, float]) -> None:
        """What `LogWriter` reports of a batch; Spark's report of its end, and what it left behind, follows later."""
        self._newest[batch] = newest
        self._registry_away = False
        self._count(outcomes)

    def _count(self, outcomes: Mapping[str, int]) -> None:
        for outcome in metrics.WORDS["outcome"]:
            self._outcomes[outcome] += outcomes[outcome]
            self._meter.count(metrics.STREAM_OUTCOMES, outcomes[outcome], outcome=outcome)
        for reason in reasons.KINDS:
            self._meter.count(metrics.STREAM_REJECTED, outcomes[reason], reason=reason)

    def snapshot(self) -> dict[str, Any]:
        """The body of /healthz."""
        age_s = round(time.time() - self._last_batch_at, 1)
        state, stalled = self._state["state"], age_s > self._stalled_after_s
        healthy = state in ("starting", "running", "draining") and not stalled
        return {
            "pipeline": self._pipeline.name,
            **self._state,
            # What the last batch left behind says nothing any more: who wants to know asks Kafka.
            "offsets_behind": self._state["offsets_behind"] if healthy else None,
            "last_batch_age_s": age_s,
            "trigger_s": self._pipeline.stream.trigger.total_seconds(),
            "rows": dict(self._outcomes),
            "rejected": self._outcomes[tables.REJECTED],
            "lost": self.lost,
            "late": sum(self._late.values()),
            "late_by_view": dict(self._late),
            "healthy": healthy,
        }

    def onQueryStarted(self, event: QueryStartedEvent) -> None:
        """Remember the run's query: idle events name only their run."""
        if event.name:
            query = self._runs[str(event.runId)] = self._query(event.name)
            self._meter.count(metrics.STREAM_RETRIES, 0, query=query)
            self._meter.count(metrics.STREAM_ROWS_IN, 0, query=query)
            if query != LOG:
                self._meter.count(metrics.STREAM_LATE, 0, query=query)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:
        """The source answered, and has nothing new. Views do not count for health: they idle while ingest is stuck."""
        query, now = self._runs.get(str(event.runId)), time.time()
        if query is None:
            return
        self._meter.gauge(metrics.STREAM_PROGRESS, now, query=query)
        if query == LOG:
            self._last_batch_at = now
            self._state["idle"] = True
            self._meter.gauge(metrics.STREAM_FRESH, min(now, self._asked_at))

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:
        """The last report of a run. The streaming job starts it again."""
        with self._ends:
            self._ended.add(str(event.runId))
            self._ends.notify_all()

    def wait_for_end(self, run: str, within_s: float = _REPORTED_WITHIN_S) -> None:
        """Wait until all reports of an ended run are counted; Spark reports it later, in a thread of its own."""
        with self._ends:
            self._ends.wait_for(lambda: run in self._ended, timeout=within_s)

    def onQueryProgress(self, event: QueryProgressEvent) -> None:
        """One batch of one query is done."""
        progress = json.loads(event.progress.json)
        batch = Finished(self._query(progress["name"]), progress)
        send(self._meter, batch)
        self._meter.gauge(metrics.STREAM_PROGRESS, time.time(), query=batch.query)
        if batch.query == LOG:
            self._log_progress(batch)
            return
        self._late[batch.query] += batch.late
        send_view(self._meter, batch)
        if batch.watermark:
            self._state["watermark"] = batch.watermark

    def _log_progress(self, batch: Finished) -> None:
        number, behind, now = batch.progress["batchId"], sum(batch.behind.values()), time.monotonic()
        self._last_batch_at = time.time()
        self._state.update(batch=number, offsets_behind=behind, idle=False, rows_per_second=round(batch.rate, 1))
        send_log(self._meter, batch, self._newest.pop(number, {}), self._asked_at)
        if now - self._said_at >= _SAY_EVERY_S:
            self._said_at = now
            click.echo(f"{self.summary()}; {behind:,} behind; {batch.rate:,.0f} rows/s", err=True)

    def _query(self, name: str) -> str:
        return name.removeprefix(f"{self._pipeline.name}_")
