"""Monitoring of the embedded stack: `twofold up --monitoring`.

    producer, jobs, Airflow ──StatsD──► statsd-exporter ──┐
    Kafka's agent, MinIO ────────────────────────────────┴─► Prometheus ──► Alertmanager
                                                          │               └─► a log of alerts
                                                          └──► Grafana, where its server is installed

The files of the checkout's `monitoring/` are used as they are; who is scraped, and this stack's port of the log of
alerts, are put in here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.setup.servers import STATSD_EXPORTER, binary_path, ensure
from twofold.stack import health
from twofold.stack.ports import (
    ALERT_LOG,
    ALERTMANAGER,
    GRAFANA,
    KAFKA_METRICS,
    MINIO,
    PROMETHEUS,
    STATSD,
    STATSD_METRICS,
    Port,
)
from twofold.stack.program import Program
from twofold.stack.state import write_private

_DEBIAN = ("prometheus", "prometheus-alertmanager")
"""Programs, and the packages that they come with."""
_KEPT_FOR = "15d"
_GRAFANA_HOME = Path("/usr/share/grafana")
# Late in the start order, so that they go first, and tell of no alert while the rest is stopped.
_START_ORDER = 90


def programs(settings: Settings) -> tuple[Program, ...]:
    """The exporter, Prometheus, Alertmanager with a log of alerts, and Grafana where it is installed."""
    grafana = (_grafana(settings),) if _grafana_server() else ()
    return (_statsd_exporter(settings), _prometheus(settings), _alertmanager(settings), _alert_log(settings), *grafana)


def pages(settings: Settings) -> dict[str, str]:
    """Name → address of what a browser can show."""
    shown = {"Prometheus": PROMETHEUS, "Alertmanager": ALERTMANAGER}
    if _grafana_server():
        shown["Grafana"] = GRAFANA
    return {name: _address(settings, port) for name, port in shown.items()}


def prepare(settings: Settings) -> None:
    """Have the programs, the configuration and the list of who is scraped."""
    ensure(STATSD_EXPORTER)
    _require_installed(settings)
    home, files = settings.home / "prometheus", settings.monitoring / "prometheus"
    (home / "targets").mkdir(parents=True, exist_ok=True)
    for job, port in _scraped(settings).items():
        write_private(home / "targets" / f"{job}.yml", f"- targets: ['127.0.0.1:{port.number(settings)}']\n")
    shutil.copyfile(files / "prometheus.yml", home / "prometheus.yml")
    routes = (settings.monitoring / "alertmanager" / "alertmanager.yml").read_text()
    own = routes.replace(f"127.0.0.1:{ALERT_LOG.default}", f"127.0.0.1:{settings.alert_log_port}")
    (settings.home / "alertmanager").mkdir(exist_ok=True)
    write_private(settings.home / "alertmanager" / "alertmanager.yml", own)
    (home / "rules").unlink(missing_ok=True)
    (home / "rules").symlink_to(files / "rules")
    # Without the folder Grafana logs errors at every start.
    (settings.home / "grafana" / "plugins").mkdir(parents=True, exist_ok=True)


def _scraped(settings: Settings) -> dict[str, Port]:
    store = {"minio": MINIO} if settings.store == "minio" else {}
    return {
        "statsd": STATSD_METRICS,
        "kafka": KAFKA_METRICS,
        "prometheus": PROMETHEUS,
        "alertmanager": ALERTMANAGER,
        **store,
    }


def _require_installed(settings: Settings) -> None:
    """Install what is missing where that may be done; else the script says what to type."""
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


def _statsd_exporter(settings: Settings) -> Program:
    return _program(
        settings,
        "statsd-exporter",
        (
            str(binary_path(STATSD_EXPORTER)),
            f"--statsd.mapping-config={settings.monitoring / 'statsd' / 'mapping.yml'}",
            f"--statsd.listen-udp=127.0.0.1:{settings.statsd_port}",
            "--statsd.listen-tcp=",
            f"--web.listen-address=127.0.0.1:{settings.statsd_exporter_port}",
        ),
        STATSD_METRICS,
        "/-/ready",
        others=(STATSD,),
    )


def _prometheus(settings: Settings) -> Program:
    home = settings.home / "prometheus"
    return _program(
        settings,
        "prometheus",
        (
            "prometheus",
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--storage.tsdb.retention.time={_KEPT_FOR}",
            f"--web.listen-address=127.0.0.1:{settings.prometheus_port}",
        ),
        PROMETHEUS,
        "/-/ready",
    )


def _alertmanager(settings: Settings) -> Program:
    return _program(
        settings,
        "alertmanager",
        (
            "prometheus-alertmanager",
            f"--config.file={settings.home / 'alertmanager' / 'alertmanager.yml'}",
            f"--storage.path={settings.home / 'alertmanager' / 'data'}",
            f"--web.listen-address=127.0.0.1:{settings.alertmanager_port}",
            "--cluster.listen-address=",
        ),
        ALERTMANAGER,
        "/-/ready",
    )


def _alert_log(settings: Settings) -> Program:
    """The example receiver: a line for each alert in the program's log."""
    # A program of the checkout, beside the rules and boards; it is not installed.
    command = (sys.executable, str(settings.monitoring / "receiver.py"), f"--port={settings.alert_log_port}")
    return _program(settings, "alert-log", command, ALERT_LOG)


def _grafana(settings: Settings) -> Program:
    folder, home = settings.monitoring / "grafana", settings.home / "grafana"
    return _program(
        settings,
        "grafana",
        (_grafana_server(), f"--homepath={_GRAFANA_HOME}"),
        GRAFANA,
        "/api/health",
        {
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
            "PROMETHEUS_URL": _address(settings, PROMETHEUS),
            "DASHBOARDS_PATH": str(folder / "dashboards"),
        },
    )


def _grafana_server() -> str:
    """Grafana's server; empty where it is not installed. Not every distribution has it.

    Its package puts it where a plain user's PATH does not lead.
    """
    return shutil.which("grafana-server") or shutil.which("grafana-server", path="/usr/sbin") or ""


def _program(
    settings: Settings,
    name: str,
    command: tuple[str, ...],
    port: Port,
    ready: str = "",
    environment: Mapping[str, str] | None = None,
    others: tuple[Port, ...] = (),
) -> Program:
    """`ready` is the page that answers once it is; empty: there is none to ask for."""
    number = port.number(settings)
    return Program(
        name=name,
        command=command,
        check=partial(health.page, number, ready) if ready else partial(health.listens, number),
        start_order=_START_ORDER,
        ports=(port, *others),
        environment=environment or {},
        directory=settings.home,
        stop_wait_seconds=15,
    )


def _address(settings: Settings, port: Port) -> str:
    return f"http://127.0.0.1:{port.number(settings)}"
