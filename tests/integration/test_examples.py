"""The webhooks of `examples/` through both layers, their union and the proof, on events written here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pyspark.sql import SparkSession

from tests.at_work import Work
from tests.conftest import random_name
from twofold.definition.load import load_file
from twofold.settings import Settings

EXAMPLES = Path(__file__).parents[2] / "examples"
MARCH_MS = 1_772_323_200_000


def work(stack: Settings, spark: SparkSession) -> Work:
    """The webhooks under a name of their own."""
    declared, name = load_file(EXAMPLES / "webhooks.yaml"), random_name()
    return Work(spark, stack, replace(declared, name=name, topic=replace(declared.topic, name=name)))


def send(at: Work, *records: dict[str, Any]) -> None:
    """Append records to the topic."""
    at.send_values(*(json.dumps(record).encode() for record in records))


def land(at: Work, name: str, *records: dict[str, Any]) -> None:
    """Put a file into the inbox, and take it."""
    at.put(name, "".join(f"{json.dumps(record)}\n" for record in records).encode())
    at.take()


def delivery(number: int, event: str, stars: int, *commits: str) -> dict[str, Any]:
    """As a relay writes a webhook."""
    repository = {"full_name": f"ada/{number}", "private": number % 2 == 0, "stargazers_count": stars}
    body = {"repository": repository, "commits": [{"id": commit} for commit in commits]}
    return {"delivery": f"d{number}", "event": event, "receivedAt": MARCH_MS + number, "body": body}


def test_webhooks(stack: Settings, spark: SparkSession) -> None:
    at = work(stack, spark)
    send(at, delivery(1, "push", 5, "c1", "c2"), delivery(2, "push", 7), delivery(2, "push", 8), delivery(3, "ping", 0))
    at.drain()
    land(at, "later.jsonl", delivery(2, "push", 9, "c3"), delivery(4, "fork", 1))
    events = "SELECT delivery, repository, stars, first_commit, layer FROM unified_events ORDER BY delivery"
    views = "SELECT event, deliveries, of_private, most_stars FROM unified_by_event ORDER BY event"
    for _ in range(2):
        assert at.query(events) == [
            ("d1", "ada/1", 5, "c1", "stream"),
            ("d2", "ada/2", 9, "c3", "batch"),
            ("d4", "ada/4", 1, None, "batch"),
        ]
        assert at.query(views) == [("fork", 1, 1, 1), ("push", 2, 1, 9)]
        at.union()
    assert at.query("SELECT json_extract_string(commits, '$[1].id') FROM unified_events WHERE delivery = 'd1'") == [
        ("c2",)
    ]
    at.holds()


def test_a_pipeline_is_drafted_from_a_topic(
    stack: Settings, spark: SparkSession, twofold: Callable[..., CompletedProcess[str]]
) -> None:
    at, name = work(stack, spark), random_name()
    ids = [str(uuid5(NAMESPACE_URL, str(number))) for number in range(20)]
    send(at, *({**delivery(number, "push", number), "delivery": one} for number, one in enumerate(ids)))
    topic, path = at.pipeline.topic.name, stack.pipelines / f"{name}.yaml"
    try:
        said = twofold("init", name, "--topic", topic).stdout
        text = path.read_text()
    finally:
        # Of no use to other tests, whose folder it is.
        path.unlink(missing_ok=True)
    assert f"topic {topic}: 20 records: 20 accepted, 0 filtered, 0 rejected" in said
    for part in (f"{{name: {topic}, managed: false}}", "id: delivery ", "time: received_at ", "format: epoch_ms"):
        assert part in text
    missing = twofold("init", random_name(), "--topic", random_name(), check=False)
    assert missing.returncode == 1
    assert "there is no topic" in missing.stderr
