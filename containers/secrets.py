"""Generates missing secrets, once, and gives each role a volume with its own secrets only.

    given in .env ─► given as a file ─► kept from before ─► new
                  first wins │
                             ▼
    /secrets/all/<name>, and /secrets/<role>/twofold_<setting> for each role that needs it

A changed secret takes effect when the containers that hold it are recreated.

Run manually: `docker compose run --rm secrets`
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import click

from twofold.errors import UsageError
from twofold.local_files import write_whole
from twofold.settings import secret_fault

FOLDER = Path("/secrets")
GIVEN = Path("/given")
"""Files of a person, each named after a secret."""


def _own(*names: str) -> dict[str, str]:
    """Secrets that a role reads by their own names."""
    return dict(zip(names, names, strict=True))


_KAFKA = tuple(f"kafka_{user}_password" for user in ("admin", "producer", "stream", "airflow", "reader"))
_S3 = tuple(f"s3_{user}_secret_key" for user in ("stream", "airflow", "reader"))
ROLES: Mapping[str, Mapping[str, str]] = {
    "zookeeper": _own("zookeeper_password"),
    "kafka": _own("zookeeper_password", *_KAFKA),
    "store": _own("store_root_password", *_S3),
    "postgres": _own("postgres_admin_password", "postgres_password", "airflow_database_password"),
    "producer": {"kafka_password": "kafka_producer_password", **_own("supervisor_password")},
    "stream": {
        "kafka_password": "kafka_stream_password",
        "s3_secret_key": "s3_stream_secret_key",
        **_own("postgres_password", "supervisor_password"),
    },
    "airflow": {
        "kafka_password": "kafka_airflow_password",
        "s3_secret_key": "s3_airflow_secret_key",
        **_own("postgres_password", "supervisor_password"),
        **_own("airflow_password", "airflow_database_password", "airflow_secret"),
    },
    "reader": {
        "kafka_password": "kafka_reader_password",
        "s3_secret_key": "s3_reader_secret_key",
        **_own("postgres_password"),
    },
    "grafana": _own("grafana_password"),
}
"""Role → file (the setting it is read as) → secret."""
NAMES = tuple(sorted({secret for files in ROLES.values() for secret in files.values()}))
SINGLE_PAIR = "s3_secret_key"
"""The secret of all roles' S3 keys where only one pair is given."""
_SHORTEST = 4


def chosen(given: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
    """Every secret: what is given, else what was, else a new one; UsageError names all that cannot be used.

    >>> found = chosen({"airflow_password": "mine"}, {"grafana_password": "old", "airflow_password": "old"})
    >>> found["airflow_password"], found["grafana_password"], len(found["kafka_admin_password"])
    ('mine', 'old', 32)
    """
    single = dict.fromkeys(_S3, given[SINGLE_PAIR]) if given.get(SINGLE_PAIR) else {}
    asked = {**single, **{name: value for name, value in given.items() if value}}
    wrong = {name: "is too short" if len(value) < _SHORTEST else secret_fault(value) for name, value in asked.items()}
    faults = [f"TWOFOLD_{name.upper()} {fault}" for name, fault in wrong.items() if fault]
    if faults:
        raise UsageError("; ".join(faults), "give others, or none: they are made")
    return {name: asked.get(name) or kept.get(name) or secrets.token_hex(16) for name in NAMES}


def start() -> None:
    """Read what there is, and write each role's files."""
    environment = {name: os.environ.get(f"TWOFOLD_{name.upper()}", "") for name in (*NAMES, SINGLE_PAIR)}
    named = {name: value for name, value in environment.items() if value}
    found = chosen({**_read(GIVEN), **named}, _read(FOLDER / "all"))
    _write(FOLDER / "all", found)
    for role, files in ROLES.items():
        _write(FOLDER / role, {f"twofold_{file}": found[secret] for file, secret in files.items()})
    click.echo(f"{len(found)} secrets for {len(ROLES)} roles are in place", err=True)


def _read(folder: Path) -> dict[str, str]:
    paths = [folder / name for name in (*NAMES, SINGLE_PAIR)]
    return {path.name: path.read_text().strip() for path in paths if path.is_file()}


def _write(folder: Path, values: Mapping[str, str]) -> None:
    """Each file whole or not at all, readable by this user and its group."""
    for name, value in values.items():
        write_whole(folder / name, value, 0o440)
