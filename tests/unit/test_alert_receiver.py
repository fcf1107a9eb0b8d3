"""What the example receiver of alerts answers to whatever is sent to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from itertools import count
from threading import Thread

import pytest

from monitoring.receiver import Receiver

ALERT = {"status": "firing", "startsAt": "2026-01-02T03:04:05Z", "labels": {}, "annotations": {"summary": "\ud800"}}


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("length", "body", "status"),
    [
        (None, json.dumps({"alerts": [ALERT]}), 204),
        (None, "{", 400),
        (None, "[]", 400),
        (None, '{"alerts": [{"labels": 1, "annotations": {}, "status": "firing", "startsAt": ""}]}', 400),
        (None, "[" * 100_000, 400),
        ("many", "", 400),
        ("-1", "", 400),
        ("2000000", "", 413),
    ],
    ids=count(),
)
def test_whatever_comes_is_answered(port: int, length: str | None, body: str, status: int) -> None:
    """A length that is no number, or half a character, ended with a stack trace and no answer; one below 0 hung."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/", body, {} if length is None else {"Content-Length": length})
    assert connection.getresponse().status == status
    connection.close()
