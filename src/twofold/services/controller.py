"""A pipeline's services from outside: start, stop, look at and report them, wherever their supervisord runs.

Controller(settings).start("flights", "stream", by_hand=True) ──XML-RPC──► supervisord, namespace `twofold`

Controller.state ─┐
GET /healthz ─────┼─► Look ─► verdict.judge ─► Verdict ─► as_dict, unhealthy
broker, catalog ──┘
"""

from __future__ import annotations

import json
import time
import xmlrpc.client
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, cast

from twofold import database, health, kafka
from twofold.definition.model import Pipeline
from twofold.definition.names import SERVICES
from twofold.errors import NotRunning, TwofoldError, UsageError
from twofold.metrics import PRODUCER_RUNNING, SERVICE_LEFT_DOWN, STREAM_RUNNING, Meter
from twofold.services.record import PRODUCER, STREAM, Did, Record, Restart, moment
from twofold.services.verdict import BAD, HealthLimits, Kind, Look, Verdict, rate
from twofold.settings import Settings
from twofold.supervisord import UNREACHABLE, connect, log_file

TIMEOUT_S = 10.0
ENDED_WITHIN_S = 45.0
"""supervisord kills a process that does not end in 30 seconds."""
ASK_AFTER_S = 15.0
"""Without progress for that long: check whether the services it needs answer. Spark reports idleness every ten."""
_NEEDS_TIMEOUT_S = 3.0
_LOG_LINES, _LOG_BYTES = 15, 8192
RUNNING = {PRODUCER: PRODUCER_RUNNING, STREAM: STREAM_RUNNING}
"""Service → the gauge that says that it runs."""
RUNBOOKS: dict[Kind, str] = {
    "left down": "service-left-down",
    "stuck": "service-stuck",
    "not yet": "service-not-healthy",
    "stopped": "service-stopped",
}


@dataclass(frozen=True)
class State:
    """One service, as its supervisor sees it."""

    pipeline: str
    service: str
    state: str
    """supervisord's word: STOPPED, STARTING, RUNNING, STOPPING, EXITED, FATAL."""
    pid: int
    """0: it does not run."""
    uptime_s: float
    health: str
    """`host:port` of its `/healthz`; empty: it does not answer yet."""
    spent: int
    """Restarts within the last hour that count against the budget."""
    per_hour: int
    """The budget."""
    record: Record
    changes: int
    """Starts for a changed definition within the last hour; they do not count."""

    @property
    def name(self) -> str:
        """Of the program."""
        return f"{self.pipeline}-{self.service}"

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self.pid > 0


def services_of(pipeline: Pipeline) -> tuple[str, ...]:
    """Which services a pipeline has, in the order of their start: no producer where nothing is declared to be sent."""
    return SERVICES if pipeline.replay else (STREAM,)


def told_stopped(settings: Settings, pipeline: str, service: str) -> None:
    """Reset the gauges that say that a service runs, or is left down: a killed one has left them, and nobody will."""
    meter = Meter(settings, pipeline)
    meter.gauge(RUNNING[service], 0)
    meter.gauge(SERVICE_LEFT_DOWN, 0, service=service)


class Controller:
    """Asks the supervisors that the settings name. Every method raises NotRunning where one does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self, pipeline: str, service: str, *, by_hand: bool) -> Did:
        """Start a service; one that runs is left alone.

        Started by a schedule, a service stays down where a person stopped it, where its budget is spent, and where it
        has finished. Started manually (`by_hand`), it always starts, and its budget is full again.
        """
        return self._asked("start", pipeline, service, by_hand)

    def stop(self, pipeline: str, service: str) -> State:
        """Stop a service, to stay down until it is started manually; returns once it has ended.

        A killed or failed service has left gauges that say that it runs, or is left down, which alert; a stop resets
        them, as nobody may judge the service any more.
        """
        self._call("stop", pipeline, service)
        deadline = time.monotonic() + ENDED_WITHIN_S
        while (state := self.state(pipeline, service)).runs and time.monotonic() < deadline:
            time.sleep(0.1)
        if state.runs:
            raise TwofoldError(f"{state.name} (pid {state.pid}) does not end", f"see {self.log_place(state)}")
        told_stopped(self._settings, pipeline, service)
        return state

    def restart(self, pipeline: str, service: str, *, by_hand: bool, why: str = "") -> Did:
        """End a service and start it again, in one step; unless `by_hand` it counts against the budget, with `why`."""
        return self._asked("restart", pipeline, service, by_hand, why)

    def runs(self, pipeline: str, service: str) -> bool:
        """Whether there is a process of it; unlike `state` this leaves no program behind where there never was one."""
        with self._reached(service) as proxy, suppress(xmlrpc.client.Fault):
            return bool(proxy.supervisor.getProcessInfo(f"{pipeline}-{service}")["pid"])
        return False

    def state(self, pipeline: str, service: str) -> State:
        """Everything known about a service."""
        status: dict[str, Any] = json.loads(str(self._call("status", pipeline, service)))
        port, record = status.pop("health_port"), Record.from_dict(status.pop("record"))
        health = f"{self._address(service)[0]}:{port}" if port else ""
        return State(pipeline, service, health=health, record=record, **status)

    def log_tail(self, pipeline: str, service: str) -> list[str]:
        """The last lines of what a service printed; none where it never ran."""
        with self._reached(service) as proxy, suppress(xmlrpc.client.Fault):
            tail = proxy.supervisor.tailProcessStdoutLog(f"{pipeline}-{service}", 0, _LOG_BYTES)
            return str(tail[0]).splitlines()[-_LOG_LINES:]
        return []

    def log_place(self, state: State) -> str:
        """Where the whole log is: a path on the machine, or in the container, of the service."""
        return str(log_file(self._settings.home, state.name))

    def look(self, pipeline: Pipeline, state: State) -> Look:
        """One look at a service: its `/healthz` and, without progress, whether Kafka and PostgreSQL answer."""
        seen, record = as_look(state, health.ask(state.health)), state.record
        if record.left_down or record.stopped_at or record.finished or not _needs_asking(state.service, seen):
            return seen
        return as_look(state, seen.health, self._missing(pipeline))

    def limits(self, pipeline: Pipeline, good_samples: int | None = None) -> HealthLimits:
        """What counts as healthy, by the settings and the pipeline's own pace."""
        return HealthLimits(
            good_samples=good_samples or self._settings.service_good_samples,
            stalled_after_s=self._settings.service_stalled_after_s + pipeline.stream.trigger.total_seconds(),
            # The looks of one wait must be able to show it.
            silent_after_s=min(self._settings.service_stalled_after_s, self._settings.service_healthy_within_s / 2),
        )

    def unhealthy(self, pipeline: str, service: str, verdict: Verdict) -> TwofoldError:
        """One error with all that an operator needs: numbers, restarts, the last log lines, and what to read."""
        lines = [f"{pipeline}-{service}: {verdict.reason}"]
        try:
            state = self.state(pipeline, service)
            tail = self.log_tail(pipeline, service)
            lines += [*restarts(state), f"last lines of {self.log_place(state)}:", *(f"  {line}" for line in tail)]
        except NotRunning as error:
            lines.append(error.message)
        page = RUNBOOKS.get(verdict.kind, "service-not-healthy")
        return TwofoldError("\n  ".join(lines), f"see {runbook(self._settings, page)}")

    def _asked(self, method: str, pipeline: str, service: str, *arguments: object) -> Did:
        did = cast(Did, self._call(method, pipeline, service, *arguments))
        # A stuck service ends cleanly, and then reports that it does not run; this gauge says that it should.
        Meter(self._settings, pipeline).gauge(SERVICE_LEFT_DOWN, int(did == "left down"), service=service)
        return did

    def _missing(self, pipeline: Pipeline) -> str:
        """Which of Kafka and the catalog does not answer, in a sentence; empty: both do."""
        try:
            kafka.describe(self._settings, pipeline.topic.name, _NEEDS_TIMEOUT_S, at_once=True)
            database.connect(self._settings).close()
        except NotRunning as error:
            return error.message
        return ""

    def _call(self, method: str, pipeline: str, service: str, *arguments: object) -> object:
        if service not in SERVICES:
            raise UsageError(f"there is no service {service!r}", f"choose {' or '.join(SERVICES)}")
        try:
            with self._reached(service) as proxy:
                return cast(object, getattr(proxy.twofold, method)(pipeline, service, *arguments))
        except xmlrpc.client.Fault as fault:
            raise TwofoldError(
                f"the supervisor of {pipeline}-{service} refuses to {method} it: {fault.faultString}",
                "it is on its way down, or runs an older release: `twofold down`, then `twofold up`",
            ) from None

    @contextmanager
    def _reached(self, service: str) -> Iterator[Any]:
        """The supervisor of a service; NotRunning where it does not answer."""
        host, port = self._address(service)
        user, password = self._settings.supervisor_user, self._settings.supervisor_password.get_secret_value()
        try:
            yield connect(host, port, user, password, TIMEOUT_S)
        except (*UNREACHABLE, xmlrpc.client.ProtocolError) as error:
            why = error.errmsg if isinstance(error, xmlrpc.client.ProtocolError) else error
            raise NotRunning(
                f"the supervisor of the {service} service does not answer at {host}:{port}: {why}",
                f"start the embedded stack with `twofold up`, or set TWOFOLD_{service.upper()}_SUPERVISOR; "
                f"see {runbook(self._settings, 'supervisor-away')}",
            ) from None

    def _address(self, service: str) -> tuple[str, int]:
        named = {PRODUCER: self._settings.producer_supervisor, STREAM: self._settings.stream_supervisor}[service]
        host, _, port = named.rpartition(":")
        return (host, int(port)) if named else (self._settings.supervisor_host, self._settings.supervisor_port)


# ---- reports ----


def as_look(state: State, told: Mapping[str, Any], missing: str = "") -> Look:
    """What is known of a service, as one look."""
    return Look(state.pid, state.state, state.uptime_s, state.record, told, missing, announced=bool(state.health))


def _needs_asking(service: str, seen: Look) -> bool:
    mark, _ = rate(service, None, seen)
    silent_s = float(seen.health.get("last_batch_age_s", 0.0)) if seen.health else seen.uptime_s
    return silent_s > ASK_AFTER_S or (mark == BAD and bool(seen.health or not seen.pid))


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


def as_dict(state: State, verdict: Verdict, told: Mapping[str, Any]) -> dict[str, object]:
    """One service as JSON has it, for programs; `told` is its own report."""
    last = state.record.last_restart
    return {
        "pipeline": state.pipeline,
        "service": state.service,
        "state": state.state,
        "pid": state.pid or None,
        "uptime_s": state.uptime_s,
        "verdict": verdict.kind,
        "reason": verdict.reason,
        "health": dict(told),
        "restarts": state.spent,
        "restarts_per_hour": state.per_hour,
        "definition_restarts": state.changes,
        "last_restart": None if last is None else {**asdict(last), "counts": last in state.record.restarts},
        "record": json.loads(state.record.to_json()),
    }
