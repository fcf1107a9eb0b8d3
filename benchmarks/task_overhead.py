"""What Airflow adds to a job: task wall time less the same command in a shell, both with nothing new to do.

    task    the task's process runs ─► it has ended: parses the DAG file, runs the job, reports how it ended
    shell   `twofold …`, start to end

Nothing new, so that what is measured is the same in both, and the job itself hides least.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.measure import TWOFOLD, Figure, measured, until
from demo.airflow_rest import AirflowRest
from tests import running

RUNS = 3
CEILING_S = 1.5
COMMANDS = {
    ("batch", "land"): "batch",
    ("union", "union"): "union",
    ("union", "compare"): "compare",
}
"""Task of a DAG → the command that does the same without Airflow."""
_EVENTS = 1000
_GIVE_UP_S = 600.0


def measure(pipelines: Path, name: str) -> Iterator[Figure]:
    """Medians of each task, on a stack of its own with Airflow, of which only the DAGs measured are switched on."""
    with running.running_stack(pipelines, "local", airflow=True) as settings:
        first = settings.home / "first.jsonl"
        data.write(first, _EVENTS)
        running.run(settings, "land", name, str(first))
        rest = AirflowRest(settings)
        for dag in dict.fromkeys(dag for dag, _ in COMMANDS):
            _switch_on(rest, f"{name}_{dag}")
            _run(rest, f"{name}_{dag}")
        for (dag, task), command in COMMANDS.items():
            line = [*TWOFOLD, command, name]
            shell_s = statistics.median(measured(line, settings.environment()).wall_s for _ in range(RUNS))
            runs = [_run(rest, f"{name}_{dag}")[task] for _ in range(RUNS)]
            task_s = statistics.median(_seconds(one) for one in runs)
            added_s = task_s - shell_s
            note = f"{added_s:+.2f} s to {shell_s:.2f} s in a shell"
            yield Figure(f"{dag}.{task}", task_s, ratio=added_s, bound=f"<= {CEILING_S} s", note=note)


def _switch_on(rest: AirflowRest, dag: str) -> None:
    until(lambda: any(one["dag_id"] == dag for one in rest.get("dags", limit=100)["dags"]), dag, _GIVE_UP_S)
    rest.unpause(dag)


def _run(rest: AirflowRest, dag: str) -> dict[str, dict[str, Any]]:
    run = rest.trigger(dag)
    until(lambda: rest.run_state(dag, run) in ("success", "failed"), run, _GIVE_UP_S)
    found = rest.get(f"dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
    return {one["task_id"]: one for one in found}


def _seconds(task: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(task[name]) for name in ("start_date", "end_date"))
    return (ended - began).total_seconds()
