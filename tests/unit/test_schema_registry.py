"""What a registry's answers mean: only its own word that there is no such id rejects a record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from twofold import schema_registry
from twofold.errors import TwofoldError
from twofold.schema_registry import Registered, Registry, RegistryAway, UnknownSchema

SCHEMA = '{"type": "string"}'
Answer = tuple[int, bytes]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as always, but at once: how long it waits for a registry that comes back is not looked at here."""
    monkeypatch.setattr(schema_registry, "_PAUSE_MS", 1)
    monkeypatch.setattr(schema_registry, "_LONGEST_PAUSE_MS", 1)


@contextmanager
def answering(*answers: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers, the last one again and again; its address, and what it was asked."""
    left, asked = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, text = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/ccompat", asked
    finally:
        server.shutdown()
        server.server_close()


def said(code: int) -> bytes:
    return json.dumps({"error_code": code, "message": "no"}).encode()


@pytest.mark.parametrize(
    ("answer", "raised", "remedy"),
    [
        ((404, said(40403)), UnknownSchema, ""),
        ((404, said(404)), TwofoldError, "TWOFOLD_SCHEMA_REGISTRY_URL"),
        ((404, b"<html>not here</html>"), TwofoldError, "TWOFOLD_SCHEMA_REGISTRY_URL"),
        ((200, b"<html>a page</html>"), TwofoldError, "TWOFOLD_SCHEMA_REGISTRY_URL"),
        ((200, b"[]"), TwofoldError, "TWOFOLD_SCHEMA_REGISTRY_URL"),
        ((401, said(401)), TwofoldError, "TWOFOLD_SCHEMA_REGISTRY_USER"),
        ((503, b"starting"), RegistryAway, "twofold up --registry"),
        ((500, said(50001)), RegistryAway, "twofold up --registry"),
        ((429, b""), RegistryAway, "twofold up --registry"),
    ],
)
def test_answers(answer: Answer, raised: type[Exception], remedy: str) -> None:
    with answering(answer) as (url, _), pytest.raises(raised) as error:
        Registry(url).schema(7)
    assert type(error.value) is raised
    assert remedy in str(error.value)


def test_nobody_there_is_away() -> None:
    with answering((200, b"")) as (url, _):
        pass
    with pytest.raises(RegistryAway, match="does not answer"):
        Registry(url).schema(7)


def test_a_number_that_no_registry_has_is_not_asked_for() -> None:
    with answering((500, b"")) as (url, asked), pytest.raises(UnknownSchema):
        Registry(url).schema(1 << 31)
    assert not asked


def test_an_answer_is_kept_for_good_and_a_refusal_is_not() -> None:
    with answering((404, said(40403)), (200, json.dumps({"schema": SCHEMA}).encode()), (503, b"")) as (url, asked):
        registry = Registry(url)
        with pytest.raises(UnknownSchema):
            registry.schema(7)
        for _ in range(3):
            assert registry.schema(7) == Registered("AVRO", SCHEMA)
        assert len(asked) == 2
