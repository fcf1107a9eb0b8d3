"""A supervised program as data, the ports, and the programs that are servers of others, run as they come.

    MinIO (`--store minio`)                    the bucket, where a real S3 store is wanted
    Apicurio (`--registry`)                    schemas of topics in Avro
    monitoring (`--monitoring`)
        producer, jobs, Airflow ──StatsD──► statsd-exporter ──┐
        Kafka's agent, MinIO ────────────────────────────────┴─► Prometheus ──► Alertmanager ──► a log of alerts
                                                              └──► Grafana, where its server is installed

The files of the checkout's `monitoring/` are used as they are; who is scraped, and this stack's port of the log of
alerts, are put in here. `brokers`, `postgres` and `airflow_programs` have the others.
"""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

from twofold import probes
from twofold.errors import TwofoldError
from twofold.launch import find_java
from twofold.local_files import write_whole
from twofold.settings import Settings, Use
from twofold.setup.jars import registry_runner
from twofold.setup.servers import binary_path, ensure

_DEBIAN = ("prometheus", "prometheus-alertmanager")
"""Programs, and the packages that they come with."""
_KEPT_FOR = "15d"
_GRAFANA_HOME = Path("/usr/share/grafana")
Say = Callable[[str], None]
"""Where progress goes, a line at a time."""


@dataclass(frozen=True)
class Port:
    """A port and the setting that moves it."""

    name: str
    default: int
    use: Use

    @property
    def setting(self) -> str:
        """The environment variable that moves the port."""
        return f"TWOFOLD_{self.name.upper()}_PORT"

    def number(self, settings: Settings) -> int:
        """The port in force."""
        return int(getattr(settings, f"{self.name}_port"))


PORTS = {
    (name := field.removesuffix("_port")): Port(name, declared.default, use)
    for field, declared in Settings.model_fields.items()
    for use in declared.metadata
    if isinstance(use, Use)
}


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
        found = psutil.net_connections(kind="tcp")
        pids = [c.pid for c in found if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == number and c.pid]
        return f" by {psutil.Process(pids[0]).name()} (pid {pids[0]})" if pids else ""
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return ""


def require_free(ports: Iterable[Port], settings: Settings) -> None:
    """Refuse to start while any of the ports is taken; all taken ones are named at once."""
    taken = [port for port in ports if not is_free(port.number(settings), port.use.protocol)]
    if taken:
        numbers = [(port, port.number(settings)) for port in taken]
        raise TwofoldError(
            "; ".join(f"port {number} ({port.name}) is taken{listener(number)}" for port, number in numbers),
            "stop what listens there, or move it: "
            + " ".join([*(f"{port.setting}=<free port>" for port in taken), "twofold up"]),
        )


@dataclass(frozen=True)
class Program:
    """A program that supervisord keeps running.

    `start_order`: programs start in ascending order and stop in descending order, each group stopped before the next,
    so what others write to comes first here and goes last.
    """

    name: str
    group: Literal["storage", "brokers", "registry", "airflow", "monitoring"]
    command: tuple[str, ...]
    check: Callable[[], str]
    """A real request to the server: why it is not healthy, or an empty string. Never raises for a dead one."""
    start_order: int
    ports: tuple[Port, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    """Account to run as; empty: the supervisor's own."""
    stop_signal: str = "TERM"
    stop_wait_s: int = 30
    """After this long without an end, the supervisor kills."""


def _server(
    settings: Settings,
    name: str,
    command: Sequence[str],
    ports: Sequence[str],
    ready: str,
    *,
    group: Literal["storage", "registry", "monitoring"] = "monitoring",
    start_order: int = 90,
    stop_wait_s: int = 15,
    environment: Mapping[str, str] | None = None,
) -> Program:
    """A server on the first of the `ports` (their names).

    `ready` is the page that answers once it is, empty where it has none. What says nothing else is monitoring: it
    starts last (90), so that it goes first, and raises no alert while the rest is stopped.
    """
    url, number = _url(settings, ports[0]), PORTS[ports[0]].number(settings)
    return Program(
        name=name,
        group=group,
        command=tuple(command),
        check=partial(probes.http_page, url + ready) if ready else partial(probes.listening, "127.0.0.1", number),
        start_order=start_order,
        ports=tuple(PORTS[port] for port in ports),
        environment=environment or {},
        stop_wait_s=stop_wait_s,
    )


def _at(settings: Settings, port: str) -> str:
    """Where a server listens."""
    return f"127.0.0.1:{PORTS[port].number(settings)}"


def _url(settings: Settings, port: str) -> str:
    return f"http://{_at(settings, port)}"


# ---- MinIO ----


def minio(settings: Settings) -> Program:
    """The server, on loopback; it goes after everything that writes tables and before the catalog."""
    listen = (f"--address={_at(settings, 'minio')}", f"--console-address={_at(settings, 'minio_console')}")
    return _server(
        settings,
        "minio",
        (str(binary_path("minio")), "server", str(settings.home / "minio"), *listen),
        ("minio", "minio_console"),
        "/minio/health/ready",
        group="storage",
        start_order=15,
        stop_wait_s=30,
        environment={
            "MINIO_ROOT_USER": settings.s3_access_key,
            "MINIO_ROOT_PASSWORD": settings.s3_secret_key.get_secret_value(),
            "MINIO_REGION": settings.s3_region,
            "MINIO_UPDATE": "off",
            # Its metrics are open to whoever may connect, which is this machine.
            "MINIO_PROMETHEUS_AUTH_TYPE": "public",
        },
    )


def prepare_minio(settings: Settings) -> None:
    """Build the server if this user never did, and make the data folder."""
    ensure("minio")
    (settings.home / "minio").mkdir(exist_ok=True)


def make_bucket(settings: Settings) -> None:
    """Make the bucket where it does not exist yet, in MinIO with a plain S3 client."""
    if settings.store != "minio":
        (settings.home / "bucket").mkdir(exist_ok=True)
        return
    from pyarrow.fs import S3FileSystem  # takes as long to import as all else together, and only MinIO needs it

    endpoint = urlsplit(settings.s3_endpoint)
    client = S3FileSystem(
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        region=settings.s3_region,
        scheme=endpoint.scheme,
        endpoint_override=endpoint.netloc,
        allow_bucket_creation=True,
    )
    client.create_dir(settings.bucket)


# ---- schema registry ----


def registry(settings: Settings) -> Program:
    """Apicurio, as Confluent's registry, on loopback.

    Its database is a file: from memory, a registry that was restarted would give the ids of old records to new schemas.
    """
    listen = ("-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={settings.registry_port}")
    return _server(
        settings,
        "registry",
        (str(find_java()), "-Xmx512m", *listen, "-jar", str(registry_runner())),
        ("registry",),
        "/apis/ccompat/v7/subjects",
        group="registry",
        start_order=20,
        # A schema that was registered is on the disk before its id is given out.
        environment={"REGISTRY_DATASOURCE_URL": f"jdbc:h2:file:{settings.home}/registry/schemas;WRITE_DELAY=0"},
    )


# ---- monitoring ----


def monitoring(settings: Settings) -> tuple[Program, ...]:
    """The exporter, Prometheus, Alertmanager with a log of alerts, and Grafana where it is installed."""
    home = settings.home
    exporter = [
        str(binary_path("statsd_exporter")),
        f"--statsd.mapping-config={settings.monitoring / 'statsd' / 'mapping.yml'}",
        f"--statsd.listen-udp={_at(settings, 'statsd')}",
        "--statsd.listen-tcp=",
        f"--web.listen-address={_at(settings, 'statsd_exporter')}",
    ]
    prometheus = [
        "prometheus",
        f"--config.file={home / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'prometheus' / 'data'}",
        f"--storage.tsdb.retention.time={_KEPT_FOR}",
        f"--web.listen-address={_at(settings, 'prometheus')}",
    ]
    alertmanager = [
        "prometheus-alertmanager",
        f"--config.file={home / 'alertmanager' / 'alertmanager.yml'}",
        f"--storage.path={home / 'alertmanager' / 'data'}",
        f"--web.listen-address={_at(settings, 'alertmanager')}",
        "--cluster.listen-address=",
    ]
    # A program of the checkout, beside the rules and boards; it is not installed.
    receiver = [sys.executable, str(settings.monitoring / "receiver.py"), f"--port={settings.alert_log_port}"]
    return (
        _server(settings, "statsd-exporter", exporter, ("statsd_exporter", "statsd"), "/-/ready"),
        _server(settings, "prometheus", prometheus, ("prometheus",), "/-/ready"),
        _server(settings, "alertmanager", alertmanager, ("alertmanager",), "/-/ready"),
        _server(settings, "alert-log", receiver, ("alert_log",), ""),
        *([_grafana(settings)] if _grafana_server() else []),
    )


def _grafana(settings: Settings) -> Program:
    folder, home = settings.monitoring / "grafana", settings.home / "grafana"
    return _server(
        settings,
        "grafana",
        (_grafana_server(), f"--homepath={_GRAFANA_HOME}"),
        ("grafana",),
        "/api/health",
        environment={
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(settings.grafana_port),
            "GF_PATHS_DATA": str(home),
            "GF_PATHS_LOGS": str(home / "logs"),
            "GF_PATHS_PLUGINS": str(home / "plugins"),
            "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
            "GF_SECURITY_ADMIN_PASSWORD": settings.grafana_password.get_secret_value(),
            # Who is on this machine may look, as at Prometheus.
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_NEWS_NEWS_FEED_ENABLED": "false",
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
            "GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED": "true",
            # Read by the provisioning's files.
            "PROMETHEUS_URL": _url(settings, "prometheus"),
            "DASHBOARDS_PATH": str(folder / "dashboards"),
        },
    )


def _grafana_server() -> str:
    """Grafana's server; empty where it is not installed, as not every distribution has it.

    Its package puts it where a plain user's PATH does not lead.
    """
    return shutil.which("grafana-server") or shutil.which("grafana-server", path="/usr/sbin") or ""


def pages(settings: Settings) -> dict[str, str]:
    """Name → address of what a browser can show of monitoring."""
    shown = ["prometheus", "alertmanager", *(["grafana"] if _grafana_server() else [])]
    return {name.capitalize(): _url(settings, name) for name in shown}


def prepare_monitoring(settings: Settings) -> None:
    """Have the programs, the configuration and the list of who is scraped."""
    ensure("statsd_exporter")
    _require_debian(settings)
    home, files = settings.home / "prometheus", settings.monitoring / "prometheus"
    scraped = {"statsd": "statsd_exporter", "kafka": "kafka_metrics"}
    for name in ("prometheus", "alertmanager", *(["minio"] if settings.store == "minio" else [])):
        scraped[name] = name
    for job, name in scraped.items():
        targets = f"- targets: ['127.0.0.1:{PORTS[name].number(settings)}']\n"
        write_whole(home / "targets" / f"{job}.yml", targets, 0o600)
    shutil.copyfile(files / "prometheus.yml", home / "prometheus.yml")
    routes = (settings.monitoring / "alertmanager" / "alertmanager.yml").read_text()
    own = routes.replace(f"127.0.0.1:{PORTS['alert_log'].default}", f"127.0.0.1:{settings.alert_log_port}")
    write_whole(settings.home / "alertmanager" / "alertmanager.yml", own, 0o600)
    (home / "rules").unlink(missing_ok=True)
    (home / "rules").symlink_to(files / "rules")
    # Without the folder Grafana logs errors at every start.
    (settings.home / "grafana" / "plugins").mkdir(parents=True, exist_ok=True)


def _require_debian(settings: Settings) -> None:
    """Install what is missing where that may be done; else the script prints the command to run."""
    script = settings.monitoring.parent / "scripts" / "prerequisites"
    if all(map(shutil.which, _DEBIAN)):
        return
    if script.exists():
        subprocess.run([script, sys.executable, "monitoring"], check=False)
    if missing := [name for name in _DEBIAN if not shutil.which(name)]:
        raise TwofoldError(
            f"not installed: {', '.join(missing)}",
            f"type: sudo apt-get install -y --no-install-recommends {' '.join(_DEBIAN)}; or run `twofold up` without "
            "--monitoring",
        )
