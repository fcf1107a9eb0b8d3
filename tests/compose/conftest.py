"""The stack in containers, built and started once, as `docker compose up` does it; at the end `down` leaves nothing."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from demo.airflow_rest import AirflowRest
from tests.at_work import eventually
from tests.running import free_ports
from twofold.settings import Settings

Done = subprocess.CompletedProcess[str]
ROOT = Path(__file__).parents[2]
PORTS = ("AIRFLOW", "PROMETHEUS", "ALERTMANAGER", "STATSD_EXPORTER", "SPARK", "MINIO", "MINIO_CONSOLE", "KAFKA")
patiently = partial(eventually, within_s=420.0, every_s=2.0)
"""Two cores for everything: a first batch takes a minute."""


class Stack:
    """One project of Compose, and what tests ask of it."""

    def __init__(self, project: str, environment: dict[str, str]) -> None:
        self.project, self.environment = project, environment

    def compose(self, *arguments: str, check: bool = True) -> Done:
        """`docker compose …`; fails with its output if `check` and it fails."""
        return self.run("docker", "compose", *arguments, check=check)

    def run(self, *command: str, check: bool = True) -> Done:
        """Any command, in this project's environment."""
        variables = {**os.environ, **self.environment}
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        if check and done.returncode:
            said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            raise AssertionError(f"{' '.join(command)} exits {done.returncode}:\n{said}")
        return done

    def port(self, name: str) -> int:
        """Where a service is published on this machine."""
        return int(self.environment[f"TWOFOLD_{name}_PORT"])

    def secret(self, name: str) -> str:
        """One of the generated secrets."""
        return self.compose("run", "--rm", "--no-deps", "-T", "secrets", "cat", f"/secrets/all/{name}").stdout.strip()

    def containers(self) -> dict[str, dict[str, Any]]:
        """Service → `docker inspect` of its container."""
        ids = self.compose("ps", "--all", "--quiet").stdout.split()
        found = json.loads(self.run("docker", "inspect", *ids).stdout)
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def healthy(self, service: str) -> bool:
        """Whether a service's container runs, and is well."""
        state = self.containers()[service]["State"]
        return bool(state["Running"] and state.get("Health", {}).get("Status") == "healthy")

    def crash(self, service: str) -> None:
        """Kill -9 everything in a container, so that its restart policy brings it back; returns once it is well."""
        before = self.containers()[service]["State"]["StartedAt"]
        self.compose("exec", "-T", service, "bash", "-c", "kill -9 -1", check=False)
        patiently(lambda: self.containers()[service]["State"]["StartedAt"] != before)
        patiently(lambda: self.healthy(service))

    def ask(self, *command: str) -> Done:
        """A command of `twofold`, as the reader."""
        return self.compose("run", "--rm", "-T", "reader", *command, check=False)

    def prove(self) -> dict[str, Any]:
        """`twofold prove`, as the reader: its report, whatever it says."""
        done = self.ask("prove", "flights", "--json")
        assert done.stdout.startswith("{"), done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def airflow(self) -> AirflowRest:
        """A session of Airflow's administrator."""
        url = f"http://127.0.0.1:{self.port('AIRFLOW')}"
        return AirflowRest(Settings(airflow_url=url, airflow_password=SecretStr(self.secret("airflow_password"))))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("compose")) as made:
        yield made


@contextmanager
def running(folder: Path, replication: int = 1, **variables: str) -> Iterator[Stack]:
    """A stack that is up and healthy, with other settings than usual; at the end nothing of it is left."""
    project = f"twofold-test-{random.randrange(10**6)}"
    made = Stack(project, {**environment(project, pipelines(folder, replication)), **variables})
    try:
        made.run("python3", "docker/preflight.py")
        made.compose("build")
        made.compose("up", "--detach", "--wait", "--wait-timeout", "600")
        yield made
    finally:
        sys.stderr.write(made.compose("logs", "--no-color", "--tail", "40", check=False).stdout)
        made.compose("--profile", "commands", "down", "--volumes", "--remove-orphans", "--timeout", "20")
    assert left_behind(made) == []


def environment(project: str, pipelines: Path) -> dict[str, str]:
    """Settings of a stack of its own, beside whatever else runs on this machine."""
    names = (*PORTS, "POSTGRES")
    third = random.randrange(80, 250)
    return {
        "COMPOSE_PROJECT_NAME": project,
        "COMPOSE_FILE": "docker-compose.yml:docker/compose.test.yml",
        "TWOFOLD_VERSION": "test",
        "TWOFOLD_PIPELINES_FOLDER": str(pipelines),
        "TWOFOLD_SUBNET": f"172.28.{third}.0/24",
        "TWOFOLD_SUBNET_DYNAMIC": f"172.28.{third}.128/25",
        "TWOFOLD_STATSD_ADDRESS": f"172.28.{third}.10",
        "TWOFOLD_SERVICES_EVERY_S": "15",
        "TWOFOLD_SERVICE_SAMPLE_EVERY_S": "2",
        "TWOFOLD_SERVICE_HEALTHY_WITHIN_S": "600",
        **{f"TWOFOLD_{name}_PORT": str(number) for name, number in zip(names, free_ports(len(names)), strict=True)},
    }


def pipelines(folder: Path, replication: int) -> Path:
    """The flights as they ship, sent for as long as the tests take, and unioned every other minute."""
    text = (ROOT / "pipelines/flights.yaml").read_text()
    text = re.sub(r"^schedule:.*$", 'schedule: {batch: "@hourly", union: "*/2 * * * *"}', text, flags=re.MULTILINE)
    text = re.sub(r"^stream:.*$", "stream: {trigger: 3 seconds}", text, flags=re.MULTILINE)
    text = re.sub(r"^replay:$", "replay:\n  rate: 20", text, flags=re.MULTILINE)
    text = text.replace("partitions: 4}", f"partitions: 4, replication: {replication}}}")
    assert "rate: 20" in text and "replication:" in text and "*/2 * * * *" in text
    (folder / "flights.yaml").write_text(text)
    folder.chmod(0o755)
    return folder


def left_behind(stack: Stack) -> list[str]:
    """Containers, volumes and networks of the project that are still there."""
    label = f"label=com.docker.compose.project={stack.project}"
    commands = (["ps", "--all"], ["volume", "ls"], ["network", "ls"])
    listed = [stack.run("docker", *each, "--quiet", "--filter", label).stdout for each in commands]
    return [line for text in listed for line in text.split()]
