"""A real embedded stack for tests: on ports and in a home folder of its own, whatever else runs on this machine."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from twofold.settings import Settings
from twofold.stack import processes
from twofold.stack.programs import PORTS, is_free

Asked = TypeVar("Asked")
QUICK_TO_NOTICE = {
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__DAG_PROCESSOR__HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}
"""Airflow looks after 5 minutes, by default, for what a killed process left; tests cannot wait for so long."""

GIVEN = {
    f"{name}_password": f"{name}:100%@/&?#;[]" for name in ("postgres", "supervisor", "airflow", "airflow_database")
}
"""Passwords as a user may choose them: with what has a meaning in addresses, shells and configuration files."""

QUICK_SERVICES: dict[str, Any] = {
    "services_every_s": 10,
    "service_sample_every_s": 1.0,
    "service_healthy_within_s": 600.0,
}
"""Settings of a DAG that looks at the services more often than every minute, and gives a busy machine time."""


def run(
    settings: Settings,
    *arguments: str,
    check: bool = True,
    timeout_s: float = 600,
    text_in: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one `twofold` command as a user would, with these settings; fails with its output if `check` and it fails."""
    outcome = subprocess.run(
        [sys.executable, "-m", "twofold.cli", *arguments],
        env={**os.environ, **QUICK_TO_NOTICE, **settings.environment()},
        input=text_in,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and outcome.returncode:
        command = " ".join(arguments)
        raise AssertionError(f"twofold {command} exits {outcome.returncode}:\n{outcome.stderr}\n{outcome.stdout}")
    return outcome


def status(settings: Settings) -> dict[str, Any]:
    """What `twofold status --json` says; its exit code says whether all is healthy."""
    outcome = run(settings, "status", "--json", check=False)
    found: dict[str, Any] = json.loads(outcome.stdout)
    assert outcome.returncode == (0 if found["healthy"] else 1)
    return found


def pids(settings: Settings) -> dict[str, int]:
    """Program → number of its process."""
    return {program["name"]: program["pid"] for program in status(settings)["programs"]}


def of_each(settings: Settings, ask: Callable[[psutil.Process], Asked]) -> list[Asked]:
    """What is asked of each process of a stack; one that has ended meanwhile has nothing to say."""
    said = []
    for process in itertools.chain.from_iterable(processes.ours(settings.home).values()):
        with suppress(psutil.NoSuchProcess):
            said.append(ask(process))
    return said


def hosts_listened_on(settings: Settings) -> set[str]:
    """The addresses on which anything of a stack takes connections."""

    def listens(process: psutil.Process) -> set[str]:
        return {c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN and c.laddr}

    return set().union(*of_each(settings, listens))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, each given once: those who asked for them may be long in taking them."""
    found: list[int] = []
    while len(found) < count:
        number = next(_PORTS)
        if is_free(number):
            found.append(number)
    return found


def _own_ports() -> Iterator[int]:
    """Below the range of outgoing connections, and of no other worker of this test run."""
    count, number = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    ports = list(range(20_000, 32_000))[int(number.removeprefix("gw")) :: count]
    random.shuffle(ports)
    return itertools.cycle(ports)


_PORTS = _own_ports()


def fresh_settings(home: Path, pipelines: Path, **others: Any) -> Settings:  # noqa: ANN401
    """Settings of a stack that never ran, every port free now."""
    ports = {f"{name}_port": number for name, number in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    addresses = dict.fromkeys(("kafka_bootstrap", "s3_endpoint", "airflow_url", "schema_registry_url"), "")
    return Settings(home=home, pipelines=pipelines, **{**addresses, **ports, **GIVEN, **others})


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that does nothing, and does not end, meanwhile."""
    # Of a program that does not run the number is 0, and that would stop the tests themselves.
    assert pid > 0, "it does not run"
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def home_folder() -> Iterator[Path]:
    """A home that an unprivileged PostgreSQL can reach too (pytest's own folders are closed).

    At the end it is deleted, and whatever runs there is ended, at once: nobody needs its files any more. A process of
    its own does that, which sees the end of this one however it comes, kill -9 included.
    """
    home = Path(tempfile.mkdtemp(prefix="twofold-test-"))
    home.chmod(0o755)
    remover = subprocess.Popen(
        # By its file: after a Spark session of this process no module is found in the current folder.
        [sys.executable, "-P", __file__, str(home)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield home
    finally:
        remover.communicate()
        assert remover.returncode == 0, f"{home} was not removed"


def _remove_at_the_end_of_input(home: Path) -> None:
    sys.stdin.read()
    # What starts others ends first; what one of them has started meanwhile, the next look finds.
    while left := processes.ours(home):
        processes.end(left.pop(processes.SUPERVISOR, ()), signal.SIGKILL, patience_s=10)
        # The signal on which PostgreSQL ends at once, and yet removes its shared memory.
        processes.end(left.pop("postgres", ()), signal.SIGQUIT, patience_s=10)
        processes.end([process for each in left.values() for process in each], signal.SIGKILL, patience_s=10)
    shutil.rmtree(home)


@contextmanager
def running_stack(pipelines: Path, store: str, airflow: bool = False, monitoring: bool = False) -> Iterator[Settings]:
    """A stack that is up, and ends with its home, however that comes. New DAGs wait for a test to switch them on."""
    with home_folder() as home:
        settings = fresh_settings(home, pipelines, airflow_dags_paused=True, **QUICK_SERVICES)
        choice = "--airflow" if airflow else "--no-airflow"
        watching = "--monitoring" if monitoring else "--no-monitoring"
        run(settings, "up", "--store", store, choice, watching, timeout_s=900)
        # Again: now with the store and the passwords that `up` wrote down, and what it does not: a test may run `up`.
        yield Settings(home=home, pipelines=pipelines, airflow_dags_paused=True, **QUICK_SERVICES)
        if airflow:
            # The whole of a stack, in its order; without Airflow, tests/integration/test_stack.py does it.
            run(settings, "down")


if __name__ == "__main__":
    _remove_at_the_end_of_input(Path(sys.argv[1]))
