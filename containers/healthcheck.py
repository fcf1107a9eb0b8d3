"""Health checks of containers: exit code 0, or 1 and a sentence. Standard library only: asked every few seconds.

Run manually, inside a container: `python -m containers.healthcheck kafka`
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from xmlrpc.client import Error

from twofold import probes, supervisord

_TIMEOUT_S = 4.0
ZOOKEEPER_PORT = 2181
SPARK_MASTER_PAGE, SPARK_WORKER_PAGE = 8080, 8081
SUPERVISOR_PORT = 19100
ACCESS_IS_SET = Path("/tmp/access-is-set")
"""A file that exists once Kafka's users and rights are as they should be."""


def kafka_local_port(node: int) -> int:
    """Where a broker listens for its health check alone. ZooKeeper mode refuses two brokers of the same address."""
    return 9095 + node


def zookeeper() -> str:
    """ZooKeeper says that it is well; not needed in KRaft mode."""
    kraft = os.environ.get("TWOFOLD_KAFKA_MODE") == "kraft"
    return "" if kraft else probes.zookeeper("127.0.0.1", ZOOKEEPER_PORT)


def kafka() -> str:
    """The broker is registered, and its users can log in."""
    if fault := probes.kafka("127.0.0.1", kafka_local_port(int(os.environ.get("TWOFOLD_KAFKA_NODE", "0")))):
        return fault
    return "" if ACCESS_IS_SET.exists() else "users and rights are not made yet"


def spark_master() -> str:
    """The master is in charge."""
    status = _spark(SPARK_MASTER_PAGE)["status"]
    return "" if status == "ALIVE" else f"its state is {status}"


def spark_worker() -> str:
    """The worker has found its master."""
    master = _spark(SPARK_WORKER_PAGE)["masterwebuiurl"]
    return "" if master else "it is not registered"


def supervisor() -> str:
    """supervisord answers. Whether its services are healthy, their own `/healthz` says."""
    password = Path(os.environ["TWOFOLD_SECRETS"], "twofold_supervisor_password").read_text()
    proxy = supervisord.connect("127.0.0.1", SUPERVISOR_PORT, "twofold", password, _TIMEOUT_S)
    state: Any = proxy.supervisor.getState()
    return "" if state["statename"] == "RUNNING" else f"it is {state['statename']}"


def airflow(process: str) -> str:
    """The API server has its database; another process has given a heartbeat since its container started."""
    return probes.airflow(os.environ["TWOFOLD_AIRFLOW_INTERNAL_URL"], process, lambda: Path("/proc/1").stat().st_mtime)


def _spark(port: int) -> dict[str, Any]:
    """What a page of Spark says; they listen on the container's own name."""
    with urlopen(f"http://{os.uname().nodename}:{port}/json/", timeout=_TIMEOUT_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


CHECKS: dict[str, Callable[..., str]] = {
    "zookeeper": zookeeper,
    "kafka": kafka,
    "spark-master": spark_master,
    "spark-worker": spark_worker,
    "supervisor": supervisor,
    "airflow": airflow,
    "page": probes.http_page,
}


def main() -> None:
    """Run the check that the first argument names."""
    name, *arguments = sys.argv[1:]
    try:
        fault = CHECKS[name](*arguments)
    except (*supervisord.UNREACHABLE, ValueError, KeyError, Error) as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        sys.stderr.write(f"{name}: {fault}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
