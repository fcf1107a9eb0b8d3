"""A TCP proxy whose packets are swallowed in both directions once it is told to, as a firewall may; nothing is closed.

A socket filter of Linux drops what comes before TCP sees it. So nothing is acknowledged and no keepalive is answered,
which a proxy that only stopped to forward would do.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

_SO_ATTACH_FILTER = 26
_DROP = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
"""A filter of one instruction: of a packet, keep 0 bytes."""


class SwallowingProxy:
    """Forwards what comes to `port` of this machine to an address, until `swallow`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._sockets = [self._server]
        Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        """Take in no packet from now on, be it of data, of a new connection, or the end of one."""
        for each in self._sockets:
            program = struct.pack("HP", 1, ctypes.addressof(_DROP))
            each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def close(self) -> None:
        """End everything."""
        for each in self._sockets:
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
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def swallowing(host: str, port: int) -> Iterator[SwallowingProxy]:
    """A proxy in front of an address."""
    proxy = SwallowingProxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
