"""`/healthz` of a long-running service: process state AND progress, as JSON on the loopback interface.

    service's own thread ──writes──► its state ◄──snapshot()── HTTP thread ◄── GET /healthz

Try it: `curl -s http://127.0.0.1:$(jq .port .twofold/run/flights-producer.json)/healthz`
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from twofold.errors import TwofoldError
from twofold.local_files import write_whole

_TIMEOUT_S = 3.0
Snapshot = Callable[[], Mapping[str, Any]]
"""Returns the state to show. Its `healthy` (bool, absent = true) decides between 200 and 503."""


class HealthServer(ThreadingHTTPServer):
    """Answers GET /healthz from a daemon thread, within a `with` block; TwofoldError where the port is taken."""

    def __init__(self, snapshot: Snapshot, port: int = 0, host: str = "127.0.0.1") -> None:
        self.snapshot = snapshot
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise TwofoldError(
                f"the health port {host}:{port} cannot be used: {error.strerror}",
                "name another one with --health-port, or 0 for any free port",
            ) from error
        self.host, self.port = host, self.server_port
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True, name="healthz").start()

    def announce(self, path: Path) -> None:
        """Write `{pid, host, port}` to `path` in one step, for those who want to ask (sensors, `twofold status`)."""
        write_whole(path, json.dumps({"pid": os.getpid(), "host": self.host, "port": self.port}))

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer

    def do_GET(self) -> None:
        if self.path.split("?")[0] != "/healthz":
            self._answer(HTTPStatus.NOT_FOUND, {"error": "only /healthz is here"})
            return
        state = self.server.snapshot()
        self._answer(HTTPStatus.OK if state.get("healthy", True) else HTTPStatus.SERVICE_UNAVAILABLE, state)

    def _answer(self, status: HTTPStatus, body: Mapping[str, Any]) -> None:
        payload = json.dumps(body, default=str).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: a probe every few seconds would drown the service's own log."""


def place_of(home: Path, pipeline: str, service: str) -> Path:
    """Where a pipeline's `producer` or `stream` announces itself."""
    return home / "run" / f"{pipeline}-{service}.json"


def announced(place: Path) -> Mapping[str, Any] | None:
    """`{pid, host, port}` of the service that announced itself last, though it may be gone; None: nobody did."""
    try:
        found: Mapping[str, Any] = json.loads(place.read_text())
    except (OSError, ValueError):
        return None
    return found


def address(place: Path) -> str:
    """`host:port` of the service that announced itself last, though it may be gone; empty: nobody did."""
    found = announced(place)
    return f"{found['host']}:{found['port']}" if found else ""


def ask(address: str, silent: Mapping[str, Any] = MappingProxyType({})) -> Mapping[str, Any]:
    """What the service at `host:port` reports, healthy or not; empty: it is gone, or another program answers.

    `silent` is given where no answer comes in time: of one look, the machine may be too slow.
    """
    if not address:
        return {}
    try:
        try:
            answer: Any = urlopen(f"http://{address}/healthz", timeout=_TIMEOUT_S)
        except HTTPError as error:  # 503: it answers, and is not well
            answer = error
        with answer:
            told = json.load(answer)
    except (OSError, ValueError, HTTPException) as error:
        # It ends while it answers, or another one has its port by now.
        return silent if TimeoutError in (type(error), type(getattr(error, "reason", None))) else {}
    return told if isinstance(told, dict) and "state" in told else {}
