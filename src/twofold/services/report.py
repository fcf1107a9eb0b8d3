"""What is said of a service that does not get on: numbers, restarts, its last log lines, and what to read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from twofold.errors import NotRunning, TwofoldError
from twofold.services.controller import Controller, State
from twofold.services.record import Restart, moment
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
    """The restarts of the last hour and the budget, a line each; those for a changed definition after the others."""
    record = state.record
    lines = [f"{state.spent} of {state.per_hour} restarts within the last hour"]
    lines += _listed(record.restarts[-state.spent :] if state.spent else ())
    if state.changes:
        lines += [f"and {state.changes} for a changed definition, which do not count"]
        lines += _listed(record.changes[-state.changes :])
    return lines


def _listed(restarts: Iterable[Restart]) -> list[str]:
    return [f"  {moment(restart.at)}: {restart.why}" for restart in restarts]


def budget(state: State) -> str:
    """What is spent of the budget, and what was free, in a few words."""
    free = f", {state.changes} for a changed definition" if state.changes else ""
    return f"{state.spent} of {state.per_hour}/h{free}"


def runbook(settings: Settings, page: str) -> str:
    """Where a page of the runbook is."""
    return f"{settings.runbooks_url.rstrip('/')}/{page}.md"


def as_json(state: State, verdict: Verdict, health: Mapping[str, Any]) -> dict[str, object]:
    """One service as plain JSON, for programs; `health` is what it says of itself."""
    last = state.record.last_restart
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
        "definition_restarts": state.changes,
        "last_restart": None if last is None else {**asdict(last), "counts": last in state.record.restarts},
        "record": json.loads(state.record.to_json()),
    }
