"""Monitoring of a real stack at work: all panels have data; what stalls, dies or is late is told within a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from demo.airflow_rest import AirflowRest
from monitoring.dashboards import panel_queries
from tests import running, small_world
from tests.at_work import eventually
from tests.prometheus import Prometheus
from twofold.definition.model import Pipeline
from twofold.services.controller import Controller
from twofold.services.record import PRODUCER, STREAM
from twofold.settings import Settings
from twofold.stack import supervisor

Define = Callable[..., Pipeline]

ELSEWHERE = {"alert", "minio", "minio failed"}
"""Panels that have data only then are looked at while an alert fires, and in a stack with MinIO, in test_stack.py."""

TOLD_WITHIN_S = 60.0


@dataclass(frozen=True)
class Watched:
    """A stack with a pipeline at work, and its Prometheus."""

    settings: Settings
    pipeline: str
    seen: Prometheus

    def pid(self, service: str) -> int:
        return Controller(self.settings).state(self.pipeline, service).pid

    def told(self, *alerts: tuple[str, str], within_s: float = TOLD_WITHIN_S) -> None:
        """All of these (alert, pipeline) are firing within the time."""
        eventually(lambda: self.seen.firing() >= set(alerts), within_s=within_s, every_s=0.5)

    def resolved(self, *alerts: tuple[str, str]) -> None:
        eventually(lambda: not self.seen.firing() & set(alerts), every_s=0.5)


@pytest.fixture(scope="module")
def late(airflow: Settings, airflow_define: Define) -> str:
    """A pipeline whose batch is due every minute, was run once, and is not run again: its DAG is paused."""
    pipeline = airflow_define(schedule={"batch": "* * * * *"})
    running.run(airflow, "batch", pipeline.name)
    return pipeline.name


@pytest.fixture(scope="module")
def watched(airflow: Settings, airflow_define: Define, late: str) -> Iterator[Watched]:
    """Records come in, also bad ones, and a batch with a union behind it was asked for."""
    stream = {"trigger": "2 seconds", "views_trigger": "5 seconds"}
    pipeline = airflow_define(replay={"generate": 0, "rate": 200}, stream=stream)
    controller = Controller(airflow)
    for service in (PRODUCER, STREAM):
        controller.start(pipeline.name, service, by_hand=True)
    good, bad = airflow.home / "good.jsonl", airflow.home / "bad.csv"
    good.write_bytes(b"".join(small_world.as_json(event) + b"\n" for event in small_world.LANDED))
    bad.write_bytes(b"")
    # For want of its columns the second cannot be read, so a task fails.
    running.run(airflow, "land", pipeline.name, str(good), str(bad))
    yield Watched(airflow, pipeline.name, Prometheus(airflow))
    for service in (PRODUCER, STREAM):
        controller.stop(pipeline.name, service)


def start_batch(watched: Watched) -> None:
    """As the button does; the union follows by its asset."""
    rest, dags = AirflowRest(watched.settings), [f"{watched.pipeline}_{kind}" for kind in ("union", "batch")]
    known = {"dag_id_pattern": f"{watched.pipeline}_"}
    eventually(lambda: {*dags} <= {dag["dag_id"] for dag in rest.get("dags", **known)["dags"]})
    for dag in dags:
        rest.unpause(dag)
    rest.trigger(dags[1])


def empty(watched: Watched, only: Set[str]) -> list[str]:
    """Queries of panels that have no data now, of those that have some `only` then; empty: always."""
    return [
        f"{query.board}: {query.panel}: {query.expr}"
        for query in panel_queries(watched.pipeline)
        if query.only in only and not watched.seen.query(query.expr)
    ]


def test_frozen_services_are_told_and_resolve(watched: Watched) -> None:
    name, seen = watched.pipeline, watched.seen
    stalled, silent = ("StreamDown", name), ("ProducerDown", name)
    eventually(lambda: seen.query(f'twofold_stream_outcomes_total{{pipeline="{name}",outcome="accepted"}} > 1000'))
    watched.resolved(stalled, silent)
    start_batch(watched)
    # The exporter goes on serving what both sent last.
    with ExitStack() as stack:
        for service in (STREAM, PRODUCER):
            stack.enter_context(running.frozen(watched.pid(service)))
        watched.told(stalled, silent)
        eventually(lambda: seen.query(f'twofold_stream_running{{pipeline="{name}"}} == 1'))
        eventually(lambda: not empty(watched, {"alert"}))
    watched.resolved(stalled, silent)


def test_every_panel_has_data(watched: Watched) -> None:
    name, seen = watched.pipeline, watched.seen
    eventually(lambda: seen.query(f'twofold_run_good_timestamp_seconds{{pipeline="{name}",kind="compare"}}'))
    # A file that was set aside: nothing is violated, and not all is proved.
    assert running.run(watched.settings, "prove", name, check=False).returncode in (0, 3)
    eventually(lambda: set(seen.targets().values()) == {"up"})
    here = {query.only for query in panel_queries()} - ELSEWHERE
    try:
        eventually(lambda: not empty(watched, here), every_s=5)
    except AssertionError:
        pytest.fail("no data in\n" + "\n".join(empty(watched, here)))


def test_a_stopped_broker_and_a_stopped_exporter_are_told_and_resolve(watched: Watched) -> None:
    settings = watched.settings
    broker, landing, exporter = ("KafkaDown", ""), ("StreamStalled", watched.pipeline), ("ExporterDown", "")
    watched.resolved(broker, landing, exporter)
    supervisor.stop_programs(settings, ["kafka"])
    try:
        watched.told(broker, landing)
    finally:
        supervisor.start_programs(settings, ["kafka"])
    supervisor.stop_programs(settings, ["statsd-exporter"])
    try:
        watched.told(exporter)
    finally:
        supervisor.start_programs(settings, ["statsd-exporter"])
    watched.resolved(broker, landing, exporter)


def test_a_missed_batch_was_told_within_a_minute_and_resolves(watched: Watched, late: str) -> None:
    seen, kind = watched.seen, f'pipeline="{late}",kind="batch"'
    firing = f'ALERTS{{alertname="BatchOverdue",alertstate="firing",pipeline="{late}"}}'
    due = seen.number(f"last_over_time(twofold_run_due_timestamp_seconds{{{kind}}}[1h])")
    grace_s = seen.number(f"pipeline_kind:run_grace:seconds{{{kind}}}")
    watched.told(("BatchOverdue", late), within_s=max(0.0, due + grace_s + TOLD_WITHIN_S - time.time()))
    began = f"min_over_time(timestamp({firing})[1h:5s])"
    eventually(lambda: seen.query(began))  # its steps are five seconds long: the first one may be still to come
    first = seen.number(began)
    assert due + grace_s <= first <= due + grace_s + TOLD_WITHIN_S
    running.run(watched.settings, "batch", late)
    watched.resolved(("BatchOverdue", late))
