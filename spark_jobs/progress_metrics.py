"""One finished batch of a streaming query, as Spark tells of it, to metrics.

progress (JSON of `StreamingQueryProgress`) ─► Finished ─► send
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from twofold import metrics
from twofold.meter import Meter


@dataclass(frozen=True)
class Finished:
    """What is wanted of one batch; `query` is `log` or a view's name."""

    query: str
    progress: Mapping[str, Any]

    @property
    def number(self) -> int:
        """The batch's id."""
        return int(self.progress["batchId"])

    @property
    def rows(self) -> int:
        """Rows read."""
        return int(self.progress["numInputRows"])

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return float(self.progress.get("batchDuration") or 0) / 1000

    @property
    def rate(self) -> float:
        """Rows per second of its duration."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def started_at(self) -> float:
        """Unix seconds."""
        return datetime.fromisoformat(self.progress["timestamp"]).timestamp()

    @property
    def late(self) -> int:
        """Rows that the watermark left out."""
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


def _offsets(found: object) -> dict[str, int]:
    """Kafka's offsets by partition; {"topic": {"0": 12}} is all that one topic has."""
    topics = found.values() if isinstance(found, dict) else ()
    return {partition: int(offset) for offsets in topics for partition, offset in offsets.items()}


def send(meter: Meter, batch: Finished) -> None:
    """What every query has."""
    query = batch.query
    meter.gauge(metrics.STREAM_BATCH, batch.number, query=query)
    meter.count(metrics.STREAM_ROWS_IN, batch.rows, query=query)
    meter.gauge(metrics.STREAM_INPUT_RATE, batch.progress.get("inputRowsPerSecond") or 0.0, query=query)
    meter.gauge(metrics.STREAM_RATE, batch.rate, query=query)
    meter.observe(metrics.STREAM_BATCH_SECONDS, batch.seconds, query=query)
    for part, duration_ms in (batch.progress.get("durationMs") or {}).items():
        meter.gauge(metrics.STREAM_BATCH_PART, duration_ms / 1000, query=query, part=part)


def send_landing(meter: Meter, batch: Finished) -> None:
    """What only the landing query has."""
    for partition, behind in batch.behind.items():
        meter.gauge(metrics.STREAM_BEHIND, behind, partition=partition)
    if not any(batch.behind.values()):
        meter.gauge(metrics.STREAM_FRESH, batch.started_at)


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
