"""The unified query beside DuckDB's own on one sorted plain Parquet file of the same rows, both in this process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.failures import Differs
from twofold.definition.load import load_pipeline
from twofold.reader import Reader
from twofold.settings import Settings

RUNS = 5
QUERIES = {
    "count by group": "SELECT origin, carrier, count(*) FROM {events} GROUP BY ALL ORDER BY ALL",
    "one hour of it": "SELECT count(*), max(delay_min) FROM {events} "
    "WHERE scheduled_at >= '2026-01-02 06:00:00+00' AND scheduled_at < '2026-01-02 07:00:00+00'",
    "full aggregate": "SELECT count(DISTINCT tailnum), sum(delay_min), avg(distance_mi), min(scheduled_at), "
    "max(event_id) FROM {events}",
}


@dataclass(frozen=True)
class Timed:
    """Medians in milliseconds; the first run is apart, as it reads what later runs find in memory."""

    query: str
    unified_ms: float
    unified_first_ms: float
    plain_ms: float
    ratio: float


def measure(settings: Settings, name: str, exported: Path) -> tuple[float, list[Timed]]:
    """Milliseconds to open a session (catalog, snapshots, names), and each query's times."""
    plain = duckdb.connect()
    plain.execute("SET TimeZone = 'UTC'")
    began = time.perf_counter()
    with Reader(settings, {name: load_pipeline(settings, name)}) as reader:
        reader.query("SELECT 1 FROM unified_events LIMIT 0", name).fetchall()
        opened_ms = (time.perf_counter() - began) * 1000
        found = [_timed(reader, plain, name, query, exported) for query in QUERIES]
    plain.close()
    return opened_ms, found


def _timed(reader: Reader, plain: duckdb.DuckDBPyConnection, name: str, query: str, exported: Path) -> Timed:
    unified, unified_rows = _runs(lambda: reader.query(QUERIES[query].format(events="unified_events"), name).fetchall())
    file = f"read_parquet('{exported}/**/*.parquet')"
    direct, direct_rows = _runs(lambda: plain.sql(QUERIES[query].format(events=file)).fetchall())
    if repr(unified_rows) != repr(direct_rows):
        raise Differs(f"{query}: {unified_rows[:3]} and {direct_rows[:3]}")
    middle, plain_middle = statistics.median(unified), statistics.median(direct)
    return Timed(query, middle, unified[0], plain_middle, middle / plain_middle)


def _runs(run: Callable[[], list[Any]]) -> tuple[list[float], list[Any]]:
    times, rows = [], []
    for _ in range(RUNS):
        began = time.perf_counter()
        rows = run()
        times.append((time.perf_counter() - began) * 1000)
    return times, rows
