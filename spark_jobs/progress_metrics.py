"""One finished batch of a streaming query, as Spark tells of it, to metrics.

progress (JSON of `StreamingQueryProgress`) ─► Finished ─► send
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any

from twofold import metrics
from twofold.metrics import Meter


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
        return min([self.started_at, asked_at, *(newest[partition] for partition in lagging)])


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


def send_landing(meter: Meter, batch: Finished, newest: Mapping[int, float], asked_at: float = inf) -> None:
    """What only the landing query has; `newest` and `asked_at` as of `Finished.fresh`."""
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
