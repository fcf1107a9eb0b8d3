"""The DAG of the services in a real Airflow: it starts them, sees them well, and tells loudly when one is left down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from demo.airflow_rest import AirflowRest
from tests import running
from tests.airflow_tasks import tasks_test
from tests.at_work import crash, eventually
from tests.integration.test_job_dags import ENDED, Dags, landings, lines, put
from tests.prometheus import Prometheus
from tests.small_world import LANDED
from twofold import kafka, tables
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.definition.names import SERVICES
from twofold.services.controller import Controller, State
from twofold.settings import Settings
from twofold.stack import supervisor

Define = Callable[..., Pipeline]
patiently = partial(eventually, within_s=600.0, every_s=1.0)
"""A run may start a streaming job, and wait for three good looks at it; the API server has other work, too."""
BACKFILLED = 30
"""Runs of a backfill: it takes longer than the run of another pipeline, and several rounds of looks at the services."""
ALL_WELL = {
    "topic": "success",
    "start_producer": "success",
    "start_stream": "success",
    "producer_healthy": "success",
    "stream_healthy": "success",
}


class ServicesDag:
    """`<p>_services` of one pipeline, over REST, and the services themselves."""

    def __init__(self, settings: Settings, pipeline: Pipeline) -> None:
        self.pipeline, self.dag = pipeline.name, f"{pipeline.name}_services"
        self.rest = AirflowRest(settings)
        self.controller = Controller(settings)

    def switch_on(self) -> None:
        self.rest.unpause(self.dag)

    def switch_off(self) -> None:
        """Nothing of it runs for the tests that follow."""
        self.pause()
        self.end_runs()
        for service in SERVICES:
            self.controller.stop(self.pipeline, service)

    def end_runs(self) -> None:
        """A paused DAG's run that waits for its next task would wait for ever; one that looks at a service whose broker
        is away waits for as long as that may take."""
        for run in self._runs():
            if run["state"] not in ENDED:
                path = f"/api/v2/dags/{self.dag}/dagRuns/{run['dag_run_id']}"
                self.rest.call("PATCH", path, json={"state": "failed"})

    def pause(self) -> None:
        self.rest.pause(self.dag)

    def next_run(self) -> str:
        """Wait for the end of a scheduled run that starts after now; returns its id."""
        known = {run["dag_run_id"] for run in self._runs()}
        found: list[str] = []

        def ended() -> bool:
            fresh = [run for run in self._runs() if run["dag_run_id"] not in known and run["state"] in ENDED]
            found[:] = [str(run["dag_run_id"]) for run in fresh]
            return bool(found)

        patiently(ended)
        return found[0]

    def next_run_where(self, **wanted: str) -> str:
        """Wait for a run whose tasks end so. ZooKeeper forgets a broker that was away: until it is back runs fail."""
        found: list[str] = []

        def ended_so() -> bool:
            found[:] = [self.next_run()]
            return wanted.items() <= self.states(found[0]).items()

        patiently(ended_so)
        return found[0]

    def asked(self, **params: str) -> dict[str, str | None]:
        """Trigger a run by the form; returns the states of its tasks."""
        run = self.rest.trigger(self.dag, **params)
        patiently(lambda: self.rest.run_state(self.dag, run) in ENDED)
        return self.states(run)

    def states(self, run: str) -> dict[str, str | None]:
        return self.rest.task_states(self.dag, run)

    def log(self, run: str, task: str) -> str:
        """What a task printed on its last try."""
        path = f"dags/{self.dag}/dagRuns/{run}/taskInstances/{task}"
        number = self.rest.get(path)["try_number"]
        return str(self.rest.get(f"{path}/logs/{number}", full_content=True))

    def _runs(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = self.rest.get(f"dags/{self.dag}/dagRuns", order_by="-run_after")["dag_runs"]
        return found


@pytest.fixture(scope="module")
def services(airflow: Settings, airflow_define: Define) -> Iterator[ServicesDag]:
    """A pipeline added while all runs; its producer sends a little, and ends."""
    definition = airflow_define(
        stream={"trigger": "1 second"},
        replay={"generate": 200, "rate": 100},
        topic={"settings": {"retention.ms": "604800000"}},
    )
    found = ServicesDag(airflow, definition)
    found.switch_on()
    yield found
    found.switch_off()


@pytest.fixture(scope="module")
def backfill(airflow: Settings, airflow_define: Define, services: ServicesDag) -> tuple[Dags, str]:
    """Many runs of another pipeline's batch, with one file for all; and the union run that is asked for behind them.

    They go on beside the first test.
    """
    pipeline = airflow_define(schedule={"batch": "@daily"})
    put(airflow, pipeline, "may.jsonl", lines(*LANDED))
    dags = Dags(airflow, pipeline)
    dags.switch_on("batch")
    days = ("--from-date", "2026-01-01", "--to-date", f"2026-01-{BACKFILLED}")
    running.run(airflow, "airflow", "backfill", "create", "--dag-id", f"{dags.name}_batch", *days)
    other = f"{services.pipeline}_union"
    dags.rest.unpause(other)
    return dags, dags.rest.trigger(other)


@pytest.mark.usefixtures("backfill")
def test_a_scheduled_run_makes_the_topic_and_starts_both(airflow: Settings, services: ServicesDag) -> None:
    run = services.next_run()
    assert services.states(run) == ALL_WELL
    made = kafka.describe(airflow, services.pipeline)
    assert made is not None
    assert made.settings["retention.ms"] == "604800000"
    assert made.settings["message.timestamp.type"] == "LogAppendTime"
    assert services.controller.state(services.pipeline, "producer").record.finished
    before = services.controller.state(services.pipeline, "stream").pid
    assert "is as declared" in services.log(run, "topic")
    assert services.states(services.next_run()) == ALL_WELL
    assert services.controller.state(services.pipeline, "stream").pid == before


def test_a_backfill_starves_no_other_pipeline_starts_one_jvm_and_doubles_no_row(
    airflow: Settings, services: ServicesDag, backfill: tuple[Dags, str]
) -> None:
    dags, union = backfill
    every = dags.ended("batch", BACKFILLED + 1)
    runs = [run for run in every if run["run_type"] == "backfill"]
    assert [run["state"] for run in runs] == ["success"] * BACKFILLED
    first, last = min(map(start, runs)), max(map(end, runs))

    # What the other pipeline wanted came in between, not after.
    other = Dags(airflow, load_pipeline(airflow, services.pipeline))
    (asked,) = [run for run in other.runs("union") if run["dag_run_id"] == union]
    assert (asked["state"], end(asked) < last) == ("success", True)
    looked = [run for run in other.runs("services") if run["state"] in ENDED and start(run) > first and end(run) < last]
    assert len(looked) >= 2
    assert {run["state"] for run in looked} == {"success"}

    # A try that Airflow gave up on, for want of heartbeats on a busy machine, may be there beside.
    before = dags.submitted("batch", "land")
    assert ({run for run, _ in before}, sum(before.values())) == ({run["dag_run_id"] for run in every}, 1)
    (landed,) = [run for (run, _), jvm in before.items() if jvm]
    again = [landed, *[run for run, _ in before if run != landed][:2]]
    body = {"dry_run": False, "dag_runs": [{"dag_run_id": run} for run in again]}
    dags.rest.call("POST", f"/api/v2/dags/{dags.name}_batch/clearDagRuns", json=body)
    assert {run["state"] for run in dags.ended("batch", BACKFILLED + 1)} == {"success"}
    submitted = dags.submitted("batch", "land")
    assert {run for run, _ in submitted.keys() - before.keys()} == set(again)
    assert sum(submitted.values()) == 1
    assert landings(airflow, load_pipeline(airflow, dags.name)) == [(1, "may.jsonl")]
    assert [told["rows"] for told in dags.events(tables.BATCH_LOG)] == [len(LANDED)]


def start(run: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(run["start_date"])


def end(run: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(run["end_date"])


def test_kafka_away_fails_the_run_with_that_reason(airflow: Settings, services: ServicesDag) -> None:
    with running.frozen(supervisor.states(airflow)["kafka"].pid):
        services.end_runs()
        run = services.next_run()
    assert services.states(run)["topic"] == "failed"
    assert "Kafka (connection kafka_default) does not answer" in services.log(run, "topic")
    services.next_run_where(**ALL_WELL)


def test_beyond_the_budget_the_run_fails_loudly_until_a_person_starts_it(
    airflow: Settings, services: ServicesDag
) -> None:
    seen, left_down = Prometheus(airflow), ("ServiceLeftDown", services.pipeline)
    assert left_down not in seen.firing()

    def stream() -> State:
        return services.controller.state(services.pipeline, "stream")

    # Its budget may have been touched before: while Kafka was away, for one.
    for _ in range(4):
        if not stream().record.left_down:
            crash(services.controller, services.pipeline, "stream")
            patiently(lambda: stream().runs or stream().record.left_down)
    assert stream().record.left_down
    run = services.next_run()
    assert services.states(run)["stream_healthy"] == "failed"
    told = services.log(run, "stream_healthy")
    assert "restarted 3 times within an hour" in told
    assert "3 of 3 restarts within the last hour" in told
    assert "last lines of" in told
    assert "docs/runbooks/service-left-down.md" in told
    patiently(lambda: left_down in seen.firing())
    assert services.asked(action="start", service="stream") == ALL_WELL
    patiently(lambda: left_down not in seen.firing())


def test_stopped_by_the_form_it_stays_stopped(airflow: Settings, services: ServicesDag) -> None:
    with running.frozen(supervisor.states(airflow)["kafka"].pid):  # what stops needs no broker
        services.end_runs()
        states = services.asked(action="stop", service="stream")
    assert (states["start_stream"], states["stream_healthy"], states["producer_healthy"]) == (
        "success",
        "skipped",
        "success",
    )
    run = services.next_run_where(stream_healthy="skipped")
    assert "was stopped manually and stays down" in services.log(run, "start_stream")
    assert not services.controller.state(services.pipeline, "stream").runs


def test_every_task_can_be_run_by_hand_which_starts_what_was_stopped(airflow: Settings, services: ServicesDag) -> None:
    services.pause()  # the scheduler takes up the run of a test as well, and their locks would meet
    tested = tasks_test(airflow, *((services.dag, task) for task in ALL_WELL))
    assert {task: tested[f"{services.dag}.{task}"].state for task in ALL_WELL} == ALL_WELL, tested
    assert services.controller.state(services.pipeline, "stream").runs
