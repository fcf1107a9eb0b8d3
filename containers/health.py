"""Health checks of containers: exit code 0, or 1 and a sentence. Standard library only: asked every few seconds.

By hand, inside a container: `python -m containers.health kafka`
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from xmlrpc.client import Error

from containers import places
from twofold import probes, supervisor_rpc

_TIMEOUT_S = 4.0
_AGE_S = 60.0
"""A heartbeat older than this is a dead process's."""


def zookeeper() -> str:
    """ZooKeeper says that it is well; not needed in KRaft mode."""
    return (
        "" if os.environ.get("TWOFOLD_KAFKA_MODE") == "kraft" else probes.zookeeper("127.0.0.1", places.ZOOKEEPER_PORT)
    )


def kafka() -> str:
    """The broker is registered, and its users can log in."""
    port = places.kafka_local_port(int(os.environ.get("TWOFOLD_KAFKA_NODE", "0")))
    return probes.kafka("127.0.0.1", port) or (
        "" if places.ACCESS_IS_SET.exists() else "users and rights are not made yet"
    )


def spark_master() -> str:
    """The master is in charge."""
    status = _json(f"http://{_host()}:{places.SPARK_MASTER_PAGE}/json/")["status"]
    return "" if status == "ALIVE" else f"its state is {status}"


def spark_worker() -> str:
    """The worker has found its master."""
    return (
        "" if _json(f"http://{_host()}:{places.SPARK_WORKER_PAGE}/json/")["masterwebuiurl"] else "it is not registered"
    )


def supervisor() -> str:
    """supervisord answers. Whether its services get on is told by their own `/healthz`."""
    password = Path(os.environ["TWOFOLD_SECRETS"], "twofold_supervisor_password").read_text()
    proxy = supervisor_rpc.connect("127.0.0.1", places.SUPERVISOR_PORT, "twofold", password, _TIMEOUT_S)
    state: Any = proxy.supervisor.getState()
    return "" if state["statename"] == "RUNNING" else f"it is {state['statename']}"


def airflow(process: str) -> str:
    """The API server has its database; another process has given a heartbeat since its container started."""
    told = _json(f"{os.environ['TWOFOLD_AIRFLOW_INTERNAL_URL']}/api/v2/monitor/health")
    if process == "api-server":
        status = told["metadatabase"]["status"]
        return "" if status == "healthy" else f"its database is {status}"
    name = process.replace("-", "_")
    beat = (told.get(name) or {}).get(f"latest_{name}_heartbeat")
    at = datetime.fromisoformat(beat).timestamp() if beat else 0.0
    return "" if at > max(_started_at(), time.time() - _AGE_S) else f"its last heartbeat was at {beat}"


def _started_at() -> float:
    """When this container did."""
    return Path("/proc/1").stat().st_mtime


def _json(url: str) -> dict[str, Any]:
    with urlopen(url, timeout=_TIMEOUT_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _host() -> str:
    """Spark's pages listen on the container's own name."""
    return os.uname().nodename


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
    except (*supervisor_rpc.UNREACHABLE, ValueError, KeyError, Error) as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        sys.stderr.write(f"{name}: {fault}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
