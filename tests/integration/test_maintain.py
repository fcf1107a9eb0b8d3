"""Maintenance changes no answer: whatever is compacted, expired, removed or deleted, and whoever works meanwhile."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from spark_jobs import maintenance, rebuild_job, stream_log, stream_views, streaming_job
from spark_jobs.maintenance import Retained
from spark_jobs.maintenance_job import Maintenance
from tests import at_work, lake
from tests.at_work import Work
from tests.small_world import START, event
from twofold import commits, retention, table_state, tables, versions
from twofold.definition.model import Pipeline
from twofold.retention import upkeep
from twofold.settings import Settings
from twofold.table_state import History, Landed

Define = Callable[..., Pipeline]

SLOWLY = {"max_offsets_per_trigger": 12}
"""So few records a batch, so that there are many commits."""
SHARPLY = upkeep(snapshot_retention="0", keep_snapshots=1)
BY_HALF_HOUR = {"window": "30 minutes", "by": ["kind"], "measures": {"events": "count(*)"}}


def maintain(work: Work, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """As sharply as can be: all that no guard keeps goes."""
    asked = upkeep(**{"snapshot_retention": "0", "keep_snapshots": 1, "min_input_files": 2, **options})
    return Maintenance(work.job, asked, datetime.now(UTC)).run()


def checkpoint(work: Work, query: str) -> Path:
    return work.settings.home / "bucket" / "checkpoints" / work.pipeline.name / query


def lose_newest_commit(work: Work, query: str) -> None:
    """As after a crash between the table's commit and the checkpoint's."""
    commits = checkpoint(work, query) / "commits"
    newest = max(int(path.name) for path in commits.iterdir() if path.name.isdigit())
    (commits / str(newest)).unlink()
    (commits / f".{newest}.crc").unlink()


def exact(work: Work) -> None:
    assert work.unified() == work.expected()
    work.holds()


def test_a_pipeline_through_maintenance(stack: Settings, spark: SparkSession, define: Define) -> None:
    work = Work(spark, stack, define(stream=SLOWLY, filter=None))
    work.send(*(event(f"e{i}", 9 * i, "abc"[i % 3], i) for i in range(60)))
    work.send(event("e3", 27, "a", 3), event("e7", 63, "b", 7), partition=1)
    work.drain()
    work.union()

    # A dry run only tells.
    before = work.snapshots()
    told = maintain(work, dry_run=True)
    told = told["tables"]["stream_log"]
    assert told["before"]["count"] == told["before"]["small"] > 3
    assert told["after"] is None
    assert told["expired"]["snapshots"] > 3
    assert work.snapshots() == before

    # The replay hole: the newest entry of commits/ is lost, all that can be is compacted and expired, and both
    # queries replay their last batch.
    lose_newest_commit(work, "log")
    lose_newest_commit(work, "by_kind")
    done = maintain(work)["tables"]["stream_log"]
    assert done["before"] == told["before"]
    assert done["after"]["count"] == done["after"]["small"] == 1
    assert done["expired"]["snapshots"] > 3
    work.drain()
    exact(work)

    # Between two unions every table is rewritten; late and corrected ids lie in files that are others now.
    work.land("one.json", event("e5", 45, "c", 500), event("own", 10, "a", 1))
    work.send(
        event("late", -3000, "a", 1), event("e4", 36, "b", -1), *(event(f"f{i}", 500 + i, "b") for i in range(15))
    )
    work.drain()
    work.union()
    work.land("two.json", event("e6", 54, "c", 600), event("own", 3000, "b", 2))
    maintain(work)
    work.union()
    exact(work)
    orphans_only(work)
    exact(work)


def test_a_view_added_later_finds_all_of_history(stack: Settings, spark: SparkSession, define: Define) -> None:
    """The first snapshots are gone, and a manifest still names files that a rewrite took away."""
    work = Work(spark, stack, define(stream=SLOWLY, filter=None))
    name = work.pipeline.name
    work.send(*(event(f"e{i}", 9 * i, "abc"[i % 3], i) for i in range(60)))
    work.drain()
    table = f"table => '{tables.qualified(name, tables.STREAM_LOG)}'"
    spark.sql(f"CALL twofold.system.rewrite_manifests({table})")
    some = "options => map('min-input-files', '2', 'max-files-to-rewrite', '3')"
    spark.sql(f"CALL twofold.system.rewrite_data_files({table}, {some})")
    work.send(event("last", 1000))
    work.drain()
    maintenance.expire(work.job, tables.STREAM_LOG, SHARPLY, datetime.now(UTC))
    assert not retention.reaches_first(history(work))

    work.pipeline = define(name=name, stream=SLOWLY, filter=None, views={"by_half_hour": BY_HALF_HOUR})
    work.drain()
    assert work.query("SELECT sum(events) FROM stream_by_half_hour") == [(61,)]
    work.union()
    exact(work)

    # And goes on from there like any other.
    work.send(event("e3", 27, "a", 3), event("after", 1001, "c", 1))
    work.drain()
    maintain(work)
    work.union()
    work.drain()
    exact(work)


def orphans_only(work: Work) -> None:
    """Old files that no snapshot refers to go, old ones that one refers to stay, young ones stay in any case."""
    bucket = work.settings.home / "bucket"
    folder = bucket / "tables" / work.pipeline.name / tables.EVENTS / "data"
    old, young, strange = (folder / f"{name}.parquet" for name in (_written_by(1), _written_by(2), "not-ours"))
    inbox = bucket / "landing" / work.pipeline.name
    part, recent = inbox / ".killed.json.0f0f0f0f.part", inbox / ".copying.json.1f1f1f1f.part"
    others = inbox / ".rsync.json.part"
    for path in (old, strange, part, others):
        path.touch()
    for path in (*bucket.glob(f"tables/{work.pipeline.name}/**/*"), *inbox.iterdir()):
        os.utime(path, (time.time() - 4 * 86_400,) * 2)
    for path in (young, recent):
        path.touch()
    done = maintain(work)
    assert done["tables"][tables.EVENTS]["orphans"] == 1
    assert done["inbox_leftovers"] == 1
    assert [path.exists() for path in (old, young, part, recent)] == [False, True, False, True]
    assert strange.exists()
    assert others.exists()


def _written_by(task: int) -> str:
    """A data file's name as Spark's writers give it."""
    return f"00000-{task}-{uuid.uuid4()}-0-00001"


def test_beside_a_running_stream(
    stack: Settings, spark: SparkSession, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sharp as it may be, again and again, while records land and views follow; the job tidies up by itself, too."""
    monkeypatch.setattr(stream_log, "TIDY_EVERY", 3)
    monkeypatch.setattr(commits, "MERGED_AT_ONCE", 3)
    monkeypatch.setattr(retention, "MOST_PER_BATCH", 2)
    monkeypatch.setattr(stream_views, "TIDY_EVERY", 3)
    # Not sharper: what looks at a view's files meanwhile may take some seconds.
    monkeypatch.setattr(versions, "RETENTION", timedelta(seconds=20))
    quick = {"trigger": "200 milliseconds", "views_trigger": "200 milliseconds", "max_offsets_per_trigger": 4}
    work = Work(spark, stack, define(stream=quick))
    topic_id, stop = streaming_job.check(work.lake), threading.Event()
    job = threading.Thread(target=streaming_job.stream, args=(work.job, topic_id, stop, False), name="stream")
    job.start()
    try:
        for burst in range(3):
            work.send(*(event(f"e{burst}-{i}", 300 * burst + i, "abc"[i % 3]) for i in range(60)))
            at_work.eventually(lambda: work.landed() == 60 * (burst + 1))  # noqa: B023
            work.union()
            maintain(work)
            assert job.is_alive()
    finally:
        stop.set()
        job.join(timeout=120)
    assert not job.is_alive()
    # 45 batches were landed; kept is what a view that is a little behind needs, and what came since the last tidying.
    assert table_state.landed(history(work), work.pipeline.name).landing >= 45
    assert len(history(work).snapshots) < 30
    work.drain()
    work.union()
    exact(work)


def history(work: Work) -> History:
    return work.lake.history(tables.STREAM_LOG)


def test_manifests_are_rewritten_though_another_job_was_first(
    stack: Settings, spark: SparkSession, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Iceberg refuses to replace a manifest that is gone; the procedure is tried again."""
    monkeypatch.setattr(maintenance, "_MANY_MANIFESTS", 1)
    work = Work(spark, stack, define(stream=SLOWLY, filter=None))
    name = work.pipeline.name
    load = spark._jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable  # type: ignore[union-attr]
    work.send(*(event(f"e{i}", 9 * i, "abc"[i % 3], i) for i in range(30)))
    work.drain()
    table = load(spark._jsparkSession, tables.qualified(name, tables.STREAM_LOG))
    gone = table.currentSnapshot().allManifests(table.io()).get(0)
    maintenance.rewrite_manifests(work.job, tables.STREAM_LOG)
    work.send(event("last", 1000))
    work.drain()
    call, refused = maintenance._call, list[Any]()

    def second(*arguments: Any) -> Row:  # noqa: ANN401
        """As a run whose list of manifests is from before the other's commit; then as it is."""
        if not refused:
            refused.append(gone.path())
            table.refresh()
            table.rewriteManifests().deleteManifest(gone).commit()
        return call(*arguments)

    monkeypatch.setattr(maintenance, "_call", second)
    maintenance.rewrite_manifests(work.job, tables.STREAM_LOG)
    assert refused
    table.refresh()
    assert table.currentSnapshot().allManifests(table.io()).size() == 1
    exact(work)


def test_retention_stays_behind_every_reader(stack: Settings, spark: SparkSession, define: Define) -> None:
    work = Work(spark, stack, define(filter=None))
    work.send(*(event(f"e{i}", 9 * i, "abc"[i % 3], i) for i in range(20)))
    work.drain()

    # Nothing was united yet: nothing goes, however old.
    assert retain(work).deleted_rows == 0
    work.union()
    retained = retain(work)
    assert (retained.deleted_rows, retained.offsets) == (20, {0: 20})
    assert retain(work).deleted_rows == 0
    exact(work)

    # What is gone from the log stays in `events`, and decides about what comes.
    work.send(event("e2", 18, "c", 5), event("new", 300), event("e1", 9, "b", 1))
    work.drain()
    exact(work)
    work.union()
    exact(work)
    rebuild_job.rebuild(work.job)
    work.drain()
    exact(work)


def test_retention_counts_records_and_not_offsets(stack: Settings, spark: SparkSession, define: Define) -> None:
    """Others are marks of transactions, or were accepted as lost."""
    work = Work(spark, stack, define(views=None))
    log = lake.make(stack, work.pipeline)[tables.STREAM_LOG]
    place = {"outcome": tables.ACCEPTED, "kafka_partition": 0, "kafka_timestamp": START, "landing": 1}
    rows = [{**event(f"e{offset}", offset), **place, "kafka_offset": offset} for offset in (0, 1, 5)]
    lake.append(log, rows, Landed(work.pipeline.name, 1, "t", {0: 6}))
    work.union()
    retained = retain(work)
    assert (retained.deleted_rows, retained.offsets) == (3, {0: 6})


def retain(work: Work) -> Retained:
    """In forty days from now."""
    now = datetime.now(UTC) + timedelta(days=40)
    return maintenance.retain(work.job, timedelta(days=30), now, False)
