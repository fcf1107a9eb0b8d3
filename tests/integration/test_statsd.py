"""StatsD lines through the real statsd_exporter with our mapping: names, types, labels and values in Prometheus.

The lines in tests/data/statsd were captured from running processes, each number replaced by 7: all that an Airflow and
a Spark driver send by themselves, and what those of our own stack send (stack.txt).
"""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from spark_jobs.spark_session import DRIVER_GAUGES
from tests import running
from tests.at_work import eventually
from twofold import metrics
from twofold.metrics import OTHER, Meter, Metric
from twofold.settings import Settings
from twofold.setup.servers import ensure
from twofold.stack import programs

LINES = Path(__file__).parents[1] / "data" / "statsd"
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_AT_ONCE = 100
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Scraped(NamedTuple):
    """One answer of the exporter, as Prometheus takes it."""

    types: dict[str, str]
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def of(self, name: str) -> set[frozenset[tuple[str, str]]]:
        """The label sets of one metric."""
        return {labels for found, labels in self.samples if found == name}


class Exporter:
    """The exporter, run with the command that the stack runs it with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._socket = socket.socket(type=socket.SOCK_DGRAM)

    def send(self, lines: Sequence[str]) -> None:
        # The buffer of a socket holds some 170 lines, and UDP drops what does not fit.
        for first in range(0, len(lines), _AT_ONCE):
            self._put(lines[first : first + _AT_ONCE])
            self.scraped()

    def _put(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._socket.sendto(line.encode(), ("127.0.0.1", self.settings.statsd_port))

    def scraped(self) -> Scraped:
        """What it serves, once all that was sent is in it: lines are taken in order."""
        mark = secrets.token_hex(4)
        self._put([f"twofold_stream_running,pipeline=mark_{mark}:1|g"])
        found: list[Scraped] = []

        def seen() -> bool:
            found[:] = [parsed(page(self.settings))]
            return any(("pipeline", f"mark_{mark}") in labels for _, labels in found[0].samples)

        eventually(seen, every_s=0.05)
        return found[0]


def page(settings: Settings) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.statsd_exporter_port}/metrics") as answer:
        return str(answer.read().decode())


def parsed(text: str) -> Scraped:
    types: dict[str, str] = {}
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            types[name] = kind
        elif sample := _SAMPLE.fullmatch(line):
            samples[sample[1], frozenset(_LABEL.findall(sample[2] or ""))] = float(sample[3])
    return Scraped(types, samples)


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    ensure("statsd_exporter")
    home = tmp_path_factory.mktemp("exporter")
    settings = running.fresh_settings(home, home)
    program = programs.monitoring(settings)[0]
    with subprocess.Popen(program.command, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: not program.check(), every_s=0.05)
            yield Exporter(settings)
        finally:
            process.terminate()


def captured(file: str) -> list[str]:
    return (LINES / file).read_text().splitlines()


def labels_of(metric: Metric) -> dict[str, str]:
    """Some value for each label: the last of its words, or a name."""
    return {label: metrics.WORDS.get(label, ("some_name",))[-1] for label in metric.labels}


def test_every_declared_metric_arrives_under_its_name_with_type_labels_and_value(exporter: Exporter) -> None:
    meter = Meter(exporter.settings, "flights")
    send: dict[str, Callable[..., None]] = {"counter": meter.count, "gauge": meter.gauge, "histogram": meter.observe}
    for number, metric in enumerate(metrics.ALL, start=1):
        send[metric.type](metric, number, **labels_of(metric))
        send[metric.type](metric, number, **labels_of(metric))
    found = exporter.scraped()
    for number, metric in enumerate(metrics.ALL, start=1):
        labels = {"pipeline": "flights", **labels_of(metric)}
        assert found.types[metric.name] == metric.type
        if metric.type == "histogram":
            assert found.value(f"{metric.name}_count", **labels) == 2
            assert found.value(f"{metric.name}_sum", **labels) == pytest.approx(2 * number)
        else:
            assert found.value(metric.name, **labels) == number * (2 if metric.type == "counter" else 1)


def test_airflow_lines_keep_their_labels_and_durations_become_seconds(exporter: Exporter) -> None:
    lines = sorted({line for file in ("airflow.txt", "stack.txt") for line in captured(file) if line.startswith("air")})
    named_after_a_dag = "airflow.dagrun.flights_batch.first_task_scheduling_delay:7|ms"
    exporter.send([*lines, named_after_a_dag])
    found = exporter.scraped()
    assert not [name for name in found.types if "flights_batch" in name]
    finished = {"dag_id": "deferring", "task_id": "wait", "state": "success"}
    assert found.value("airflow_ti_finish", **finished) == 7
    assert found.value("airflow_pool_open_slots", pool_name="default_pool") == 7
    assert found.value("airflow_scheduler_heartbeat") == 7
    took = {"dag_id": "deferring", "run_type": "manual"}
    assert found.value("airflow_dagrun_duration_success_sum", **took) == pytest.approx(0.007)
    kinds = {"c": "counter", "g": "gauge", "ms": "histogram"}
    for line in lines:
        name, kind = line.partition(",")[0].partition(":")[0], line.rpartition("|")[2]
        assert found.types[re.sub("[.-]", "_", name)] == kinds[kind], line


def test_only_the_gauges_of_sparks_driver_come_through(exporter: Exporter) -> None:
    job = "spark.twofold-flights-stream.driver"
    lines = [line.replace("spark.lambda_speed.driver", job) for line in captured("spark.txt")]
    sent = [line for line in lines if re.fullmatch(DRIVER_GAUGES, line.rpartition(":")[0])]
    assert sent and all(line.endswith("|g") for line in sent)
    exporter.send(lines)
    found = exporter.scraped()
    flights = {"pipeline": "flights", "kind": "stream"}
    assert found.value("spark_driver_jvm_heap_used", **flights) == 7
    assert found.types["spark_driver_jvm_heap_used"] == "gauge"
    for line in lines:
        name = "spark_driver_" + re.sub("[.-]", "_", line.rpartition(":")[0].removeprefix(f"{job}."))
        # The sink's counts are cumulative and would be added up; what it calls timers are rates and sizes.
        assert found.types.get(name) in ({"gauge"} if line.endswith("|g") and "'" not in name else {None}), line


def test_all_that_our_drivers_send_comes_through_with_pipeline_and_job(exporter: Exporter) -> None:
    lines = [line for line in captured("stack.txt") if line.startswith("spark.")]
    exporter.send(lines)
    found = exporter.scraped()
    for line in lines:
        _, job, _, name = line.removesuffix(":7|g").split(".", 3)
        _, pipeline, kind = job.split("-")
        assert found.value(f"spark_driver_{re.sub('[.-]', '_', name)}", pipeline=pipeline, kind=kind) == 7


def test_hostile_values_make_no_series_and_foreign_lines_are_dropped(exporter: Exporter) -> None:
    meter = Meter(exporter.settings, "hostile")
    hostile = [f"{n}:9|c\ntwofold_evil,a={n}:1" for n in range(50)] + [f"{n} , = {n}" for n in range(50)]
    for value in hostile:
        meter.count(metrics.STREAM_REJECTED, 1, reason=value)
        meter.count(metrics.STREAM_LATE, 1, query=value)
    exporter.send(
        [f"evil{n}.name,pipeline=x{n}:1|c" for n in range(50)] + ["\xff\x00", "twofold_x", ":1|c", "a:b:c|d|e"]
    )
    found = exporter.scraped()
    assert found.value(metrics.STREAM_REJECTED.name, pipeline="hostile", reason=OTHER) == len(hostile)
    assert found.value(metrics.STREAM_LATE.name, pipeline="hostile", query=OTHER) == len(hostile)
    assert len([labels for _, labels in found.samples if ("pipeline", "hostile") in labels]) == 2
    assert not [name for name, _ in found.samples if "evil" in name or name.startswith("dropped")]
