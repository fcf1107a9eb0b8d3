"""The parts of a run: what each needs is made once, by the real commands, on a stack of its own; and its figures."""

from __future__ import annotations

import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import aging, data, formats, history, live, task_overhead
from benchmarks.flink import PyFlink
from benchmarks.measure import TWOFOLD, BenchFailure, Figure, Usage, measured
from twofold import kafka
from twofold.definition.load import load_pipeline
from twofold.lake import Lake
from twofold.reader import Reader
from twofold.settings import Settings

MAIN = "bench"
"""The pipeline that most parts are about, and its topic."""
PRODUCER_FLOOR, DRAIN_FLOOR = 0.08, 1.5
QUERY_RUNS, QUERY_CEILING = 5, 4.0
_PROVED = (0, 3)
"""Exit codes of a proof that finds nothing violated."""
_TEMPLATE = Path(__file__).parent / "pipelines" / "bench.yaml"
_PAYLOADS = 10_000
_JAVA_SAYS = re.compile(r"records sent, ([\d.]+) records/sec")
_JAVA_SETTINGS = ("acks=all", "enable.idempotence=true", "compression.type=lz4", "linger.ms=20", "batch.size=262144")
QUERIES = {
    "count by group": "SELECT origin, carrier, count(*) FROM {events} GROUP BY ALL ORDER BY ALL",
    "one hour of it": "SELECT count(*), max(delay_min) FROM {events} "
    "WHERE scheduled_at >= '2026-01-02 06:00:00+00' AND scheduled_at < '2026-01-02 07:00:00+00'",
    "full aggregate": "SELECT count(DISTINCT tailnum), sum(delay_min), avg(distance_mi), min(scheduled_at), "
    "max(event_id) FROM {events}",
}


class Bench:
    """What several parts need; its properties are steps, each done when first asked for."""

    def __init__(self, settings: Settings, events: int, history: int, folder: Path) -> None:
        self.settings, self.events, self.history, self.folder = settings, events, history, folder
        # Its topic is drained in at least five batches.
        self.pipeline(MAIN, f"stream: {{max_offsets_per_trigger: {min(200_000, max(1, events // 5))}}}\n")

    def pipeline(self, name: str, more: str = "", *, view: bool = True) -> str:
        """Write a definition of this name, for a topic of its own, and `more` behind it; returns the name."""
        text = _TEMPLATE.read_text().replace("name: bench", f"name: {name}")
        (self.settings.pipelines / f"{name}.yaml").write_text((text if view else text.partition("views:")[0]) + more)
        return name

    @cached_property
    def records(self) -> Path:
        """The records to send, as JSON lines."""
        target = self.folder / "events.jsonl"
        data.write(target, self.events)
        return target

    @cached_property
    def produced(self) -> Usage:
        """`twofold produce` of all records."""
        return self.twofold("produce", MAIN, "--from", str(self.records))

    @cached_property
    def drained(self) -> Usage:
        """Twofold's ingest and view over the topic."""
        assert self.produced
        return self.twofold("stream", MAIN, "--until-caught-up")

    @cached_property
    def unioned(self) -> Usage:
        """`twofold union` of everything drained."""
        assert self.drained
        return self.twofold("union", MAIN)

    def twofold(self, *arguments: str, good: Collection[int] = (0,)) -> Usage:
        """One command, which must end with a `good` exit code."""
        return measured([*TWOFOLD, *arguments], self.settings.environment(), good)


def producer(bench: Bench) -> Iterator[Figure]:
    """Twofold's producer beside Kafka's own; Java is rated by its own count, which leaves its start-up out."""
    java = _java(bench, bench.pipeline("bench_java"))
    java_per_s, size = float(_JAVA_SAYS.findall(java.output)[-1]), bench.records.stat().st_size / bench.events - 1
    yield Figure("Java", java.wall_s, java.cpu_s, java_per_s, bench.events / java.cpu_s)
    ours = bench.produced
    yield Figure.of(
        "librdkafka",
        bench.events,
        ours.wall_s,
        ours.cpu_s,
        ratio=bench.events / ours.wall_s / java_per_s,
        bound=f">= {PRODUCER_FLOOR}",
        note=f"to Java; {size:.0f} bytes a record",
    )


def _java(bench: Bench, name: str) -> Usage:
    """Kafka's own ProducerPerformance with the same settings and payloads."""
    payloads = bench.folder / "payloads.jsonl"
    data.write(payloads, _PAYLOADS, step_us=data.TWO_DAYS_US // bench.events)
    kafka.ensure(bench.settings, load_pipeline(bench.settings, name))
    main = ["-Xmx512m", "-cp", f"{bench.settings.jars}/kafka/*", "org.apache.kafka.tools.ProducerPerformance"]
    what = ["--topic", name, "--num-records", str(bench.events), "--throughput", "-1", "--payload-file", str(payloads)]
    how = ["--producer-props", f"bootstrap.servers={bench.settings.kafka_bootstrap}", *_JAVA_SETTINGS]
    return measured(["java", *main, *what, *how])


def drained(bench: Bench) -> Iterator[Figure]:
    """Ingest and view beside the textbook job, and beside the same job with Twofold's settings of Spark."""
    assert bench.produced
    textbook, ours = [sys.executable, "-m", "benchmarks.textbook", MAIN], bench.drained
    rivals = {"textbook": textbook, "tuned textbook": [*textbook, "--tuned"]}
    yield Figure.of("twofold", bench.events, ours.wall_s, ours.cpu_s)
    for who, command in rivals.items():
        theirs = measured(command, bench.settings.environment())
        yield Figure.of(who, bench.events, theirs.wall_s, theirs.cpu_s)
        note = "events per CPU-second"
        yield Figure(f"twofold to the {who}", ratio=theirs.cpu_s / ours.cpu_s, bound=f">= {DRAIN_FLOOR}", note=note)


def streamed(bench: Bench) -> Iterator[Figure]:
    """A stream that runs, ingest alone and with one view, beside PyFlink; each as a part of its own would be."""
    events, settings = bench.events, bench.settings
    phases = live.prepare(bench.folder, events)
    for view, what in ((False, "ingest alone"), (True, "with the view")):
        name = bench.pipeline(f"bench_live_{'view' if view else 'landing'}", view=view)
        own = live.Twofold(settings, name, f"twofold, {what}")
        ours, figures = live.measure(settings, own, phases, events)
        yield from figures
        if not view:
            yield from live.bounds(ours, events, own.lake)
        name = bench.pipeline(name.replace("bench_live", "flink"), view=view)
        rival = PyFlink(settings, bench.folder / name, name, f"PyFlink, {what}", view)
        theirs, figures = live.measure(settings, rival, phases, events)
        shutil.rmtree(rival.folder)
        yield from figures
        yield Figure(f"twofold, {what}, to PyFlink", ratio=ours.cpu_s / theirs.cpu_s, note="CPU-seconds")


def unioned(bench: Bench) -> list[Figure]:
    """All rows are new to `events`."""
    return [Figure.of(f"{bench.events:,} new rows", bench.events, bench.unioned.wall_s, bench.unioned.cpu_s)]


def queried(bench: Bench) -> Iterator[Figure]:
    """The unified query after that union, beside DuckDB's own on one sorted Parquet file of the same rows.

    Both in this process. The first run of a query is apart, as it reads what later runs find in memory.
    """
    assert bench.unioned
    exported = bench.folder / "exported"
    bench.twofold("export", MAIN, "--to", str(exported), "--single")
    with duckdb.connect() as plain:
        plain.execute("SET TimeZone = 'UTC'")
        began = time.perf_counter()
        with Reader(bench.settings, {MAIN: load_pipeline(bench.settings, MAIN)}) as reader:
            reader.query("SELECT 1 FROM unified_events LIMIT 0", MAIN).fetchall()
            yield Figure("opening the session", time.perf_counter() - began)
            for what, query in QUERIES.items():
                unified, ours = _asked(lambda sql: reader.query(sql, MAIN), query.format(events="unified_events"))
                direct, theirs = _asked(plain.sql, query.format(events=f"read_parquet('{exported}/**/*.parquet')"))
                if repr(ours) != repr(theirs):
                    raise BenchFailure(f"{what}: {ours[:3]} and {theirs[:3]}")
                middle, plain_middle = statistics.median(unified), statistics.median(direct)
                note = f"{middle:.1f} ms, DuckDB {plain_middle:.1f} ms; first run {unified[0]:.1f} ms"
                ratio = middle / plain_middle
                yield Figure(what, middle / 1000, ratio=ratio, bound=f"<= {QUERY_CEILING}", note=note)


def _asked(ask: Callable[[str], Any], query: str) -> tuple[list[float], list[Any]]:
    """Milliseconds of each run, and the rows of the last."""
    times, rows = [], []
    for _ in range(QUERY_RUNS):
        began = time.perf_counter()
        rows = ask(query).fetchall()
        times.append((time.perf_counter() - began) * 1000)
    return times, rows


def committed(bench: Bench) -> Iterator[Figure]:
    """A day of small commits to one table."""
    name = bench.pipeline("bench_commits", view=False)
    return aging.measure(bench.settings, name, min(aging.A_DAY, bench.events // 50))


def proved(bench: Bench) -> Iterator[Figure]:
    """A proof in full of a long past, and one of what is new on top of it."""
    name, past, new = bench.pipeline("bench_proof"), bench.history // history.A_DAY * history.A_DAY, bench.events
    lake = Lake(bench.settings, load_pipeline(bench.settings, name))
    history.make(lake, past)
    bench.twofold("union", name)
    for view in lake.pipeline.views.values():
        history.fill_stream_view(lake, view)
    # Kafka no longer has the records of the past, so their values are not proved.
    full = bench.twofold("prove", name, good=_PROVED)
    records = bench.folder / "new.jsonl"
    # One in a hundred of them is in the past, too.
    data.write(records, new, past - new // 100, history.STEP_US)
    bench.twofold("produce", name, "--from", str(records))
    # Without its checkpoint, the view would be filled from the whole log.
    bench.pipeline(name, view=False)
    bench.twofold("stream", name, "--until-caught-up")
    bench.pipeline(name)
    bench.twofold("union", name)
    recent = bench.twofold("prove", name, "--since-last", good=_PROVED)
    if "checked: what changed since" not in recent.output:
        raise BenchFailure(f"everything was proved again:\n{recent.output}")
    for what, events, usage in ((f"{past:,}, in full", past, full), (f"{new:,} new ones", new, recent)):
        note = f"{usage.peak_bytes / 1e9:.2f} GB of memory"
        yield Figure.of(what, events, usage.wall_s, usage.cpu_s, note=note)
    yield Figure("new ones to all", ratio=recent.cpu_s / full.cpu_s, note="CPU-seconds")


PARTS: dict[str, Callable[[Bench], Iterable[Figure]]] = {
    "producer": producer,
    "drain": drained,
    "live": streamed,
    "commits": committed,
    "union": unioned,
    "query": queried,
    "latency": lambda bench: live.latency(bench.settings, bench.pipeline("bench_latency")),
    "dags": lambda bench: task_overhead.measure(bench.settings.pipelines, MAIN),
    "proof": proved,
    "formats": lambda _bench: formats.measure(),
}
