"""Start, stop and look at a pipeline's services, wherever their supervisord runs.

Controller(settings).start("flights", "stream", by_hand=True) ──XML-RPC──► supervisord, namespace `twofold`
"""

from __future__ import annotations

import json
import time
import xmlrpc.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from twofold.definition.model import Pipeline
from twofold.errors import NotRunning, TwofoldError, UsageError
from twofold.metrics import PRODUCER_RUNNING, STREAM_RUNNING, Meter
from twofold.services.record import PRODUCER, SERVICES, STREAM, Did, Record
from twofold.settings import Settings
from twofold.supervisor_rpc import UNREACHABLE, connect

TIMEOUT_S = 10.0
ENDED_WITHIN_S = 45.0
"""supervisord kills what does not end in 30 seconds."""
LOG_LINES = 15
_LOG_BYTES = 8192
_RUNNING = {PRODUCER: PRODUCER_RUNNING, STREAM: STREAM_RUNNING}
RUNNING, FATAL = "RUNNING", "FATAL"


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
    changes: int = 0
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


class Controller:
    """Asks the supervisors that the settings name. Every method raises NotRunning where one does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self, pipeline: str, service: str, *, by_hand: bool) -> Did:
        """Start a service; one that runs is left alone.

        Not by hand it stays down where a person stopped it, where its budget is spent, and where it has finished. By
        hand it is started whatever was, and its budget is full again.
        """
        return cast(Did, self._call("start", pipeline, service, by_hand))

    def stop(self, pipeline: str, service: str) -> State:
        """Stop a service, to stay down until it is started by hand; returns once it has ended.

        What was killed, or failed, has left word that it runs, and alerts by that; a stop takes the word back.
        """
        self._call("stop", pipeline, service)
        deadline = time.monotonic() + ENDED_WITHIN_S
        while (state := self.state(pipeline, service)).runs and time.monotonic() < deadline:
            time.sleep(0.1)
        if state.runs:
            raise TwofoldError(f"{state.name} (pid {state.pid}) does not end", f"see {self.log_place(state)}")
        Meter(self._settings, pipeline).gauge(_RUNNING[service], 0)
        return state

    def restart(self, pipeline: str, service: str, *, by_hand: bool, why: str = "") -> Did:
        """End a service and start it anew, in one step; not by hand it counts against the budget, with `why`."""
        return cast(Did, self._call("restart", pipeline, service, by_hand, why))

    def state(self, pipeline: str, service: str) -> State:
        """What there is to know of a service."""
        told: Mapping[str, Any] = json.loads(str(self._call("status", pipeline, service)))
        return State(
            pipeline=pipeline,
            service=service,
            state=told["state"],
            pid=told["pid"],
            uptime_s=told["uptime_s"],
            health=f"{self._address(service)[0]}:{told['health_port']}" if told["health_port"] else "",
            spent=told["spent"],
            per_hour=told["per_hour"],
            record=Record.from_dict(told["record"]),
            changes=told.get("changes", 0),  # an older release's supervisor knows of none
        )

    def log_tail(self, pipeline: str, service: str, lines: int = LOG_LINES) -> list[str]:
        """The last lines of what a service printed; none where it never ran."""
        try:
            tail: Any = self._proxy(service).supervisor.tailProcessStdoutLog(f"{pipeline}-{service}", 0, _LOG_BYTES)
        except xmlrpc.client.Fault:
            return []
        except (*UNREACHABLE, xmlrpc.client.ProtocolError) as error:
            raise self._away(service, error) from None
        return str(tail[0]).splitlines()[-lines:]

    def log_place(self, state: State) -> str:
        """Where the whole log is: a path on the machine, or in the container, of the service."""
        return str(self._settings.home / "logs" / f"{state.name}.log")

    def _call(self, method: str, pipeline: str, service: str, *arguments: Any) -> object:  # noqa: ANN401
        if service not in SERVICES:
            raise UsageError(f"there is no service {service!r}", f"choose {' or '.join(SERVICES)}")
        try:
            return getattr(self._proxy(service).twofold, method)(pipeline, service, *arguments)
        except xmlrpc.client.Fault as fault:
            raise TwofoldError(
                f"the supervisor of {pipeline}-{service} refuses to {method} it: {fault.faultString}",
                "it is on its way down, or runs an older release: `twofold down`, then `twofold up`",
            ) from None
        except (*UNREACHABLE, xmlrpc.client.ProtocolError) as error:
            raise self._away(service, error) from None

    def _proxy(self, service: str) -> xmlrpc.client.ServerProxy:
        user, password = self._settings.supervisor_user, self._settings.supervisor_password.get_secret_value()
        return connect(*self._address(service), user, password, TIMEOUT_S)

    def _address(self, service: str) -> tuple[str, int]:
        named = {PRODUCER: self._settings.producer_supervisor, STREAM: self._settings.stream_supervisor}[service]
        host, _, port = named.rpartition(":")
        return (host, int(port)) if named else (self._settings.supervisor_host, self._settings.supervisor_port)

    def _away(self, service: str, error: Exception) -> NotRunning:
        host, port = self._address(service)
        why = error.errmsg if isinstance(error, xmlrpc.client.ProtocolError) else error
        return NotRunning(
            f"the supervisor of the {service} service does not answer at {host}:{port}: {why}",
            f"start the embedded stack with `twofold up`, or set TWOFOLD_{service.upper()}_SUPERVISOR; "
            f"see {self._settings.runbooks_url}/supervisor-away.md",
        )
