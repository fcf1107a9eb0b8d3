"""Settings that only containers have, beside `twofold.settings`: the secrets of servers, and how Kafka is set up.

environment TWOFOLD_* ─► files in TWOFOLD_SECRETS ─► defaults
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from twofold.errors import UsageError
from twofold.settings import Environment, Secret

RUN = Path("/tmp")
"""Where written configuration goes: memory, gone with the container."""


class ContainerSettings(Environment):
    """The fields are read as those of `Settings` are; the secrets are set where a role needs them."""

    data: Path = Path("/var/lib/twofold")
    """The container's own volume."""

    kafka_mode: Literal["zookeeper", "kraft"] = "zookeeper"
    kafka_node: int = 0
    kafka_name: str = "kafka"
    """Where other containers reach this broker."""
    kafka_port: int = 19092
    """Where programs on the host reach this broker."""
    kafka_voters: str = "0@kafka:9094"
    """KRaft's controllers: `node@host:port,…`."""
    kafka_replication: int = 1
    kafka_in_sync: int = 1

    zookeeper_password: Secret = SecretStr("")
    kafka_admin_password: Secret = SecretStr("")
    kafka_producer_password: Secret = SecretStr("")
    kafka_stream_password: Secret = SecretStr("")
    kafka_airflow_password: Secret = SecretStr("")
    kafka_reader_password: Secret = SecretStr("")

    store_root_user: str = "twofold-root"
    store_root_password: Secret = SecretStr("")
    store_kind: Literal["minio", "other"] = "minio"
    """Of another store than MinIO only the bucket is made: its users are its own business."""
    s3_stream_access_key: str = "twofold-stream"
    s3_stream_secret_key: Secret = SecretStr("")
    s3_airflow_access_key: str = "twofold-airflow"
    s3_airflow_secret_key: Secret = SecretStr("")
    s3_reader_access_key: str = "twofold-reader"
    s3_reader_secret_key: Secret = SecretStr("")

    def secret(self, name: str) -> str:
        """A secret by its field's name; UsageError where this container was given none."""
        value: SecretStr = getattr(self, name)
        if not value.get_secret_value():
            raise UsageError(f"this container has no {name}", "start it with `docker compose up`, which makes secrets")
        return value.get_secret_value()
