"""The DAG of the services in a real Airflow: it starts them, sees them well, and tells loudly when one is left down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from demo.airflow_rest import AirflowRest
from tests import running
from tests.airflow_tasks import tasks_test
from tests.at_work import crash, eventually
from tests.prometheus import Prometheus
from twofold import kafka
from twofold.definition.model import Pipeline
from twofold.definition.names import SERVICES
from twofold.services.controller import Controller
from twofold.settings import Settings
from twofold.stack import supervisor

Define = Callable[..., Pipeline]
ENDED = ("success", "failed")
patiently = partial(eventually, within_s=600.0, every_s=1.0)
"""A run may start a streaming job, and wait for three good looks at it; the API server has other work, too."""
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
        patiently(lambda: self.rest.get("dags", dag_id_pattern=self.dag)["dags"])
        self.rest.unpause(self.dag)

    def switch_off(self) -> None:
        """Nothing of it runs for the tests that follow."""
        self.pause()
        # A paused DAG's run that waits for its next task would wait for ever.
        for run in self._runs():
            if run["state"] not in ENDED:
                path = f"/api/v2/dags/{self.dag}/dagRuns/{run['dag_run_id']}"
                self.rest.call("PATCH", path, json={"state": "failed"})
        for service in SERVICES:
            self.controller.stop(self.pipeline, service)

    def pause(self) -> None:
        self.rest.call("PATCH", f"/api/v2/dags/{self.dag}", json={"is_paused": True})

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


def test_kafka_away_fails_the_run_with_that_reason(airflow: Settings, services: ServicesDag) -> None:
    with running.frozen(supervisor.states(airflow)["kafka"].pid):
        run = services.next_run()
    assert services.states(run)["topic"] == "failed"
    assert "Kafka (connection kafka_default) does not answer" in services.log(run, "topic")
    services.next_run_where(**ALL_WELL)


def test_beyond_the_budget_the_run_fails_loudly_until_a_person_starts_it(
    airflow: Settings, services: ServicesDag
) -> None:
    seen, left_down = Prometheus(airflow), ("ServiceLeftDown", services.pipeline)
    assert left_down not in seen.firing()
    for _ in range(4):
        crash(services.controller, services.pipeline, "stream")
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
