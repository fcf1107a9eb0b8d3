"""A real request to a server, asked every few seconds, also in containers: little is imported.

Each returns why the server is not well, or an empty string.
"""

from __future__ import annotations

import http.client
import json
import socket
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
    """The broker is up, registered, and knows the cluster's controller."""
    # Only here: the client takes longer to import than all other probes together.
    from twofold.kafka import broker_fault

    return listening(host, port) or broker_fault(host, port, TIMEOUT_S)


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
    was started (Unix seconds): the heartbeat of a killed one stays valid for a while.
    """
    try:
        health: dict[str, Any] = json.loads(_get(f"{url}/api/v2/monitor/health", AIRFLOW_TIMEOUT_S))
        database = health["metadatabase"]["status"]
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"the API server: {error}"
    except (KeyError, TypeError):
        return "another program answers in the place of the API server"
    if process == "api-server":
        return "" if database == "healthy" else "it does not reach its database"
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
