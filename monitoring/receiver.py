"""An example receiver for Alertmanager: prints one line for each alert, with what is lost and its runbook.

Manually: `python -m monitoring.receiver` (the address is in monitoring/alertmanager/alertmanager.yml)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click

PORT = 19094
_LARGEST_BYTES = 1 << 20


def lines(message: Mapping[str, Any]) -> Iterator[str]:
    """One line for each alert of a webhook message.

    >>> notes = {"summary": "It is down.", "loss": "All.", "runbook": "docs/runbooks/a.md"}
    >>> alert = {"status": "firing", "labels": {"alertname": "Down", "severity": "critical"}, "annotations": notes}
    >>> list(lines({"alerts": [{**alert, "startsAt": "2026-01-02T03:04:05Z"}]}))
    ['2026-01-02T03:04:05Z firing critical Down: It is down. Lost: All. See docs/runbooks/a.md']
    """
    for alert in message["alerts"]:
        labels, notes = alert["labels"], alert["annotations"]
        at = alert["startsAt"] if alert["status"] == "firing" else alert["endsAt"]
        head = f"{at} {alert['status']} {labels.get('severity')} {labels.get('alertname')}"
        yield f"{head}: {notes.get('summary')} Lost: {notes.get('loss')} See {notes.get('runbook')}"


class Receiver(BaseHTTPRequestHandler):
    """Takes Alertmanager's webhook messages."""

    def do_POST(self) -> None:
        """Print the alerts of one message."""
        try:
            size = int(self.headers.get("Content-Length") or 0)
            if size > _LARGEST_BYTES:
                self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                return
            said = list(lines(json.loads(self.rfile.read(max(size, 0)))))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self.send_error(HTTPStatus.BAD_REQUEST, "not a message of Alertmanager's")
            return
        for line in said:
            # Half a character that JSON lets through is none for a terminal.
            click.echo(line.encode(errors="backslashreplace"))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """The alerts are the log."""


@click.command()
@click.option("--port", default=PORT, show_default=True, help="Port on loopback.")
def main(port: int) -> None:
    """Print what Alertmanager sends, until interrupted."""
    with ThreadingHTTPServer(("127.0.0.1", port), Receiver) as server:
        click.echo(f"waiting for alerts on http://127.0.0.1:{server.server_port}/", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
