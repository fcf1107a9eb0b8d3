"""The unified query beside DuckDB's own on one sorted plain Parquet file of the same rows, both in this process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.figures import BenchFailure, Figure
from twofold.definition.load import load_pipeline
from twofold.reader import Reader
from twofold.settings import Settings

RUNS = 5
CEILING = 4.0
QUERIES = {
    "count by group": "SELECT origin, carrier, count(*) FROM {events} GROUP BY ALL ORDER BY ALL",
    "one hour of it": "SELECT count(*), max(delay_min) FROM {events} "
    "WHERE scheduled_at >= '2026-01-02 06:00:00+00' AND scheduled_at < '2026-01-02 07:00:00+00'",
    "full aggregate": "SELECT count(DISTINCT tailnum), sum(delay_min), avg(distance_mi), min(scheduled_at), "
    "max(event_id) FROM {events}",
}


def measure(settings: Settings, name: str, exported: Path) -> Iterator[Figure]:
    """Opening a session (catalog, snapshots, names), and each query's median; BenchFailure where answers differ.

    The first run of a query is apart, as it reads what later runs find in memory.
    """
    file = f"read_parquet('{exported}/**/*.parquet')"
    with duckdb.connect() as plain:
        plain.execute("SET TimeZone = 'UTC'")
        began = time.perf_counter()
        with Reader(settings, {name: load_pipeline(settings, name)}) as reader:
            reader.query("SELECT 1 FROM unified_events LIMIT 0", name).fetchall()
            yield Figure("opening the session", time.perf_counter() - began)
            for what, query in QUERIES.items():
                unified, ours = _runs(lambda sql: reader.query(sql, name), query.format(events="unified_events"))
                direct, theirs = _runs(plain.sql, query.format(events=file))
                if repr(ours) != repr(theirs):
                    raise BenchFailure(f"{what}: {ours[:3]} and {theirs[:3]}")
                middle, plain_middle = statistics.median(unified), statistics.median(direct)
                note = f"{middle:.1f} ms, DuckDB {plain_middle:.1f} ms; first run {unified[0]:.1f} ms"
                ratio = middle / plain_middle
                yield Figure(what, middle / 1000, ratio=ratio, bound=f"<= {CEILING}", note=note)


def _runs(ask: Callable[[str], Any], query: str) -> tuple[list[float], list[Any]]:
    """Milliseconds of each run, and the rows of the last."""
    times, rows = [], []
    for _ in range(RUNS):
        began = time.perf_counter()
        rows = ask(query).fetchall()
        times.append((time.perf_counter() - began) * 1000)
    return times, rows
