"""A real request to a server, asked every few seconds, also in containers: little is imported.

Each returns why the server is not well, or an empty string.
"""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

TIMEOUT_S = 3.0


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
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", place.path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    finally:
        connection.close()
    return "" if status == http.HTTPStatus.OK else f"HTTP status {status}"
