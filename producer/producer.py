"""The producer: a pipeline's events to Kafka, every one acknowledged, resuming where it stopped.

    source ─► Kafka topic
       └─ Progress ─► journal, /healthz, StatsD, terminal

Run it: `twofold produce flights --limit 1000`, which is `python -m producer.producer flights --limit 1000`.
"""

from __future__ import annotations

from twofold import shell

if __name__ == "__main__":
    shell.enter()

import logging
import math
import signal
import sys
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

import click

from producer import sending
from producer.sources import Request, Shares
from twofold.definition.load import load_pipeline
from twofold.definition.model import Replay
from twofold.errors import as_sentences
from twofold.settings import Settings

Share = click.FloatRange(0, 1)


class Rate(click.FloatRange):
    """Records per second, or `max`."""

    name = "N|max"

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """A positive number; infinity for max."""
        return math.inf if value == "max" else super().convert(value, param, ctx)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("pipeline")
@click.option("--from", "from_file", metavar="FILE", help="Replay JSON lines as they are: plain, .gz, or - for stdin.")
@click.option("--generate", type=click.IntRange(0), metavar="N", help="Make N events from the definition; 0 = endless.")
@click.option("--limit", type=click.IntRange(0), metavar="N", help="Only the first N records of the source.")
@click.option("--rate", type=Rate(), help="Records per second.  [default: as declared, else max]")
@click.option(
    "--speed-up",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Keep the gaps between the query's send_at, X times shorter.",
)
@click.option("--since", type=click.DateTime(), help="Only rows with send_at at or after this (UTC).")
@click.option("--until", type=click.DateTime(), help="Only rows with send_at before this (UTC).")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed gives other events.")
@click.option("--interval-ms", type=click.FloatRange(0, min_open=True), help="Event time between generated events.")
@click.option("--duplicates", type=Share, default=0.0, help="Share of generated records that repeat an earlier one.")
@click.option("--late", type=Share, default=0.0, help="Share later than the declared lateness.")
@click.option("--out-of-order", type=Share, default=0.0, help="Share late, but within the declared lateness.")
@click.option("--malformed", type=Share, default=0.0, help="Share that breaks the contract.")
@click.option("--future", type=Share, default=0.0, help="Share stamped beyond max_future.")
@click.option("--restart", is_flag=True, help="Send the source again from its start: the same records.")
@click.option("--health-port", type=click.IntRange(0, 65535), default=0, help="Port of /healthz on loopback; 0 = any.")
@click.option("--verbose", is_flag=True, help="Show the Kafka client's own log.")
@click.option("--pipelines", type=click.Path(file_okay=False, path_type=Path), help="Folder of pipeline definitions.")
def produce(pipeline: str, pipelines: Path | None, verbose: bool, **options: Any) -> None:  # noqa: ANN401
    """Send a pipeline's events to Kafka.

    Without --from or --generate, the definition's own `replay` is sent, its range and pace included unless options
    say otherwise. What Kafka has acknowledged is journaled: the same command resumes where it stopped, however it
    ended, and reports when everything was sent. While the broker is away the producer waits; it drops nothing. A
    record too large for the broker is kept aside, and makes the exit code 1 at the end.

    \b
    Examples:
      twofold produce flights --limit 1000
      twofold produce flights --since 2013-05-01 --speed-up 86400
      twofold produce orders --from orders.jsonl.gz --rate 500
      tail -F orders.log | twofold produce orders --from -
      twofold produce orders --generate 100000 --duplicates 0.01 --late 0.01 --malformed 0.005
    """
    settings = Settings() if pipelines is None else Settings(pipelines=pipelines)
    declared = load_pipeline(settings, pipeline)
    request = as_request(options, declared.replay)
    show_client_log(verbose)
    stop = Event()
    signals = stop_on_signals(stop)
    code = sending.run(settings, declared, request, stop)
    sys.exit(128 + signals[0] if signals and code == 0 else code)


def as_request(options: dict[str, Any], declared: Replay | None = None) -> Request:
    """The options as one checked value; what they leave open of the definition's own replay is as declared."""
    shares = Shares(**{field.name: options.pop(field.name) for field in fields(Shares)})
    for name in ("since", "until"):
        moment: datetime | None = options[name]
        options[name] = moment and moment.replace(tzinfo=UTC)
    own = declared is not None and options["from_file"] is None and options["generate"] is None
    if declared and own:
        options |= {name: options[name] or getattr(declared, name) for name in ("generate", "since", "until")}
        if options["rate"] is None and options["speed_up"] is None:
            options |= {"rate": declared.rate, "speed_up": declared.speed_up}
    options["rate"] = None if options["rate"] == math.inf else options["rate"]
    return Request(shares=shares, own=own, **options)


def show_client_log(verbose: bool) -> None:
    """Show the Kafka client's own log on stderr, or keep it off: the producer reports what matters itself, once."""
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    else:
        logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)


def stop_on_signals(stop: Event) -> list[int]:
    """Let SIGTERM and Ctrl-C end the run gracefully, the second signal at once; returns the list of those received."""
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return received


def main() -> None:
    """Console entry: a user's mistake gives a sentence and a remedy, never a stack trace."""
    with as_sentences():
        produce.main(prog_name="twofold produce")


if __name__ == "__main__":
    main()
