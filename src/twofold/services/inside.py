"""Twofold's part of supervisord, loaded into its process: services declared while it runs, and the budget of restarts.

    [rpcinterface:twofold]
    supervisor.rpcinterface_factory = twofold.services.inside:make
    home = /srv/twofold
    restarts_per_hour = 3

supervisord does one thing at a time: two callers at once start a service once, and nobody else writes its record,
`<home>/run/services/<program>.json`. A service runs with supervisord's own environment. Imports little: it stays small.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from supervisor.options import ProcessConfig, UnhosedConfigParser
from supervisor.process import Subprocess
from supervisor.states import RUNNING_STATES, ProcessStates, SupervisorStates, getProcessStateDescription
from supervisor.xmlrpc import Faults, RPCError

from twofold import supervisord
from twofold.definition.names import SERVICES, pipeline_fault
from twofold.health import announced, place_of
from twofold.local_files import write_whole
from twofold.services import record as rules
from twofold.services.record import PRODUCER, STREAM, End, Record

_DOWN = (ProcessStates.STOPPED, ProcessStates.EXITED, ProcessStates.FATAL)
_VERBS = {PRODUCER: "produce", STREAM: "stream"}
# priority: after the broker and the catalog, and gone before them. startsecs: `finish` sees every end, an early
# one too. autorestart: who starts again is decided by the record alone.
_OPTIONS: dict[str, Any] = {
    "priority": 35,
    "autorestart": "false",
    "startsecs": 0,
    "startretries": 0,
    "stopsignal": "TERM",
    "stopwaitsecs": 30,
}


class SupervisedProcess(Subprocess):  # type: ignore[misc]
    """A service's process: it keeps the service's record, in memory and on disk, and restarts as the record says."""

    record: Record

    def keep(self, record: Record) -> None:
        """Write the record, whole or not at all."""
        write_whole(self.config.record_path, record.to_json())
        self.record = record

    def note(self, record: Record) -> None:
        """Write it if that can be: a full disk must not end supervisord."""
        try:
            self.keep(record)
        except OSError:
            self.record = record

    def finish(self, pid: int, status: int) -> None:
        """It ended: end what is left of its group (a JVM without its driver), then see whether to start again."""
        asked, ran_s = bool(self.killing), max(0.0, time.time() - self.laststart)
        super().finish(pid, status)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        end = End(time.time(), os.waitstatus_to_exitcode(status), asked, ran_s)
        self.note(rules.ended(self.record, end, self.config.service, self.config.per_hour))

    def transition(self) -> None:
        """Called by supervisord every second, and after every event."""
        super().transition()
        going_down = self.config.options.mood <= SupervisorStates.RESTARTING
        if self.record.again and self.state in _DOWN and not going_down:
            self.note(replace(self.record, again=False))
            self.spawn()
            super().transition()


class Declared(ProcessConfig):  # type: ignore[misc]
    """A program whose one process is a service's."""

    service: str
    per_hour: int
    record_path: Path

    def make_process(self, group: Any = None) -> SupervisedProcess:  # noqa: ANN401
        """The process, with the record that an earlier one left."""
        process, path = SupervisedProcess(self), self.record_path
        process.group = group
        process.record = Record.from_dict(json.loads(path.read_text())) if path.exists() else Record()
        return process


class Services:
    """The XML-RPC namespace `twofold`: each method takes a pipeline's name and `producer` or `stream`."""

    def __init__(self, daemon: Any, home: Path, per_hour: int) -> None:  # noqa: ANN401
        self._daemon, self.home, self._per_hour = daemon, home, per_hour

    def start(self, pipeline: str, service: str, by_hand: bool) -> str:
        """Start it unless it runs, or the record forbids it; returns what was done."""
        process = self._process(pipeline, service)
        record, did = rules.start(process.record, time.time(), by_hand=by_hand, alive=_alive(process))
        process.keep(record)
        process.transition()
        return did

    def stop(self, pipeline: str, service: str) -> bool:
        """Ask it to end, and keep it down until it is started manually; does not wait for the end."""
        process = self._process(pipeline, service)
        process.keep(rules.stop(process.record, time.time()))
        _end(process)
        return True

    def restart(self, pipeline: str, service: str, by_hand: bool, why: str) -> str:
        """Ask it to end and start it again; unless `by_hand` only within the budget. Returns what was done."""
        process = self._process(pipeline, service)
        record, did = rules.restart(process.record, time.time(), self._per_hour, by_hand=by_hand, why=why)
        process.keep(record)
        _end(process)
        process.transition()
        return did

    def status(self, pipeline: str, service: str) -> str:
        """State, process and record as one JSON object (XML-RPC has no null and no large numbers)."""
        process = self._process(pipeline, service)
        return json.dumps(
            {
                "state": getProcessStateDescription(process.state),
                "pid": process.pid,
                "uptime_s": round(time.time() - process.laststart, 1) if process.pid else 0.0,
                "spent": process.record.spent(time.time()),
                "per_hour": self._per_hour,
                "changes": process.record.changed(time.time()),
                "health_port": _health_port(place_of(self.home, pipeline, service), process.pid),
                "record": json.loads(process.record.to_json()),
            }
        )

    def command(self, pipeline: str, service: str) -> list[str]:
        """The program of a service."""
        return [sys.executable, "-m", "twofold.cli", _VERBS[service], pipeline]

    def _process(self, pipeline: str, service: str) -> SupervisedProcess:
        """The service's process, declared now if it was not."""
        if pipeline_fault(pipeline) or service not in SERVICES:
            raise RPCError(Faults.BAD_NAME, f"{pipeline}-{service}")
        if self._daemon.options.mood <= SupervisorStates.RESTARTING:
            raise RPCError(Faults.SHUTDOWN_STATE)
        name = f"{pipeline}-{service}"
        if name not in self._daemon.process_groups:
            self._declare(name, pipeline, service)
        process: SupervisedProcess = self._daemon.process_groups[name].processes[name]
        return process

    def _declare(self, name: str, pipeline: str, service: str) -> None:
        options, parser = self._daemon.options, UnhosedConfigParser()
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        command = self.command(pipeline, service)
        text = supervisord.program(name, command, home=self.home, directory=self.home, **_OPTIONS)
        parser.read_string(text)
        parser.expansions = options.environ_expansions
        (group,) = options.process_groups_from_parser(parser)
        (config,) = options.processes_from_section(parser, f"program:{name}", name, Declared)
        config.service, config.per_hour = service, self._per_hour
        config.record_path = self.home / "run" / "services" / f"{name}.json"
        group.process_configs = [config]
        self._daemon.add_process_group(group)


def make(daemon: Any, home: str, restarts_per_hour: str) -> Services:  # noqa: ANN401
    """What supervisord's configuration names."""
    return Services(daemon, Path(home), int(restarts_per_hour))


def _alive(process: SupervisedProcess) -> bool:
    return process.state in RUNNING_STATES


def _end(process: SupervisedProcess) -> None:
    """Ask a process to end; supervisord kills it, and its group, when it does not."""
    if _alive(process):
        process.stop()


def _health_port(place: Path, pid: int) -> int:
    """The port of the running process's `/healthz`; 0: it does not answer yet."""
    found = announced(place)
    return int(found["port"]) if found and pid and found["pid"] == pid else 0
