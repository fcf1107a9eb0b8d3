"""Sends the metrics of `twofold.metrics` by StatsD, and never stops the work that it measures.

gauge(STREAM_BEHIND, 7, partition=3) ─► twofold_stream_offsets_behind,pipeline=flights,partition=3:7|g ─► exporter
"""

from __future__ import annotations

import re
import time

from statsd import StatsClient

from twofold.metrics import WORDS, Metric
from twofold.settings import Settings

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
        return ",".join([metric.name, *(f"{label}={word(label, str(value))}" for label, value in tags.items())])

    def _connected(self) -> StatsClient | None:
        now = time.monotonic()
        if now >= self._resolve_at:
            self._resolve_at = now + RESOLVE_EVERY_S
            self._client = self._connect()
        return self._client

    def _connect(self) -> StatsClient | None:
        try:
            return StatsClient(self._settings.statsd_host, self._settings.statsd_port)
        except OSError:
            return None


def word(label: str, value: str) -> str:
    """A label's value where it is one of its words, else `other`: no record's content makes a series.

    >>> word("reason", "missing"), word("reason", "missing x:1|c"), word("view", "by origin")
    ('missing', 'other', 'other')
    """
    known = value in WORDS[label] if label in WORDS else bool(_WORD.fullmatch(value))
    return value if known else OTHER
