"""One run: what each part needs is made once, by the real commands, on a stack of its own."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks import data, drain, flink, live
from benchmarks.flink_setup import Flink, ensure_flink
from benchmarks.marks import STEADY, Mark, Stage, stages
from benchmarks.measure import Usage, measured
from twofold import kafka
from twofold.definition.load import load_pipeline
from twofold.settings import Settings

MAIN, PYTHON, JAVA, LIVE = "bench", "bench_python", "bench_java", "bench_live"
LIVE_LANDING, LIVE_VIEW = "bench_live_landing", "bench_live_view"
FLINK_LANDING, FLINK_VIEW, FLINK_HEAP, FLINK_ROCKSDB = "flink_landing", "flink_view", "flink_heap", "flink_rocksdb"
COMMITS = "bench_commits"
"""Pipelines, and topics of the same name."""
_TEMPLATE = Path(__file__).parent / "pipelines" / "bench.yaml"
_PAYLOADS = 10_000
_JAVA_SAYS = re.compile(r"records sent, ([\d.]+) records/sec")
_JAVA_SETTINGS = ("acks=all", "enable.idempotence=true", "compression.type=lz4", "linger.ms=20", "batch.size=262144")


@dataclass(frozen=True)
class Drained:
    """One drain of the topic: the whole process tree, and its stages."""

    usage: Usage
    stages: dict[str, Stage]


def define(folder: Path, events: int) -> None:
    """Write one definition for each topic of the run; a topic is drained in at least five batches."""
    stream = f"stream: {{max_offsets_per_trigger: {min(200_000, max(1, events // 5))}}}\n"
    with_view = (MAIN, PYTHON, JAVA, LIVE, LIVE_VIEW, FLINK_VIEW, FLINK_HEAP, FLINK_ROCKSDB)
    for name in (*with_view, LIVE_LANDING, FLINK_LANDING, COMMITS):
        text = _TEMPLATE.read_text().replace("name: bench", f"name: {name}")
        declared = text if name in with_view else text.partition("views:")[0]
        (folder / f"{name}.yaml").write_text(declared + (stream if name == MAIN else ""))


class Bench:
    """Its properties are the steps; each is done when first asked for."""

    def __init__(self, settings: Settings, events: int, folder: Path) -> None:
        self.settings, self.events, self._folder = settings, events, folder

    @cached_property
    def record_bytes(self) -> float:
        """Mean size of a record of `source`."""
        return data.write(self.source, self.events)

    @property
    def source(self) -> Path:
        """The records to send, as JSON lines."""
        return self._folder / "events.jsonl"

    @cached_property
    def produced(self) -> Usage:
        """`twofold produce` of all records."""
        return self._produced(self.settings, MAIN)

    @cached_property
    def produced_by_kafka_python(self) -> Usage:
        """The same with the producer's other client, to a topic of its own."""
        return self._produced(self.settings.model_copy(update={"producer_client": "kafka-python"}), PYTHON)

    @cached_property
    def produced_by_java(self) -> tuple[Usage, float]:
        """Kafka's own ProducerPerformance with the same settings and payloads, and the records/s it reports."""
        pipeline, payloads = load_pipeline(self.settings, JAVA), self._folder / "payloads.jsonl"
        assert self.record_bytes
        data.head(self.source, payloads, _PAYLOADS)
        kafka.ensure(self.settings, pipeline)
        servers = f"bootstrap.servers={self.settings.kafka_bootstrap}"
        main = [
            "java",
            "-Xmx512m",
            "-cp",
            f"{self.settings.jars}/kafka/*",
            "org.apache.kafka.tools.ProducerPerformance",
        ]
        what = ["--topic", pipeline.topic.name, "--num-records", str(self.events), "--throughput", "-1"]
        how = ["--payload-file", str(payloads), "--producer-props", servers, *_JAVA_SETTINGS]
        usage = measured([*main, *what, *how])
        return usage, float(_JAVA_SAYS.findall(usage.output)[-1])

    @cached_property
    def phases(self) -> live.Phases:
        """The records of a live run."""
        return live.prepare(self._folder, self.events)

    def lived(self, name: str, title: str) -> tuple[live.Live, str]:
        """Twofold's stream of a live run."""
        return live.measure(self.settings, live.Twofold(self.settings, name, title), self.phases)

    def lived_by_flink(
        self, name: str, title: str, *, view: bool = True, distinct: bool = False, state: str = flink.HEAP
    ) -> tuple[live.Live, str]:
        """PyFlink's."""
        folder = self._folder / name
        way = flink.PyFlink(self.settings, self._flink, folder, name, title, view, distinct, state)
        try:
            return live.measure(self.settings, way, self.phases)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @cached_property
    def _flink(self) -> Flink:
        return ensure_flink()

    @cached_property
    def drained(self) -> Drained:
        """Twofold's ingest and view over the topic."""
        return self._drained(drain.TWOFOLD)

    @cached_property
    def drained_by_textbook(self) -> Drained:
        """The textbook job over the same topic, as tutorials have it."""
        return self._drained(drain.TEXTBOOK)

    @cached_property
    def drained_by_tuned_textbook(self) -> Drained:
        """The same job with Twofold's settings of Spark."""
        return self._drained(drain.TUNED)

    @cached_property
    def unioned(self) -> Usage:
        """`twofold union` of everything drained."""
        assert self.drained
        return self._twofold("union", MAIN)

    @cached_property
    def exported(self) -> Path:
        """The unified events as one sorted Parquet file."""
        assert self.unioned
        target = self._folder / "exported"
        self._twofold("export", MAIN, "--to", str(target), "--single")
        return target

    @property
    def steady_per_s(self) -> float:
        """Events a second that the warm stream takes, or what it took in all where no batch was a steady one."""
        steady = self.drained.stages[STEADY]
        return steady.events / steady.wall_s if steady.events else self.events / self.drained.usage.wall_s

    def _produced(self, settings: Settings, name: str) -> Usage:
        assert self.record_bytes
        command = [sys.executable, "-m", "twofold.cli", "produce", name, "--from", str(self.source)]
        return measured(command, settings.environment())

    def _twofold(self, *arguments: str) -> Usage:
        return measured([sys.executable, "-m", "twofold.cli", *arguments], self.settings.environment())

    def _drained(self, way: str) -> Drained:
        assert self.produced
        report = self._folder / f"{way.replace(' ', '-')}.json"
        command = [sys.executable, "-m", "benchmarks.drain", way, MAIN, str(report)]
        usage = measured(command, self.settings.environment())
        marks = [Mark(**mark) for mark in json.loads(report.read_text())]
        return Drained(usage, stages(marks, self.events))
