"""What `make compose-up` checks before anything starts, and says once all is up.

    docker info, docker compose config ─► faults, each a sentence with its remedy, all at once ─► exit code 1
                  docker compose config ─► where everything is (`addresses`)

Standard library only: it runs before anything is installed. Run manually: `python3 docker/preflight.py [addresses]`
"""

from __future__ import annotations

import json
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LAYOUT = "1"
"""Of the volumes; docker-compose.yml labels them with it."""
GIB = 1 << 30
TRIED_ON = "x86_64"
_STORE_OF_ANOTHER = ("TWOFOLD_STORE_ROOT_USER", "TWOFOLD_STORE_ROOT_PASSWORD")
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
Config = Mapping[str, Any]
"""What `docker compose config --format json` prints: all files merged, all variables filled in."""


def memory_fault(config: Config, total_bytes: int) -> Iterator[str]:
    """The limits of all services must fit into the engine's memory."""
    running = [one for one in config["services"].values() if one.get("restart") == "unless-stopped"]  # no one-shots
    wanted = sum(int(one.get("mem_limit", 0)) for one in running)
    if total_bytes < wanted * 0.95:
        yield (
            f"the engine has {total_bytes / GIB:.1f} GiB of memory, and the services may take {wanted / GIB:.1f}: "
            "give it more (Docker Desktop: Settings, Resources)"
        )


def port_faults(config: Config, ours: Iterable[int]) -> Iterator[str]:
    """Every published port must be free, but for those of this very stack."""
    for name, service in config["services"].items():
        for port in service.get("ports", []):
            number = str(port.get("published", ""))  # in a file of the user's it may be none, or a range
            if number.isdigit() and int(number) not in ours and taken(port.get("host_ip", "127.0.0.1"), int(number)):
                yield f"port {number}, of {name}, is taken: stop what listens there, or move it in .env (.env.example)"


def taken(host: str, number: int) -> bool:
    """Whether something listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError:
            return True
    return False


def value_faults(values: Mapping[str, str], known: Iterable[str]) -> Iterator[str]:
    """A misspelt name, and what another store or mode cannot do without.

    >>> list(value_faults({"TWOFOLD_KAFKA_PROT": "1"}, ["TWOFOLD_KAFKA_PORT"]))
    ['.env sets TWOFOLD_KAFKA_PROT, which nothing reads: see .env.example']
    >>> list(value_faults({"TWOFOLD_KAFKA_MODE": "zk"}, ["TWOFOLD_KAFKA_MODE"]))
    ['TWOFOLD_KAFKA_MODE is zk: say zookeeper or kraft']
    """
    yield from (
        f".env sets {name}, which nothing reads: see .env.example"
        for name in values
        if name.startswith("TWOFOLD_") and name not in known
    )
    if (mode := values.get("TWOFOLD_KAFKA_MODE") or "zookeeper") not in ("zookeeper", "kraft"):
        yield f"TWOFOLD_KAFKA_MODE is {mode}: say zookeeper or kraft"
    if values.get("TWOFOLD_STORE_KIND") == "other":
        missing = [name for name in _STORE_OF_ANOTHER if not values.get(name)]
        yield from (f".env names another store and no {name}: give its key" for name in missing)


def volume_faults(volumes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Data of an older release."""
    for volume in volumes:
        layout = (volume.get("Labels") or {}).get("twofold.layout", "none")
        if layout != LAYOUT:
            yield (
                f"the volume {volume['Name']} has layout {layout}, and this release has {LAYOUT}: see "
                "docs/operations.md to take its data along, or delete all data with `make compose-reset`"
            )


def dotenv(text: str) -> dict[str, str]:
    """The values of a .env file, as far as this check needs them.

    >>> dotenv("# a comment\\nTWOFOLD_BUCKET='mine'\\n")
    {'TWOFOLD_BUCKET': 'mine'}
    """
    found = re.findall(r"^\s*(?:export\s+)?(\w+)=(.*)$", text, re.MULTILINE)
    return {name: value.strip().strip("'\"") for name, value in found}


def docker(*arguments: str) -> str:
    """What the command prints; CalledProcessError where it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def engine_fault() -> str:
    """Why Compose cannot be used at all; empty: it can."""
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except FileNotFoundError:
        return "there is no `docker` on the PATH: install Docker Engine or Docker Desktop"
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["it does not say why"]
        return f"no Docker engine answers: start it, or join its group ({said[-1]})"
    try:
        docker("compose", "version")
    except subprocess.CalledProcessError:
        return "Docker has no Compose plugin: install the package docker-compose-plugin"
    return ""


def faults() -> list[str]:
    """Everything that stands against a start."""
    if fault := engine_fault():
        return [fault]
    try:
        config = _config()
    except subprocess.CalledProcessError as error:
        return [f"docker-compose.yml cannot be read with these settings: {error.stderr.strip()}"]
    env, example = ROOT / ".env", dotenv((ROOT / ".env.example").read_text().replace("# TWOFOLD_", "TWOFOLD_"))
    values = dotenv(env.read_text()) if env.exists() else {}
    return [
        *value_faults(values, example),
        *memory_fault(config, int(docker("info", "--format", "{{.MemTotal}}"))),
        *port_faults(config, _published()),
        *volume_faults(_volumes(str(config["name"]))),
    ]


def _config() -> Config:
    config: Config = json.loads(docker("compose", "config", "--format", "json"))
    return config


def _published() -> set[int]:
    """Ports that this stack's own containers listen on now."""
    lines = docker("compose", "ps", "--format", "{{json .Publishers}}").splitlines()
    return {int(port["PublishedPort"]) for line in lines for port in json.loads(line) or []}


def _volumes(project: str) -> list[Mapping[str, Any]]:
    names = docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={project}").split()
    found: list[Mapping[str, Any]] = json.loads(docker("volume", "inspect", *names)) if names else []
    return found


def table(config: Config) -> str:
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
    """Print every fault, and end with 1 where there is any; with `addresses`, print where everything is."""
    try:
        if sys.argv[1:] == ["addresses"]:
            sys.stdout.write(table(_config()) + "\n" + _HINTS)
            return
        if platform.machine() not in (TRIED_ON, "AMD64"):
            note = f"this machine is no {TRIED_ON}: nothing is tied to that, but nothing else was tried"
            sys.stderr.write(f"note: {note}\n")
        found = faults()
    except subprocess.CalledProcessError as error:
        found = [f"`{' '.join(error.cmd)}` fails: {error.stderr.strip() or 'it does not say why'}"]
    if found:
        sys.stderr.write("".join(f"error: {fault}\n" for fault in found))
        sys.exit(1)


if __name__ == "__main__":
    main()
