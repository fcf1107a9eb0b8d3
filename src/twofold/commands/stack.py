"""`twofold up`, `down` and `status`: the embedded stack from the command line."""

from __future__ import annotations

import click
from rich.console import Console

from twofold.settings import Settings
from twofold.stack import lifecycle


@click.command()
@click.option("--store", type=click.Choice(["local", "minio"]), help="Where tables live; fixed by the first start.")
@click.pass_obj
def up(settings: Settings, store: str | None) -> None:
    """Start the embedded stack and wait until it is healthy.

    \b
    Examples:
      twofold up
      twofold up --store minio
      TWOFOLD_KAFKA_PORT=29092 twofold up
    """
    console = Console(stderr=True, highlight=False)
    settings = lifecycle.up(settings, store, console.print)
    console.print(f"up: store {settings.store}, Kafka {settings.kafka_bootstrap}, state in {settings.home}")


@click.command()
@click.pass_obj
def down(settings: Settings) -> None:
    """Stop the embedded stack, losing nothing.

    \b
    Examples:
      twofold down
      twofold --home /tmp/other down
    """
    console = Console(stderr=True, highlight=False)
    lifecycle.down(settings, console.print)
    console.print("down: nothing is running")
