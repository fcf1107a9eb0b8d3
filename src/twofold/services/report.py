"""What is said of a service that does not get on: numbers, restarts, its last log lines, and what to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twofold.errors import NotRunning, TwofoldError
from twofold.services.controller import Controller, State
from twofold.services.record import moment
from twofold.services.verdict import Kind, Verdict
from twofold.settings import Settings

RUNBOOKS: dict[Kind, str] = {
    "left down": "service-left-down",
    "stuck": "service-stuck",
    "not yet": "service-not-healthy",
    "stopped": "service-stopped",
}


class Unhealthy(TwofoldError):
    """A service does not run, or does not get on."""


def unhealthy(settings: Settings, pipeline: str, service: str, verdict: Verdict) -> Unhealthy:
    """All that a person needs to know, as one error."""
    controller = Controller(settings)
    try:
        state = controller.state(pipeline, service)
        lines = [
            f"{pipeline}-{service}: {verdict.reason}",
            *restarts(state),
            f"last lines of {controller.log_place(state)}:",
        ]
        lines += [f"  {line}" for line in controller.log_tail(pipeline, service)]
    except NotRunning as error:
        lines = [f"{pipeline}-{service}: {verdict.reason}", error.message]
    return Unhealthy("\n  ".join(lines), f"see {runbook(settings, RUNBOOKS.get(verdict.kind, 'service-not-healthy'))}")


def restarts(state: State) -> list[str]:
    """The restarts of the last hour and the budget, a line each."""
    record = state.record
    head = f"{state.spent} of {state.per_hour} restarts within the last hour"
    counted = record.restarts[-state.spent :] if state.spent else ()
    return [head, *(f"  {moment(restart.at)}: {restart.why}" for restart in counted)]


def runbook(settings: Settings, page: str) -> str:
    """Where a page of the runbook is."""
    return f"{settings.runbooks_url.rstrip('/')}/{page}.md"


def as_json(state: State, verdict: Verdict, health: Mapping[str, Any]) -> dict[str, object]:
    """One service as plain JSON, for programs; `health` is what it says of itself."""
    return {
        "pipeline": state.pipeline,
        "service": state.service,
        "state": state.state,
        "pid": state.pid or None,
        "uptime_s": state.uptime_s,
        "verdict": verdict.kind,
        "reason": verdict.reason,
        "health": dict(health),
        "restarts": state.spent,
        "restarts_per_hour": state.per_hour,
        "record": json.loads(state.record.to_json()),
    }
