"""Drain a topic in this process, Twofold's way or a textbook's, and write down the marks.

Manually: `python -m benchmarks.drain twofold bench marks.json` (measured by `python -m benchmarks.run drain`).
"""

from __future__ import annotations

import json
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path

import click
from pyspark.sql import SparkSession

from benchmarks import textbook
from benchmarks.marks import END, Marks
from spark_jobs import spark_session, streaming_job
from spark_jobs.spark_session import Job
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.settings import Settings

TWOFOLD, TEXTBOOK, TUNED = "twofold", "textbook", "tuned textbook"
WAYS = (TWOFOLD, TEXTBOOK, TUNED)
_LISTENER_WAIT_MS = 30_000


@click.command()
@click.argument("way", type=click.Choice(WAYS))
@click.argument("pipeline")
@click.argument("target", type=click.Path(path_type=Path))
def main(way: str, pipeline: str, target: Path) -> None:
    """Drain PIPELINE's topic; the marks go to TARGET as JSON."""
    settings, marks = Settings(), Marks()
    declared = load_pipeline(settings, pipeline)
    if way == TWOFOLD:
        spark = _twofold(settings, declared, marks)
    else:
        spark = _textbook(settings, declared, marks, tuned=way == TUNED)
    # Spark notifies its listeners of a batch after the batch.
    spark._jsparkSession.sparkContext().listenerBus().waitUntilEmpty(_LISTENER_WAIT_MS)
    marks.mark(END)
    target.write_text(json.dumps([asdict(mark) for mark in marks.found]))
    spark.stop()


def _twofold(settings: Settings, pipeline: Pipeline, marks: Marks) -> SparkSession:
    """The streaming job itself, as `twofold stream --until-caught-up` runs it."""
    lake = Lake(settings, pipeline)
    topic_id = streaming_job.check(lake)
    spark = spark_session.build(settings, f"twofold-{pipeline.name}-stream")
    spark.streams.addListener(marks)
    streaming_job.stream(Job(spark, lake), topic_id, threading.Event(), until_caught_up=True)
    return spark


def _textbook(settings: Settings, pipeline: Pipeline, marks: Marks, *, tuned: bool) -> SparkSession:
    spark = textbook.session(settings, tuned)
    spark.streams.addListener(marks)
    with tempfile.TemporaryDirectory(dir=settings.home, prefix="textbook-") as folder:
        textbook.drain(spark, settings, pipeline, Path(folder))
    return spark


if __name__ == "__main__":
    main()
