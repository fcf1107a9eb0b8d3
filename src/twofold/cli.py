"""The `twofold` command: a thin group over `twofold.commands`.

    twofold COMMAND … ─► Settings (once) ─► twofold.commands.<module>:<function>

Manually: `twofold --help`.
"""

from __future__ import annotations

from twofold import shell

if __name__ == "__main__":
    shell.enter()

import importlib
import os
import sys
from pathlib import Path

import click

from twofold import __version__
from twofold.errors import TwofoldError, end
from twofold.settings import Settings

COMMANDS = {
    "init": ("init:init", "Write a first pipeline file from a sample of events."),
    "check": ("check:check", "Check pipeline definitions and list all their faults."),
    "try": ("try_:try_", "Judge a file's records by a definition; nothing is started."),
    "up": ("stack:up", "Start the embedded stack and wait until it is healthy."),
    "down": ("stack:down", "Stop the embedded stack, losing nothing."),
    "status": ("stack:status", "Show which parts of the embedded stack run."),
    "airflow": ("airflow:airflow", "Run a command of Airflow in the stack's environment."),
    "services": ("services:services", "Look at, start and stop producers and streaming jobs."),
    "produce": ("producing:produce", "Send a pipeline's events to Kafka."),
    "stream": ("jobs:stream", "Run the speed layer: Kafka to stream_log and the stream views."),
    "topic": ("producing:topic", "Show a pipeline's Kafka topic, or give it the settings that exact counts need."),
    "land": ("land:land", "Put files into a pipeline's inbox, whole or not at all."),
    "batch": ("jobs:batch", "Ingest the files of the inbox into batch_log, each exactly once."),
    "union": ("jobs:union", "Merge both layers into events and recompute the touched windows."),
    "compare": ("proving:compare", "Compare the layers per window where unions changed the answer."),
    "maintain": ("jobs:maintain", "Compact small files, expire snapshots, remove orphans; each guarded."),
    "query": ("answers:query", "Run SQL over both layers, exact at every instant."),
    "rejects": ("corrections:rejects", "Show rejected records by reason, or write their bytes to a file."),
    "replay": ("corrections:replay", "Let ingested files, or fixed records, go through again."),
    "reland": ("jobs:reland", "Judge records again by today's definition, and replace their rows."),
    "erase": ("jobs:erase", "Erase events for good, by their ids, from tables and files."),
    "accept-loss": ("recovery:accept_loss", "Accept as lost what Kafka deleted before it landed, and continue."),
    "recatalog": ("recovery:recatalog", "Make a lost catalog again from the tables in the bucket."),
    "rebuild": ("jobs:rebuild", "Recreate events and all views from the logs."),
    "export": ("answers:export", "Write the unified events as plain Parquet."),
    "prove": ("proving:prove", "Check the invariants on the live tables."),
}
"""Command name → (module:function under twofold.commands, one line of help)."""


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the data's way."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(f"twofold.commands.{module}"), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option(
    "--pipelines",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of pipeline definitions  [env: TWOFOLD_PIPELINES; default: ./pipelines]",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the embedded stack's state  [env: TWOFOLD_HOME; default: ./.twofold]",
)
@click.pass_context
def cli(ctx: click.Context, pipelines: Path | None, home: Path | None) -> None:
    """Twofold: a lambda architecture that proves its own counts.

    \b
    Examples:
      twofold init clicks --from clicks.jsonl
      twofold check pipelines/flights.yaml
      twofold try flights events.jsonl
      twofold up && twofold produce flights --limit 1000
      twofold query "SELECT count(*) FROM flights.unified_events"
    """
    # Settings read the environment, so the two options become part of it: children see the same.
    for name, value in (("TWOFOLD_PIPELINES", pipelines), ("TWOFOLD_HOME", home)):
        if value is not None:
            os.environ[name] = str(value.absolute())
    if shell.is_colorless():
        ctx.color = False
    ctx.obj = Settings()


def main() -> None:
    """Run the command: a user's mistake gives a sentence and a remedy, never a stack trace."""
    shell.without_pandas()
    try:
        # Outside standalone mode click returns the code of `Context.exit` instead of raising it.
        sys.exit(cli.main(standalone_mode=False))
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TwofoldError as error:
        end(error)


if __name__ == "__main__":
    main()
