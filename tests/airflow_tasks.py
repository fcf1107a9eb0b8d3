"""Runs `airflow tasks test` for several tasks in one process, as each start of Airflow's command line takes seconds.

The states are what the task's own report to Airflow says: the command exits with 0 even where a task fails.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

from twofold.settings import Settings
from twofold.stack.airflow_programs import airflow_environment

_HEADING = "=== tasks test "
_STATE = re.compile(r"new_state=(\w+)")


@dataclass(frozen=True)
class Tested:
    """How one task ended, and all it said."""

    state: str
    said: str


def tasks_test(settings: Settings, *tasks: tuple[str, ...]) -> dict[str, Tested]:
    """Test tasks one after the other: each is (DAG, task, further arguments…); the result is by DAG.task."""
    outcome = subprocess.run(
        [sys.executable, __file__, json.dumps(tasks)],
        env={**os.environ, **settings.environment(), **airflow_environment(settings)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout
    parts = (part.partition("\n") for part in outcome.stdout.split(_HEADING)[1:])
    return {name: Tested((_STATE.findall(said) or [""])[-1], said) for name, _, said in parts}


def _main() -> None:
    from airflow.cli.cli_parser import get_parser

    parser = get_parser()
    for dag, task, *others in json.loads(sys.argv[1]):
        sys.stdout.write(f"{_HEADING}{dag}.{task}\n")
        sys.stdout.flush()
        arguments = parser.parse_args(["tasks", "test", dag, task, *others])
        arguments.func(arguments)


if __name__ == "__main__":
    _main()
