"""One look at a service: its supervisor, its `/healthz` and, where it does not get on, what it needs.

Controller.state ─┐
GET /healthz ─────┼─► Look ─► verdict.judge
broker, catalog ──┘
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from twofold import database, health, kafka
from twofold.definition.model import Pipeline
from twofold.errors import NotRunning
from twofold.services.controller import Controller, State
from twofold.services.verdict import BAD, Limits, Look, rate
from twofold.settings import Settings

_TIMEOUT_S = 3.0
ASK_AFTER_S = 15.0
"""No progress for so long: see whether what the service needs is there. Spark tells every ten that it is idle."""


def look(settings: Settings, pipeline: Pipeline, service: str) -> Look:
    """Look at a service now; raises NotRunning where its supervisor does not answer."""
    return look_at(settings, pipeline, Controller(settings).state(pipeline.name, service))


def look_at(settings: Settings, pipeline: Pipeline, state: State) -> Look:
    """The same, of a service whose supervisor was asked already."""
    seen = as_look(state, health.ask(state.health))
    if seen.left_down or seen.stopped_at or seen.finished or not _needs_asking(state.service, seen):
        return seen
    return as_look(state, seen.health, missing(settings, pipeline))


def as_look(state: State, health: Mapping[str, Any], missing: str = "") -> Look:
    """What is known of a service, as one look."""
    record = state.record
    return Look(
        at=time.time(),
        pid=state.pid,
        state=state.state,
        uptime_s=state.uptime_s,
        stopped_at=record.stopped_at,
        left_down=record.left_down,
        finished=record.finished,
        last_end=f"last ended with {record.ends[-1]}" if record.ends else "",
        health=health,
        missing=missing,
    )


def missing(settings: Settings, pipeline: Pipeline) -> str:
    """Which of Kafka and the catalog does not answer, in a sentence; empty: both do."""
    try:
        kafka.describe(settings, pipeline.topic.name, _TIMEOUT_S)
        database.connect(settings).close()
    except NotRunning as error:
        return error.message
    return ""


def limits(settings: Settings, pipeline: Pipeline, good_samples: int | None = None) -> Limits:
    """What counts as healthy, by the settings and the pipeline's own pace."""
    return Limits(
        good_samples=good_samples or settings.service_good_samples,
        stalled_after_s=settings.service_stalled_after_s + pipeline.stream.trigger.total_seconds(),
    )


def _needs_asking(service: str, seen: Look) -> bool:
    mark, _ = rate(service, None, seen)
    silent_s = float(seen.health.get("last_batch_age_s", 0.0)) if seen.health else seen.uptime_s
    return silent_s > ASK_AFTER_S or (mark == BAD and bool(seen.health or not seen.pid))
