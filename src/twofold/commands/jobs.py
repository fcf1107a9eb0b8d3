"""The commands that run a Spark program: each becomes that program, so signals and exit codes pass through."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from twofold.definition.load import load_pipeline
from twofold.settings import Settings


def become(settings: Settings, module: str, *arguments: str) -> NoReturn:
    """Replace this process by `python -m module …` with the same settings."""
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], {**os.environ, **settings.environment()})


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
@click.pass_obj
def rebuild(settings: Settings, pipeline: str) -> None:
    """Make PIPELINE's events and all views anew from the logs, swapped in at the end.

    \b
    Examples:
      twofold rebuild flights
    """
    load_pipeline(settings, pipeline)
    become(settings, "spark_jobs.rebuild_job", pipeline)
