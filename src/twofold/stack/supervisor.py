"""supervisord: its configuration from the programs, its start, and its XML-RPC interface.

The same interface is used wherever services run under it, on a laptop or in a container.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.stack import processes, supervisor_text
from twofold.stack.program import Program
from twofold.stack.state import write_private
from twofold.stack.supervisor_text import escape, log_path
from twofold.supervisor_rpc import UNREACHABLE, connect

RUNNING, STARTING, BACKOFF, STOPPING, FATAL = "RUNNING", "STARTING", "BACKOFF", "STOPPING", "FATAL"

_HEAD = """\
[supervisord]
{user}pidfile={home}/supervisord.pid
logfile={home}/logs/supervisord.log
logfile_maxbytes=10MB
logfile_backups=1
directory=/

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[rpcinterface:twofold]
supervisor.rpcinterface_factory = twofold.services.inside:make
home = {home}
restarts_per_hour = {restarts_per_hour}

[inet_http_server]
port={host}:{port}
username={name}
password={password}
"""

# autostart: the command that starts supervisord starts the programs, and says so.
# startretries: pauses grow by a second each, so a program that something else keeps down is tried for minutes.
_PROGRAM = """
[program:{name}]
command={command}
environment={environment}
directory={directory}
{user}priority={priority}
autostart=false
autorestart=true
startsecs=2
startretries=20
stopsignal={stop_signal}
stopwaitsecs={stop_wait_s}
killasgroup=true
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""


@dataclass(frozen=True)
class ProgramState:
    """What supervisord says about one program."""

    name: str
    state: str
    pid: int
    uptime_s: int
    reason: str


def log_file(settings: Settings, program: str) -> Path:
    """Where a program's output goes."""
    return settings.home / "logs" / f"{program}.log"


def render(settings: Settings, programs: Iterable[Program]) -> str:
    """Text of supervisord.conf. Only root may name a user, and must."""
    head = _HEAD.format(
        home=escape(str(settings.home)),
        user=f"user={pwd.getpwuid(os.geteuid()).pw_name}\n" if os.geteuid() == 0 else "",
        host=settings.supervisor_host,
        port=settings.supervisor_port,
        name=settings.supervisor_user,
        password=escape(settings.supervisor_password.get_secret_value()),
        restarts_per_hour=settings.service_restarts_per_hour,
    )
    return head + "".join(_section(settings, program) for program in programs)


def _section(settings: Settings, program: Program) -> str:
    environment = {**program.environment, **processes.marks(settings.home, program.name)}
    return _PROGRAM.format(
        name=program.name,
        command=escape(shlex.join(program.command)),
        environment=supervisor_text.environment(environment),
        directory=escape(str(program.directory)),
        user=f"user={program.user}\n" if program.user else "",
        priority=program.start_order,
        stop_signal=program.stop_signal,
        stop_wait_s=program.stop_wait_seconds,
        log=log_path(log_file(settings, program.name)),
    )


def start(settings: Settings, programs: Iterable[Program]) -> None:
    """Write the configuration and start supervisord as a daemon; returns when it answers."""
    (settings.home / "logs").mkdir(exist_ok=True)
    config = settings.home / "supervisord.conf"
    write_private(config, render(settings, programs))
    outcome = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
        # Services are declared while it runs, and take their settings from its environment.
        env={**os.environ, **settings.environment(), **processes.marks(settings.home, processes.SUPERVISOR)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    deadline = time.monotonic() + 15
    while outcome.returncode == 0 and time.monotonic() < deadline:
        if answers(settings):
            return
        time.sleep(0.05)
    raise TwofoldError(
        f"supervisord did not start: {outcome.stdout.strip()}", f"see {log_file(settings, 'supervisord')}"
    )


class Rpc(Protocol):
    """The XML-RPC methods of supervisord that are used here."""

    def getState(self) -> dict[str, Any]: ...  # noqa: D102
    def getAllProcessInfo(self) -> list[dict[str, Any]]: ...  # noqa: D102
    def startProcess(self, name: str, wait: bool) -> bool: ...  # noqa: D102
    def stopProcess(self, name: str, wait: bool) -> bool: ...  # noqa: D102
    def shutdown(self) -> bool: ...  # noqa: D102


def rpc(settings: Settings) -> Rpc:
    """supervisord's interface; each call raises `UNREACHABLE` or `xmlrpc.client.Fault`."""
    user, password = settings.supervisor_user, settings.supervisor_password.get_secret_value()
    return cast(Rpc, connect(settings.supervisor_host, settings.supervisor_port, user, password).supervisor)


def answers(settings: Settings) -> bool:
    """Whether a supervisord that knows our password listens."""
    try:
        rpc(settings).getState()
    except (*UNREACHABLE, xmlrpc.client.Error):
        return False
    return True


def states(settings: Settings) -> dict[str, ProgramState]:
    """What supervisord says about each program, by name."""
    return {
        info["name"]: ProgramState(
            info["name"],
            info["statename"],
            info["pid"],
            max(0, info["now"] - info["start"]) if info["pid"] else 0,
            info["spawnerr"] or info["description"],
        )
        for info in rpc(settings).getAllProcessInfo()
    }


def start_program(settings: Settings, name: str) -> None:
    """Ask for a program without waiting for it; one that runs already stays as it is."""
    try:
        rpc(settings).startProcess(name, False)
    except xmlrpc.client.Fault as fault:
        if "ALREADY_STARTED" not in fault.faultString:
            raise TwofoldError(f"{name} cannot be started: {fault.faultString}", "see its log") from fault


def stop_programs(settings: Settings, names: Iterable[str]) -> None:
    """Stop programs one after the other; one that does not run stays as it is."""
    for name in names:
        try:
            rpc(settings).stopProcess(name, True)
        except xmlrpc.client.Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                raise TwofoldError(f"{name} cannot be stopped: {fault.faultString}", "see its log") from fault
