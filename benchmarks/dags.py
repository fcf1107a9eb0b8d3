"""What Airflow adds to a job: task wall time less the same command in a shell, both with nothing new to do.

    wait    queued ─► the task's process runs: the worker and its supervisor, by Airflow's own account
    task    the task's process runs ─► it has ended: parses the DAG file, runs the job, reports how it ended
    shell   `twofold …`, start to end

Nothing new, so that what is measured is the same in both, and the job itself hides least.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.failures import until
from benchmarks.measure import measured
from demo.airflow_rest import AirflowRest
from tests import running
from twofold.settings import Settings

RUNS = 3
COMMANDS = {
    ("batch", "land"): "batch",
    ("union", "union"): "union",
    ("union", "compare"): "compare",
}
"""Task of a DAG → the command that does the same without Airflow."""
_EVENTS = 1000
_GIVE_UP_S = 600.0


@dataclass(frozen=True)
class Overhead:
    """Medians of one task, in seconds."""

    task: str
    waited_s: float
    task_s: float
    shell_s: float

    @property
    def added_s(self) -> float:
        """From the moment that a worker has the task, less the command in a shell."""
        return self.task_s - self.shell_s


def measure(pipelines: Path, name: str) -> list[Overhead]:
    """On a stack of its own with Airflow, of which only the DAGs measured are switched on."""
    with running.running_stack(pipelines, "local", airflow=True) as settings:
        first = settings.home / "first.jsonl"
        data.write(first, _EVENTS)
        running.run(settings, "land", name, str(first))
        rest = AirflowRest(settings)
        for dag in dict.fromkeys(dag for dag, _ in COMMANDS):
            _switch_on(rest, f"{name}_{dag}")
            _run(rest, f"{name}_{dag}")
        return [_overhead(settings, rest, name, dag, task) for dag, task in COMMANDS]


def _overhead(settings: Settings, rest: AirflowRest, name: str, dag: str, task: str) -> Overhead:
    command = [sys.executable, "-m", "twofold.cli", COMMANDS[dag, task], name]
    shell = [measured(command, settings.environment()).wall_s for _ in range(RUNS)]
    told = [_run(rest, f"{name}_{dag}")[task] for _ in range(RUNS)]
    waited = [_seconds(one["queued_when"], one["start_date"]) for one in told]
    tasks = [_seconds(one["start_date"], one["end_date"]) for one in told]
    return Overhead(f"{dag}.{task}", *(statistics.median(times) for times in (waited, tasks, shell)))


def _switch_on(rest: AirflowRest, dag: str) -> None:
    until(lambda: any(one["dag_id"] == dag for one in rest.get("dags", limit=100)["dags"]), dag, _GIVE_UP_S)
    rest.unpause(dag)


def _run(rest: AirflowRest, dag: str) -> dict[str, dict[str, Any]]:
    run = rest.trigger(dag)
    until(lambda: rest.run_state(dag, run) in ("success", "failed"), run, _GIVE_UP_S)
    found = rest.get(f"dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
    return {one["task_id"]: one for one in found}


def _seconds(start: str, end: str) -> float:
    first, last = (datetime.fromisoformat(text) for text in (start, end))
    return (last - first).total_seconds()
