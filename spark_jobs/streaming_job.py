"""The speed layer: one driver, one query that ingests every record, one query per view on what was ingested.

    Kafka ─► stream_log query ─► stream_log ─► view queries ─► stream_<view>

A failed query is restarted while a service that it needs is away; an error that no restart can fix ends the job.

Manually: `python -m spark_jobs.streaming_job flights --until-caught-up`
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import click
from pyspark.sql.streaming.query import StreamingQuery

from spark_jobs import outcome, spark_session
from spark_jobs.spark_session import JVM_FAILED, Job, JobLock, declared, topic_fence
from spark_jobs.stream_log import LogWriter, Trigger
from spark_jobs.stream_progress import StreamProgress
from spark_jobs.stream_views import ViewWriter
from twofold import health, kafka, loss, schemas, table_state, tables, topic
from twofold.catalog import S3_SIGN
from twofold.commands import jobs
from twofold.definition.watch import DefinitionWatch
from twofold.errors import ClockBehind, DefinitionChanged, NotRunning, StoreAway, TwofoldError, end
from twofold.lake import Lake
from twofold.metrics import Meter
from twofold.schema_registry import RegistryAway
from twofold.services.record import AWAY, CHANGED, STREAM

_WAIT_S = 20.0
"""A driver killed with -9 leaves a JVM that takes moments to notice and to end; until then it holds the lock."""
_ENDS_WITHIN_S = 25.0
"""Queries and session usually end within 3 s. supervisord kills a service that it stops after 30 s."""
_POLL_S = 0.25
_LONGEST_PAUSE_S = 15.0
_FAILURES_IN_A_ROW = 12
"""About two minutes of pauses for a service that is away; then the job ends, and its caller decides."""
_UNKNOWN_FAILURES_IN_A_ROW = 3
_AWAY = (
    "Connection refused",
    "Connection reset",
    "TimeoutException",
    "timed out",
    "DisconnectException",
    "could not be established",
    "SdkClientException",
    "AWSClientIOException",
    "S3Exception",
    S3_SIGN,
    "PSQLException",
    NotRunning.__name__,
    StoreAway.__name__,
    RegistryAway.__name__,
    "UncheckedSQLException",
    # Spark 4.1's Kafka source cannot report a first batch that was planned before its start; the batch itself is done.
    'return value of "scala.Option.get()" is null',
)
"""Errors that show that a broker, store, registry or catalog is away, or was, not that the work is wrong."""
_HOPELESS = {
    ("KAFKA_DATA_LOSS", "data may have been lost", "Some data may have been lost"): (
        # Going on would hide the loss.
        "Kafka no longer has records that were not landed yet (retention, or the topic was recreated)",
        "start the job again: it names what is lost, and the remedy",
    ),
    ("ArithmeticException: long overflow",): (
        "a record has a time stamp past the year 294,247 (nanoseconds for milliseconds?), which Spark cannot hold",
        "have it deleted from the topic (Kafka's `kafka-delete-records.sh`), then `twofold accept-loss`; "
        "`message.timestamp.after.max.ms` of the topic keeps such records out",
    ),
}
"""Signs of an error that no restart can fix → what it is, and the remedy."""
_CAUSE = re.compile(r"(Caused by: |: )?[\w.]+(Exception|Error|NotRunning|Away)\b")


@click.command(params=[*jobs.stream.params])
def main(pipeline: str, until_caught_up: bool, health_port: int) -> None:
    """Run the speed layer of PIPELINE until SIGTERM."""
    try:
        run(declared(pipeline), until_caught_up, health_port)
    except outcome.FAILURES as error:
        failure = outcome.of_failure(error)
        code = AWAY if isinstance(failure, NotRunning) else CHANGED if isinstance(failure, DefinitionChanged) else None
        end(failure, code)


def run(lake: Lake, until_caught_up: bool, health_port: int) -> None:
    """Check everything that can be checked without a JVM, then run the queries."""
    topic_id = check(lake)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    spark = spark_session.build(lake.settings, f"twofold-{lake.name}-stream")
    spark_session.end_jvm_after(stop, _ENDS_WITHIN_S)
    try:
        stream(Job(spark, lake), topic_id, stop, until_caught_up, health_port)
    finally:
        # Also where it ends before it has begun: another job has the lock, or a view was declared otherwise.
        stop.set()
        spark_session.close(spark)


def check(lake: Lake) -> str:
    """Make topic (but not somebody else's) and tables, or refuse before anything is written; returns the topic's id."""
    schemas.require_fit(lake.catalog(), lake.pipeline)
    state = kafka.ensure(lake.settings, lake.pipeline)
    topic.require_exact(lake.pipeline, state)
    log = lake.ensure()[tables.STREAM_LOG]
    loss.require_none(table_state.streamed(log, lake.name), loss.around(lake, state))
    return state.topic_id


def stream(job: Job, topic_id: str, stop: threading.Event, until_caught_up: bool, health_port: int = 0) -> None:
    """Hold the lock and run all queries of a checked pipeline, until `stop` or caught up; `stop` is set then."""
    settings, pipeline = job.settings, job.pipeline
    with (
        job.lock("stream", wait_s=_WAIT_S) as lock,
        topic_fence(settings, pipeline.topic.name, topic_id) as same_topic,
    ):
        watch = DefinitionWatch(pipeline)

        def fence() -> str:
            watch.check()
            return same_topic()

        progress = StreamProgress(pipeline, Meter(settings, pipeline.name), settings.home)
        log = LogWriter(job, fence, progress.ingested)
        progress.lost = log.landed.lost_offsets
        views = [ViewWriter(job, view) for view in pipeline.views.values()]
        for view in views:
            view.ensure()
        paces = pipeline.stream
        queries = [RestartedQuery("log", log.start, lambda: log.error, paces.trigger, progress)]
        for view in views:
            queries.append(RestartedQuery(view.view.name, view.start, lambda: None, paces.views_trigger, progress))
        with (
            _listening(job, progress),
            health.HealthServer(progress.snapshot, health_port, settings.health_host) as server,
            progress.beating(),
        ):
            server.announce(health.place_of(settings.home, pipeline.name, STREAM))
            try:
                (_drain if until_caught_up else _keep_running)(queries, progress, stop, lock)
            finally:
                stop.set()
                # Within the lock, which each of their commits asks for. A JVM that has ended has no queries.
                for one in queries:
                    with suppress(*spark_session.JVM_GONE):
                        one.stop()
        click.echo(progress.summary(), err=True)


@contextmanager
def _listening(job: Job, progress: StreamProgress) -> Iterator[None]:
    """Within the block Spark tells `progress` of every batch; of those after it, in the same session, no more."""
    job.spark.streams.addListener(progress)
    try:
        yield
    finally:
        # A JVM that was killed has no listeners.
        with suppress(*spark_session.JVM_GONE):
            job.spark.streams.removeListener(progress)


def _keep_running(
    queries: Sequence[RestartedQuery], progress: StreamProgress, stop: threading.Event, lock: JobLock
) -> None:
    """All queries at once, until `stop`."""
    while not stop.wait(_POLL_S):
        lock.check_noticed()
        for one in queries:
            one.step({"processingTime": f"{one.pause // timedelta(milliseconds=1)} milliseconds"})
        if all(one.query is not None for one in queries):
            progress.say("running")


def _drain(queries: Sequence[RestartedQuery], progress: StreamProgress, stop: threading.Event, lock: JobLock) -> None:
    """One query after the other, each until it has read everything that existed when it started."""
    progress.say("draining")
    for one in queries:
        while not stop.is_set() and not one.step({"availableNow": True}):
            one.wait(stop, _POLL_S)
            lock.check_noticed()
    if stop.is_set():
        raise TwofoldError("stopped before it had caught up", "run the same command again to resume")


@dataclass
class RestartedQuery:
    """A query that is started again after a failure."""

    name: str
    begin: Callable[[Trigger], StreamingQuery]
    cause: Callable[[], TwofoldError | None]
    """The error of ours that made the last batch fail, if it was one."""
    pause: timedelta
    """Between the starts of two batches, but for a drain."""
    progress: StreamProgress
    query: StreamingQuery | None = None
    failures: Counter[bool] = field(default_factory=Counter)
    """In a row: those of a service that is away, and others."""
    batches_at_failure: int = -1
    retry_at: float = 0.0

    def step(self, trigger: Trigger) -> bool:
        """Start, or watch, the query; True once it ended well. Raises errors that no restart can fix."""
        if self.query is None:
            if time.monotonic() >= self.retry_at:
                self._start(trigger)
            return False
        if self.query.isActive:
            return False
        self.progress.wait_for_end(str(self.query.runId))
        failure = self.query.exception()
        if failure is None:
            return True
        self._failed(str(failure))
        return False

    def wait(self, stop: threading.Event, seconds: float) -> None:
        """Wait that long; less where the query ends before, or where none runs and `stop` is set."""
        if self.query is None:
            stop.wait(seconds)
        else:
            self.progress.wait_for_end(str(self.query.runId), seconds)

    def _start(self, trigger: Trigger) -> None:
        try:
            self.query = self.begin(trigger)
        except ConnectionError:
            raise  # of py4j: the JVM is gone
        except (*JVM_FAILED, NotRunning, OSError) as error:
            # By its name, as Python's trace has it in a batch, is known what is away.
            self._failed(f"{type(error).__name__}: {error}")

    def _failed(self, text: str) -> None:
        if cause := self.cause():
            raise cause
        for signs, (what, remedy) in _HOPELESS.items():
            if any(sign in text for sign in signs):
                raise TwofoldError(f"query {self.name}: {what}: {_shortened(text)}", remedy)
        progressed = self.query.lastProgress if self.query else None
        if progressed and progressed["batchId"] != self.batches_at_failure:
            self.batches_at_failure = progressed["batchId"]
            self.failures.clear()
        away = any(sign in text for sign in _AWAY)
        if outcome.is_clock_behind(text):
            # Waited for like a service that is away: the clock catches up by itself.
            text, away = ClockBehind(f"a table that query {self.name} writes").message, True
        self.failures[away] += 1
        if self.failures[away] > (_FAILURES_IN_A_ROW if away else _UNKNOWN_FAILURES_IN_A_ROW):
            error = NotRunning if away else TwofoldError
            raise error(f"query {self.name} failed {self.failures[away]} times in a row: {_shortened(text)}")
        pause_s = min(2.0 ** (self.failures.total() - 1), _LONGEST_PAUSE_S)
        self.query, self.retry_at = None, time.monotonic() + pause_s
        problem = f"query {self.name} failed, next try in {pause_s:.0f} s: {_shortened(text)}"
        self.progress.retrying(self.name, problem, registry_away=RegistryAway.__name__ in text)

    def stop(self) -> None:
        """End the query; a batch cut short is done again by the next start."""
        if self.query is not None and self.query.isActive:
            self.query.stop()
            self.progress.wait_for_end(str(self.query.runId))


def _shortened(text: str) -> str:
    """The sentences of a failure without its stack: first what failed, then each cause."""
    lines = [line.strip() for line in text.splitlines()]
    causes = [line for line in lines if _CAUSE.match(line)]
    return " | ".join(dict.fromkeys(line[:300] for line in [*lines[:1], *causes[-3:]]))


if __name__ == "__main__":
    main()
