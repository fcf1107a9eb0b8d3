"""Which producer of a pipeline is asked for its health, where two run at once."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from producer.sending import announce
from producer.sources import Request
from twofold import health


def test_another_source_does_not_hide_the_pipelines_own_producer(tmp_path: Path) -> None:
    place = health.place_of(tmp_path, "p", "producer")
    with health.HealthServer(dict) as service, health.HealthServer(lambda: {"state": "sending"}) as manual:
        announce(manual, place, Request(from_file="fix.jsonl"))
        assert _port(place) == manual.port
        announce(service, place, Request(own=True))
        assert _port(place) == service.port


def test_the_last_of_two_manual_is_asked_once_the_first_is_gone(tmp_path: Path) -> None:
    place = health.place_of(tmp_path, "p", "producer")
    with health.HealthServer(lambda: {"state": "sending"}) as first:
        announce(first, place, Request(own=True))
        with health.HealthServer(dict) as second:
            announce(second, place, Request(from_file="fix.jsonl"))
            assert _port(place) == first.port
    with health.HealthServer(dict) as second:
        announce(second, place, Request(from_file="fix.jsonl"))
        assert _port(place) == second.port


def test_one_that_does_not_answer_in_time_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_TIMEOUT_S", 0.2)
    place = health.place_of(tmp_path, "p", "producer")
    released = Event()
    with (
        health.HealthServer(lambda: {"state": "sending", "ended": released.wait()}) as slow,
        health.HealthServer(dict) as second,
    ):
        announce(slow, place, Request(own=True))
        announce(second, place, Request(from_file="fix.jsonl"))
        released.set()
        assert _port(place) == slow.port


def _port(place: Path) -> int:
    found = health.announced(place)
    assert found
    return int(found["port"])
