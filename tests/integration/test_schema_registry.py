"""Avro with a real schema registry: produced, streamed, queried, proved; and the registry gone, and back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from producer.wire import writer
from tests import overhear, running
from tests.at_work import Work, eventually
from tests.conftest import random_name
from tests.lake import EqualTo
from twofold import tables
from twofold.definition.load import load_file
from twofold.definition.model import Pipeline
from twofold.proof.prover import prove
from twofold.schema_registry import Registry
from twofold.settings import Settings
from twofold.stack import supervisor

Define = Callable[..., Pipeline]
EXAMPLES = Path(__file__).parents[2] / "examples"
MARCH_MS = 1_772_323_200_000
FIELDS: dict[str, Any] = {
    **dict.fromkeys(("id", "kind", "value", "at", "hidden")),
    "user": {"type": "string", "required": True, "from": "payload.user.id"},
    "number": {"type": "long", "required": True, "from": "payload.seq"},
    "moment": {"type": "timestamp", "required": True, "from": "payload.at"},
    "total": {"type": "decimal(12,2)", "from": "payload.total"},
    "trace": {"type": "string", "from": {"header": "trace-id"}},
}
EVENT = {"id": ["user", "number"], "time": "moment", "fields": FIELDS}
VIEW = {"window": "1 minute", "by": ["user"], "measures": {"events": "count(*)", "total": "sum(total)"}}
NEWER = {
    "type": "record",
    "name": "newer",
    "fields": [
        {
            "name": "payload",
            "type": {
                "type": "record",
                "name": "newer_payload",
                "fields": [
                    {"name": "user", "type": {"type": "map", "values": "string"}},
                    {"name": "seq", "type": "int"},
                    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                    {"name": "total", "type": ["null", "string"]},
                    {"name": "tags", "type": {"type": "array", "items": "string"}},
                ],
            },
        }
    ],
}
"""As somebody else would write it: other types, and more than is declared."""


@pytest.fixture(scope="module")
def registry(stack: Settings) -> Iterator[Registry]:
    """The stack's own, added to it while it runs."""
    running.run(stack, "up", "--store", "local", "--no-airflow", "--registry")
    yield Registry.of(stack)
    running.run(stack, "up", "--store", "local", "--no-airflow", "--no-registry")


def body(number: int, seq: int, total: str | None = "1.50") -> bytes:
    """A record of the newer schema, behind an id."""
    stream = BytesIO()
    payload = {"user": {"id": "z"}, "seq": seq, "at": MARCH_MS, "total": total, "tags": ["a"]}
    fastavro.schemaless_writer(stream, fastavro.parse_schema(NEWER), {"payload": payload})
    return b"\0" + number.to_bytes(4) + stream.getvalue()


def test_avro_through_the_stream(stack: Settings, spark: SparkSession, define: Define, registry: Registry) -> None:
    pipeline = define(topic={"format": "avro"}, event=EVENT, views={"by_kind": None, "v": VIEW}, filter=None)
    work = Work(spark, stack, pipeline)
    running.run(stack, "produce", pipeline.name, "--generate", "200", "--seed", "7")
    newer = registry.register(f"{pipeline.topic.name}-other", "AVRO", json.dumps(NEWER))
    wrong = [b"{}", None, body(4_000_000_000, 1), body(newer, 1)[:-1], body(newer, 1) + b"\0", body(newer, 1, "1.501")]
    work.send_values(*wrong, key=b"k")
    work.send_values(body(newer, 1), body(newer, 2), key=b"k", headers={"trace-id": b"t-1"})
    work.drain()
    assert work.query(
        "SELECT outcome, count(*), count(payload), count(DISTINCT reason_kind) FROM stream_log GROUP BY 1 ORDER BY 1"
    ) == [("accepted", 202, 0, 0), ("rejected", 6, 5, 3)]
    payloads = work.query("SELECT payload FROM stream_log WHERE outcome = 'rejected' ORDER BY kafka_offset")
    assert [payload for (payload,) in payloads] == wrong
    theirs = (
        "SELECT number, total::VARCHAR, trace, epoch_ms(moment) FROM unified_events WHERE \"user\" = 'z' ORDER BY 1"
    )
    expected = [(1, "1.50", "t-1", MARCH_MS), (2, "1.50", "t-1", MARCH_MS)]
    for _ in range(2):
        assert work.query(theirs) == expected
        assert work.query("SELECT sum(events), count(*) > 0 FROM unified_v") == [(202, True)]
        work.union()
    work.holds(proved=True)
    elsewhere = stack.model_copy(update={"schema_registry_url": "http://127.0.0.1:9"})
    away = next(one for one in Work(spark, elsewhere, pipeline).holds().checks if one.id == "I4")
    assert away.state == "not proved"
    assert "the schema registry at http://127.0.0.1:9 does not answer" in away.text
    changed = EqualTo("user", "z") & EqualTo("number", 1)
    log = work.lake.table(tables.STREAM_LOG)
    rows = log.scan(row_filter=changed).to_arrow()
    log.delete(changed)
    another = pa.array([Decimal("1.51")], rows.schema.field("total").type)
    log.append(rows.set_column(rows.schema.get_field_index("total"), "total", another))
    told = next(one for one in prove(work.lake, 60, print, compare_all=True).checks if one.id == "I4")
    assert any("total Decimal('1.51'), sent Decimal('1.5')" in one for one in told.offenders), told


def hour(station: str, number: int, celsius: float | None) -> dict[str, Any]:
    """The fields of an observation."""
    moment = datetime(2026, 3, 1, number, tzinfo=UTC)
    air = None if celsius is None else Decimal(str(celsius))
    return {
        "station": station,
        "hour": MARCH_MS // 3_600_000 + number,
        "measured_at": moment,
        "celsius": air,
        "wind_mph": 3.0,
    }


def test_the_weather_example(stack: Settings, spark: SparkSession, registry: Registry) -> None:
    declared, name = load_file(EXAMPLES / "weather.yaml"), random_name()
    at = Work(spark, stack, replace(declared, name=name, topic=replace(declared.topic, name=name)))
    write = writer(at.pipeline, registry.register).write
    sent = [hour("JFK", 0, 1.5), hour("EWR", 0, 2.25), hour("JFK", 1, None), hour("JFK", 0, 1.5)]
    at.send_values(*map(write, sent))
    at.drain()
    corrected = {"station": {"code": "JFK"}, "at": {"hour": MARCH_MS // 3_600_000 + 1, "utc": "2026-03-01T01:00:00Z"}}
    at.put("corrected.jsonl", json.dumps({**corrected, "air": {"celsius": -3.0}, "wind": {"mph": 3}}).encode())
    at.take()
    for _ in range(2):
        found = at.query("SELECT station, hours, coldest::VARCHAR, mean_wind FROM unified_by_station ORDER BY station")
        assert found == [("EWR", 1, "2.25", 3.0), ("JFK", 2, "-3.00", 3.0)]
        at.union()
    at.holds(proved=True)


def test_a_registry_that_is_away_is_waited_for(
    stack: Settings, spark: SparkSession, define: Define, registry: Registry
) -> None:
    pipeline = define(topic={"format": "avro"}, event=EVENT, views={"by_kind": None}, filter=None)
    work = Work(spark, stack, pipeline)
    # An id that no worker has asked for yet.
    text = json.dumps({**NEWER, "doc": pipeline.name})
    number = registry.register(f"{pipeline.topic.name}-value", "AVRO", text)
    supervisor.stop_programs(stack, ["registry"])
    work.send_values(body(number, 1), body(number, 2), key=b"k")
    stop = threading.Event()
    stream = threading.Thread(target=lambda: work.stream(stop, until_caught_up=False))
    tag, retry = (f"twofold_stream_{what},pipeline={pipeline.name}" for what in ("registry_away", "retries_total"))
    with overhear.statsd_lines(stack) as lines:
        stream.start()
        try:
            eventually(lambda: f"{tag}:1|g" in lines)
            # As many as would end the job if the registry were not known to be away.
            eventually(lambda: sum(line.startswith(retry) for line in lines) >= 3)
            assert work.landed() == 0
            supervisor.start_programs(stack, ["registry"])
            eventually(lambda: work.landed() == 2)
            eventually(lambda: lines[-1:] and f"{tag}:0|g" in lines[-40:])
        finally:
            stop.set()
            stream.join()
    assert work.query("SELECT outcome, number FROM stream_log ORDER BY 2") == [("accepted", 1), ("accepted", 2)]
