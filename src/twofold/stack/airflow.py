"""Airflow's four processes as programs of the stack, its database, and what has to be in it before they start.

    PostgreSQL healthy ─► role and database ─► twofold_airflow.setup, once per version: tables, administrator, pool
                                                        │
        dag-processor, triggerer, scheduler, api-server ◄┘    each supervised, each judged by its own heartbeat

By hand: `twofold up`, `twofold airflow …`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import psycopg
from psycopg import sql

from twofold.errors import NotRunning, TwofoldError
from twofold.settings import Settings
from twofold.stack import airflow_forking, airflow_health, health
from twofold.stack.airflow_environment import airflow_environment
from twofold.stack.ports import AIRFLOW, Port
from twofold.stack.program import Program
from twofold.stack.state import write_private
from twofold.stack.stopping import Say

_SETUP = "twofold_airflow.setup"


def programs(settings: Settings) -> tuple[Program, ...]:
    """The four processes. Tasks report to the API server until the scheduler has ended, so it goes after the others."""
    program, forking = partial(_program, settings), airflow_forking.__name__
    return (
        program("airflow", "api-server", start_order=60, stop_wait_seconds=15, ports=(AIRFLOW,)),
        # A running task is given the time to end; what is killed then runs again after the next start.
        program(forking, "scheduler", "--skip-serve-logs", start_order=70, stop_wait_seconds=60),
        program(forking, "dag-processor", start_order=70, stop_wait_seconds=15),
        program("airflow", "triggerer", "--skip-serve-logs", start_order=70, stop_wait_seconds=15),
    )


def _program(
    settings: Settings,
    module: str,
    process: str,
    *options: str,
    start_order: int,
    stop_wait_seconds: int,
    ports: tuple[Port, ...] = (),
) -> Program:
    return Program(
        name=f"airflow-{process}",
        command=(sys.executable, "-m", module, process, *options),
        check=partial(airflow_health.check, settings, process),
        start_order=start_order,
        ports=ports,
        environment=airflow_environment(settings),
        directory=settings.home,
        stop_wait_seconds=stop_wait_seconds,
    )


def prepare(settings: Settings, say: Say) -> None:
    """Have database, tables, administrator and pool; quick where nothing changed since the last time."""
    _require_installed(settings)
    done, wanted = _set_up_mark(settings), _fingerprint(settings)
    if done.exists() and done.read_text() == wanted:
        return
    say("setting up Airflow's database")
    _database(settings)
    outcome = subprocess.run(
        [sys.executable, "-m", _SETUP],
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
    done.parent.mkdir(exist_ok=True)
    write_private(done, wanted)
    # Once: later it is only where it is kept.
    say(f"Airflow's {settings.airflow_user} has the password {settings.airflow_password.get_secret_value()}")


def require_up(settings: Settings) -> None:
    """Raise NotRunning where Airflow was never set up, or its database does not answer."""
    if not _set_up_mark(settings).exists() or health.postgres(settings):
        raise NotRunning(f"there is no Airflow running in {settings.home}", "run `twofold up`")


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
    return settings.plugins.joinpath(*_SETUP.split(".")).with_suffix(".py")


def _fingerprint(settings: Settings) -> str:
    """Changes whenever the set-up has to be made again: other versions, another password, another set-up."""
    versions = [importlib.metadata.version(f"apache-airflow-{part}") for part in ("core", "providers-fab")]
    secrets = [settings.airflow_password, settings.airflow_database_password, settings.airflow_secret]
    parts = [
        *versions,
        settings.airflow_user,
        _set_up_program(settings).read_text(),
        *(secret.get_secret_value() for secret in secrets),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest() + "\n"


def _database(settings: Settings) -> None:
    """Create the role and its database, or give the role the password in force."""
    name, password = settings.airflow_database, settings.airflow_database_password.get_secret_value()
    with psycopg.connect(settings.postgres_url(database="postgres"), autocommit=True, connect_timeout=5) as connection:
        role = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
        statement = "ALTER ROLE {} PASSWORD {}" if role else "CREATE ROLE {} LOGIN PASSWORD {}"
        connection.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Literal(password)))
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
