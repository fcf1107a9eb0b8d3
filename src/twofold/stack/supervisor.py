"""The stack's own supervisord: started from the table of programs, and asked through its XML-RPC interface."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twofold import supervisord
from twofold.errors import TwofoldError
from twofold.local_files import write_whole
from twofold.settings import Settings
from twofold.stack.processes import SUPERVISOR
from twofold.stack.programs import Program
from twofold.supervisord import UNREACHABLE, connect, log_file, marks

RUNNING, STARTING, FATAL = "RUNNING", "STARTING", "FATAL"


class ProgramState(NamedTuple):
    """What supervisord says about one program."""

    name: str
    state: str
    pid: int
    uptime_s: int


def render(settings: Settings, programs: Iterable[Program]) -> str:
    """Text of supervisord.conf. Only root may name a user, and must."""
    head = supervisord.configuration(
        home=settings.home,
        listen=f"{settings.supervisor_host}:{settings.supervisor_port}",
        login=(settings.supervisor_user, settings.supervisor_password.get_secret_value()),
        restarts_per_hour=settings.service_restarts_per_hour,
        pidfile=supervisord.escape(f"{settings.home}/supervisord.pid"),
        logfile=supervisord.escape(str(log_file(settings.home, SUPERVISOR))),
        logfile_maxbytes="10MB",
        logfile_backups=1,
        directory="/",
        **({"user": pwd.getpwuid(os.geteuid()).pw_name} if os.geteuid() == 0 else {}),
    )
    return head + "".join(
        supervisord.program(
            program.name,
            program.command,
            home=settings.home,
            # Another account may not get into the home.
            directory=Path("/") if program.user else settings.home,
            environment=program.environment,
            priority=program.start_order,
            autorestart="true",
            startsecs=2,
            # Pauses grow by a second each, so a program that something else keeps down is tried for minutes.
            startretries=20,
            stopsignal=program.stop_signal,
            stopwaitsecs=program.stop_wait_s,
            **({"user": program.user} if program.user else {}),
        )
        for program in programs
    )


def start(settings: Settings, programs: Iterable[Program]) -> None:
    """Write the configuration and start supervisord as a daemon; returns when it answers."""
    (settings.home / "logs").mkdir(exist_ok=True)
    config = _configure(settings, programs)
    outcome = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
        # Services are declared while it runs, and take their settings from its environment.
        env={**os.environ, **settings.environment(), **marks(settings.home, SUPERVISOR)},
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
        f"supervisord did not start: {outcome.stdout.strip()}", f"see {log_file(settings.home, SUPERVISOR)}"
    )


def _configure(settings: Settings, programs: Iterable[Program]) -> Path:
    return write_whole(settings.home / "supervisord.conf", render(settings, programs), 0o600)


def rpc(settings: Settings) -> Any:  # noqa: ANN401
    """supervisord's interface; each call raises `UNREACHABLE` or `xmlrpc.client.Fault`."""
    user, password = settings.supervisor_user, settings.supervisor_password.get_secret_value()
    return connect(settings.supervisor_host, settings.supervisor_port, user, password).supervisor


def answers(settings: Settings) -> bool:
    """Whether a supervisord that knows our password listens."""
    try:
        rpc(settings).getState()
    except (*UNREACHABLE, xmlrpc.client.Error):
        return False
    return True


def states(settings: Settings) -> dict[str, ProgramState]:
    """What supervisord says about each program, by name; nothing where none answers."""
    try:
        found = rpc(settings).getAllProcessInfo()
    except (*UNREACHABLE, xmlrpc.client.Error):
        return {}
    return {
        info["name"]: ProgramState(
            info["name"], info["statename"], info["pid"], max(0, info["now"] - info["start"]) if info["pid"] else 0
        )
        for info in found
    }


def declare(settings: Settings, programs: Sequence[Program]) -> None:
    """Tell supervisord of those that it does not know: installed, or new in a release, since it started."""
    known = states(settings)
    if new := [program.name for program in programs if program.name not in known]:
        _configure(settings, programs)
        _ask(settings, "supervisord cannot read its configuration", "reloadConfig")
        for name in new:
            _ask(settings, f"{name} cannot be declared", "addProcessGroup", name)


def start_programs(settings: Settings, names: Iterable[str]) -> None:
    """Ask for programs without waiting for them; one that runs already stays as it is."""
    for name in names:
        _ask(settings, f"{name} cannot be started", "startProcess", name, False, unless="ALREADY_STARTED")


def stop_programs(settings: Settings, names: Iterable[str]) -> None:
    """Stop programs one after the other; one that does not run stays as it is."""
    for name in names:
        _ask(settings, f"{name} cannot be stopped", "stopProcess", name, True, unless="NOT_RUNNING")


def _ask(settings: Settings, failure: str, method: str, *arguments: object, unless: str = "") -> None:
    try:
        getattr(rpc(settings), method)(*arguments)
    except (*UNREACHABLE, xmlrpc.client.Error) as error:
        said = getattr(error, "faultString", str(error))
        if not unless or unless not in said:
            raise TwofoldError(f"{failure}: {said}", "see its log, and supervisord.log") from error
