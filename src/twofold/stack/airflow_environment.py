"""Airflow's configuration from the settings, as environment variables: the same for its processes and its commands.

Any other option of Airflow can be given beside these, as AIRFLOW__SECTION__OPTION in the environment of `twofold up`.
"""

from __future__ import annotations

import hmac
import json
import os
import sys
from base64 import urlsafe_b64encode
from pathlib import Path

from twofold import kafka
from twofold.settings import Settings

_AUTH_MANAGER = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"


def airflow_environment(settings: Settings) -> dict[str, str]:
    """Everything that a process of Airflow needs beside `settings.environment()`. Holds secrets: never print it."""
    options = {**_core(settings), **_api(settings), **_parsing(), **_metrics(settings)}
    return {
        **{f"AIRFLOW__{option}": value for option, value in options.items()},
        **{f"AIRFLOW_CONN_{name}": json.dumps(value, separators=(",", ":")) for name, value in _connections(settings)},
        # Its processes give themselves titles. Written over their environment, nobody could tell whose they are.
        "SPT_NOENV": "1",
        "AIRFLOW_HOME": str(settings.home / "airflow"),
        # Operators and triggers are imported by name, also by processes that load no plugins.
        "PYTHONPATH": str(settings.plugins),
        # Where `spark-submit` of the same environment is.
        "PATH": _path(Path(sys.executable).parent),
    }


def _core(settings: Settings) -> dict[str, str]:
    return {
        "CORE__AUTH_MANAGER": _AUTH_MANAGER,
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
        "DATABASE__SQL_ALCHEMY_CONN": _database_url(settings),
        # The log servers, which can only listen everywhere, are off: all logs are in one folder. Without this line the
        # API server tells of it, with a stack trace, whenever someone looks at the log of a running task.
        "LOGGING__NAMESPACE_LEVELS": "airflow.utils.log.file_task_handler=CRITICAL",
        "LOGGING__COLORED_CONSOLE_LOG": "False",
    }


def _api(settings: Settings) -> dict[str, str]:
    return {
        "API__HOST": settings.airflow_host,
        "API__PORT": str(settings.airflow_port),
        "API__BASE_URL": settings.airflow_url,
        "API__WORKERS": "1",
        "API__SECRET_KEY": _key(settings, "sessions").hex(),
        "API_AUTH__JWT_SECRET": _key(settings, "tokens").hex(),
        "CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_internal_url}/execution/",
    }


def _parsing() -> dict[str, str]:
    """A pipeline file that is added, changed or taken away shows within half a minute."""
    return {
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "20",
        "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "10",
    }


def _metrics(settings: Settings) -> dict[str, str]:
    """Labelled StatsD metrics, each sent once. Where nobody listens nothing happens."""
    return {
        "METRICS__STATSD_ON": "True",
        "METRICS__STATSD_HOST": settings.statsd_host,
        "METRICS__STATSD_PORT": str(settings.statsd_port),
        "METRICS__STATSD_INFLUXDB_ENABLED": "True",
        "METRICS__LEGACY_NAMES_ON": "False",
    }


def _connections(settings: Settings) -> tuple[tuple[str, dict[str, object]], ...]:
    return (
        ("SPARK_DEFAULT", {"conn_type": "spark", "host": settings.spark_master, "extra": {"deploy-mode": "client"}}),
        ("KAFKA_DEFAULT", {"conn_type": "kafka", "extra": kafka.librdkafka(settings)}),
    )


def _database_url(settings: Settings) -> str:
    login = {"postgres_user": settings.airflow_database, "postgres_password": settings.airflow_database_password}
    return settings.model_copy(update=login).postgres_url("postgresql+psycopg2", settings.airflow_database)


def _key(settings: Settings, purpose: str) -> bytes:
    """32 bytes for one purpose, the same after every start."""
    return hmac.digest(settings.airflow_secret.get_secret_value().encode(), purpose.encode(), "sha256")


def _path(first: Path) -> str:
    """The search path of programs with a folder put first, once."""
    others = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part and part != str(first)]
    return os.pathsep.join([str(first), *others])
