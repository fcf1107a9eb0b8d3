"""A real request to a server, with nothing but the standard library: asked every few seconds, also in containers.

Each returns why the server is not well, or an empty string.
"""

from __future__ import annotations

import http.client
import socket
import struct
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
