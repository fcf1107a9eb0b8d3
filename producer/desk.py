"""Where all workers report: journal, `/healthz`, StatsD metrics, and what is shown to people.

workers ──Progress, 4 a second──► Desk ─► journal file
                                    ├───► snapshot() ◄── /healthz
                                    ├───► metrics, once a second
                                    └───► Screen
"""

from __future__ import annotations

import time
from collections import deque
from threading import Lock
from typing import Any

from producer.journal import Journal
from producer.progress import Progress, combined
from producer.screen import Screen
from twofold import metrics
from twofold.metrics import Meter

WAITING_AFTER_S = 2.0
"""Records in flight for so long without an acknowledgement mean that the broker is away."""
RATE_WINDOW_S = 5.0
METRICS_EVERY_S = 1.0


class Desk:
    """Takes the workers' reports, one at a time; `lives`: its metrics tell of the pipeline's producer."""

    def __init__(self, journal: Journal, starts: list[int], meter: Meter, screen: Screen, lives: bool) -> None:
        self._journal, self._meter, self._screen, self._lives = journal, meter, screen, lives
        self._lock = Lock()
        self._workers = [Progress(position=position) for position in starts]
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._metered_at = 0.0
        self._metered = Progress()
        # A counter whose first sample is not 0 hides what came before it from rates.
        self._measure(self.total())

    def take(self, worker: int, progress: Progress) -> None:
        """One worker's report."""
        with self._lock:
            self._workers[worker] = progress
            self._journal.save(self._workers)
            total = combined(self._workers)
            now = time.monotonic()
            self._recent.append((now, total.acked))
            while now - self._recent[0][0] > RATE_WINDOW_S and len(self._recent) > 2:
                self._recent.popleft()
            self._screen.show(self.state(total), total, self.rate())
            if now - self._metered_at >= METRICS_EVERY_S or total.done:
                self._metered_at = now
                self._measure(total)

    def total(self) -> Progress:
        """All workers together."""
        return combined(self._workers)

    def rate(self) -> float:
        """Acknowledged records per second, over the last seconds."""
        (first, before), (last, after) = self._recent[0], self._recent[-1]
        return (after - before) / (last - first) if last > first else 0.0

    def state(self, total: Progress) -> str:
        """starting | sending | waiting_for_broker | finished | failed."""
        if total.failure:
            return "failed"
        if total.done:
            return "finished"
        if total.waiting_s > WAITING_AFTER_S:
            return "waiting_for_broker"
        return "sending" if total.sent else "starting"

    def snapshot(self) -> dict[str, Any]:
        """For `/healthz`: healthy unless the broker is away or has refused."""
        total = self.total()
        state = self.state(total)
        age = time.time() - total.last_ack_at if total.last_ack_at else None
        return {
            "healthy": state not in ("waiting_for_broker", "failed"),
            "state": state,
            "sent": total.sent,
            "acked": total.acked,
            "in_flight": total.in_flight,
            "too_large": total.too_large,
            "position": total.position,
            "last_ack_age_s": None if age is None else round(age, 3),
            "waiting_s": round(total.waiting_s, 3),
            "rate_per_s": round(self.rate(), 1),
        }

    def _measure(self, total: Progress) -> None:
        before, self._metered = self._metered, total
        count = self._meter.count
        count(metrics.PRODUCER_SENT, total.sent - before.sent)
        count(metrics.PRODUCER_ACKED, total.acked - before.acked)
        count(metrics.PRODUCER_BYTES, total.sent_bytes - before.sent_bytes)
        count(metrics.PRODUCER_TOO_LARGE, total.too_large - before.too_large)
        count(metrics.PRODUCER_FAILED, int(bool(total.failure) and not before.failure))
        if total.ack_s is not None and total.acked > before.acked:
            self._meter.observe(metrics.PRODUCER_LATENCY, total.ack_s)
        if self._lives:
            self._tell_of_life(total)

    def _tell_of_life(self, total: Progress) -> None:
        gauge = self._meter.gauge
        gauge(metrics.PRODUCER_QUEUE, total.in_flight)
        gauge(metrics.PRODUCER_POSITION, total.position)
        gauge(metrics.PRODUCER_WAITING, int(self.state(total) == "waiting_for_broker"))
        gauge(metrics.PRODUCER_HEARTBEAT, time.time())
        gauge(metrics.PRODUCER_RUNNING, int(not total.done or bool(total.failure)))
        if total.last_ack_at:
            gauge(metrics.PRODUCER_LAST_ACK, total.last_ack_at)
