"""The scheduler's program: ends what a killed scheduler left behind, then becomes the scheduler.

A LocalExecutor worker waits on a pipe that its sisters hold open, so after kill -9 of the scheduler its idle workers
wait for ever. A worker that runs a task is left to finish it: the task reports to the API server, not to the scheduler.
"""

from __future__ import annotations

import os
import signal
import sys

import psutil

from twofold.settings import Settings
from twofold.stack import processes

PROGRAM = "airflow-scheduler"
COMMAND = (sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs")
_IDLE = "LocalExecutor: <idle>"
"""In the title of a worker without a task."""


def main() -> None:
    """Called while no scheduler of this home runs, so every idle worker is left over."""
    # They take SIGTERM for the scheduler's business.
    processes.end([process for process in _workers() if _idle(process)], signal.SIGKILL, patience_s=5)
    os.execv(sys.executable, COMMAND)


def _workers() -> list[psutil.Process]:
    return processes.ours(Settings().home).get(PROGRAM, [])


def _idle(process: psutil.Process) -> bool:
    try:
        return _IDLE in " ".join(process.cmdline())
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()
