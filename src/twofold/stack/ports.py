"""The ports of the embedded stack: one table, and the check that they are free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from twofold.errors import TwofoldError
from twofold.settings import Settings


class PortTaken(TwofoldError):
    """Something else listens where the stack wants to."""


@dataclass(frozen=True)
class Port:
    """A port and the setting that moves it."""

    name: str
    default: int
    use: str
    protocol: str = "tcp"

    @property
    def setting(self) -> str:
        """The environment variable that moves the port."""
        return f"TWOFOLD_{self.name.upper()}_PORT"

    def number(self, settings: Settings) -> int:
        """The port in force."""
        return int(getattr(settings, f"{self.name}_port"))


POSTGRES = Port("postgres", 15432, "PostgreSQL: Iceberg catalog, locks")
ZOOKEEPER = Port("zookeeper", 12181, "ZooKeeper")
KAFKA = Port("kafka", 19092, "Kafka broker")
MINIO = Port("minio", 19000, "MinIO, S3 interface (`--store minio`)")
MINIO_CONSOLE = Port("minio_console", 19001, "MinIO, web console (`--store minio`)")
SUPERVISOR = Port("supervisor", 19100, "supervisord, XML-RPC")
AIRFLOW = Port("airflow", 18080, "Airflow: pages, REST, tasks' reports")
KAFKA_METRICS = Port("kafka_metrics", 19404, "Kafka broker, metrics for Prometheus")
STATSD = Port("statsd", 19125, "statsd-exporter, StatsD lines (`--monitoring`)", "udp")
STATSD_METRICS = Port("statsd_exporter", 19102, "statsd-exporter, metrics for Prometheus (`--monitoring`)")
PROMETHEUS = Port("prometheus", 19090, "Prometheus (`--monitoring`)")
ALERTMANAGER = Port("alertmanager", 19093, "Alertmanager (`--monitoring`)")
ALERT_LOG = Port("alert_log", 19094, "log of alerts, told by Alertmanager (`--monitoring`)")
GRAFANA = Port("grafana", 13000, "Grafana, where it is installed (`--monitoring`)")

IN_USE = (
    POSTGRES,
    ZOOKEEPER,
    KAFKA,
    KAFKA_METRICS,
    MINIO,
    MINIO_CONSOLE,
    SUPERVISOR,
    AIRFLOW,
    STATSD,
    STATSD_METRICS,
    PROMETHEUS,
    ALERTMANAGER,
    ALERT_LOG,
    GRAFANA,
)


def is_free(number: int, protocol: str = "tcp") -> bool:
    """Whether a server can listen on this loopback port now (sockets of ended connections do not count)."""
    with socket.socket(type=socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as probe:
        if protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def listener(number: int) -> str:
    """Who listens on a port, as far as this user may see: ` by java (pid 123)`, or an empty string."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return ""
    pids = [
        c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == number and c.pid
    ]
    if not pids:
        return ""
    try:
        return f" by {psutil.Process(pids[0]).name()} (pid {pids[0]})"
    except psutil.NoSuchProcess:
        return ""


def require_free(ports: Iterable[Port], settings: Settings) -> None:
    """Refuse to start while any of the ports is taken; all taken ones are named at once."""
    taken = [(port, port.number(settings)) for port in ports if not is_free(port.number(settings), port.protocol)]
    if not taken:
        return
    lines = [f"port {number} ({port.name}) is taken{listener(number)}" for port, number in taken]
    remedies = [f"{port.setting}=<free port>" for port, _ in taken]
    raise PortTaken("; ".join(lines), f"stop what listens there, or move it: {' '.join(remedies)} twofold up")
