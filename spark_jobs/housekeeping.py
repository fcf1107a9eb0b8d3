"""What a streaming job does for its views' tables while it runs: it expires the snapshots that its batches leave.

With a snapshot a batch, a day until the next maintenance is too long: each commit writes the list of all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from sqlalchemy.exc import SQLAlchemyError

from spark_jobs import snapshots
from twofold import tables
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.upkeep import Upkeep, upkeep

EVERY_S = 1800.0


@contextmanager
def beside(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> Iterator[None]:
    """Tidy up every half hour, in a thread of its own, as long as the block runs."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(EVERY_S):
            _try(spark, settings, pipeline)

    # A daemon: an expiry cut short leaves files that maintenance removes.
    thread = threading.Thread(target=work, name="housekeeping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)


def tidy(spark: SparkSession, settings: Settings, pipeline: Pipeline, asked: Upkeep) -> None:
    """Expire the views' snapshots as maintenance does; the landing query sees to those of stream_log by itself."""
    for view in pipeline.views:
        snapshots.expire(spark, settings, pipeline, tables.stream_view_name(view), asked, datetime.now(UTC))


def _try(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> None:
    """Whatever is away now is there the next time."""
    try:
        tidy(spark, settings, pipeline, upkeep())
    except (TwofoldError, PySparkException, Py4JJavaError, SQLAlchemyError, OSError) as error:
        reason = str(error).splitlines()[0]
        click.echo(f"{pipeline.name}: snapshots not expired, trying again in half an hour: {reason}", err=True)
