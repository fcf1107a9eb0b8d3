"""Gathers one pipeline's Status; keeps between two polls what does not change.

services ─────────────────┬─► Status        with the catalog or the bucket away services are still told of,
tables, results, Kafka ───┘                 and a problem says what is away and what to do
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from twofold import boundary, comparison, results, tables
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.lake import Lake
from twofold.proof import sent
from twofold.proof.findings import MEANINGS
from twofold.proof.sent import Sent
from twofold.services.record import STREAM
from twofold.settings import Settings
from twofold.status import layers, services, speed
from twofold.status.model import Checked, Layers, Outcomes, Problem, Proved, Speed, Status
from twofold.status.outcomes import RejectedSoFar, SetAside
from twofold.status.problems import problems, worst_first
from twofold.status.services import Told
from twofold.status.tables import Tables

FRESH_S = 2.0
"""However many look at it, a pipeline is gathered no more often."""
KAFKA_EVERY_S = 30.0
"""While the streaming job is down, Kafka is asked through a process of its own: not often."""

_AWAY = (TwofoldError, OSError, psycopg.Error, SQLAlchemyError)


def unreadable(error: Exception) -> Problem:
    """Why the tables cannot be read."""
    if isinstance(error, TwofoldError):
        return Problem("error", str(error.message) + (f"; {error.remedy}" if error.remedy else ""), "twofold status")
    return Problem("error", f"the tables cannot be read: {str(error).splitlines()[0]}", "twofold status")


@dataclass
class Gatherer:
    """Gathers the status of one pipeline, again and again; one thread at a time does, and the others do not wait."""

    settings: Settings
    pipeline: Pipeline
    _lock: Lock = field(default_factory=Lock)
    _last: tuple[float, Status] | None = None
    _asked_kafka: tuple[float, Sent | None] | None = None

    def __post_init__(self) -> None:
        self._tables = Tables(self.settings, self.pipeline.name)
        self._rejected = RejectedSoFar(self.settings, self.pipeline)
        self._set_aside = SetAside(Lake(self.settings, self.pipeline))

    def status(self) -> Status:
        """The status now, or of a moment ago. Where the tables cannot be read, what they tell is None."""
        known = self._last
        if known is None:
            with self._lock:
                return self._anew()
        # Only the first of all waits: threads that wait for something slow would be missing elsewhere.
        if _fresh(known) or not self._lock.acquire(blocking=False):
            return known[1]
        try:
            return self._anew()
        finally:
            self._lock.release()

    def _anew(self) -> Status:
        if self._last is None or not _fresh(self._last):
            found = self._gather()
            self._last = (time.monotonic(), found)
        return self._last[1]

    def _gather(self) -> Status:
        name, now = self.pipeline.name, datetime.now(UTC)
        looked_at = services.looked_at(self.settings, self.pipeline)
        running, job = tuple(service for service, _ in looked_at.values()), looked_at[STREAM][1]
        try:
            self._tables.refresh()
            covered, fast = self._layers(), self._speed(job, now)
            outcomes, proved = self._outcomes(job, now), self._proved()
        except _AWAY as error:
            return Status(name, now, None, None, None, None, running, (unreadable(error),))
        found = problems(name, now, covered, fast, outcomes, proved, running)
        return Status(name, now, covered, fast, outcomes, proved, running, tuple(worst_first(found)))

    def _layers(self) -> Layers:
        logs = (tables.STREAM_LOG, tables.BATCH_LOG, tables.EVENTS)
        time_column = self.pipeline.event.time
        return layers.layers(
            self.pipeline.name,
            {log: self._tables.log(log, time_column) for log in logs},
            {log: self._tables.history(log) for log in logs},
            [self._tables.history(tables.batch_view_name(view)) for view in self.pipeline.views],
        )

    def _speed(self, job: Told, now: datetime) -> Speed:
        log = self._tables.history(tables.STREAM_LOG)
        watermark = job.get("watermark")
        return Speed(
            self._behind(job),
            speed.rows_per_second(log, now),
            datetime.fromisoformat(watermark) if watermark else None,
            speed.landed(log, now),
        )

    def _behind(self, job: Told) -> int | None:
        if job.get("offsets_behind") is not None:
            return int(job["offsets_behind"])
        kafka = self._kafka()
        log = boundary.landed(self._tables.history(tables.STREAM_LOG), self.pipeline.name)
        return None if kafka is None else kafka.offsets_behind(log.offsets)

    def _kafka(self) -> Sent | None:
        if self._asked_kafka is None or time.monotonic() - self._asked_kafka[0] > KAFKA_EVERY_S:
            try:
                found = sent.read(self.settings, self.pipeline)
            except TwofoldError:
                found = None
            self._asked_kafka = (time.monotonic(), found)
        return self._asked_kafka[1]

    def _outcomes(self, job: Told, now: datetime) -> Outcomes:
        self._rejected.refresh(self._tables, now)
        self._set_aside.refresh(self._tables, now)
        kept = results.latest(self.settings, self.pipeline.name, comparison.KIND)
        compared = comparison.from_json(kept.body) if kept else None
        return Outcomes(
            self._rejected.since or now,
            self._rejected.counts(),
            self._set_aside.count,
            late=job.get("late"),
            late_by_view=dict(job.get("late_by_view", {})),
            healed=compared.healed_late if compared else None,
            difference=compared.difference if compared else None,
            compared_at=kept.at if kept else None,
        )

    def _proved(self) -> Proved | None:
        result = results.latest(self.settings, self.pipeline.name, results.PROOF)
        if result is None:
            return None
        return Proved(result.at, tuple(checked(check) for check in result.body["invariants"]))


def _fresh(known: tuple[float, Status]) -> bool:
    return time.monotonic() - known[0] < FRESH_S


def checked(check: Mapping[str, object]) -> Checked:
    """One invariant of a proof's JSON.

    >>> checked({"id": "I2", "ok": True, "behind": True, "text": "3 to go"}).state
    'behind'
    """
    state = "violated" if not check["ok"] else "behind" if check["behind"] else "holds"
    name = str(check["id"])
    return Checked(name, state, str(check["text"]), MEANINGS.get(name, ""))
