"""A TCP proxy that, once told to, swallows all packets of both directions and closes nothing: as a firewall may."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread


class SwallowingProxy:
    """Forwards what comes to `port` of this machine to an address, until `swallow`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._swallows = Event()
        self._sockets: list[socket.socket] = []
        Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        """Deliver nothing from now on, not even that an end was closed."""
        self._swallows.set()

    def close(self) -> None:
        """End everything."""
        for each in (self._server, *self._sockets):
            # Wakes the thread that waits for it.
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if not self._swallows.is_set():
                    target.sendall(data)
            if not self._swallows.is_set():
                target.shutdown(socket.SHUT_WR)


@contextmanager
def swallowing(host: str, port: int) -> Iterator[SwallowingProxy]:
    """A proxy in front of an address."""
    proxy = SwallowingProxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
