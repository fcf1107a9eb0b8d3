"""Settings: frozen, typed, made once at the entry point; no other code reads the environment.

    environment TWOFOLD_* ─► files in TWOFOLD_SECRETS ─► stack.env (written by `twofold up`) ─► defaults
        first wins

Children (Spark jobs, producer) get the same settings through `Settings.environment()`.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from twofold.errors import UsageError

CATALOG = "twofold"
"""Name of the Iceberg catalog, the same for Spark and pyiceberg: rows of the JDBC tables carry it."""


def cache_folder() -> Path:
    """The user's cache of downloads and builds; the one place that knows where it is."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "twofold"


def shipped(folder: str) -> Path:
    """A folder that is no package: beside `src/` in a checkout, else where the wheel has put it."""
    beside = Path(__file__).parents[2] / folder
    return beside if beside.exists() else Path(sys.prefix) / "share" / "twofold" / folder


def secret_fault(text: str) -> str:
    """Why a secret cannot be used; empty where it can: addresses, shells and five kinds of files must hold it."""
    whole = text.isascii() and text.isprintable() and not set(text) & set(" '\"\\$")
    return "" if whole else "holds a space, a quote, `\\`, `$`, or what is not ASCII"


def _checked(secret: SecretStr) -> SecretStr:
    if fault := secret_fault(secret.get_secret_value()):
        raise ValueError(fault)
    return secret


def _address(text: str) -> str:
    if text and not re.fullmatch(r".+:[0-9]+", text):
        raise ValueError("is not written as `host:port`")
    return text


Secret = Annotated[SecretStr, AfterValidator(_checked)]
"""A password or key, generated or given."""
KEPT = "kept in stack.env"
"""Marks a field that a stack keeps as it was when the stack was made; addresses derive from the ports."""
GENERATED = "generated"
"""Marks a password that a stack makes up where none is given."""
Text = Annotated[str, KEPT]
Port = Annotated[int, Field(ge=1, le=65_535)]
Password = Annotated[Secret, KEPT, GENERATED]


@dataclass(frozen=True)
class Use:
    """Marks the field of a port that the embedded stack listens on, and that it keeps."""

    by: str
    protocol: str = "tcp"


class Environment(BaseSettings):
    """Settings of which every field is set by `TWOFOLD_<FIELD>`, or by a file of that name in small letters.

    Those files lie in the folder that TWOFOLD_SECRETS names; `stack.env`, which `twofold up` writes, in the home
    folder. UsageError names all settings that cannot be used.
    """

    # What is empty is not set: as a path it would be the working folder.
    model_config = SettingsConfigDict(env_prefix="TWOFOLD_", frozen=True, extra="ignore", env_ignore_empty=True)

    def __init__(self, **given: Any) -> None:  # noqa: ANN401
        home = given.get("home") or os.environ.get("TWOFOLD_HOME") or ".twofold"
        kept, secrets = _absolute(home) / "stack.env", os.environ.get("TWOFOLD_SECRETS") or None
        try:
            super().__init__(_env_file=kept, _secrets_dir=secrets, **given)
        except ValidationError as error:
            raise UsageError(_told(error), "set them right") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over files, so one setting can be overridden for one command."""
        return init_settings, env_settings, file_secret_settings, dotenv_settings


def _told(error: ValidationError) -> str:
    """Without the values: they may be secrets."""
    faults = [
        f"TWOFOLD_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors()
    ]
    return "\n  ".join(["settings that cannot be used:", *faults])


def _absolute(path: str | Path) -> Path:
    """As a shell has it: `~` and `~user` are homes, and stay what they are where there is no such user."""
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111


class Settings(Environment):
    """Where everything is."""

    home: Path = Path(".twofold")
    pipelines: Path = Path("pipelines")

    store: Annotated[Literal["local", "minio"], KEPT] = "local"
    bucket: Text = "twofold"
    minio_port: Annotated[Port, Use("MinIO, S3 interface (`--store minio`)")] = 19000
    minio_console_port: Annotated[Port, Use("MinIO, web console (`--store minio`)")] = 19001
    s3_endpoint: str = ""
    """URL of the S3 store; empty: the embedded MinIO at `minio_port`."""
    s3_region: Text = "us-east-1"
    s3_access_key: Text = "twofold"
    s3_secret_key: Password = SecretStr("")

    zookeeper_port: Annotated[Port, Use("ZooKeeper")] = 12181
    kafka_port: Annotated[Port, Use("Kafka broker")] = 19092
    kafka_bootstrap: str = ""
    """`host:port,…` of the brokers; empty: the embedded broker at `kafka_port`."""
    kafka_user: str = ""
    """Empty: the brokers ask for no login."""
    kafka_password: Secret = SecretStr("")
    kafka_protocol: Literal["SASL_PLAINTEXT", "SASL_SSL"] = "SASL_PLAINTEXT"
    """How a login travels; a managed Kafka wants `SASL_SSL`."""
    kafka_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    schema_registry_url: str = ""
    """Of the schema registry, for topics in `avro`; empty: the embedded one at `registry_port`."""
    schema_registry_user: str = ""
    """Empty: the registry asks for no login."""
    schema_registry_password: Secret = SecretStr("")
    schema_registry_ca: str = ""
    """File of the certificates that a registry's own is checked against; empty: the usual authorities."""
    registry_port: Annotated[Port, Use("schema registry (`--registry`)")] = 18085
    producer_client: Literal["confluent", "kafka-python"] = "confluent"
    """The producer's Kafka client: librdkafka, or one in Python alone."""

    postgres_host: str = "127.0.0.1"
    postgres_port: Annotated[Port, Use("PostgreSQL: Iceberg catalog, locks")] = 15432
    postgres_user: Text = "twofold"
    postgres_password: Password = SecretStr("")
    postgres_database: Text = "twofold"

    supervisor_host: str = "127.0.0.1"
    supervisor_port: Annotated[Port, Use("supervisord, XML-RPC")] = 19100
    supervisor_user: Text = "twofold"
    supervisor_password: Password = SecretStr("")
    producer_supervisor: Annotated[str, AfterValidator(_address)] = ""
    """`host:port` of the supervisord that runs the producers; empty: the embedded stack's own."""
    stream_supervisor: Annotated[str, AfterValidator(_address)] = ""
    """The same for the streaming jobs."""
    service_restarts_per_hour: NonNegativeInt = 3
    """A service that was restarted more often, for whatever reason, is left down."""
    health_host: str = "127.0.0.1"
    """Where `/healthz` of a service listens; in a container all of its interfaces, `0.0.0.0`."""

    services_every_s: PositiveInt = 60
    """Interval of the DAG `<p>_services`."""
    service_sample_every_s: PositiveFloat = 5.0
    """Pause between two looks at a service's progress."""
    service_good_samples: PositiveInt = 3
    """At least that many looks in a row must be good before a service counts as healthy."""
    service_healthy_within_s: PositiveFloat = 300.0
    """A service that is not healthy by then fails its task."""
    service_stalled_after_s: PositiveFloat = 120.0
    """With work to do and none done for that long, a service is stuck, and is restarted."""
    runbooks_url: str = "docs/runbooks"
    """Where failure messages say that the runbook pages are: a folder or an address."""
    grafana_url: str = ""
    """Links from tasks are shown only where their address is set."""
    spark_ui_url: str = ""
    status_page_url: str = ""
    """Empty: the page in Airflow's UI."""

    airflow_host: str = "127.0.0.1"
    """Where Airflow's API server listens; in a container all of its interfaces, `0.0.0.0`."""
    airflow_port: Annotated[Port, Use("Airflow: pages, REST, tasks' reports")] = 18080
    airflow_url: str = ""
    """Where Airflow's pages are for a browser; empty: the embedded one at `airflow_port`."""
    airflow_internal_url: str = ""
    """Where Airflow's other processes and its tasks reach the API server; empty: on this machine."""
    airflow_user: Text = "admin"
    airflow_password: Password = SecretStr("")
    airflow_database: Text = "airflow"
    """Name of Airflow's own database in PostgreSQL, and of the role that it belongs to."""
    airflow_database_password: Password = SecretStr("")
    airflow_secret: Password = SecretStr("")
    """What Airflow's keys (connections, tokens, sessions) are made from."""
    airflow_executor: str = "LocalExecutor"
    airflow_dags_paused: bool = False
    """Whether a new DAG waits to be switched on manually."""
    dags: Path = Field(default_factory=lambda: shipped("dags"))
    plugins: Path = Field(default_factory=lambda: shipped("plugins"))

    statsd_host: str = "127.0.0.1"
    statsd_port: Annotated[Port, Use("statsd-exporter, StatsD lines (`--monitoring`)", "udp")] = 19125
    statsd_exporter_port: Annotated[Port, Use("statsd-exporter, metrics for Prometheus (`--monitoring`)")] = 19102
    kafka_metrics_port: Annotated[Port, Use("Kafka broker, metrics for Prometheus")] = 19404
    prometheus_port: Annotated[Port, Use("Prometheus (`--monitoring`)")] = 19090
    alertmanager_port: Annotated[Port, Use("Alertmanager (`--monitoring`)")] = 19093
    alert_log_port: Annotated[Port, Use("log of the alerts that Alertmanager sends (`--monitoring`)")] = 19094
    grafana_port: Annotated[Port, Use("Grafana, where it is installed (`--monitoring`)")] = 13000
    grafana_password: Password = SecretStr("")
    monitoring: Path = Field(default_factory=lambda: shipped("monitoring"))

    spark_python: str = ""
    """Python of the executors, which has Twofold installed; empty: the same path as the driver's."""
    spark_master: str = "local[2]"
    spark_driver_memory: str = "1g"
    spark_driver_host: str = "127.0.0.1"
    """Where the workers of a cluster reach a driver that runs here, and where it listens."""
    spark_cores_max: PositiveInt = 1
    """How many cores of a cluster one job takes, so that batch jobs get theirs beside the stream."""
    spark_executor_memory: str = "512m"
    """Heap of a job's process on a cluster's worker."""
    jars: Path = Field(default_factory=lambda: cache_folder() / "jars")
    """Folder made by `make setup`; its `spark/` goes on Spark's class path, `kafka/` starts ZooKeeper and Kafka."""

    def model_post_init(self, context: object, /) -> None:
        """Paths are made absolute once, so that children with another working folder agree."""
        for name in ("home", "pipelines", "jars", "dags", "plugins", "monitoring"):
            object.__setattr__(self, name, _absolute(getattr(self, name)))
        # A link to one set of jars: what started with a set stays with it when `make setup` moves the link.
        object.__setattr__(self, "jars", Path(os.path.realpath(self.jars)))
        # Derived here and not as defaults, so that moving a port in the environment moves the address with it.
        derived = {
            "kafka_bootstrap": f"127.0.0.1:{self.kafka_port}",
            "s3_endpoint": f"http://127.0.0.1:{self.minio_port}",
            "schema_registry_url": f"http://127.0.0.1:{self.registry_port}/apis/ccompat/v7",
            "airflow_url": f"http://127.0.0.1:{self.airflow_port}",
            "airflow_internal_url": f"http://127.0.0.1:{self.airflow_port}",
        }
        for name, address in derived.items():
            if not getattr(self, name):
                object.__setattr__(self, name, address)
        if not self.status_page_url:
            page = f"{self.airflow_url.rstrip('/')}/plugin/twofold/twofold/#{{pipeline}}"
            object.__setattr__(self, "status_page_url", page)

    @property
    def warehouse(self) -> str:
        """Root URI of everything durable: tables, inboxes, checkpoints; `twofold.inbox` says what lies where."""
        if self.store == "local":
            # Not percent-encoded: neither Hadoop nor pyiceberg decodes a path.
            return f"file://{self.home / 'bucket'}"
        return f"s3a://{self.bucket}"

    @property
    def jdbc_url(self) -> str:
        """PostgreSQL, as Spark's catalog and lock connection address it."""
        return f"jdbc:postgresql://{self.postgres_host}:{self.postgres_port}/{self.postgres_database}"

    def postgres_url(self, driver: str = "postgresql", database: str = "") -> str:
        """The catalog, or another database, as psycopg (`postgresql`) or SQLAlchemy (`postgresql+psycopg`) need it."""
        login = f"{quote(self.postgres_user, safe='')}:{quote(self.postgres_password.get_secret_value(), safe='')}"
        name = database or self.postgres_database
        return f"{driver}://{login}@{self.postgres_host}:{self.postgres_port}/{name}"

    @property
    def tables(self) -> str:
        """Root URI of the tables, `<pipeline>/<table>` below it."""
        return f"{self.warehouse}/tables"

    def checkpoint(self, pipeline: str, query: str) -> str:
        """Checkpoint URI of one streaming query (`log`, or a view's name)."""
        return f"{self.warehouse}/checkpoints/{pipeline}/{query}"

    def inbox(self, pipeline: str) -> str:
        """Folder URI where files for a pipeline are put, to be ingested by its batch job."""
        return f"{self.warehouse}/landing/{pipeline}"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a child process."""
        plain = {name: value.get_secret_value() if isinstance(value, SecretStr) else str(value) for name, value in self}
        return {f"TWOFOLD_{name.upper()}": value for name, value in plain.items()}
