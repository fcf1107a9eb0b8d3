"""From Kafka to the unified events, while the stream runs: computed from the table's own commits, without polling.

A record is visible from the commit of its landing on, so its latency is that snapshot's time less Kafka's time stamp.
"""

from __future__ import annotations

from contextlib import contextmanager

from benchmarks import live
from benchmarks.figures import Figure
from tests import running
from twofold import table_state, tables
from twofold.definition.load import load_pipeline
from twofold.lake import Lake
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.table_state import Landed

WARM_UP_S = 10
"""In which Spark warms up: it does not count."""
MEASURED_S = 30

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


def measure(settings: Settings, name: str, rate: int) -> list[Figure]:
    """Stream at `rate` records a second."""
    way = live.Twofold(settings, name, "latency")
    with contextmanager(way.running)() as job:
        count = str(rate * (WARM_UP_S + MEASURED_S))
        running.run(settings, "produce", name, "--generate", count, "--rate", str(rate))
        live.catch_up(settings, way, job)
    events, per_s, p50, p99, longest = _latencies(Lake(settings, load_pipeline(settings, name)))
    note = f"p50 {p50:,.0f} ms, p99 {p99:,.0f} ms, longest {longest:,.0f} ms; asked {rate}/s"
    return [Figure(f"{events:,} events", events_per_s=per_s, note=note)]


def _latencies(lake: Lake) -> tuple[float, ...]:
    """Events, how many were sent a second, and milliseconds: the middle one, the 99th percentile, the longest."""
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
    return row
