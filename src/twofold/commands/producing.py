"""`twofold produce`, which hands over to the producer, a program of its own; and `twofold topic`, what it sends to.

twofold produce … ──exec──► python -m producer.producer …    same process: signals and exit code pass through
"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from twofold import kafka
from twofold.commands.become import become
from twofold.definition.load import load_pipeline
from twofold.definition.model import Topic
from twofold.settings import Settings
from twofold.topic import TopicState, drift, not_there, refusal


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def produce(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Send a pipeline's events to Kafka; all options and examples: `twofold produce --help`."""
    become(settings, "producer.producer", *arguments)


@click.command()
@click.argument("pipeline")
@click.option("--repair", is_flag=True, help="Give it the settings that exact counts need; whatever else it has stays.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every setting.")
@click.pass_obj
def topic(settings: Settings, pipeline: str, repair: bool, as_json: bool) -> None:
    """Show PIPELINE's Kafka topic: its id, its partitions' offsets, and what differs from the declaration.

    A topic with `managed: false` is only looked at.

    Exit code 1 when the topic cannot be counted exactly. --repair makes Kafka stamp records with their arrival
    (message.timestamp.type) and keep all of them until their time is up (cleanup.policy). Existing records keep their
    time stamps, and compacted records stay lost.

    \b
    Examples:
      twofold topic flights
      twofold topic flights --repair
    """
    declared = load_pipeline(settings, pipeline)
    found = kafka.repair(settings, declared) if repair else kafka.describe(settings, declared.topic.name)
    if found is None:
        raise not_there(declared.topic)
    differs = drift(declared.topic, len(found.partitions), found.settings)
    told = {**asdict(found), "managed": declared.topic.managed, "drift": differs}
    click.echo(json.dumps(told, indent=2) if as_json else _text(declared.topic, found, differs))
    if refused := refusal(pipeline, declared.topic, differs):
        raise refused


def _text(topic: Topic, found: TopicState, differs: dict[str, tuple[str, str]]) -> str:
    lines = [f"topic {found.name}, id {found.topic_id}"]
    lines += [f"  partition {number}: offsets {begin} to {end}" for number, (begin, end) in found.partitions.items()]
    lines += [f"  {name} is {actual}, declared {declared}" for name, (declared, actual) in differs.items()]
    if not topic.managed:
        stamped = found.settings.get("message.timestamp.type")
        lines.append(f"  somebody else's: never made nor changed; time stamps are {stamped}, arrival is the landing")
    return "\n".join([*lines, *([] if differs else ["  as declared"])])
