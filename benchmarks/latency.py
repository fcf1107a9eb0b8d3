"""From Kafka to the unified events, while the stream runs: computed from the table's own commits, without polling.

A record is visible from the commit of its landing on, so its latency is that snapshot's time less Kafka's time stamp.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.failures import NotThere, until
from tests import running
from twofold import health, kafka, table_state, tables
from twofold.definition.load import load_pipeline
from twofold.lake import Lake
from twofold.reader import Reader
from twofold.services.record import STREAM
from twofold.settings import Settings
from twofold.table_state import Landed

WARM_UP_S = 10
MEASURED_S = 30
_GIVE_UP_S = 180.0

_LATENCIES = """
WITH commits(landing, visible_at) AS (SELECT unnest($landings), make_timestamp_ms(unnest($times))),
  first AS (SELECT min(kafka_timestamp) AS at FROM {table}),
  latencies AS (
    SELECT kafka_timestamp AS sent_at, epoch_ms(visible_at) - epoch_ms(kafka_timestamp) AS latency_ms
    FROM {table} JOIN commits USING (landing), first
    WHERE kafka_timestamp >= first.at + to_seconds({warm_up}))
SELECT count(*), count(*) / greatest(epoch(max(sent_at) - min(sent_at)), 1e-3),
  quantile_cont(latency_ms, 0.5), quantile_cont(latency_ms, 0.99), max(latency_ms)
FROM latencies
"""


@dataclass(frozen=True)
class Latency:
    """Milliseconds from Kafka's time stamp to the commit that made a record visible."""

    events: int
    sent_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float


def measure(settings: Settings, name: str, rate: float) -> Latency:
    """Stream at `rate` records a second; the first seconds, in which Spark warms up, do not count."""
    lake, count = Lake(settings, load_pipeline(settings, name)), int(rate * (WARM_UP_S + MEASURED_S))
    with _streaming(settings, name):
        running.run(settings, "produce", name, "--generate", str(count), "--rate", str(rate))
        sent = kafka.describe(settings, lake.pipeline.topic.name)
        assert sent is not None
        until(lambda: sum(_landed(lake).offsets.values()) >= sum(sent.ends.values()), "the landing", _GIVE_UP_S)
    return _latency(lake)


def _latency(lake: Lake) -> Latency:
    pipeline = lake.pipeline
    with Reader(lake.settings, {pipeline.name: pipeline}) as reader:
        pinned = reader.pinned(pipeline, tables.STREAM_LOG)
        table = reader.read(pinned, pinned.all_files)
        history = lake.history(tables.STREAM_LOG)
        commits = {
            table_state.landed(table_state.History(history.snapshots, one.id), pipeline.name).landing: one.timestamp_ms
            for one in history.ancestors()
            if Landed.KEY in one.summary
        }
        parameters = {"landings": list(commits), "times": list(commits.values())}
        row = reader.connection.execute(_LATENCIES.format(table=table, warm_up=WARM_UP_S), parameters).fetchone()
    assert row is not None
    return Latency(*row)


def _landed(lake: Lake) -> Landed:
    return table_state.landed(lake.history(tables.STREAM_LOG), lake.name)


@contextmanager
def _streaming(settings: Settings, name: str) -> Iterator[None]:
    """The streaming job, up and running; stopped at the end."""
    place, log = health.place_of(settings.home, name, STREAM), settings.home / f"{name}-stream.log"
    with log.open("wb") as output:
        job = subprocess.Popen(
            [sys.executable, "-m", "twofold.cli", "stream", name],
            env={**os.environ, **settings.environment()},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: place.exists() or job.poll() is not None, "the streaming job", _GIVE_UP_S)
        if job.poll() is not None:
            raise NotThere(f"the streaming job ended:\n{log.read_text()[-4000:]}")
        yield
    finally:
        job.send_signal(signal.SIGTERM)
        job.wait()
