"""The long-running services of a pipeline: as their supervisor sees them, and as they tell of themselves.

Controller.state, GET /healthz ─► verdict of one look ─► Service
run by hand, without supervisor: <home>/run/<p>-<service>.json ─► GET /healthz ─► Service
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twofold import health
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.services import verdict
from twofold.services.controller import RUNBOOKS, Controller, State, as_look, services_of
from twofold.settings import Settings
from twofold.status.model import Service

Told = Mapping[str, Any]
"""The body of a `/healthz`; empty: it does not answer."""


def looked_at(settings: Settings, pipeline: Pipeline) -> dict[str, tuple[Service, Told]]:
    """Each service, and what it says of itself."""
    return {name: _look(settings, pipeline, name) for name in services_of(pipeline)}


def by_hand(name: str, told: Told) -> Service:
    """A service that nobody looks after, by what it says."""
    if not told:
        return Service(name, "not running")
    text = str(told.get("problem") or "")
    return Service(name, told["state"], running=True, healthy=told.get("healthy", True), text=text)


def supervised(name: str, state: State, told: Told, healthy: verdict.HealthLimits) -> Service:
    """A service that a supervisor looks after; one that was never asked for is not running, and nothing is wrong."""
    found = verdict.judge(name, [as_look(state, told)], healthy)
    at_work = found.kind in ("not yet", "healthy") and state.runs
    # "running" but unhealthy is a pause that the verdict knows better: a first batch takes longer than others.
    in_trouble = state.runs and told.get("healthy") is False and told["state"] != "running"
    return Service(
        name,
        told.get("state", "starting") if at_work else "not running" if found.kind == "not yet" else found.kind,
        running=state.runs,
        healthy=found.kind not in ("stuck", "left down") and not in_trouble,
        text=found.reason,
        runbook=RUNBOOKS.get(found.kind, ""),
        restarts=state.spent,
        budget=state.per_hour,
        changes=state.changes,
    )


def _look(settings: Settings, pipeline: Pipeline, name: str) -> tuple[Service, Told]:
    controller = Controller(settings)
    try:
        state = controller.state(pipeline.name, name)
    except TwofoldError:  # no supervisor, or an older one: what runs was started by hand
        state = None
    place = health.place_of(settings.home, pipeline.name, name)
    told = health.ask(state.health if state and state.runs else health.address(place))
    if state is None or (told and not state.runs):
        return by_hand(name, told), told
    return supervised(name, state, told, controller.limits(pipeline, good_samples=1)), told
