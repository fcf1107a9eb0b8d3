"""What the stack remembers in its home folder, and the lock that lets one command at a time change it.

<home>/stack.env    settings for every other command, with the generated passwords (mode 600)
<home>/stack.json   the store chosen at the first start, PostgreSQL's folder, whether Airflow and monitoring are wanted
<home>/logs/        one log per program
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import SecretStr

from twofold.settings import Settings

_SECRETS = (
    "postgres_password",
    "s3_secret_key",
    "supervisor_password",
    "airflow_password",
    "airflow_database_password",
    "airflow_secret",
    "grafana_password",
)
_KEPT = (
    "store",
    "bucket",
    "s3_region",
    "s3_access_key",
    "s3_secret_key",
    "minio_port",
    "minio_console_port",
    "zookeeper_port",
    "kafka_port",
    "postgres_port",
    "postgres_user",
    "postgres_password",
    "postgres_database",
    "supervisor_port",
    "supervisor_user",
    "supervisor_password",
    "airflow_port",
    "airflow_user",
    "airflow_password",
    "airflow_database",
    "airflow_database_password",
    "airflow_secret",
    "statsd_port",
    "statsd_exporter_port",
    "kafka_metrics_port",
    "prometheus_port",
    "alertmanager_port",
    "alert_log_port",
    "grafana_port",
    "grafana_password",
)
"""Settings that `stack.env` carries; the addresses derive from the ports."""


@dataclass(frozen=True)
class State:
    """What commands must know of this home, whatever the settings say."""

    store: str
    postgres_folder: str
    """Where PostgreSQL's data (and, where needed, a copy of its binaries) are; outside home if it must be."""
    airflow: bool = False
    """Whether the last `up` was with Airflow."""
    monitoring: bool = False
    """The same for monitoring."""

    def write(self, home: Path) -> None:
        """Put the state in place at once."""
        write_private(home / "stack.json", json.dumps(asdict(self), indent=2) + "\n")


def read_state(home: Path) -> State | None:
    """The state of a home, or None where no stack was ever started."""
    try:
        return State(**json.loads((home / "stack.json").read_text()))
    except FileNotFoundError:
        return None


def with_secrets(settings: Settings) -> Settings:
    """The settings with a generated value for every password that has none yet."""
    missing = [name for name in _SECRETS if not getattr(settings, name).get_secret_value()]
    return settings.model_copy(update={name: SecretStr(secrets.token_hex(16)) for name in missing})


def environment_file(settings: Settings) -> str:
    """Text of `stack.env`."""
    environment = settings.environment()
    names = [f"TWOFOLD_{name.upper()}" for name in _KEPT]
    return "".join(f"{name}={shlex.quote(environment[name])}\n" for name in names)


def write_private(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file whole or not at all, which only its owner can read unless `mode` says more; returns its path."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return fresh.replace(path)


@contextmanager
def lock(home: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the stack's lock; `on_wait` is called once if another command has it. The system frees it with us."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
