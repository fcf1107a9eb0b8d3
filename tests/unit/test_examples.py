"""The example pipelines take events such as theirs, by what `twofold try` says of them."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from demo import webhooks
from producer import query_source, wire
from producer.sources import Request
from twofold.cli import cli
from twofold.contract import kafka_records
from twofold.contract.judge import Judge
from twofold.definition.load import load_file
from twofold.schema_registry import Registered

NOW = datetime(2026, 11, 1, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[2] / "examples"
REPOSITORY = {"full_name": "ada/engine", "private": False, "stargazers_count": 3}


def delivery(number: int, event: str, **body: object) -> dict[str, Any]:
    """As a relay writes a webhook."""
    return {"delivery": f"d-{number}", "event": event, "receivedAt": 1_772_323_200_000 + number, "body": body}


WEBHOOKS = [
    (
        delivery(1, "push", repository=REPOSITORY, sender={"login": "ada"}, commits=[{"id": "c1", "n": 1.50}]),
        {"repository": "ada/engine", "stars": 3, "sender": "ada", "first_commit": "c1", "is_private": False},
    ),
    (
        delivery(2, "pull_request", action="labeled", pull_request={"labels": [{"name": "bug"}]}),
        {"action": "labeled", "first_label": "bug", "sender": "nobody", "repository": None, "commits": None},
    ),
    (
        delivery(3, "issues", issue={"created_at": "2026-03-01T00:00:00Z"}, repository={**REPOSITORY, "private": True}),
        {"opened_at": "2026-03-01T00:00:00Z", "received_at": "2026-03-01T00:00:00.003000Z", "is_private": True},
    ),
    (delivery(4, "ping", zen="x"), "filtered"),
    (delivery(5, "push", repository="ada/engine"), "repository (body.repository.full_name): body.repository is not an"),
    (
        delivery(6, "push", repository={**REPOSITORY, "stargazers_count": -1}),
        "stars (body.repository.stargazers_count) out of range",
    ),
    ({"event": "push", "receivedAt": "yesterday"}, "missing delivery"),
]
WEATHER = [
    (
        {
            "station": {"code": "JFK"},
            "at": {"hour": 376944, "utc": "2013-01-01T00:00:00Z"},
            "air": {"celsius": -0.5},
            "wind": {"mph": 12, "degrees": "270"},
        },
        {"station": "JFK", "hour": 376944, "celsius": "-0.50", "wind_mph": 12.0, "wind_from": 270},
    ),
    (
        {"station": {"code": "JFK"}, "at": {"hour": 1, "utc": "2013-01-01T00:00:00Z"}},
        {"celsius": None, "wind_mph": None, "measured_at": "2013-01-01T00:00:00Z"},
    ),
    ({"station": {"code": "SFO"}, "at": {"hour": 1, "utc": "2013-01-01"}}, "station (station.code) not one of"),
    ({"station": {"code": "JFK"}, "at": {"hour": 1}}, "missing measured_at (at.utc)"),
    ({"station": {"code": "JFK"}, "at": 1}, "measured_at (at.utc): at is not an object"),
]


@pytest.mark.parametrize(("name", "cases"), [("webhooks", WEBHOOKS), ("weather", WEATHER)])
def test_the_example_takes_its_events(name: str, cases: list[tuple[dict[str, Any], Any]]) -> None:
    given = "\n".join(json.dumps(record) for record, _ in cases)
    arguments = ["try", str(EXAMPLES / f"{name}.yaml"), "-", "--format", "json"]
    rows = [json.loads(line) for line in CliRunner().invoke(cli, arguments, input=given).stdout.splitlines()]
    assert len(rows) == len(cases)
    for row, (_, expected) in zip(rows, cases, strict=True):
        if isinstance(expected, dict):
            assert row["outcome"] == "accepted", row["reason"]
            assert {key: row[key] for key in expected} == expected
        else:
            assert row["outcome"] == "filtered" if expected == "filtered" else expected in row["reason"]


def test_the_weather_is_real_and_written_as_declared() -> None:
    pipeline = load_file(EXAMPLES / "weather.yaml")
    registered: list[str] = []

    def register(_subject: str, kind: str, text: str) -> int:
        registered.append(text)
        assert kind == "AVRO"
        return 7

    source = query_source.Table(pipeline, Request(limit=500), wire.writer(pipeline, register))
    chunk = next(iter(source.chunks(0)))
    values = pa.array(chunk.values, pa.binary())
    batch = pa.RecordBatch.from_pydict({"value": values, "timestamp": [NOW] * len(values)})
    records = kafka_records.of(pipeline, batch, lambda _: Registered("AVRO", registered[0]))
    rows = Judge(pipeline).judge(records, NOW).rows.to_pylist()
    assert len(rows) > 400
    assert {row["outcome"] for row in rows} == {"accepted"}, rows[0]
    assert {row["station"] for row in rows} == {"EWR", "JFK", "LGA"}
    assert len({(row["station"], row["hour"]) for row in rows}) == len(rows)


def test_deliveries_have_ids_and_times_of_their_own(tmp_path: Path) -> None:
    kinds = [{"name": "push", "examples": [{"a": 1}, {"a": 2}]}, {"name": "ping", "examples": [{"zen": "x"}]}]
    packed = tmp_path / "package.tgz"
    with tarfile.open(packed, "w:gz") as files:
        content = json.dumps(kinds).encode()
        member = tarfile.TarInfo(webhooks.BODIES)
        member.size = len(content)
        files.addfile(member, io.BytesIO(content))
    found = list(webhooks.deliveries(packed))
    assert [one["delivery"] for one in found] == ["push-0000", "push-0001", "ping-0002"]
    assert [one["body"] for one in found] == [{"a": 1}, {"a": 2}, {"zen": "x"}]
    assert len({one["receivedAt"] for one in found}) == 3


def test_a_hash_is_written_as_npm_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert webhooks.integrity(file) == (
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
    )
