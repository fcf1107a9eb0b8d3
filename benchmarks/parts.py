"""The parts of a run: what each needs is made once, by the real commands, on a stack of its own; and its figures."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks import aging, data, drain, formats, history, latency, live, queries, task_overhead
from benchmarks.figures import BenchFailure, Figure
from benchmarks.flink import ROCKSDB, PyFlink
from benchmarks.marks import STEADY, Mark, Stage, stages
from benchmarks.measure import Usage, measured
from twofold import kafka
from twofold.definition.load import load_pipeline
from twofold.lake import Lake
from twofold.settings import Settings

MAIN = "bench"
"""The pipeline that most parts are about, and its topic."""
PRODUCER_FLOOR, DRAIN_FLOOR = 0.08, 1.5
HIGHEST_LIVE_RATE = 20_000
_PROVED = (0, 3)
"""Exit codes of a proof that finds nothing violated."""
_TEMPLATE = Path(__file__).parent / "pipelines" / "bench.yaml"
_PAYLOADS = 10_000
_JAVA_SAYS = re.compile(r"records sent, ([\d.]+) records/sec")
_JAVA_SETTINGS = ("acks=all", "enable.idempotence=true", "compression.type=lz4", "linger.ms=20", "batch.size=262144")


@dataclass(frozen=True)
class Drained:
    """One drain of the topic: the whole process tree, and its stages."""

    usage: Usage
    stages: dict[str, Stage]

    @property
    def steady(self) -> Stage:
        """The stage in which no query is cold."""
        return self.stages[STEADY]


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
        return self.produce(self.settings, MAIN, self.records)

    @cached_property
    def drained(self) -> Drained:
        """Twofold's ingest and view over the topic."""
        return self.drain(drain.TWOFOLD)

    @cached_property
    def unioned(self) -> Usage:
        """`twofold union` of everything drained."""
        assert self.drained
        return self.twofold("union", MAIN)

    def produce(self, settings: Settings, name: str, records: Path) -> Usage:
        """All records of a file, to a topic."""
        command = [sys.executable, "-m", "twofold.cli", "produce", name, "--from", str(records)]
        return measured(command, settings.environment())

    def twofold(self, *arguments: str, good: Collection[int] = (0,)) -> Usage:
        """One command, which must end with a `good` exit code."""
        return measured([sys.executable, "-m", "twofold.cli", *arguments], self.settings.environment(), good)

    def drain(self, way: str) -> Drained:
        """The topic of all records, in one of the ways of `drain`."""
        assert self.produced
        report = self.folder / f"{way.replace(' ', '-')}.json"
        command = [sys.executable, "-m", "benchmarks.drain", way, MAIN, str(report)]
        usage = measured(command, self.settings.environment())
        return Drained(usage, stages([Mark(**mark) for mark in json.loads(report.read_text())], self.events))


def producer(bench: Bench) -> Iterator[Figure]:
    """Twofold's producer beside Kafka's own; Java is rated by its own count, which leaves its start-up out."""
    java = _java(bench, bench.pipeline("bench_java"))
    java_per_s, size = float(_JAVA_SAYS.findall(java.output)[-1]), bench.records.stat().st_size / bench.events - 1
    yield Figure("Java", java.wall_s, java.cpu_s, java_per_s, bench.events / java.cpu_s)
    other = bench.settings.model_copy(update={"producer_client": "kafka-python"})
    for what, usage, bound, note in (
        ("librdkafka", bench.produced, f">= {PRODUCER_FLOOR}", f"to Java; {size:.0f} bytes a record"),
        ("kafka-python", bench.produce(other, bench.pipeline("bench_python"), bench.records), "", "to Java"),
    ):
        ratio = bench.events / usage.wall_s / java_per_s
        yield Figure.of(what, bench.events, usage.wall_s, usage.cpu_s, ratio=ratio, bound=bound, note=note)


def _java(bench: Bench, name: str) -> Usage:
    """Kafka's own ProducerPerformance with the same settings and payloads."""
    payloads = bench.folder / "payloads.jsonl"
    data.split(bench.records, {payloads: _PAYLOADS})
    kafka.ensure(bench.settings, load_pipeline(bench.settings, name))
    main = ["-Xmx512m", "-cp", f"{bench.settings.jars}/kafka/*", "org.apache.kafka.tools.ProducerPerformance"]
    what = ["--topic", name, "--num-records", str(bench.events), "--throughput", "-1", "--payload-file", str(payloads)]
    how = ["--producer-props", f"bootstrap.servers={bench.settings.kafka_bootstrap}", *_JAVA_SETTINGS]
    return measured(["java", *main, *what, *how])


def drained(bench: Bench) -> Iterator[Figure]:
    """Ingest and view beside the textbook job, and beside the same job with Twofold's settings of Spark."""
    rivals = {way: bench.drain(way) for way in (drain.TEXTBOOK, drain.TUNED)}
    ours = bench.drained
    for who, found in {**rivals, drain.TWOFOLD: ours}.items():
        yield Figure.of(f"{who}, in all", bench.events, found.usage.wall_s, found.usage.cpu_s)
        for name, stage in found.stages.items():
            yield Figure.of(f"{who}, {name}", stage.events, stage.wall_s, stage.cpu_s)
    for who, rival in rivals.items():
        steady = ours.steady.per_cpu_s / rival.steady.per_cpu_s if rival.steady.per_cpu_s else None
        for what, ratio in (("in all", rival.usage.cpu_s / ours.usage.cpu_s), ("steady", steady)):
            note = "events per CPU-second"
            yield Figure(f"{what}, to the {who}", ratio=ratio, bound=f">= {DRAIN_FLOOR}", note=note)


def streamed(bench: Bench) -> Iterator[Figure]:
    """A stream that runs, ingest alone and with one view, beside PyFlink; each as a part of its own would be."""
    phases, settings = live.prepare(bench.folder, bench.events), bench.settings
    ours: dict[bool, float] = {}
    for view, what in ((False, "ingest alone"), (True, "with the view")):
        name = bench.pipeline(f"bench_live_{'view' if view else 'landing'}", view=view)
        cost, figures = live.measure(settings, live.Twofold(settings, name, f"twofold, {what}"), phases)
        ours[view] = cost.cpu_s
        yield from figures
        if not view:
            yield from live.bounds(cost, bench.events)
    ratios = []
    for name, who, how in (
        ("flink_landing", "PyFlink", {"view": False}),
        ("flink_view", "PyFlink", {}),
        ("flink_heap", "PyFlink, distinct", {"distinct": True}),
        ("flink_rocksdb", "PyFlink, distinct, RocksDB", {"distinct": True, "state": ROCKSDB}),
    ):
        view = how.get("view", True) is True
        what, folder = "with the view" if view else "ingest alone", bench.folder / name
        way = PyFlink(settings, folder, bench.pipeline(name, view=view), f"{who}, {what}", **how)
        cost, figures = live.measure(settings, way, phases)
        shutil.rmtree(folder)
        ratios.append(Figure(f"twofold, {what}, to {who}", ratio=ours[view] / cost.cpu_s, note="CPU-seconds"))
        yield from figures
    yield from ratios


def unioned(bench: Bench) -> list[Figure]:
    """All rows are new to `events`."""
    return [Figure.of(f"{bench.events:,} new rows", bench.events, bench.unioned.wall_s, bench.unioned.cpu_s)]


def queried(bench: Bench) -> Iterator[Figure]:
    """The unified query after that union, beside DuckDB on the unified events as one sorted Parquet file."""
    assert bench.unioned
    exported = bench.folder / "exported"
    bench.twofold("export", MAIN, "--to", str(exported), "--single")
    yield from queries.measure(bench.settings, MAIN, exported)


def followed(bench: Bench) -> list[Figure]:
    """From Kafka to visible, at half of what the warm stream takes, or took in all where no batch was a steady one."""
    steady, usage = bench.drained.steady, bench.drained.usage
    per_s = steady.events / steady.wall_s if steady.events else bench.events / usage.wall_s
    rate = max(1, round(min(per_s / 2, HIGHEST_LIVE_RATE)))
    return latency.measure(bench.settings, bench.pipeline("bench_live"), rate)


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
    bench.produce(bench.settings, name, records)
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
    "latency": followed,
    "dags": lambda bench: task_overhead.measure(bench.settings.pipelines, MAIN),
    "proof": proved,
    "formats": lambda _bench: formats.measure(),
}
