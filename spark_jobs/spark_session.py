"""What every Spark program stands on: its session, its pipeline's lock for one role, and the fence of its topic.

The Python driver commits, in maintenance the JVM, too. The JVM holds the lock, as it ends after its driver: a kill -9
of that would free it while its JVM may still be committing. Even a dead JVM's last commit may still wait inside
PostgreSQL, which does not notice that its client is gone: so the new holder of a lock first ends the remaining
connections of the previous holder's JVM. A commit that is late all the same is refused where another one was made
meanwhile (`twofold.commits`).

While a lock is held, each commit through the catalog asks first whether it still is; a heartbeat notices its loss
in between (see `twofold.database`).

Only this module looks into pyspark's private parts.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from subprocess import Popen, TimeoutExpired
from typing import Any

import click
from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JError, Py4JJavaError
from pyiceberg.table import Table
from pyiceberg.types import NestedField
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from twofold import database, kafka, launch, shell, tables
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.errors import BoundaryError, Busy, NotRunning
from twofold.lake import Lake
from twofold.settings import CATALOG, Settings

_S3_CHECKPOINTS = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"
DRIVER_GAUGES = (
    r".*\.(jvm\.(heap|non-heap)\.(used|committed)|jvm\.heap\.max|jvm\.PS-\w+\.(count|time)"
    r"|BlockManager\.(memory\.(memUsed|remainingMem)|disk\.diskSpaceUsed)_MB"
    r"|DAGScheduler\.(job\.activeJobs|stage\.(failed|running|waiting)Stages)"
    r"|LiveListenerBus\.queue\.\w+\.size|executor\.threadpool\.activeTasks)"
)
"""What is sent of the driver's own metrics: gauges that are never negative.

The sink sends cumulative counts as increments, and StatsD takes a negative gauge for a decrement.
"""

JVM_GONE = (Py4JError, OSError)
"""What a call to a JVM raises that has ended, or ends meanwhile."""
JVM_FAILED = (Py4JJavaError, PySparkException)
"""What a call to a JVM raises where it fails there, or in a task."""
_PRINTS_WITHIN_S = 4.0
"""A JVM that can prints the stacks of its threads within a moment."""


def build(settings: Settings, app_name: str, short_lived: bool = False) -> SparkSession:
    """A session whose catalog `twofold` is the JDBC catalog on PostgreSQL, and whose zone is UTC.

    `short_lived` leaves out the second compiler, which takes a third of the CPU of a job of a few seconds.
    """
    options = {**configuration(settings), **_statsd(settings, app_name)}
    return started(app_name, settings.spark_master, launch.configuration(settings, short_lived), options)


def started(app_name: str, master: str, at_start: Mapping[str, str], options: Mapping[str, str]) -> SparkSession:
    """A session with these options; those of the JVM's start are put on its command line, where all can read them."""
    # The JVM, and the Python workers that it starts, are born into this environment.
    shell.clean()
    # pyspark takes it from nowhere else; its own default is whatever is called python3.
    os.environ["PYSPARK_PYTHON"] = at_start["spark.pyspark.python"]
    # Left to the builder, the JVM would be started with all options there, the passwords too.
    SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(list(at_start.items())))
    builder = SparkSession.builder.appName(app_name)
    if master:
        builder = builder.master(master)
    for key, value in {**at_start, **options}.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def close(spark: SparkSession) -> None:
    """Stop the session and whatever of its gateway still runs in this process, as a program does at its very end.

    Threads that wait for calls from the JVM keep what they refer to past the end of Python, and libraries report that,
    at length. A JVM that has ended already is as good as closed.
    """
    with suppress(*JVM_GONE):
        spark.stop()
    gateway = SparkContext._gateway
    if gateway is not None:
        gateway.shutdown()
        SparkContext._gateway = SparkContext._jvm = None


def end_jvm_after(stop: threading.Event, patience_s: float) -> None:
    """End this process's JVM, the stacks of its threads in the log, if this process still runs so long after `stop`.

    A query and a session that are stopped wait without a limit for threads of the JVM. What waits for the JVM in Python
    fails once that has ended.
    """
    program = jvm_process()

    def watch() -> None:
        stop.wait()
        time.sleep(patience_s)
        click.echo(f"warning: not at its end after {patience_s:.0f} s, so its JVM is ended; it was at:", err=True)
        # Java's sign to print the stacks of all threads.
        program.send_signal(signal.SIGQUIT)
        with suppress(TimeoutExpired):
            program.wait(_PRINTS_WITHIN_S)
        program.kill()

    threading.Thread(target=watch, daemon=True, name="end of the JVM").start()


def jvm_process() -> Popen[bytes]:
    """The process of the JVM that pyspark has started for this one."""
    assert SparkContext._gateway is not None
    started: Popen[bytes] = SparkContext._gateway.proc
    return started


def jvm() -> Any:  # noqa: ANN401 - whatever the JVM has
    """The JVM's classes and objects."""
    assert SparkContext._jvm is not None
    return SparkContext._jvm


def in_jvm(spark: SparkSession) -> JavaObject:
    """The session as the JVM knows it."""
    return spark._jsparkSession


def configuration(settings: Settings) -> dict[str, str]:
    """The options that do not concern the start of the JVM."""
    catalog = f"spark.sql.catalog.{CATALOG}"
    return {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Spark writes down the plan of every query, which nobody reads.
        "spark.sql.ui.explainMode": "simple",
        "spark.driver.host": settings.spark_driver_host,
        "spark.driver.bindAddress": settings.spark_driver_host,
        # Of a cluster; a local master knows none of them.
        "spark.cores.max": str(settings.spark_cores_max),
        "spark.executor.memory": settings.spark_executor_memory,
        "spark.sql.session.timeZone": "UTC",
        # One call of the contract for at most this many records; more would only hold more memory.
        "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
        "spark.sql.shuffle.partitions": "2",
        # The JVM only interprets longer methods; past this, Spark splits them into ones that it compiles.
        "spark.sql.codegen.hugeMethodLimit": "8000",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        catalog: "org.apache.iceberg.spark.SparkCatalog",
        f"{catalog}.type": "jdbc",
        f"{catalog}.uri": settings.jdbc_url,
        **{f"{catalog}.jdbc.{name}": value for name, value in database.catalog_session(settings).items()},
        f"{catalog}.jdbc.schema-version": "V1",
        # By this name PostgreSQL knows the connections of this JVM: see `JobLock.end_last_holder`.
        f"{catalog}.jdbc.ApplicationName": f"twofold-{secrets.token_hex(8)}",
        f"{catalog}.warehouse": settings.tables,
        # With the cache, an outer session reads 0 rows from tables written inside foreachBatch.
        f"{catalog}.cache-enabled": "false",
        # Its extra job costs more than it prunes here: every condition names the days already.
        "spark.sql.optimizer.runtime.rowLevelOperationGroupFilter.enabled": "false",
        # They would only let go of old state, which the next batch does as well: an update is never theirs.
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        # The queries of views say where their state is; to count its rows, RocksDB reads before it writes.
        "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "false",
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        **(_s3(settings) if settings.store == "minio" else {}),
    }


def _statsd(settings: Settings, app_name: str) -> dict[str, str]:
    """The driver's memory, garbage collection and queues to the StatsD exporter, named after the job."""
    sink = "spark.metrics.conf.driver.sink.statsd"
    return {
        "spark.metrics.namespace": app_name,
        "spark.metrics.conf.driver.source.jvm.class": "org.apache.spark.metrics.source.JvmSource",
        f"{sink}.class": "org.apache.spark.metrics.sink.StatsdSink",
        f"{sink}.host": settings.statsd_host,
        f"{sink}.port": str(settings.statsd_port),
        f"{sink}.prefix": "spark",
        f"{sink}.regex": DRIVER_GAUGES,
    }


def _s3(settings: Settings) -> dict[str, str]:
    return {
        "spark.hadoop.fs.s3a.endpoint": settings.s3_endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": settings.s3_region,
        "spark.hadoop.fs.s3a.access.key": settings.s3_access_key,
        "spark.hadoop.fs.s3a.secret.key": settings.s3_secret_key.get_secret_value(),
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": str(settings.s3_endpoint.startswith("https")).lower(),
        # A rename is a copy on S3, so a checkpoint file is written whole or aborted.
        "spark.sql.streaming.checkpointFileManagerClass": _S3_CHECKPOINTS,
    }


LONG_S = 600.0
"""How long a job waits for the lock of one that ends by itself: then it finds what that one has left."""
_POLL_S = 0.5
_END_WITHIN_MS = 10_000
_TOPIC_TIMEOUT_S = 30
_LOCK_REMEDY = {
    "stream": "there is one streaming job per pipeline: stop the running one first, or leave it to its work",
    "batch": "wait for it to end; what it leaves is taken by the next run",
    "union": "wait for it to end; what it leaves is taken by the next run",
}


@dataclass(frozen=True)
class Job:
    """A Spark program at work on the lake of one pipeline."""

    spark: SparkSession
    lake: Lake

    @property
    def settings(self) -> Settings:
        """Those of this process."""
        return self.lake.settings

    @property
    def pipeline(self) -> Pipeline:
        """As it is declared."""
        return self.lake.pipeline

    def qualified(self, table: str) -> str:
        """A table of the pipeline, as Spark's SQL names it."""
        return tables.qualified(self.pipeline, table)

    @contextmanager
    def lock(self, role: str, wait_s: float = 0.0) -> Iterator[JobLock]:
        """Take the pipeline's lock for a role, waiting up to `wait_s` for it, or raise Busy; release it at the end."""
        java = jvm().java
        properties = java.util.Properties()
        properties.putAll(database.lock_session(self.settings))
        connection = java.sql.DriverManager.getConnection(self.settings.jdbc_url, properties)
        try:
            lock = JobLock(connection, self.settings, self.pipeline.name, role)
            lock.take(wait_s)
            lock.end_last_holder(self.spark.conf.get(f"spark.sql.catalog.{CATALOG}.jdbc.ApplicationName", ""))
            beating = repeated(lock.beat, database.HEARTBEAT_S, f"lock {self.pipeline.name}/{role}")
            with beating, self.lake.catalog().guarded(lock.check):
                yield lock
            # Not after a failure: the commit that failed here may still be under way there.
            lock.forget_holder()
        finally:
            # A JVM that has ended holds nothing; what ended it is the error to report.
            with suppress(*JVM_GONE):
                connection.close()


def declared(pipeline: str) -> Lake:
    """The lake of a pipeline, by the settings of this process and the declaration of now."""
    settings = Settings()
    return Lake(settings, load_pipeline(settings, pipeline))


def as_of(table: Table, snapshot: int, columns: Iterable[NestedField]) -> str:
    """A table at a snapshot, which is read with the columns of its own day, as `columns` of today: those that were
    declared since are null in it."""
    found = table.snapshot_by_id(snapshot)
    schema = table.schemas()[found.schema_id] if found and found.schema_id is not None else table.schema()
    before = {field.name: field.field_type for field in schema.fields}
    listed = [
        f"`{column.name}`" if before.get(column.name) == column.field_type else _typed(column, column.name in before)
        for column in columns
    ]
    return f"(SELECT {', '.join(listed)} FROM {tables.qualified(*table.name())} VERSION AS OF {snapshot})"


def _typed(column: NestedField, is_there: bool) -> str:
    kind = str(column.field_type).replace("timestamptz", "timestamp").replace("long", "bigint")
    return f"CAST({f'`{column.name}`' if is_there else 'NULL'} AS {kind}) AS `{column.name}`"


@contextmanager
def repeated(beat: Callable[[], bool], pause_s: float, name: str) -> Iterator[None]:
    """Within the block call `beat` again and again, in a thread of its own, until it gives False."""
    ended = threading.Event()

    def run() -> None:
        while beat() and not ended.wait(pause_s):
            pass

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def started_job(lake: Lake, program: str, short_lived: bool = False) -> Iterator[Job]:
    """A session for one program, stopped at the end."""
    spark = build(lake.settings, f"twofold-{lake.name}-{program}", short_lived)
    try:
        yield Job(spark, lake)
    finally:
        spark.stop()


@dataclass(frozen=True)
class JobLock:
    """A lock in force, as long as its connection lives."""

    connection: JavaObject
    settings: Settings
    pipeline: str
    role: str
    lost: threading.Event = field(default_factory=threading.Event)

    @property
    def key(self) -> int:
        """Which lock of PostgreSQL it is."""
        return database.lock_key(self.pipeline, self.role)

    def check(self) -> None:
        """Raise Busy where the connection, and with it the lock, was lost: another job may have taken over."""
        self._ask()
        self.check_noticed()

    def check_noticed(self) -> None:
        """The same, as far as it was noticed already: nobody is asked."""
        if self.lost.is_set():
            raise Busy(
                f"the lock {self.pipeline}/{self.role} was lost: its PostgreSQL connection is gone",
                "nothing more is written; start the job again once PostgreSQL answers",
            )

    def _ask(self) -> None:
        try:
            alive = self.connection.isValid(database.ANSWER_WITHIN_S)
        except Py4JJavaError:
            alive = False
        if not alive:
            self.lost.set()

    def beat(self) -> bool:
        """Send a heartbeat; False, and reported, where the lock is lost."""
        # A JVM that is gone is the job's own affair, which notices it by itself.
        with suppress(*JVM_GONE):
            self._ask()
            if not self.lost.is_set():
                return True
            click.echo(f"the lock {self.pipeline}/{self.role} was lost: no commit follows", err=True)
        return False

    def take(self, wait_s: float) -> None:
        """Try until it is free; Busy after `wait_s`."""
        deadline = time.monotonic() + wait_s
        while not self._is_free():
            if time.monotonic() >= deadline:
                raise Busy(f"another {self.role} job of pipeline {self.pipeline!r} is running", _LOCK_REMEDY[self.role])
            time.sleep(_POLL_S)

    def _is_free(self) -> bool:
        rows = self.connection.createStatement().executeQuery(
            f"SELECT pg_try_advisory_lock({database.LOCK_NAMESPACE}, {self.key})"
        )
        rows.next()
        return bool(rows.getBoolean(1))

    def end_last_holder(self, application: str | None) -> None:
        """End the connections of the lock's last holder, and note `application` as the holder."""
        with database.session(self.settings) as connection:
            database.exclusive(connection, "holders")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS twofold_holders (lock int PRIMARY KEY, application text NOT NULL)"
            )
            last = """FROM pg_stat_activity JOIN twofold_holders ON application_name = application
                      WHERE lock = %s AND application <> %s"""
            connection.execute(f"SELECT pg_terminate_backend(pid, {_END_WITHIN_MS}) {last}", (self.key, application))
            # Of one that had ended by itself PostgreSQL says it was not: what is left decides, as it is by now.
            connection.execute("SELECT pg_stat_clear_snapshot()")
            if connection.execute(f"SELECT 1 {last}", (self.key, application)).fetchone():
                raise Busy(
                    f"a commit of the last {self.role} job of {self.pipeline!r} does not end in PostgreSQL",
                    _LOCK_REMEDY[self.role],
                )
            connection.execute(
                "INSERT INTO twofold_holders VALUES (%s, %s) ON CONFLICT (lock) DO UPDATE SET application = %s",
                (self.key, application, application),
            )

    def forget_holder(self) -> None:
        """Nothing of this holder is in flight any more."""
        with suppress(NotRunning), database.session(self.settings) as connection:
            connection.execute("DELETE FROM twofold_holders WHERE lock = %s", (self.key,))


@contextmanager
def topic_fence(settings: Settings, topic: str, topic_id: str) -> Iterator[Callable[[], str]]:
    """May this job still write? Asked before every commit to stream_log, by the JVM's own Kafka client.

    The function returns the topic's id. It raises BoundaryError where the topic is not the one that the job started on.
    """
    java = jvm().java
    properties = java.util.Properties()
    properties.putAll(kafka.java(settings))
    # Spark's own class loader knows the Kafka client; the gateway thread's may not.
    admin = jvm().org.apache.kafka.clients.admin.Admin.create(properties)

    def fence() -> str:
        names, seconds = java.util.Collections.singletonList(topic), java.util.concurrent.TimeUnit.SECONDS
        described = admin.describeTopics(names).allTopicNames().get(_TOPIC_TIMEOUT_S, seconds)
        found = str(described.get(topic).topicId().toString())
        if found != topic_id:
            raise BoundaryError(
                f"Kafka topic {topic!r} was deleted and created again while the job ran: "
                f"its id was {topic_id} and is now {found}, and its offsets start again at 0",
                "declare the new stream under a new pipeline name (the old tables stay readable)",
            )
        return found

    try:
        yield fence
    finally:
        with suppress(*JVM_GONE):
            admin.close(java.time.Duration.ZERO)
