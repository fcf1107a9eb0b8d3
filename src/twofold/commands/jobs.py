"""The commands that run a Spark program: each becomes that program, so signals and exit codes pass through."""

from __future__ import annotations

from typing import Any

import click

from twofold import retention
from twofold.commands.become import become
from twofold.definition.load import load_pipeline
from twofold.settings import Settings


@click.command()
@click.argument("pipeline")
@click.option("--until-caught-up", is_flag=True, help="Take what is in Kafka now, finish the views, and exit.")
@click.option("--health-port", default=0, show_default="any free one", help="Port of /healthz on loopback.")
@click.pass_obj
def stream(settings: Settings, pipeline: str, until_caught_up: bool, health_port: int) -> None:
    """Run the speed layer of PIPELINE: every Kafka record to stream_log, windows to stream_<view>.

    \b
    Examples:
      twofold stream flights                     # until SIGTERM or Ctrl-C
      twofold stream flights --until-caught-up   # drain what is in Kafka now
    """
    load_pipeline(settings, pipeline)
    flags = ["--until-caught-up"] if until_caught_up else []
    become(settings, "spark_jobs.streaming_job", pipeline, "--health-port", str(health_port), *flags)


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@click.option("--wait", default=600.0, show_default=True, help="Seconds to wait for another batch run to end.")
@click.pass_obj
def batch(settings: Settings, pipeline: str, as_json: bool, wait: float) -> None:
    """Take the landed files of PIPELINE into batch_log, each exactly once.

    \b
    Examples:
      twofold batch flights
      twofold batch flights --json
    """
    load_pipeline(settings, pipeline)
    become(settings, "spark_jobs.batch_job", pipeline, "--wait", str(wait), *(["--json"] if as_json else []))


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@click.pass_obj
def union(settings: Settings, pipeline: str, as_json: bool) -> None:
    """Merge everything past the boundary into PIPELINE's events, and recompute the windows touched.

    \b
    Examples:
      twofold union flights
      twofold union flights --json
    """
    load_pipeline(settings, pipeline)
    become(settings, "spark_jobs.union_job", pipeline, *(["--json"] if as_json else []))


@click.command()
@click.argument("pipeline")
@click.option("--dry-run", is_flag=True, help="Say how many files are small, and what would be expired and removed.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
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
    help="Keep so many of the newest snapshots of each table, however old.",
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
    help="Compact a day where so many of its files are too small.",
)
@click.option(
    "--retain-stream-log",
    metavar="AGE",
    help="Delete whole days of stream_log older than this, 7 days behind the union and every view.  [default: off]",
)
@click.pass_obj
def maintain(settings: Settings, /, pipeline: str, dry_run: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Compact small files of PIPELINE's tables, expire old snapshots, remove orphans; report ids too far apart.

    Safe to repeat, to kill, and to run beside a streaming job.

    \b
    Examples:
      twofold maintain flights
      twofold maintain flights --dry-run
      twofold maintain flights --retain-stream-log "30 days"
    """
    load_pipeline(settings, pipeline)
    retention.upkeep(dry_run=dry_run, **options)
    flags = [*(["--dry-run"] if dry_run else []), *(["--json"] if as_json else [])]
    given = {name: value for name, value in options.items() if value is not None}
    values = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    become(settings, "spark_jobs.maintenance_job", pipeline, *flags, *values)


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.pass_obj
def rebuild(settings: Settings, pipeline: str, as_json: bool) -> None:
    """Make PIPELINE's events and all views anew from the logs, swapped in at the end.

    Also the way out after a changed view, and after a lost or damaged checkpoint. Stop the streaming job first; the
    next `twofold stream` makes the stream views anew.

    \b
    Examples:
      twofold rebuild flights
    """
    load_pipeline(settings, pipeline)
    become(settings, "spark_jobs.rebuild_job", pipeline, *(["--json"] if as_json else []))
