"""The program of those processes of Airflow that fork: the scheduler (tasks) and the DAG processor (DAG files).

    python -m twofold.stack.airflow_forking scheduler --skip-serve-logs
        end what a killed scheduler left ─► import the heavy libraries ─► run Airflow's command in this process

Each task and each reading of a DAG file is a fork, and finds imported what this process has: it saves a second of CPU
time each. Libraries only: this project's own modules are imported again by each fork, so a changed file takes effect,
but for what the DAG processor itself needs to look at pipeline files; after an upgrade it is started again.
"""

from __future__ import annotations

import importlib
import runpy
import signal
import sys

import psutil

from twofold.settings import Settings
from twofold.stack import processes

SCHEDULER = "scheduler"
_HEAVY = (
    "airflow.providers.apache.spark.operators.spark_submit",
    "duckdb",
    "psycopg",
    "pyiceberg.catalog.sql",
    "pyiceberg.io.pyarrow",
    "ruamel.yaml",
    "sqlglot.dialects.spark",
)
_IDLE = "LocalExecutor: <idle>"
"""In the title of a worker without a task."""


def main() -> None:
    """Run Airflow's command that the arguments name."""
    if sys.argv[1] == SCHEDULER:
        end_idle_workers()
    for name in _HEAVY:
        importlib.import_module(name)
    sys.argv[0] = "airflow"
    runpy.run_module("airflow", run_name="__main__")


def end_idle_workers() -> None:
    """End the idle workers of a killed scheduler; called while no scheduler of this home runs.

    A LocalExecutor worker waits on a pipe that its sisters hold open, so it would wait for ever. One that runs a task
    is left to finish it: the task reports to the API server, not to the scheduler.
    """
    left = processes.ours(Settings().home).get(f"airflow-{SCHEDULER}", [])
    # They would take SIGTERM for the scheduler's business.
    processes.end([process for process in left if _idle(process)], signal.SIGKILL, patience_s=5)


def _idle(process: psutil.Process) -> bool:
    try:
        return _IDLE in " ".join(process.cmdline())
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()
