"""Pipelines that are called as the folders of the bucket: nobody's files are removed or taken by another pipeline."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from pyspark.sql import SparkSession

from spark_jobs import maintenance, spark_session
from spark_jobs.checkpoints import Checkpoint
from tests import conftest, running
from tests.at_work import Work
from tests.small_world import event
from twofold import catalog as catalogs
from twofold import inbox, tables
from twofold.retention import upkeep

DAY_S = 86_400
AS_FOLDERS = ("landing", "checkpoints", "tables")


def grown_old(bucket: Path) -> set[Path]:
    """All files there, written four days ago."""
    files = {path for path in bucket.rglob("*") if path.is_file()}
    for path in files:
        os.utime(path, (time.time() - 4 * DAY_S,) * 2)
    return files


def removed(work: Work) -> int:
    """How many files maintenance removes for nothing referring to them."""
    catalog, name, now = catalogs.load(work.settings), work.pipeline.name, datetime.now(UTC)
    found = [maintenance.remove_orphans(catalog, name, table, upkeep(), now) for table in tables.names(work.pipeline)]
    return sum(found) + maintenance.remove_leftovers(work.lake, upkeep(), now)


def strangers(root: Path) -> list[Path]:
    """Files of tables that maintenance would never know as such, whoever wrote them."""
    files = (path for path in root.glob("*/*/**/*") if path.is_file() and path.suffix != ".crc")
    return [path for path in files if not inbox.is_table_file("/".join(path.relative_to(root).parts[2:]))]


def at_work(work: Work) -> Work:
    """Both layers have rows."""
    name = work.pipeline.name
    work.send(event(f"{name}-s", 0, "a", 1), event("both", 9, "b", 2))
    work.drain()
    work.land("old.jsonl", event(f"{name}-b", 20, "b", 3), event("both", 10, "c", 4))
    return work


def exact(*works: Work) -> None:
    for work in works:
        assert work.unified() == work.expected()
        work.holds()


def taken(work: Work) -> set[str]:
    table = catalogs.load(work.settings).load_table((work.pipeline.name, tables.LANDED_FILES))
    return set(table.scan().to_arrow()["file"].to_pylist())


def test_they_are_names_like_any_other(tmp_path: Path, spark: SparkSession) -> None:
    with running.running_stack(tmp_path, "local") as stack:
        spark.stop()
        spark = spark_session.build(stack, "test-places-again")
        try:
            works = [
                at_work(Work(spark, stack, conftest.write_definition(tmp_path, name=name)))
                for name in (*AS_FOLDERS, tables.EVENTS)
            ]
            bucket = stack.home / "bucket"
            assert {path.name for path in bucket.iterdir()} == set(AS_FOLDERS)
            before = grown_old(bucket)
            assert strangers(bucket / "tables") == []
            assert [removed(work) for work in works] == [0, 0, 0, 0]
            assert {path for path in before if not path.exists()} == set()
            assert [taken(work) for work in works] == [{"old.jsonl"}] * 4
            exact(*works)
            discarded = stack.checkpoint(tables.EVENTS, "by_kind")
            Checkpoint(spark, discarded).discard()
            assert [path.name for path in (bucket / "checkpoints" / "events").iterdir()] == ["log"]
        finally:
            spark.stop()
