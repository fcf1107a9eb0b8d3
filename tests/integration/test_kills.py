"""Killed with -9 before, in and after the commits, with services that go away: nothing is lost, nothing doubled."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import psycopg
import pytest
from py4j.protocol import Py4JJavaError
from pyarrow.fs import copy_files
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from spark_jobs import erase_job, outcome, spark_session, union, union_job
from spark_jobs.erase import Wanted
from spark_jobs.maintenance_job import Maintenance
from spark_jobs.spark_session import Job, JobLock
from tests import at_work, lake, running
from tests.at_work import Work
from tests.small_world import Row, event
from tests.swallowing import SwallowingProxy, swallowing
from twofold import catalog as catalogs
from twofold import commits, database, ledger, probes, tables
from twofold.catalog import LakeCatalog
from twofold.definition.model import Pipeline
from twofold.errors import Busy, NotRunning
from twofold.lake import Lake
from twofold.retention import upkeep
from twofold.settings import Settings
from twofold.stack import supervisor

Define = Callable[..., Pipeline]

AWAY_S = 30.0
ERASED = "erased-4711"
DAY = 24 * 60


def burst(number: int) -> list[Row]:
    """30 events; the first 10 are the last of the burst before."""
    return [event(f"e{i}", i, "abc"[i % 3], i) for i in range(number * 20, number * 20 + 30)]


def checkpoint(work: Work, query: str, part: str) -> list[Path]:
    """The numbered files of one part of a checkpoint, oldest first."""
    folder = Path(urlparse(work.settings.checkpoint(work.pipeline.name, query)).path) / part
    return sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))


# ---- the streaming job ----


def test_the_streaming_job_is_killed_before_in_and_after_its_commits(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    work = Work(spark, stack, define(stream={"trigger": "100 milliseconds"}))
    name = work.pipeline.name
    work.send(*burst(0))

    # The broker: supervisord brings it back, and the job goes on by itself.
    with at_work.running(stack, "stream", name) as job:
        at_work.eventually(lambda: work.landed() == 30, job)
        broker = supervisor.states(stack)["kafka"].pid
        os.kill(broker, signal.SIGKILL)
        at_work.eventually(lambda: supervisor.states(stack)["kafka"].pid not in (0, broker))
        at_work.eventually(lambda: not probes.kafka("127.0.0.1", stack.kafka_port))
        work.send(*burst(1), partition=1)
        work.holds(behind=True)
        assert job.exit_code() is None

        # In the commit, the Python driver: its JVM ends by itself; the commit may still arrive.
        with at_work.hold(stack, work.pipeline, tables.STREAM_LOG) as held:
            work.send(*burst(2))
            held.wait_for_commit(job)
            os.kill(job.process.pid, signal.SIGKILL)
            job.ends()
    work.holds(behind=True)

    # Before the commit, the JVM: the batch has begun, and its commit never arrives.
    with at_work.running(stack, "stream", name) as job:
        at_work.eventually(lambda: work.landed() == 90, job)
        work.holds(behind=True)
        began = len(checkpoint(work, "log", "offsets"))
        with at_work.hold(stack, work.pipeline, tables.STREAM_LOG) as held:
            work.send(*burst(3), partition=1)
            at_work.eventually(lambda: len(checkpoint(work, "log", "offsets")) > began, job)
            job.jvm().kill()
            assert job.ends() == 1
            assert "the JVM of this job is gone" in job.said
            held.lose_commits()
    work.holds(behind=True)

    # In the commit of a view, both at once.
    with at_work.running(stack, "stream", name) as job:
        at_work.eventually(lambda: work.landed() == 120, job)
        work.holds(behind=True)
        with at_work.hold(stack, work.pipeline, "stream_by_kind") as held:
            work.send(*burst(4))
            held.wait_for_commit(job)
            job.kill()
    work.drain()
    work.union()
    exact(work)

    # After the commits, before the checkpoint has them: the same state, whoever killed it.
    for query in ("log", "by_kind"):
        checkpoint(work, query, "commits")[-1].unlink()
    work.send(*burst(5), partition=1)
    work.drain()
    work.union()
    exact(work)


def exact(work: Work) -> None:
    """Nothing is behind, and all is as sent and landed."""
    work.holds()
    assert work.unified() == work.expected()
    assert work.query("SELECT sum(events) FROM batch_by_kind") == [(len(work.expected()),)]


# ---- the union ----


def test_the_union_is_killed_in_the_commit_of_events_and_before_that_of_a_view(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    work = Work(spark, stack, define())
    work.send(*burst(0))
    work.drain()
    work.union()
    for number, killed_in in enumerate((tables.EVENTS, "batch_by_kind"), 1):
        # New events, and a correction that moves one: so that a window must lose a row.
        work.send(*burst(number))
        work.land(f"{number}.json", event("e5", number * DAY, "c", 100 + number), event(f"e{number}", number, "b", 7))
        work.drain()
        before = work.snapshots()
        with (
            at_work.hold(stack, work.pipeline, killed_in) as held,
            at_work.running(stack, "union", work.pipeline.name) as job,
        ):
            held.wait_for_commit(job)
            assert work.unified() == work.expected()
            job.kill()
            held.lose_commits()
        after = work.snapshots()
        changed = {name for name in after if after[name] != before[name]}
        assert changed == ({tables.EVENTS} if killed_in == "batch_by_kind" else set())
        assert work.unified() == work.expected()
        work.holds(behind=True)
        work.union()
        exact(work)


def test_two_unions_at_once(stack: Settings, spark: SparkSession, define: Define) -> None:
    """By command, one waits for the other; without the lock, the commit refuses what was read before another's."""
    work = Work(spark, stack, define())
    work.send(*burst(0))
    work.drain()
    with (
        at_work.running(stack, "union", work.pipeline.name) as first,
        at_work.running(stack, "union", work.pipeline.name) as second,
    ):
        assert (first.ends(), second.ends()) == (0, 0), first.said + second.said
        assert sorted("30 events new" in job.said for job in (first, second)) == [False, True]
    exact(work)


def test_a_union_that_read_before_another_committed_goes_again(
    stack: Settings, spark: SparkSession, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that change nothing in common would both commit: one puts an event where it was, the other where it is."""
    work = Work(spark, stack, define())
    for seen in (event("new", 20), event("hidden", 0, hidden=True)):
        work.send(seen)
        work.drain()
        stale = union.read(work.lake)
        # The other union sees more: a batch row that moves the event to another day.
        work.land("moved.json", {**seen, "at": seen["at"] + timedelta(days=2), "hidden": None})
        union.unite(work.job)
        covered = union.read(work.lake).boundary

        pins = [stale]
        pin = union.read
        monkeypatch.setattr(
            union, "read", lambda *arguments, pins=pins, pin=pin: pins.pop() if pins else pin(*arguments)
        )
        work.union()
        monkeypatch.undo()
        assert not pins
        assert union.read(work.lake).boundary == covered
        exact(work)


# ---- connections of the lock's last holder ----


def test_whoever_takes_a_lock_waits_for_the_connections_of_its_last_holder(
    stack: Settings, spark: SparkSession, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a JVM that was killed, others end by themselves while PostgreSQL ends one; no commit can follow on them."""
    work = Work(spark, stack, define())
    killed = f"killed-{work.pipeline.name}"
    with work.job.lock("batch") as lock, ThreadPoolExecutor() as beside:
        lock.end_last_holder(killed)
        left = [psycopg.connect(stack.postgres_url(), application_name=killed) for _ in range(4)]

        def end_with_the_first() -> None:
            select.select([one.fileno() for one in left], [], [])
            for one in left:
                one.close()

        ended = beside.submit(end_with_the_first)
        lock.end_last_holder("nobody")
        ended.result()

        lock.end_last_holder(killed)
        monkeypatch.setattr(spark_session, "_END_WITHIN_MS", 100)
        with (
            psycopg.connect(stack.postgres_url(), application_name=killed) as stuck,
            running.frozen(stuck.info.backend_pid),
            pytest.raises(Busy, match="does not end in PostgreSQL"),
        ):
            lock.end_last_holder("nobody")


# ---- connections whose packets are swallowed ----


@dataclass(frozen=True)
class CutOff(Job):
    """A job whose packets to PostgreSQL are swallowed once it has its lock; its commits would still arrive."""

    proxy: SwallowingProxy
    meanwhile: Callable[[JobLock], None]

    @contextmanager
    def lock(self, role: str, wait_s: float = 0.0) -> Iterator[JobLock]:
        """Take it for real, and go on without it."""
        with super().lock(role, wait_s) as lock:
            self.proxy.swallow()
            self.meanwhile(lock)
            yield lock


@dataclass(frozen=True)
class ApartLake(Lake):
    """A lake whose catalog does not share the fate of its other connections."""

    own: Settings

    def catalog(self) -> LakeCatalog:
        """The one that answers."""
        return catalogs.load(self.own)


def metadata(work: Work) -> dict[str, str]:
    """Where the metadata of each table lies: any commit moves it."""
    return {name: work.lake.table(name).metadata_location for name in work.snapshots()}


def test_without_an_answer_locks_are_lost_no_commit_follows_and_whoever_waits_ends(
    stack: Settings, spark: SparkSession, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(spark, stack, define())
    for number in range(2):
        work.send(*burst(number))
        work.drain()
        work.union()
    work.send(event("past the boundary", 1))
    work.drain()
    ledger.enter(work.lake, ["nobody"], "me", "so that there is a ledger")
    monkeypatch.setattr(database, "SILENT_AFTER_S", 10)
    with swallowing(stack.postgres_host, stack.postgres_port) as proxy, ThreadPoolExecutor() as beside:
        behind = stack.model_copy(update={"postgres_port": proxy.port})
        in_python, in_jvm = Lake(behind, work.pipeline), spark.newSession()
        for name, value in spark_session.configuration(behind).items():
            if name.startswith("spark.sql.catalog."):
                in_jvm.conf.set(name, value)
        events = tables.qualified(work.pipeline, tables.EVENTS)
        assert in_python.table(tables.EVENTS).current_snapshot()
        assert in_jvm.table(events).count()
        before: dict[str, str] = {}

        def without_lock(lock: JobLock) -> None:
            began = time.monotonic()
            waiting: tuple[Future[Any], ...] = (
                beside.submit(in_python.table, tables.EVENTS),
                beside.submit(in_jvm.table, events),
            )
            before.update(metadata(work))
            at_work.eventually(lock.lost.is_set)
            assert time.monotonic() - began < 30, "as the documentation promises"
            works: tuple[Callable[[], object], ...] = (
                lambda: union_job.union(job),
                lambda: commits.append(job.lake.table(tables.BATCH_LOG), (), {}),
                lambda: erase_job.erase(job, Wanted(work.pipeline, frozenset(["e1"])), "me", ""),
            )
            for one in works:
                with pytest.raises(Busy, match=r"the lock .* was lost"):
                    one()
            with Job(spark, work.lake).lock("union", wait_s=30):
                assert metadata(work) == before
            with pytest.raises(NotRunning, match="does not answer"):
                waiting[0].result()
            with pytest.raises((PySparkException, Py4JJavaError)) as failed:
                waiting[1].result()
            told = outcome.of_jvm(failed.value)
            assert isinstance(told, NotRunning), failed.value
            assert time.monotonic() - began < 120, "and not at the end of TCP's own patience, in a quarter of an hour"

        job = CutOff(spark, ApartLake(behind, work.pipeline, stack), proxy, without_lock)
        with pytest.raises(Busy, match=r"the lock .* was lost"):
            Maintenance(job, upkeep(snapshot_retention="0", keep_snapshots=1), datetime.now(UTC)).run()
    assert metadata(work) == before


# ---- the store ----


def test_the_store_goes_away_for_half_a_minute_and_an_id_for_good(
    minio_stack: Settings, define: Define, tmp_path: Path
) -> None:
    """The streaming job waits for the store and goes on by itself; so it does where an id is erased beside it."""
    by_id = {"window": "1 hour", "by": ["id"], "measures": {"events": "count(*)"}}
    work = Work(None, minio_stack, define(stream={"trigger": "500 milliseconds"}, views={"by_id": by_id}))
    name = work.pipeline.name
    work.send(*burst(0), event(ERASED, 5))
    with at_work.running(minio_stack, "stream", name) as job:
        at_work.eventually(lambda: work.landed() == 31, job)
        store: Any = supervisor.rpc(minio_stack)
        store.stopProcess("minio")
        gone = time.monotonic()
        work.send(*burst(1), partition=1)
        at_work.eventually(lambda: time.monotonic() > gone + AWAY_S, job)
        supervisor.start_programs(minio_stack, ["minio"])
        # The proof of this test waits for a store no longer than anyone's.
        at_work.eventually(lambda: not probes.http_page(f"{minio_stack.s3_endpoint}/minio/health/ready"))
        work.send(*burst(2))
        work.holds()
        assert work.query(f"SELECT count(*) > 0 FROM stream_by_id WHERE id = '{ERASED}'") == [(True,)]

        said = json.loads(running.run(minio_stack, "erase", name, "--id", ERASED, "--yes", "--json").stdout)
        assert (said["streaming"], said["rows"]["stream_log"]) == (True, {"accepted": 1})
        before = len(job.said)
        work.send(event(ERASED, 6), event("last", 7))
        at_work.eventually(lambda: work.landed() == 93, job)
        # What the idle job held of stream_log was expired meanwhile.
        assert "query log failed" not in job.said[before:]
        proof = work.holds()
        (origins,) = (check for check in proof.checks if check.id == "I4")
        assert origins.numbers["records_erased"] == {"stream_log": 2, "batch_log": 0}
        assert work.query(f"SELECT count(*) FROM stream_by_id WHERE id = '{ERASED}'") == [(0,)]
        assert job.exit_code() is None
        os.kill(job.process.pid, signal.SIGTERM)
        assert job.ends() == 0, job.said
    work.rows = [row for row in work.rows if row["id"] != ERASED]
    assert work.unified() == work.expected()
    store_of = PyArrowFileIO(catalogs.file_io(minio_stack)).fs_by_scheme("s3", None)
    for root in ("tables", "checkpoints"):
        folder = f"{minio_stack.bucket}/{root}/{name}"
        copy_files(folder, str(tmp_path / root), source_filesystem=store_of)
    assert len(list((tmp_path / "checkpoints").rglob("offsets/*"))) > 2
    assert lake.holding(tmp_path, ERASED.encode()) == []
