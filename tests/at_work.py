"""A pipeline at work: records sent, jobs run in this process or as a user would, killed, and held in a commit.

Work.send ─► Kafka ─► Work.drain ─┐                    rows, batch: what was sent and landed, from which
Work.land ─► landing ─────────────┴─► Work.union       `small_world.winners` recomputes everything
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, LiteralString

import psutil
import psycopg
from kafka import KafkaProducer
from pyspark.sql import SparkSession

from spark_jobs import streaming_job, union_job
from spark_jobs.batch_log import BatchRun
from spark_jobs.spark_session import Job as SparkJob
from tests import small_world
from tests.running import status
from tests.small_world import Row
from twofold import catalog as catalogs
from twofold import database, health, inbox, kafka, schemas, table_state, tables
from twofold.definition.model import Pipeline, Topic
from twofold.lake import Lake
from twofold.proof.findings import Proof
from twofold.proof.prover import prove
from twofold.reader import Reader
from twofold.services.controller import Controller
from twofold.services.record import STREAM
from twofold.settings import Settings

WITHIN_S = 400.0
"""Nobody waits for so long unless something is wrong, be the machine four times slower than this one."""
_LONGEST_PAUSE_S = 1.0


@dataclass
class Work:
    """One pipeline, and all that was ever sent (`rows`) and landed (`batch`). No session: only commands are run."""

    spark: SparkSession | None
    settings: Settings
    pipeline: Pipeline
    rows: list[Row] = field(default_factory=list)
    batch: list[Row] = field(default_factory=list)
    _declared: Topic | None = field(default=None, init=False)

    def send(self, *events: Row, partition: int = 0) -> None:
        """Append events to the topic, acknowledged."""
        sent = self.send_values(*map(small_world.as_json, events), partition=partition)
        for event, place in zip(events, sent, strict=True):
            outcome = tables.FILTERED if event["hidden"] else tables.ACCEPTED
            self.rows.append(small_world.landed_row(event, outcome, place, 0))

    def send_values(
        self,
        *values: bytes | None,
        partition: int | None = 0,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> list[Any]:
        """Append any records to the topic, acknowledged; gives Kafka's word on each. They are not remembered."""
        name, listed = self._topic(), list((headers or {}).items())
        with producing(self.settings) as producer:
            sent = [producer.send(name, value, key=key, headers=listed, partition=partition) for value in values]
            return [future.get(timeout=60) for future in sent]

    def _topic(self) -> str:
        """The topic, there as declared; asked once per declaration."""
        if self._declared != self.pipeline.topic:
            kafka.ensure(self.settings, self.pipeline)
            self._declared = self.pipeline.topic
        return self.pipeline.topic.name

    @property
    def lake(self) -> Lake:
        """The pipeline's tables."""
        return Lake(self.settings, self.pipeline)

    @property
    def job(self) -> SparkJob:
        """The session at work on them."""
        assert self.spark
        return SparkJob(self.spark, self.lake)

    def land(self, name: str, *events: Row) -> None:
        """Put a file of JSON lines, take it, and remember its rows under the landing's number."""
        self.put(name, b"".join(small_world.as_json(event) + b"\n" for event in events))
        (landed,) = self.take().landings
        for number, event in enumerate(events, 1):
            outcome = tables.FILTERED if event["hidden"] else tables.ACCEPTED
            self.batch.append({**event, "outcome": outcome, "landing": landed.number, "file": name, "row": number})

    def put(self, name: str, content: bytes) -> None:
        """Put a file into the inbox."""
        folder = inbox.folder(self.settings, self.pipeline.name)
        assert isinstance(folder, inbox.LocalFolder)
        folder.path.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_bytes(content)

    def take(self) -> BatchRun:
        """What `twofold batch` does, in this session."""
        schemas.ensure_tables(catalogs.load(self.settings), self.pipeline)
        with self.job.lock("batch"):
            batch = BatchRun(self.job)
            batch.run()
        return batch

    def drain(self) -> None:
        """What `twofold stream --until-caught-up` does, in this session."""
        self.stream(threading.Event(), until_caught_up=True)

    def stream(self, stop: threading.Event, *, until_caught_up: bool) -> None:
        """What `twofold stream` does, in this session; however it ends, no query runs any more."""
        assert self.spark
        topic_id = streaming_job.check(self.lake)
        try:
            streaming_job.stream(self.job, topic_id, stop, until_caught_up)
        finally:
            assert not self.spark.streams.active

    def landed(self) -> int:
        """Kafka records in stream_log, by the account of its newest commit."""
        history = self.lake.history(tables.STREAM_LOG)
        return sum(table_state.landed(history, self.pipeline.name).offsets.values())

    def union(self) -> dict[str, Any]:
        """What `twofold union` does, in this session."""
        assert self.spark
        schemas.ensure_tables(catalogs.load(self.settings), self.pipeline)
        with self.job.lock("union"):
            return union_job.union(self.job)

    def winners(self) -> list[Row]:
        """The plain recomputation of all that was sent and landed: the row that wins per id, withdrawn ones too."""
        return small_world.winners(self.rows, self.batch)

    def expected(self) -> list[tuple[Any, ...]]:
        """What `unified` must give."""
        shown = (row for row in self.winners() if not row["withdrawn"])
        names = ("kind", "value", "layer", "landing", "file", "row", "kafka_partition", "kafka_offset")
        return sorted(
            (row["id"], round(row["at"].timestamp() * 1e6), *(row.get(name) for name in names)) for row in shown
        )

    def unified(self) -> list[tuple[Any, ...]]:
        """Every row of `unified_events`, with where it came from."""
        return self.query(
            """SELECT id, epoch_us("at"), kind, value, layer, landing, file, "row", kafka_partition, kafka_offset
               FROM unified_events ORDER BY id"""
        )

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query on the tables as they are now."""
        with Reader(self.settings, {self.pipeline.name: self.pipeline}) as reader:
            return reader.query(sql, self.pipeline.name).fetchall()

    def holds(self, *, behind: bool = False, proved: bool = False) -> Proof:
        """`twofold prove --all` finds nothing wrong, nothing missing yet (unless `behind` is fine), all `proved`."""
        proof = prove(Lake(self.settings, self.pipeline), WITHIN_S, lambda line: None, compare_all=True)
        assert proof.ok, proof
        assert proof.proved or not proved, proof
        assert behind or not proof.behind, proof
        return proof

    def snapshots(self) -> dict[str, int | None]:
        """The current snapshot of every table of the pipeline."""
        catalog = catalogs.load(self.settings)
        names = [name[-1] for name in catalog.list_tables(self.pipeline.name)]
        return {name: catalog.load_table((self.pipeline.name, name)).metadata.current_snapshot_id for name in names}


@contextmanager
def producing(settings: Settings) -> Iterator[KafkaProducer]:
    """A plain client that sends any bytes, of any size."""
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, acks="all", max_request_size=32 << 20, linger_ms=5
    )
    try:
        yield producer
    finally:
        producer.close()


# ---- jobs as a user runs them ----


@dataclass
class Job:
    """A running command: the driver, and the JVM it started."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    @property
    def said(self) -> str:
        """All that it printed so far."""
        return Path(self.output.name).read_text()

    def jvm(self) -> psutil.Process:
        """The driver's JVM."""
        return next(child for child in psutil.Process(self.process.pid).children() if child.name() == "java")

    def kill(self) -> None:
        """Driver and JVM at once, with -9."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.ends()

    def pause(self) -> None:
        """Stop driver and JVM where they are, as a machine does that hangs."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused job go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def exit_code(self) -> int | None:
        """None while it runs. Nothing is reaped: until `running` ends, no other process can get this number."""
        found = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return None if found is None else found.si_status

    def ends(self) -> int:
        """Wait for its end; returns the exit code (or the signal's number)."""
        eventually(lambda: self.exit_code() is not None)
        code = self.exit_code()
        assert code is not None
        return code


@contextmanager
def running(settings: Settings, *arguments: str) -> Iterator[Job]:
    """`twofold …` in the background, in a process group of its own; nothing of it stays behind."""
    with tempfile.NamedTemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "twofold.cli", *arguments],
            env={**os.environ, **settings.environment()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        job = Job(process, output)
        try:
            yield job
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def crash(controller: Controller, pipeline: str, service: str) -> int:
    """kill -9 a service's process, not what it started, and wait until that is noticed; returns its number."""
    # Between two lives the number is 0, and to kill that would be to kill the tests.
    eventually(lambda: controller.state(pipeline, service).runs)
    pid = controller.state(pipeline, service).pid
    psutil.Process(pid).kill()
    eventually(lambda: controller.state(pipeline, service).pid != pid)
    return pid


def eventually(
    condition: Callable[[], object], job: Job | None = None, within_s: float = WITHIN_S, every_s: float = 0.1
) -> None:
    """Wait for a condition; fail if it never comes true, or if the job that should bring it about has ended.

    What is dear to ask is asked less often: the machine is for what is waited for.
    """
    began = looked = time.monotonic()
    while not condition():
        assert job is None or job.exit_code() is None, f"ended with {job.exit_code()}: {job.said}"
        now = time.monotonic()
        assert now < began + within_s, f"never came true; {job and job.said}"
        time.sleep(max(every_s, min(4 * (now - looked), _LONGEST_PAUSE_S)))
        looked = time.monotonic()


def all_healthy(settings: Settings) -> None:
    """Each program was healthy as `up` ended, not all at one moment: heartbeats are late while others start."""
    eventually(lambda: status(settings)["healthy"])


def health_port(settings: Settings, pipeline: Pipeline, job: Job) -> int:
    """Where the running streaming job answers; waits until it does."""
    place = health.place_of(settings.home, pipeline.name, STREAM)
    eventually(lambda: (health.announced(place) or {}).get("pid") == job.process.pid, job)
    return int((health.announced(place) or {})["port"])


# ---- a commit, held ----


@dataclass
class Hold:
    """The catalog's row of a table, locked, so that a commit to the table waits."""

    settings: Settings
    pipeline: Pipeline
    table: str
    connection: psycopg.Connection

    @property
    def backend(self) -> int:
        """The PostgreSQL backend that holds the row."""
        return self.connection.info.backend_pid

    def commits(self) -> list[int]:
        """The backends whose commits wait, each for this one or for one that waits already."""
        query = """WITH RECURSIVE waiting(pid) AS (
            SELECT %s::int UNION
            SELECT a.pid FROM pg_stat_activity AS a JOIN waiting AS w ON w.pid = ANY(pg_blocking_pids(a.pid)))
            SELECT pid FROM waiting"""
        return [row[0] for row in _look(self.settings, query, self.backend) if row[0] != self.backend]

    def wait_for_commit(self, job: Job) -> None:
        """Wait until a commit waits."""
        eventually(self.commits, job)

    def lose_commits(self) -> None:
        """What waits never arrives, as when the machine went down with its job."""
        for backend in self.commits():
            _look(self.settings, "SELECT pg_terminate_backend(%s, 10000)", backend)


@contextmanager
def hold(settings: Settings, pipeline: Pipeline, table: str) -> Iterator[Hold]:
    """Hold a table's row; at the end, wait until the commits that waited have arrived, or failed."""
    held = Hold(settings, pipeline, table, database.connect(settings))
    _lock_row(held.connection, pipeline, table)
    try:
        yield held
    finally:
        waited = held.commits()
        held.connection.close()
    query = "SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s) AND wait_event_type = 'Lock'"
    eventually(lambda: not _look(settings, query, waited))


def _lock_row(connection: psycopg.Connection, pipeline: Pipeline, table: str) -> None:
    query = "SELECT 1 FROM iceberg_tables WHERE table_namespace = %s AND table_name = %s FOR UPDATE"
    assert connection.execute(query, (pipeline.name, table)).fetchone()


def _look(settings: Settings, query: LiteralString, value: int | list[int]) -> list[Any]:
    with psycopg.connect(settings.postgres_url()) as connection:
        return connection.execute(query, (value,)).fetchall()
