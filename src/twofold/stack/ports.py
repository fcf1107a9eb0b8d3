"""The ports of the embedded stack: declared on the settings that move them, and the check that they are free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from twofold.errors import TwofoldError
from twofold.settings import Settings, Use


@dataclass(frozen=True)
class Port:
    """A port and the setting that moves it."""

    name: str
    default: int
    use: Use

    @property
    def setting(self) -> str:
        """The environment variable that moves the port."""
        return f"TWOFOLD_{self.name.upper()}_PORT"

    def number(self, settings: Settings) -> int:
        """The port in force."""
        return int(getattr(settings, f"{self.name}_port"))


PORTS = {
    (name := field.removesuffix("_port")): Port(name, declared.default, use)
    for field, declared in Settings.model_fields.items()
    for use in declared.metadata
    if isinstance(use, Use)
}


def is_free(number: int, protocol: str = "tcp") -> bool:
    """Whether a server can listen on this loopback port now (sockets of ended connections do not count)."""
    with socket.socket(type=socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as probe:
        if protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def listener(number: int) -> str:
    """Who listens on a port, as far as this user may see: ` by java (pid 123)`, or an empty string."""
    try:
        found = psutil.net_connections(kind="tcp")
        pids = [c.pid for c in found if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == number and c.pid]
        return f" by {psutil.Process(pids[0]).name()} (pid {pids[0]})" if pids else ""
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return ""


def require_free(ports: Iterable[Port], settings: Settings) -> None:
    """Refuse to start while any of the ports is taken; all taken ones are named at once."""
    taken = [port for port in ports if not is_free(port.number(settings), port.use.protocol)]
    if taken:
        numbers = [(port, port.number(settings)) for port in taken]
        raise TwofoldError(
            "; ".join(f"port {number} ({port.name}) is taken{listener(number)}" for port, number in numbers),
            "stop what listens there, or move it: "
            + " ".join([*(f"{port.setting}=<free port>" for port in taken), "twofold up"]),
        )
