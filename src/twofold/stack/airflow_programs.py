"""Airflow's four processes, here and in containers: their commands, their configuration, and what they need first.

    PostgreSQL healthy ─► role and database ─► twofold_airflow.metadata, once per version: tables, administrator, pool
                                                        │
        dag-processor, triggerer, scheduler, api-server ◄┘    each supervised, each judged by its own heartbeat

Any other option of Airflow can be given beside these, as AIRFLOW__SECTION__OPTION in the environment of `twofold up`.
Run manually: `twofold up`, `twofold airflow …`.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from functools import partial
from pathlib import Path

from twofold import kafka, probes
from twofold.errors import NotRunning, TwofoldError
from twofold.local_files import write_whole
from twofold.settings import Settings
from twofold.stack import airflow_forking, postgres, supervisor
from twofold.stack.programs import PORTS, Program, Say

SET_UP = "twofold_airflow.metadata"
COMMANDS = {
    "api-server": ("airflow", "api-server"),
    "scheduler": (airflow_forking.__name__, "scheduler", "--skip-serve-logs"),
    "dag-processor": (airflow_forking.__name__, "dag-processor"),
    "triggerer": ("airflow", "triggerer", "--skip-serve-logs"),
}
"""Process → the module that is it, and its arguments."""
_STARTED_SLACK_S = 2.0
"""supervisord reports starts in whole seconds."""


def programs(settings: Settings) -> tuple[Program, ...]:
    """The four processes. Tasks report to the API server until the scheduler has ended, so it goes after the others."""
    url = settings.airflow_internal_url
    return tuple(
        Program(
            name=f"airflow-{process}",
            group="airflow",
            command=(sys.executable, "-m", *command),
            check=partial(probes.airflow, url, process, partial(_started_at, settings, f"airflow-{process}")),
            start_order=60 if process == "api-server" else 70,
            ports=(PORTS["airflow"],) if process == "api-server" else (),
            environment=airflow_environment(settings),
            # A running task is given the time to end; what is killed then runs again after the next start.
            stop_wait_s=60 if process == "scheduler" else 15,
        )
        for process, command in COMMANDS.items()
    )


def _started_at(settings: Settings, program: str) -> float:
    """When the process started; a process that nobody supervises any more has run for ever."""
    seen = supervisor.states(settings).get(program)
    return time.time() - seen.uptime_s - _STARTED_SLACK_S if seen else 0.0


# ---- the database ----


def prepare(settings: Settings, say: Say) -> None:
    """Have database, tables, administrator and pool; quick where nothing changed since the last time."""
    _require_installed(settings)
    done, wanted = _set_up_mark(settings), _fingerprint(settings)
    if done.exists() and done.read_text() == wanted:
        return
    say("setting up Airflow's database")
    postgres.make_database(settings, settings.airflow_database, settings.airflow_database_password.get_secret_value())
    outcome = subprocess.run(
        [sys.executable, "-m", SET_UP],
        env={**os.environ, **settings.environment(), **airflow_environment(settings)},
        cwd=settings.home,
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode:
        text = "\n  ".join((outcome.stdout + outcome.stderr).splitlines()[-15:])
        raise TwofoldError(
            f"Airflow's database cannot be set up:\n  {text}",
            f"see {settings.home / 'logs' / 'postgres.log'}, then run `twofold up` again",
        )
    write_whole(done, wanted, 0o600)
    # Once: later it is only where it is kept.
    say(f"Airflow's {settings.airflow_user} has the password {settings.airflow_password.get_secret_value()}")


def require_up(settings: Settings) -> None:
    """Raise NotRunning where Airflow was never set up, or its database does not answer."""
    if not _set_up_mark(settings).exists() or postgres.check(settings):
        raise NotRunning(f"there is no Airflow running in {settings.home}", "run `twofold up`")


def forget_set_up(settings: Settings) -> None:
    """Have the next `prepare` make all of it again: the database is gone."""
    _set_up_mark(settings).unlink(missing_ok=True)


def _set_up_mark(settings: Settings) -> Path:
    return settings.home / "airflow" / "set-up"


def _require_installed(settings: Settings) -> None:
    if importlib.util.find_spec("airflow") is None:
        raise TwofoldError("Airflow is not installed here", "run `make setup`, or `twofold up --no-airflow`")
    if not _set_up_program(settings).exists():
        raise TwofoldError(
            f"Twofold's part of Airflow is not in {settings.plugins}", "set TWOFOLD_PLUGINS to its folder"
        )


def _set_up_program(settings: Settings) -> Path:
    return settings.plugins.joinpath(*SET_UP.split(".")).with_suffix(".py")


def _fingerprint(settings: Settings) -> str:
    """Changes whenever the set-up has to be repeated: other versions, another password, another set-up."""
    versions = [importlib.metadata.version(f"apache-airflow-{part}") for part in ("core", "providers-fab")]
    secrets = [settings.airflow_password, settings.airflow_database_password, settings.airflow_secret]
    parts = [
        *versions,
        settings.airflow_user,
        _set_up_program(settings).read_text(),
        *(secret.get_secret_value() for secret in secrets),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest() + "\n"


# ---- the configuration ----


def airflow_environment(settings: Settings) -> dict[str, str]:
    """Everything that a process of Airflow needs beside `settings.environment()`. Holds secrets: never print it."""
    connections: dict[str, dict[str, object]] = {
        "SPARK_DEFAULT": {"conn_type": "spark", "host": settings.spark_master, "extra": {"deploy-mode": "client"}},
        "KAFKA_DEFAULT": {"conn_type": "kafka", "extra": kafka.librdkafka(settings)},
    }
    return {
        **{f"AIRFLOW__{option}": value for option, value in _options(settings).items()},
        **{f"AIRFLOW_CONN_{name}": json.dumps(value, separators=(",", ":")) for name, value in connections.items()},
        # Its processes give themselves titles. Written over their environment, nobody could see whose they are.
        "SPT_NOENV": "1",
        "AIRFLOW_HOME": str(settings.home / "airflow"),
        # Operators and triggers are imported by name, also by processes that load no plugins.
        "PYTHONPATH": str(settings.plugins),
        # Where `spark-submit` of the same environment is, before all else.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


def _options(settings: Settings) -> dict[str, str]:
    return {
        "CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "CORE__EXECUTOR": settings.airflow_executor,
        # All of these workers start at once; Spark's drivers run one at a time anyway, by their pool.
        "CORE__PARALLELISM": "4",
        "CORE__DAGS_FOLDER": str(settings.dags),
        "CORE__PLUGINS_FOLDER": str(settings.plugins),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": str(settings.airflow_dags_paused),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__FERNET_KEY": urlsafe_b64encode(_key(settings, "fernet")).decode(),
        # By default the host's full name is looked up, which can take seconds and can fail.
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_internal_url}/execution/",
        "DATABASE__SQL_ALCHEMY_CONN": settings.model_copy(
            update={
                "postgres_user": settings.airflow_database,
                "postgres_password": settings.airflow_database_password,
            }
        ).postgres_url("postgresql+psycopg2", settings.airflow_database),
        # The log servers, which can only listen everywhere, are off: all logs are in one folder. Without this line the
        # API server logs a stack trace about it whenever someone looks at the log of a running task.
        "LOGGING__NAMESPACE_LEVELS": "airflow.utils.log.file_task_handler=CRITICAL",
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        "API__HOST": settings.airflow_host,
        "API__PORT": str(settings.airflow_port),
        "API__BASE_URL": settings.airflow_url,
        "API__SECRET_KEY": _key(settings, "sessions").hex(),
        "API_AUTH__JWT_SECRET": _key(settings, "tokens").hex(),
        # It looks for changes of pipeline files, and reads the DAG files where there is one.
        "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
            [{"name": "dags-folder", "classpath": "twofold_airflow.dag_folder.DagFolder", "kwargs": {}}]
        ),
        "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "120",
        # Longer than that: one reading that ends early takes no DAG away.
        "DAG_PROCESSOR__STALE_DAG_THRESHOLD": "150",
        "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "10",
        # Labelled StatsD metrics, each sent once. Where nobody listens nothing happens.
        "METRICS__STATSD_ON": "True",
        "METRICS__STATSD_HOST": settings.statsd_host,
        "METRICS__STATSD_PORT": str(settings.statsd_port),
        "METRICS__STATSD_INFLUXDB_ENABLED": "True",
        "METRICS__LEGACY_NAMES_ON": "False",
    }


def _key(settings: Settings, purpose: str) -> bytes:
    """32 bytes for one purpose, the same after every start."""
    return hmac.digest(settings.airflow_secret.get_secret_value().encode(), purpose.encode(), "sha256")
