"""The DAGs of the batch layer in a real Airflow: every task alone, whole runs, two at once, killed midway."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import psutil
from confluent_kafka import OFFSET_END, TopicPartition

from demo.airflow_rest import AirflowRest
from tests import airflow_tasks, running, small_world
from tests.at_work import Work, eventually, hold
from tests.small_world import LANDED, as_json, event
from twofold import catalog, comparison, inbox, kafka, loss, schemas, tables
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.proof.prover import prove
from twofold.settings import Settings

Define = Callable[..., Pipeline]
ENDED = ("success", "failed")
SUBMITTED = "Spark-Submit cmd: "
"""What Spark's operator logs when it starts a JVM."""
_WITHIN_S = 600.0
"""A run has two or three JVMs, on a machine that may be busy."""
patiently = partial(eventually, within_s=_WITHIN_S, every_s=0.5)
"""For what the API server is asked: it has other work, too."""


class Dags:
    """One pipeline's DAGs, over REST."""

    def __init__(self, settings: Settings, pipeline: Pipeline) -> None:
        self.settings, self.name = settings, pipeline.name
        self.rest = AirflowRest(settings)

    def switch_on(self, *kinds: str) -> None:
        """Unpause these DAGs."""
        for kind in kinds:
            self.rest.unpause(f"{self.name}_{kind}")

    def runs(self, kind: str) -> list[dict[str, Any]]:
        """All runs, the oldest first."""
        path = f"dags/{self.name}_{kind}/dagRuns"
        found: list[dict[str, Any]] = self.rest.get(path, order_by="run_after", limit=100)["dag_runs"]
        return found

    def ended(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Wait until there are so many runs, none of them going on."""
        found: list[dict[str, Any]] = []

        def done() -> bool:
            found[:] = self.runs(kind)
            return len(found) >= count and all(run["state"] in ENDED for run in found)

        patiently(done)
        return found

    def run(self, kind: str, **params: Any) -> dict[str, str | None]:  # noqa: ANN401
        """Trigger a run manually, and wait for its end; returns the state of each task."""
        run = self.rest.trigger(f"{self.name}_{kind}", **params)
        patiently(lambda: self.rest.run_state(f"{self.name}_{kind}", run) in ENDED)
        return self.rest.task_states(f"{self.name}_{kind}", run)

    def submitted(self, kind: str, task: str) -> dict[tuple[str, str], bool]:
        """Run and try of a task → whether it started a JVM, as the log of Spark's operator has it."""
        folder = self.settings.home / "airflow" / "logs" / f"dag_id={self.name}_{kind}"
        logs = folder.glob(f"run_id=*/task_id={task}/attempt=*.log")
        return {
            (log.parts[-3].removeprefix("run_id="), log.stem): SUBMITTED in log.read_text(errors="replace")
            for log in logs
        }

    def tries(self, kind: str, run: str, task: str) -> int:
        found = self.rest.get(f"dags/{self.name}_{kind}/dagRuns/{run}/taskInstances/{task}")
        return int(found["try_number"])

    def events(self, table: str) -> list[dict[str, Any]]:
        """What the asset's events say, the oldest first."""
        listed = self.rest.get("assets", uri_pattern=f"twofold://{self.name}/{table}")["assets"]
        (asset,) = [one["id"] for one in listed if one["uri"] == f"twofold://{self.name}/{table}"]
        found = self.rest.get("assets/events", asset_id=asset, order_by="timestamp")["asset_events"]
        return [one["extra"] for one in found]


def put(settings: Settings, pipeline: Pipeline, name: str, content: bytes) -> None:
    folder = inbox.folder(settings, pipeline.name)
    assert isinstance(folder, inbox.LocalFolder)
    source = settings.home / "put"
    source.write_bytes(content)
    folder.put(source, name, lambda copied: None)


def lines(*rows: small_world.Row) -> bytes:
    return b"".join(as_json(row) + b"\n" for row in rows)


def holds(settings: Settings, pipeline: Pipeline) -> None:
    proof = prove(Lake(settings, pipeline), 60, lambda line: None)
    assert proof.ok and not proof.behind, proof


def spark_submits(pipeline: Pipeline) -> list[psutil.Process]:
    """JVMs of this pipeline's jobs that were started from Airflow."""
    found = (process for process in psutil.process_iter(["cmdline", "name"]) if process.info["name"] == "java")
    return [process for process in found if f"twofold-{pipeline.name}-batch" in (process.info["cmdline"] or ())]


def is_alive(process: psutil.Process) -> bool:
    """Whether it still does something: nobody may have asked for its end yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def landings(settings: Settings, pipeline: Pipeline) -> list[tuple[int, str]]:
    return sorted((row["landing"], row["file"]) for row in Lake(settings, pipeline).landed_files())


def test_every_task_alone(airflow: Settings, airflow_define: Define) -> None:
    pipeline = airflow_define()
    put(airflow, pipeline, "may.jsonl", lines(*LANDED))
    put(airflow, pipeline, "bad.csv", b"")
    tasks = {
        "batch.land": "success",
        "batch.announce": "success",
        "batch.check_files": "failed",
        "union.union": "success",
        "union.announce": "success",
        "union.compare": "success",
        "union.check_limits": "success",
        "maintenance.maintain": "success",
        "proof.prove": "success",
        "replay.plan": "success",
        "replay.land": "success",
        "replay.announce": "skipped",
        "replay.reland": "success",
    }
    form = {"replay.reland": ("--task-params", '{"what": "reland"}')}
    asked = ((f"{pipeline.name}_{dag}", task, *form.get(f"{dag}.{task}", ())) for dag, task in split(tasks))
    tested = airflow_tasks.tasks_test(airflow, *asked)
    states = {name.removeprefix(f"{pipeline.name}_"): one.state for name, one in tested.items()}
    assert states == tasks, "\n".join(one.said for one in tested.values())
    # What has nothing to do, and what reads only, starts no JVM.
    submitted = {name.removeprefix(f"{pipeline.name}_") for name, one in tested.items() if SUBMITTED in one.said}
    assert submitted == {"batch.land", "union.union", "maintenance.maintain", "replay.reland"}
    failure = tested[f"{pipeline.name}_batch.check_files"].said
    assert "1 file could not be read:\nbad.csv: " in failure
    assert "runbook: docs/runbooks/files-set-aside.md" in failure
    assert landings(airflow, pipeline) == [(1, "bad.csv"), (1, "may.jsonl")]
    holds(airflow, pipeline)


def test_a_scheduled_batch_starts_the_union_by_its_asset_and_a_replay_follows(
    airflow: Settings, airflow_define: Define
) -> None:
    # One interval is over when they are switched on, and no other ends meanwhile, whatever the hour.
    pipeline = airflow_define(schedule={"batch": "@yearly", "union": "@yearly"}, limits={"difference": 0.01})
    work = Work(None, airflow, pipeline)
    work.send(*(event(f"s{n}", 7 * n, "abc"[n % 3], n) for n in range(40)))
    running.run(airflow, "stream", pipeline.name, "--until-caught-up")
    put(airflow, pipeline, "may.jsonl", lines(*LANDED))
    dags = Dags(airflow, pipeline)
    dags.switch_on("union", "batch")

    (batch,) = dags.ended("batch", 1)
    assert (batch["run_type"], batch["state"]) == ("scheduled", "success")
    (union,) = dags.ended("union", 1)
    assert union["run_type"] == "asset_triggered"
    # The file corrected and withdrew what was streamed, and this pipeline's limit is low.
    states = dags.rest.task_states(f"{pipeline.name}_union", union["dag_run_id"])
    assert states == {"union": "success", "announce": "success", "compare": "success", "check_limits": "failed"}
    assert [told["rows"] for told in dags.events(tables.BATCH_LOG)] == [len(LANDED)]
    assert [told["landing"] for told in dags.events(tables.EVENTS)] == [1]
    found = comparison.latest(airflow, pipeline.name)
    assert found and found.views["by_kind"].different > 0
    assert comparison.beyond(found, pipeline.limits)
    holds(airflow, pipeline)

    assert dags.run("batch") == {"land": "success", "announce": "skipped", "check_files": "success"}
    dags.switch_on("replay")
    skipped = {"land": "skipped", "announce": "skipped", "reland": "skipped"}
    assert dags.run("replay") == {**skipped, "plan": "success"}
    assert landings(airflow, pipeline) == [(1, "may.jsonl")]

    # What Kafka deleted before it landed is named by a dry run, and then let go.
    work.send(*(event(f"lost{n}", n) for n in range(5)))
    with kafka.admin(airflow) as client:
        deleted = client.delete_records([TopicPartition(pipeline.topic.name, 0, OFFSET_END)])
        assert [one.result(30).low_watermark for one in deleted.values()] == [45]
    assert dags.run("replay", what="accept-loss") == {**skipped, "plan": "success"}
    assert [(one.start, one.end) for one in loss.look(work.lake).lost] == [(40, 45)]
    assert dags.run("replay", what="accept-loss", dry_run=False) == {**skipped, "plan": "success"}
    let_go = loss.look(work.lake)
    assert (let_go.lost, [(one.start, one.end) for one in let_go.landed.lost]) == ((), [(40, 45)])

    states = dags.run("replay", dry_run=False)
    assert states == {"plan": "success", "land": "success", "announce": "success", "reland": "skipped"}
    assert dags.run("replay", what="reland") == {**skipped, "plan": "success", "reland": "success"}
    assert [number for number, _ in landings(airflow, pipeline)] == [1, 2]
    assert [run["run_type"] for run in dags.ended("union", 2)] == ["asset_triggered"] * 2
    holds(airflow, pipeline)
    states = dags.run("union")
    assert (states["union"], states["announce"]) == ("success", "skipped")
    for kind, task, runs, jvms in (("union", "union", 3, 2), ("batch", "land", 2, 1)):
        submitted = dags.submitted(kind, task)
        # By runs: Airflow may give up a try whose heartbeats are late, after its JVM was started.
        started = {run for (run, _), jvm in submitted.items() if jvm}
        assert (len({run for run, _ in submitted}), len(started)) == (runs, jvms), submitted


def test_killed_with_its_worker_midway_and_run_twice_at_once_nothing_is_lost_or_doubled(
    airflow: Settings, airflow_define: Define
) -> None:
    pipeline = airflow_define()
    name = f"{pipeline.name}_batch"
    put(airflow, pipeline, "may.jsonl", lines(*LANDED))
    running.run(airflow, "batch", pipeline.name)
    put(airflow, pipeline, "june.jsonl", lines(*(event(f"j{n}", n) for n in range(50))))
    dags = Dags(airflow, pipeline)
    dags.switch_on("batch")
    run = dags.rest.trigger(name)
    with hold(airflow, pipeline, tables.BATCH_LOG) as held:
        eventually(held.commits, within_s=_WITHIN_S)
        (job,) = spark_submits(pipeline)
        worker = job.parents()[:2]
        for process in worker:
            os.kill(process.pid, signal.SIGKILL)
        # The next try begins beside what the killed worker left, and a manual run beside both.
        patiently(lambda: dags.tries("batch", run, "land") >= 2 and len(spark_submits(pipeline)) == 2)
        os.kill(spark_submits(pipeline)[0].pid, signal.SIGKILL)
    running.run(airflow, "batch", pipeline.name)
    patiently(lambda: dags.rest.run_state(name, run) in ENDED)
    assert dags.rest.task_states(name, run) == {"land": "success", "announce": "success", "check_files": "success"}
    assert landings(airflow, pipeline) == [(1, "may.jsonl"), (2, "june.jsonl")]
    assert [told["rows"] for told in dags.events(tables.BATCH_LOG)] == [len(LANDED) + 50]
    eventually(lambda: not spark_submits(pipeline))
    holds(airflow, pipeline)


def test_a_task_that_is_ended_by_hand_takes_its_whole_job_along(airflow: Settings, airflow_define: Define) -> None:
    pipeline = airflow_define()
    dag = f"{pipeline.name}_batch"
    put(airflow, pipeline, "may.jsonl", lines(*LANDED))
    schemas.ensure_tables(catalog.load(airflow), pipeline)
    dags = Dags(airflow, pipeline)
    dags.switch_on("batch")
    run = dags.rest.trigger(dag)
    with hold(airflow, pipeline, tables.BATCH_LOG) as held:
        eventually(held.commits, within_s=_WITHIN_S)
        (jvm,) = spark_submits(pipeline)
        job = [jvm, *jvm.children(recursive=True)]
        assert len(job) > 1
        dags.rest.call("PATCH", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/land", json={"new_state": "failed"})
        eventually(lambda: not any(map(is_alive, job)), within_s=_WITHIN_S)
        held.lose_commits()
    assert landings(airflow, pipeline) == []
    assert dags.run("batch") == {"land": "success", "announce": "success", "check_files": "success"}
    assert landings(airflow, pipeline) == [(1, "may.jsonl")]


def split(tasks: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in tasks:
        dag, task = name.split(".")
        yield dag, task
