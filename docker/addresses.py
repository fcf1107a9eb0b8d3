"""Where everything is, once it is up: the table at the end of `make compose-up`.

Run manually: `python3 docker/addresses.py`
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# service, port in the container, what, log in as, secret
_ROWS = (
    ("airflow-api-server", 8080, "Airflow: start here, the DAG flights_services", "admin", "airflow_password"),
    ("grafana", 3000, "Grafana: dashboards", "admin", "grafana_password"),
    ("object-store", 9001, "MinIO: the bucket, in a browser", "twofold-reader", "s3_reader_secret_key"),
    ("object-store", 9000, "MinIO: S3", "twofold-reader", "s3_reader_secret_key"),
    ("spark-master", 8080, "Spark: workers and jobs", "", ""),
    ("prometheus", 9090, "Prometheus: metrics, rules, targets", "", ""),
    ("alertmanager", 9093, "Alertmanager: what is wrong now", "", ""),
    ("kafka", 0, "Kafka, SASL_PLAINTEXT, SCRAM-SHA-512", "reader", "kafka_reader_password"),
    ("postgres", 5432, "PostgreSQL: the Iceberg catalog", "twofold", "postgres_password"),
)
_HINTS = """
The passwords are in the volume `secrets`:  docker compose run --rm secrets cat /secrets/all/<password>
Flights flow within some two minutes. Then: make compose-prove            the invariants, on live data
                                            make compose-query SQL='SELECT count(*) FROM flights.unified_events'
"""


def table(config: Mapping[str, Any]) -> str:
    """One line for each address; only services that run are in it.

    >>> service = {"ports": [{"target": 9090, "published": "1"}]}
    >>> print(table({"services": {"prometheus": service}}))
    http://127.0.0.1:1  Prometheus: metrics, rules, targets
    """
    lines = []
    for name, target, what, user, secret in _ROWS:
        service = config["services"].get(name, {})
        for port in service.get("ports", []) if not service.get("profiles") else []:
            if target in (0, int(port["target"])):
                scheme = "" if name in ("kafka", "postgres") else "http://"
                login = f"  ({user}, password {secret})" if user else ""
                lines.append(f"{scheme}127.0.0.1:{port['published']}  {what}{login}")
    return "\n".join(lines)


def main() -> None:
    """Print the table of the stack in this folder."""
    command = ["docker", "compose", "config", "--format", "json"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    sys.stdout.write(table(json.loads(told.stdout)) + "\n" + _HINTS)


if __name__ == "__main__":
    main()
