"""`twofold produce`: hands over to the producer, a program of its own, which holds the Kafka client.

twofold produce … ──exec──► python -m producer.producer …    same process: signals and exit code pass through
"""

from __future__ import annotations

import click

from twofold.commands.become import become
from twofold.settings import Settings


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def produce(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Send a pipeline's events to Kafka; all options and examples: `twofold produce --help`."""
    become(settings, "producer.producer", *arguments)
