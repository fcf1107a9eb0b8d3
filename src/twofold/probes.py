"""A real request to a server, with nothing but the standard library: asked every few seconds, also in containers.

Each returns why the server is not well, or an empty string.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 3.0
AIRFLOW_TIMEOUT_S = 5.0


def zookeeper(host: str, port: int) -> str:
    """The four-letter word `ruok`."""
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as connection:
            connection.sendall(b"ruok")
            answer = connection.recv(16)
    except OSError as error:
        return str(error)
    return "" if answer == b"imok" else f"answered {answer!r} to ruok"


def kafka(host: str, port: int) -> str:
    """A Metadata request (version 1, no topics): the broker is up, registered, and knows the cluster's controller."""
    request = struct.pack(">hhih6si", 3, 1, 1, 6, b"health", 0)
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            stream = connection.makefile("rb")
            (size,) = struct.unpack(">i", stream.read(4))
            return _broker_fault(stream.read(size))
    except (OSError, struct.error) as error:
        return str(error)


def _broker_fault(answer: bytes) -> str:
    """Read a Metadata v1 answer: correlation id, brokers (id, host, port, rack), controller id, topics."""
    (brokers,) = struct.unpack_from(">i", answer, 4)
    position = 8
    for _ in range(brokers):
        (host_length,) = struct.unpack_from(">h", answer, position + 4)
        position += 4 + 2 + host_length + 4
        (rack_length,) = struct.unpack_from(">h", answer, position)
        position += 2 + max(0, rack_length)
    (controller,) = struct.unpack_from(">i", answer, position)
    return "" if brokers and controller >= 0 else "the broker is not registered yet"


def listening(host: str, port: int) -> str:
    """A server that takes connections, where it has no page to ask for."""
    try:
        socket.create_connection((host, port), TIMEOUT_S).close()
    except OSError as error:
        return str(error)
    return ""


def http_page(url: str) -> str:
    """A page that answers 200."""
    try:
        _get(url)
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    return ""


def airflow(url: str, process: str, started_at: Callable[[], float]) -> str:
    """One of Airflow's processes, by what the API server at `url` says.

    The API server is healthy when it answers and has its database, another process when it gave a heartbeat since it
    was started (Unix seconds): that of a killed one stays good for a while.
    """
    try:
        health: dict[str, Any] = json.loads(_get(f"{url}/api/v2/monitor/health", AIRFLOW_TIMEOUT_S))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"the API server: {error}"
    if process == "api-server":
        return "" if health["metadatabase"]["status"] == "healthy" else "it does not reach its database"
    name = process.replace("-", "_")
    state = health.get(name) or {}
    if (beat := state.get(f"latest_{name}_heartbeat")) is None:
        return "no heartbeat yet"
    beat_at = datetime.fromisoformat(beat).timestamp()
    if beat_at < started_at():
        return "no heartbeat since its start"
    return "" if state["status"] == "healthy" else f"last heartbeat {time.time() - beat_at:.0f} s ago"


def _get(url: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """The body of a page; OSError where the answer is not 200."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=timeout_s)
    try:
        connection.request("GET", place.path)
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"HTTP status {answer.status}")
        return answer.read()
    finally:
        connection.close()
