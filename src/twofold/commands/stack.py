"""`twofold up`, `down` and `status`: the embedded stack from the command line."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import suppress
from datetime import UTC
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from twofold import database
from twofold.definition.load import load_sound
from twofold.errors import TwofoldError
from twofold.proof.findings import HOLDS
from twofold.settings import Settings
from twofold.stack import lifecycle, programs
from twofold.stack.status import StackStatus
from twofold.stack.status import status as stack_status


@click.command()
@click.option(
    "--store",
    type=click.Choice(["local", "minio"]),
    help="Where tables live: a local folder (default) or MinIO. Fixed by the first start.",
)
@click.option(
    "--airflow/--no-airflow",
    default=True,
    show_default=True,
    help="With Airflow, or the data services alone; an Airflow that runs is then stopped.",
)
@click.option(
    "--monitoring/--no-monitoring",
    default=None,
    help="With statsd-exporter, Prometheus, Alertmanager, and Grafana where it is installed; without either, as the "
    "last time.",
)
@click.option(
    "--registry/--no-registry",
    default=None,
    help="With a schema registry, for topics in Avro; without either, as the last time.",
)
@click.option(
    "--new-postgres", is_flag=True, help="Make an empty PostgreSQL where its folder is gone; see `twofold recatalog`."
)
@click.pass_obj
def up(settings: Settings, /, **asked: Any) -> None:  # noqa: ANN401
    """Start the embedded stack and wait until it is healthy.

    Safe to repeat: running programs are left alone, dead ones are started again.

    \b
    Examples:
      twofold up
      twofold up --store minio
      twofold up --no-airflow
      twofold up --monitoring
      twofold up --registry --no-airflow
      TWOFOLD_KAFKA_PORT=29092 twofold up
    """
    console = _stderr()
    settings, known = lifecycle.up(settings, lifecycle.Asked(**asked), console.print)
    console.print(f"up: store {settings.store}, Kafka {settings.kafka_bootstrap}, state in {settings.home}")
    for name, url in (programs.pages(settings) if known.monitoring else {}).items():
        console.print(f"{name}: {url}")
    if known.registry:
        console.print(f"Schema registry: {settings.schema_registry_url}")
    if known.airflow:
        place = f"TWOFOLD_AIRFLOW_PASSWORD in {settings.home / 'stack.env'}"
        console.print(f"Airflow: {settings.airflow_url}, user {settings.airflow_user}, password: {place}")


@click.command()
@click.pass_obj
def down(settings: Settings) -> None:
    """Stop the embedded stack, losing nothing.

    \b
    Examples:
      twofold down
      twofold --home /srv/twofold down
    """
    console = _stderr()
    lifecycle.down(settings, console.print)
    console.print(f"down: nothing of {settings.home} is running")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@click.pass_obj
def status(settings: Settings, as_json: bool) -> None:
    """Show which parts of the embedded stack run, and what the last proofs found.

    Exit code 1 when something that should run does not.

    \b
    Examples:
      twofold status
      twofold status --json
    """
    found = stack_status(settings)
    proofs = _proofs(settings) if found.programs else {}
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(found), "proofs": proofs}, indent=2))
    elif not found.programs:
        click.echo(f"no stack in {found.home}: start one with `twofold up`")
    else:
        Console(highlight=False).print(_table(found))
        if found.airflow_url:
            click.echo(f"Airflow: {found.airflow_url}")
        for name, url in found.monitoring_urls.items():
            click.echo(f"{name}: {url}")
        for name, proof in proofs.items():
            click.echo(f"proof of {name}: {proof}")
    sys.exit(0 if found.healthy else 1)


def _proofs(settings: Settings) -> dict[str, str]:
    """Pipeline → what its last proof found, and when; without those never proved, or while the catalog is away."""
    found: dict[str, str] = {}
    with suppress(TwofoldError):
        for name in load_sound(settings.pipelines)[0]:
            if kept := database.latest_result(settings, name, database.PROOF):
                found[name] = _said(kept)
    return found


def _said(kept: database.KeptResult) -> str:
    states = {check["id"]: check["state"] for check in kept.body["invariants"]}
    told = ", ".join(f"{one} {state}" for one, state in states.items() if state != HOLDS)
    # Version 0.2.0 kept no `since`.
    reach = "of what changed" if kept.body.get("since") else "of everything"
    return f"{told or 'all invariants hold'} ({reach}, {kept.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC)"


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def _table(found: StackStatus) -> Table:
    total = f"{found.pss_bytes / 2**20:.0f} MiB"
    table = Table(title=f"{found.home}, store {found.store}, {total}", title_justify="left", box=None)
    for name in ("program", "state", "pid", "up", "port", "memory", "health"):
        table.add_column(
            name, justify="right" if name in ("pid", "up", "memory") else "left", no_wrap=name == "program"
        )
    for row in (*found.programs, *found.services):
        table.add_row(
            row.name,
            row.state,
            str(row.pid or ""),
            f"{row.uptime_s:.0f} s" if row.pid else "",
            ", ".join(map(str, row.ports)),
            f"{row.pss_bytes / 2**20:.0f} MiB" if row.pid else "",
            row.health or "; ".join(filter(None, ("healthy", row.note))),
        )
    return table
