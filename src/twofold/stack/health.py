"""Health checks: a real request to each service; each returns why it is not healthy, or an empty string."""

from __future__ import annotations

import psycopg

from twofold import probes
from twofold.settings import Settings


def postgres(settings: Settings) -> str:
    """A login over TCP, as every job makes it."""
    try:
        with psycopg.connect(settings.postgres_url(database="postgres"), connect_timeout=3) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return str(error).strip()
    return ""


def zookeeper(settings: Settings) -> str:
    """ZooKeeper says that it is well."""
    return probes.zookeeper("127.0.0.1", settings.zookeeper_port)


def kafka(settings: Settings) -> str:
    """The broker is registered."""
    return probes.kafka("127.0.0.1", settings.kafka_port)


def listens(port: int) -> str:
    """A server that takes connections, where it has no page to ask for."""
    return probes.listening("127.0.0.1", port)


def minio(settings: Settings) -> str:
    """MinIO's readiness page."""
    return page(settings.minio_port, "/minio/health/ready")


def page(port: int, path: str) -> str:
    """A page that answers 200 once a server is ready."""
    return probes.http_page(f"http://127.0.0.1:{port}{path}")
