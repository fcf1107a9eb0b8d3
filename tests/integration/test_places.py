"""Pipelines that are called as the folders of the bucket: nobody's files are removed or taken by another pipeline.

In the lake of an earlier release their tables lie over the inboxes, checkpoints and tables of others.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_jobs import maintenance, spark_session
from spark_jobs.checkpoints import Checkpoint
from spark_jobs.maintenance_job import Maintenance
from tests import conftest, running
from tests.at_work import Work
from tests.old_lake import as_before
from tests.small_world import event
from twofold import catalog as catalogs
from twofold import inbox, schemas, tables
from twofold.definition.model import Pipeline
from twofold.errors import UsageError
from twofold.retention import upkeep
from twofold.settings import Settings

Define = Callable[..., Pipeline]
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


def test_in_an_old_lake_no_pipeline_touches_the_files_of_another(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    """Incident: maintenance of `landing` removed files of the inbox of `events`, whose batch job took its table's."""
    bucket, old = stack.home / "bucket", as_before(stack)
    others = [Work(spark, stack, define(name=name)) for name in AS_FOLDERS]
    for work in others:
        made = schemas.ensure_tables(old, work.pipeline)
        assert made[tables.EVENTS].location() == f"{stack.warehouse}/{work.pipeline.name}/events"
        at_work(work).union()
    view = {"window": "1 hour", "by": ["kind"], "measures": {"events": "count(*)"}}
    work = at_work(Work(spark, stack, define(name="events", views={"by_kind": None, "data": view})))
    work.union()
    (bucket / "landing" / "events" / "data" / "sub").mkdir()
    work.land("data/sub/mine.json", event("mine", 30, "a", 5))
    assert taken(work) == {"old.jsonl", "data/sub/mine.json"}

    # A file of this name could not be told from the table's, so it is refused; elsewhere it is like any other.
    name = f"data/00000-0-{uuid.uuid4()}.parquet"
    folder, elsewhere = inbox.folder(stack, "events"), inbox.folder(stack, "landing")
    source = bucket / "landing" / "events" / "old.jsonl"
    with pytest.raises(UsageError, match=r"the table landing\.events"):
        folder.put(source, name, lambda copied: None)
    elsewhere.put(source, name, lambda copied: None)
    assert name in {file.name for file in elsewhere.files()}
    (bucket / "landing" / "landing" / name).unlink()

    before = grown_old(bucket)
    assert [removed(one) for one in (*others, work)] == [0, 0, 0, 0]
    assert {path for path in before if not path.exists()} == set()
    done = Maintenance(others[0].job, upkeep(), datetime.now(UTC)).run()
    assert [table["orphans"] for table in done["tables"].values()] == [0] * len(done["tables"])
    assert source.exists()

    # What is really left by a commit of the old table goes.
    left = bucket / "landing" / "events" / "data" / f"00000-9-{uuid.uuid4()}-0-00001.parquet"
    left.touch()
    before = grown_old(bucket)
    assert removed(others[0]) == 1
    assert {path for path in before if not path.exists()} == {left}

    # A query's checkpoint in the data folder of the table `checkpoints.events`: only the checkpoint goes.
    checkpoint = bucket / "checkpoints" / "events" / "data"
    data = set(checkpoint.rglob("*.parquet"))
    assert (checkpoint / "offsets").exists()
    assert data
    Checkpoint(spark, stack.checkpoint("events", "data")).discard()
    assert {path for path in checkpoint.rglob("*") if path.is_file() and path.suffix != ".crc"} == data
    work.send(event("later", 40, "a", 6))
    work.drain()
    work.union()
    exact(*others, work)


def test_in_a_new_lake_they_are_names_like_any_other(tmp_path: Path, spark: SparkSession) -> None:
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
