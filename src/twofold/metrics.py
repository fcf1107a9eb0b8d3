"""StatsD metrics: every name in one place, and a client that never stops the work it measures.

A metric is sent as `twofold.<pipeline>.<service>.<metric>`; the exporter's mapping turns the dots into labels.
Stalls are judged by time stamps (`*_ts`, Unix seconds), since an exporter goes on serving a dead sender's gauge.
"""

from __future__ import annotations

import time
from enum import StrEnum

from statsd import StatsClient

from twofold.settings import Settings

RESOLVE_EVERY_S = 60.0
"""The client resolves its host once; a new one is made this often, so that a moved or late exporter is found."""


class Producer(StrEnum):
    """What the producer sends. Counters: sent, acked, too_large. Gauges: the rest."""

    SENT = "producer.sent"
    ACKED = "producer.acked"
    TOO_LARGE = "producer.too_large"
    IN_FLIGHT = "producer.in_flight"
    RATE = "producer.rate"
    POSITION = "producer.position"
    LAST_ACK_TS = "producer.last_ack_ts"
    HEARTBEAT_TS = "producer.heartbeat_ts"
    WAITING = "producer.waiting_for_broker"


class Stream(StrEnum):
    """What the streaming job sends. Counters: rows by outcome, late. Gauges: the rest."""

    ROWS = "stream.rows"
    REJECTED = "stream.rejected"
    FILTERED = "stream.filtered"
    LATE = "stream.late"
    OFFSETS_BEHIND = "stream.offsets_behind"
    ROWS_PER_SECOND = "stream.rows_per_second"
    BATCH_ID = "stream.batch_id"
    BATCH_DURATION_MS = "stream.batch_duration_ms"
    LAST_BATCH_TS = "stream.last_batch_ts"
    WATERMARK_TS = "stream.watermark_ts"
    HEARTBEAT_TS = "stream.heartbeat_ts"


class Union(StrEnum):
    """What the comparison after a union sends. All gauges: a comparison that is repeated sends the same again."""

    WINDOWS_COMPARED = "union.windows_compared"
    WINDOWS_DIFFERENT = "union.windows_different"
    DIFFERENCE = "union.difference"
    HEALED_LATE = "union.healed_late"
    NEW_EVENTS = "union.new_events"
    COMPARED_TS = "union.compared_ts"


class Failed(StrEnum):
    """Counters: tasks of each of a pipeline's DAGs that failed for good, their retries used up."""

    SERVICES = "services.failed"
    BATCH = "batch.failed"
    UNION = "union.failed"
    MAINTENANCE = "maintenance.failed"
    REPLAY = "replay.failed"


class Metrics:
    """One pipeline's StatsD client. Sending is UDP and best effort: a missing exporter is never an error."""

    def __init__(self, settings: Settings, pipeline: str) -> None:
        self._settings = settings
        self._prefix = f"twofold.{pipeline}"
        self._client: StatsClient | None = None
        self._resolve_at = 0.0

    def count(self, name: StrEnum, increment: int) -> None:
        """Add `increment` to a counter."""
        if increment and (client := self._connected()):
            client.incr(name.value, increment)

    def gauge(self, name: StrEnum, value: float) -> None:
        """Set a gauge."""
        if client := self._connected():
            client.gauge(name.value, value)

    def _connected(self) -> StatsClient | None:
        now = time.monotonic()
        if now >= self._resolve_at:
            self._resolve_at = now + RESOLVE_EVERY_S
            self._client = self._connect()
        return self._client

    def _connect(self) -> StatsClient | None:
        try:
            return StatsClient(self._settings.statsd_host, self._settings.statsd_port, prefix=self._prefix)
        except OSError:
            return None
