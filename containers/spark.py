"""Spark's standalone master or a worker, from the pyspark that the jobs run with.

By hand: `python -m containers.spark master`, `python -m containers.spark worker`
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from containers.places import SPARK_MASTER_PAGE, SPARK_WORKER_PAGE
from containers.running import main
from twofold.commands.become import become_program
from twofold.errors import UsageError
from twofold.launch import spark_home

MASTER_PORT = 7077
_PACKAGE = "org.apache.spark.deploy"


def start(arguments: Sequence[str]) -> None:
    """Become one of them; what a worker offers (SPARK_WORKER_CORES, _MEMORY) Spark itself reads."""
    host = socket.gethostname()
    named = ["--host", host]
    if list(arguments) == ["master"]:
        what = [f"{_PACKAGE}.master.Master", *named, "--port", str(MASTER_PORT), "--webui-port", str(SPARK_MASTER_PAGE)]
    elif list(arguments) == ["worker"]:
        page = ["--webui-port", str(SPARK_WORKER_PAGE), "--work-dir", "/tmp/work"]
        what = [f"{_PACKAGE}.worker.Worker", *named, *page, f"spark://spark-master:{MASTER_PORT}"]
    else:
        raise UsageError(f"there is no {' '.join(arguments)!r}", "say master or worker")
    home = spark_home()
    become_program([str(home / "bin" / "spark-class"), *what], {"SPARK_HOME": str(home)})


if __name__ == "__main__":
    main(start)
