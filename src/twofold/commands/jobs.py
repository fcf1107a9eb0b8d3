"""The commands that run a Spark program: each becomes that program, so signals and exit codes pass through.

The programs (`spark_jobs.*_job`) take their options from here, and have no others but `--outcome`.
"""

from __future__ import annotations

from typing import NoReturn

import click

from twofold import retention
from twofold.commands.become import become
from twofold.definition.load import load_pipeline

_PIPELINE = click.argument("pipeline")
_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)
_COUNTS = click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
_DONE = click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")


def _become(context: click.Context, program: str) -> NoReturn:
    """Become a program of `spark_jobs`, with the values that the options have here."""
    load_pipeline(context.obj, context.params["pipeline"])
    arguments = []
    for parameter in context.command.params:
        value = context.params[parameter.name or ""]
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
        elif value is True:
            arguments.append(parameter.opts[0])
        elif isinstance(value, tuple):
            arguments += [part for one in value for part in (parameter.opts[0], str(one))]
        elif value is not None and value is not False:
            arguments += [parameter.opts[0], str(value)]
    become(context.obj, f"spark_jobs.{program}", *arguments)


@click.command()
@_PIPELINE
@click.option("--until-caught-up", is_flag=True, help="Take what is in Kafka now, finish the views, and exit.")
@click.option(
    "--health-port", type=click.IntRange(0, 65535), default=0, show_default="any free one", help="Port of /healthz."
)
@click.pass_context
def stream(context: click.Context, /, **_: object) -> None:
    """Run the speed layer of PIPELINE: every Kafka record to stream_log, windows to stream_<view>.

    \b
    Examples:
      twofold stream flights                     # until SIGTERM or Ctrl-C
      twofold stream flights --until-caught-up   # drain what is in Kafka now
    """
    _become(context, "streaming_job")


@click.command()
@_PIPELINE
@_COUNTS
@click.option("--wait", default=600.0, show_default=True, help="Seconds to wait for another batch run to end.")
@click.pass_context
def batch(context: click.Context, /, **_: object) -> None:
    """Ingest the files in the inbox of PIPELINE into batch_log, each exactly once.

    \b
    Examples:
      twofold batch flights
      twofold batch flights --json
    """
    _become(context, "batch_job")


@click.command()
@_PIPELINE
@_COUNTS
@click.pass_context
def union(context: click.Context, /, **_: object) -> None:
    """Merge everything past the boundary into PIPELINE's events, and recompute the windows touched.

    \b
    Examples:
      twofold union flights
      twofold union flights --json
    """
    _become(context, "union_job")


@click.command()
@_PIPELINE
@click.option("--dry-run", is_flag=True, help="Say how many files are small, and what would be expired and removed.")
@_DONE
@click.option(
    "--snapshot-retention",
    default=retention.SNAPSHOT_RETENTION,
    show_default=True,
    help="Expire snapshots older than this, as far as no reader needs them; 0: all of those.",
)
@click.option(
    "--keep-snapshots",
    type=click.IntRange(min=1),
    default=retention.KEEP_SNAPSHOTS,
    show_default=True,
    help="Always keep at least this many of the newest snapshots of each table.",
)
@click.option(
    "--orphan-age",
    default=retention.ORPHAN_AGE,
    show_default=True,
    help="Remove files that nothing refers to and that are older than this (3 days at least).",
)
@click.option(
    "--min-input-files",
    type=click.IntRange(min=2),
    default=retention.MIN_INPUT_FILES,
    show_default=True,
    help="Compact a day once at least this many of its files are too small.",
)
@click.option(
    "--retain-stream-log",
    metavar="AGE",
    help="Delete whole days of stream_log older than this, 7 days behind the union and every view.  [default: off]",
)
@click.pass_context
def maintain(context: click.Context, /, pipeline: str, as_json: bool, **options: object) -> None:
    """Compact small files of PIPELINE's tables, expire old snapshots, remove orphans; report ids too far apart.

    Safe to repeat, to kill, and to run beside a streaming job.

    \b
    Examples:
      twofold maintain flights
      twofold maintain flights --dry-run
      twofold maintain flights --retain-stream-log "30 days"
    """
    load_pipeline(context.obj, pipeline)
    retention.upkeep(**options)  # type: ignore[arg-type]
    _become(context, "maintenance_job")


@click.command()
@_PIPELINE
@_DONE
@click.pass_context
def rebuild(context: click.Context, /, **_: object) -> None:
    """Recreate PIPELINE's events and all views from the logs, swapped in at the end.

    Also the remedy after a changed view, and after a lost or damaged checkpoint. Stop the streaming job first; the
    next `twofold stream` recreates the stream views.

    \b
    Examples:
      twofold rebuild flights
    """
    _become(context, "rebuild_job")


@click.command()
@_PIPELINE
@click.option("--since", help="Only what arrived since, e.g. 2013-05-01T12:00 or '2 hours' (ago).")
@click.option("--partition", type=click.IntRange(min=0), help="Only Kafka's records of this partition.")
@click.option("--offsets", metavar="A:B", help="Of the partition, only the offsets from A up to, not including, B.")
@click.option("--yes/--dry-run", "go", default=False, help="Do it; without --yes, only say what would change.")
@_DONE
@click.pass_context
def reland(context: click.Context, /, **_: object) -> None:
    """Judge records of PIPELINE again, by today's definition, from what Kafka and the inbox still hold.

    Their rows in stream_log and batch_log are replaced, then events and the views of the batch layer rebuilt; a
    running stream fills its views again. Rows whose records are gone stay as they are.

    \b
    Examples:
      twofold reland flights                                       # says what would change
      twofold reland flights --since 2013-05-01 --yes
      twofold reland flights --partition 0 --offsets 100:200 --yes
    """
    _become(context, "reland_job")


@click.command()
@_PIPELINE
@click.option("--id", "ids", multiple=True, metavar="ID", help="An id as `twofold query` shows it; repeatable.")
@click.option("--ids", "file", metavar="FILE", type=_FILE, help="A file that has an id on each line; - for stdin.")
@click.option("--why", help="The reason, to be kept in the ledger; name nobody in it.")
@click.option("--by", help="Who decided it, for the ledger.  [default: the account that runs this]")
@click.option("--yes/--dry-run", "go", default=False, help="Do it; without --yes, only say where the ids are.")
@_DONE
@click.pass_context
def erase(context: click.Context, /, **_: object) -> None:
    """Erase events of PIPELINE for good: rows of all tables, rejected records, files of the inbox, old snapshots.

    The ledger, which has hashes of the ids, keeps them from coming back. A running streaming job continues and refills
    its views; else the next `twofold stream` does. Killed midway, the same command finishes it.

    \b
    Examples:
      twofold erase flights --id UA1545-2013-01-01             # says where it is
      twofold erase flights --ids person.txt --why 'request 17' --yes
    """
    _become(context, "erase_job")
