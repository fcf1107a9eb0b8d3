"""supervisord as all of ours use it: the text of its configuration, and its XML-RPC interface.

    configuration(…) + program(…) + …      a stack's file, a container's file, and services declared while it runs
    connect("127.0.0.1", 19100, "twofold", password).supervisor.getState() → {"statename": "RUNNING", …}

A call raises `UNREACHABLE`, or `xmlrpc.client.Error` where supervisord refuses it. Imports next to nothing: it is part
of supervisord's own process and of health checks that run every few seconds.
"""

from __future__ import annotations

import base64
import http.client
import shlex
import xmlrpc.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twofold.errors import TwofoldError

UNREACHABLE = (OSError, http.client.HTTPException)
HOME_MARK = "TWOFOLD_STACK"
"""Environment variable that carries the home folder of the stack a process belongs to."""
PROGRAM_MARK = "TWOFOLD_PROGRAM"
"""Environment variable that carries the program's name."""


def marks(home: Path, name: str) -> dict[str, str]:
    """The environment that makes a process, and all it starts, ours."""
    return {HOME_MARK: str(home), PROGRAM_MARK: name}


def configuration(*, home: Path, listen: str, login: tuple[str, str], restarts_per_hour: int, **daemon: object) -> str:
    """The head of supervisord.conf: itself (`daemon` as supervisord names its options), who may ask it, and how."""
    factory = "supervisor.rpcinterface_factory"
    extension = {factory: "twofold.services.inside:make", "home": escape(str(home))}
    sections: dict[str, dict[str, object]] = {
        "supervisord": daemon,
        "inet_http_server": {"port": listen, "username": login[0], "password": escape(login[1])},
        "rpcinterface:supervisor": {factory: "supervisor.rpcinterface:make_main_rpcinterface"},
        "rpcinterface:twofold": {**extension, "restarts_per_hour": restarts_per_hour},
    }
    return "".join(_section(title, **values) for title, values in sections.items())


def program(
    name: str,
    command: Sequence[str],
    *,
    home: Path,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    **options: object,
) -> str:
    """A program of the stack at `home`, its output in a log there; `options` as supervisord names them."""
    variables = {**(environment or {}), **marks(home, name)}
    log = escape(escape(str(log_file(home, name))))  # expanded twice
    return _section(
        f"program:{name}",
        command=escape(shlex.join(command)),
        environment=",".join(f"{key}={_quote(value)}" for key, value in variables.items()),
        directory=escape(str(directory)),
        # Who starts supervisord starts the programs, and says so.
        autostart="false",
        killasgroup="true",
        redirect_stderr="true",
        stdout_logfile=log,
        stdout_logfile_maxbytes="10MB",
        stdout_logfile_backups=2,
        **options,
    )


def log_file(home: Path, name: str) -> Path:
    """Where a program's output goes."""
    return home / "logs" / f"{name}.log"


def _section(title: str, **values: object) -> str:
    return f"\n[{title}]\n" + "".join(f"{name}={value}\n" for name, value in values.items())


def escape(text: str) -> str:
    """Any value: `%` expands, and ` ;` or ` #` would start a comment."""
    if "\n" in text or " ;" in text or " #" in text:
        raise TwofoldError(f"supervisord cannot be given the text {text!r}", "use a folder without ` ;` or ` #`")
    return text.replace("%", "%%")


def _quote(value: str) -> str:
    """supervisord knows no escapes here, and takes quotes off both ends."""
    mark = "'" if '"' in value else '"'
    if mark in value or value.strip("'\"") != value:
        raise TwofoldError(f"supervisord cannot be given the text {value!r}", "choose one without quotes")
    return escape(f"{mark}{value}{mark}")


def connect(
    host: str, port: int, user: str, password: str, timeout_s: float | None = None
) -> xmlrpc.client.ServerProxy:
    """One call after another to the supervisord at an address; without a limit, a call waits until it is done."""
    # In a header, not in the address: a password may hold `@`, `/` and `%`, and an address gets into messages.
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    transport = _Transport(timeout_s, headers=[("Authorization", f"Basic {login}")])
    return xmlrpc.client.ServerProxy(f"http://{host}:{port}/RPC2", transport=transport)


class _Transport(xmlrpc.client.Transport):
    """With a limit of time, which supervisor's own transport does not have."""

    def __init__(self, timeout_s: float | None, headers: list[tuple[str, str]]) -> None:
        super().__init__(headers=headers)
        self._timeout_s = timeout_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ANN401
        connection = super().make_connection(host)
        connection.timeout = self._timeout_s
        return connection
