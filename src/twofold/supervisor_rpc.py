"""supervisord's XML-RPC interface, for all that call it; standard library only: asked every few seconds.

    connect("127.0.0.1", 19100, "twofold", password).supervisor.getState() → {"statename": "RUNNING", …}

A call raises `UNREACHABLE`, or `xmlrpc.client.Error` where supervisord refuses it.
"""

from __future__ import annotations

import base64
import http.client
import xmlrpc.client
from typing import Any

UNREACHABLE = (OSError, http.client.HTTPException)


def connect(
    host: str, port: int, user: str, password: str, timeout_s: float | None = None
) -> xmlrpc.client.ServerProxy:
    """One call after another to the supervisord at an address; without a limit, a call waits until it is done."""
    # In a header, not in the address: a password may hold `@`, `/` and `%`, and an address gets into messages.
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    transport = _Transport(timeout_s, headers=[("Authorization", f"Basic {login}")])
    return xmlrpc.client.ServerProxy(f"http://{host}:{port}/RPC2", transport=transport)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, timeout_s: float | None, headers: list[tuple[str, str]]) -> None:
        super().__init__(headers=headers)
        self._timeout_s = timeout_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ANN401
        connection = super().make_connection(host)
        connection.timeout = self._timeout_s
        return connection
