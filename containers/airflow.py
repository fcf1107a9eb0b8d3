"""One of Airflow's processes, or the set-up of its database.

By hand: `python -m containers.airflow api-server|scheduler|dag-processor|triggerer|init`; Airflow's own command line:
`docker compose exec airflow-scheduler python -m containers.airflow cli dags list`
"""

from __future__ import annotations

from collections.abc import Sequence

from containers.running import main
from twofold.commands.become import become
from twofold.errors import UsageError
from twofold.settings import Settings
from twofold.stack import airflow_forking
from twofold.stack.airflow_environment import airflow_environment

_FORKING = airflow_forking.__name__
COMMANDS = {
    "init": ("twofold_airflow.setup",),
    "api-server": ("airflow", "api-server"),
    "scheduler": (_FORKING, "scheduler", "--skip-serve-logs"),
    "dag-processor": (_FORKING, "dag-processor"),
    "triggerer": ("airflow", "triggerer", "--skip-serve-logs"),
}


def start(arguments: Sequence[str]) -> None:
    """Become it, with Airflow's whole configuration in the environment."""
    command = ("airflow", *arguments[1:]) if arguments[:1] == ["cli"] else COMMANDS.get(" ".join(arguments))
    if command is None:
        raise UsageError(
            f"there is no {' '.join(arguments)!r}", f"say one of {', '.join(COMMANDS)}, or cli and a command"
        )
    settings = Settings()
    become(settings, *command, environment=airflow_environment(settings))


if __name__ == "__main__":
    main(start)
