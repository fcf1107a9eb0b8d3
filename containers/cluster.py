"""Airflow's processes, and Spark's standalone master and workers from the pyspark that the jobs run with.

Run manually: `python -m containers airflow api-server|scheduler|dag-processor|triggerer|init|cli …`,
`python -m containers spark master|worker`
"""

from __future__ import annotations

import socket

from containers.healthcheck import SPARK_MASTER_PAGE, SPARK_WORKER_PAGE
from twofold.commands.become import become, become_program
from twofold.errors import UsageError
from twofold.launch import spark_home
from twofold.settings import Settings
from twofold.stack.airflow_programs import COMMANDS, SET_UP, airflow_environment

_MASTER_PORT = 7077


def airflow(*arguments: str) -> None:
    """Become a process of Airflow, or its command line, with its whole configuration in the environment."""
    commands = {"init": (SET_UP,), **COMMANDS}
    command = ("airflow", *arguments[1:]) if arguments[:1] == ("cli",) else commands.get(" ".join(arguments))
    if command is None:
        raise UsageError(
            f"there is no {' '.join(arguments)!r}", f"say one of {', '.join(commands)}, or cli and a command"
        )
    settings = Settings()
    become(settings, *command, environment=airflow_environment(settings))


def spark(*arguments: str) -> None:
    """Become a master or a worker; what a worker offers (SPARK_WORKER_CORES, _MEMORY) Spark itself reads."""
    if arguments == ("master",):
        what = ["master.Master", "--port", str(_MASTER_PORT), "--webui-port", str(SPARK_MASTER_PAGE)]
    elif arguments == ("worker",):
        what = ["worker.Worker", "--webui-port", str(SPARK_WORKER_PAGE), "--work-dir", "/tmp/work"]
        what.append(f"spark://spark-master:{_MASTER_PORT}")
    else:
        raise UsageError(f"there is no {' '.join(arguments)!r}", "say master or worker")
    home = spark_home()
    named = [f"org.apache.spark.deploy.{what[0]}", "--host", socket.gethostname(), *what[1:]]
    become_program([str(home / "bin" / "spark-class"), *named], {"SPARK_HOME": str(home)})
