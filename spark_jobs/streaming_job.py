"""The speed layer: one driver, one query that lands every record, one query per view on what was landed.

    Kafka ─► stream_log query ─► stream_log ─► view queries ─► stream_<view>

By hand: `python -m spark_jobs.streaming_job flights --until-caught-up`
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable

import click
from py4j.protocol import Py4JNetworkError
from pyspark.sql import SparkSession

from spark_jobs import locks, session, supervise
from spark_jobs.progress import Progress
from spark_jobs.stream_log import LogWriter
from spark_jobs.stream_views import ViewWriter
from spark_jobs.supervise import Service
from spark_jobs.topic_fence import TopicFence
from twofold import boundary, catalog, ensure, health, tables, topic
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.definition.watch import DefinitionWatch
from twofold.errors import DefinitionChanged, NotRunning, TwofoldError, end
from twofold.metrics import Meter
from twofold.services.record import AWAY, CHANGED, STREAM
from twofold.settings import Settings

_WAIT_S = 20.0
"""A driver killed with -9 leaves a JVM that takes moments to notice and to end; until then it holds the lock."""


@click.command()
@click.argument("pipeline")
@click.option("--until-caught-up", is_flag=True, help="Take what is in Kafka now, finish the views, and exit.")
@click.option("--health-port", default=0, show_default="any free one", help="Port of /healthz on loopback.")
def main(pipeline: str, until_caught_up: bool, health_port: int) -> None:
    """Run the speed layer of PIPELINE until SIGTERM."""
    try:
        settings = Settings()
        run(settings, load_pipeline(settings, pipeline), until_caught_up, health_port)
    except NotRunning as error:
        end(error, AWAY)
    except DefinitionChanged as error:
        end(error, CHANGED)
    except TwofoldError as error:
        end(error)
    except (Py4JNetworkError, ConnectionError):
        click.echo("error: the JVM of this job is gone; start the job again, it goes on where it was", err=True)
        sys.exit(1)


def run(settings: Settings, pipeline: Pipeline, until_caught_up: bool, health_port: int = 0) -> None:
    """Check everything that can be checked without a JVM, then run the queries."""
    topic_id = check(settings, pipeline)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    spark = session.build(settings, f"twofold-{pipeline.name}-stream")
    try:
        stream(spark, settings, pipeline, topic_id, stop, until_caught_up, health_port)
    finally:
        session.close(spark)


def check(settings: Settings, pipeline: Pipeline) -> str:
    """Make topic and tables, or refuse before anything is written; returns the topic's id."""
    state = topic.ensure(settings, pipeline)
    topic.require_exact(pipeline.name, state)
    made = ensure.ensure(catalog.load(settings), pipeline)
    boundary.landed(catalog.history(made[tables.STREAM_LOG]), pipeline.name, state.topic_id)
    return state.topic_id


def stream(
    spark: SparkSession,
    settings: Settings,
    pipeline: Pipeline,
    topic_id: str,
    stop: threading.Event,
    until_caught_up: bool,
    health_port: int = 0,
) -> None:
    """Hold the lock and run all queries of a checked pipeline, until `stop` or caught up."""
    with locks.hold(spark, settings, pipeline.name, "stream", wait_s=_WAIT_S) as lock:
        topic_fence, watch = TopicFence(spark, settings, pipeline.topic.name, topic_id, lock), DefinitionWatch(pipeline)

        def fence() -> str:
            watch.check()
            return topic_fence()

        _stream(spark, settings, pipeline, fence, stop, until_caught_up, health_port)


def _stream(
    spark: SparkSession,
    settings: Settings,
    pipeline: Pipeline,
    fence: Callable[[], str],
    stop: threading.Event,
    until_caught_up: bool,
    health_port: int,
) -> None:
    progress = Progress(pipeline, Meter(settings, pipeline.name), settings.home)
    log = LogWriter(spark, settings, pipeline, fence, progress.landed)
    views = [ViewWriter(spark, settings, pipeline, view) for view in pipeline.views.values()]
    for view in views:
        view.ensure()
    paces = pipeline.stream
    services = [Service("log", log.start, lambda: log.error, paces.trigger)]
    services += [Service(view.view.name, view.start, lambda: None, paces.views_trigger) for view in views]
    spark.streams.addListener(progress)
    with health.serve(progress.snapshot, health_port, settings.health_host) as server, progress.beating():
        server.announce(health.place_of(settings.home, pipeline.name, STREAM))
        if until_caught_up:
            supervise.drain(services, progress, stop)
            if stop.is_set():
                raise TwofoldError("stopped before it had caught up", "run the same command again: it goes on")
        else:
            supervise.run(services, progress, stop)
    click.echo(progress.summary(), err=True)


if __name__ == "__main__":
    main()
