"""Tables, checkpoints and files of an earlier release: they open, go on and prove, without a rebuild."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from pyiceberg.table import Table
from pyspark.sql import SparkSession

from spark_jobs.maintenance_job import Maintenance
from tests import at_work, old_lake, small_world
from tests.at_work import Work
from tests.small_world import event
from twofold import catalog as catalogs
from twofold.definition.model import Pipeline
from twofold.reader import Reader
from twofold.reader.rejects import Rejects
from twofold.retention import upkeep
from twofold.settings import Settings

NEW_REJECTED = b'{"id": "late", "at": "yesterday", "kind": "a"}'


def table(work: Work, name: str) -> Table:
    return catalogs.load(work.settings).load_table((work.pipeline.name, name))


def kinds(work: Work) -> dict[tuple[str, str], int]:
    """Rejected records by layer and kind."""
    with Reader(work.settings, {work.pipeline.name: work.pipeline}) as reader:
        return {(found.layer, found.kind): found.count for found in Rejects(reader, work.pipeline).kinds(1)}


def begun(work: Work) -> dict[str, bytes]:
    """What each checkpoint says of its first batch: another, once it is made again."""
    folder = work.settings.home / "bucket" / "checkpoints" / work.pipeline.name
    return {query: (folder / query / "offsets" / "0").read_bytes() for query in ("log", "by_kind")}


def test_what_an_earlier_release_left_goes_on_and_proves(
    stack: Settings, spark: SparkSession, define: Callable[..., Pipeline]
) -> None:
    work = Work(spark, stack, define())
    old_lake.fill(work)
    left = begun(work)
    assert work.unified() == work.expected()
    assert kinds(work) == {("stream", "unknown"): 1, ("batch", "unknown"): 1}

    work.send(event("s7", 55, "a", 8), event("s5", 40, "a", 5), event("s8", 70, "b", 9))
    with at_work.producing(stack) as producer:
        producer.send(work.pipeline.topic.name, NEW_REJECTED, partition=1).get(timeout=60)
    work.drain()
    work.land("new.jsonl", event("s3", 27, "b", 30), event("b1", 21, "c", 2))
    assert work.unified() == work.expected()
    assert kinds(work) == {("stream", "unknown"): 1, ("batch", "unknown"): 1, ("stream", "wrong_type"): 1}
    # The landing's goes on; the state of a view is laid out otherwise today, so it is filled again, once.
    anew = begun(work)
    assert [query for query in left if anew[query] != left[query]] == ["by_kind"]
    work.send(event("s9", 75, "b", 1))
    work.drain()
    assert begun(work) == anew
    streamed = small_world.winners(work.rows, ())
    shown = small_world.fold(streamed, small_world.HOUR, small_world.HOUR).to_pylist()
    found = work.query("SELECT window_start, kind, events, total FROM stream_by_kind ORDER BY ALL")
    assert found == sorted((row["window_start"], row["kind"], row["events"], row["total"]) for row in shown)

    # What the release took otherwise than the rules of today is not held against it.
    assert table(work, "stream_log").properties["twofold.rules-since"] == "3"
    assert table(work, "landed_files").properties["twofold.rules-since"] == "2"
    assert ("1.1", "stream") in work.query("SELECT id, layer FROM unified_events")

    work.union()
    assert work.unified() == work.expected()
    (provenance,) = (check for check in work.holds().checks if check.id == "I4")
    assert provenance.state == "not proved" and provenance.numbers["stream_log_differences_before"] > 0
    done = Maintenance(work.job, upkeep(), datetime.now(UTC)).run()
    assert [found["orphans"] for found in done["tables"].values()] == [0] * len(old_lake.COLUMNS)
    assert work.unified() == work.expected()
    work.holds()
    new = {"stream_log": ["reason_kind"], "batch_log": ["reason_kind"], "stream_by_kind": ["_tw_version"]}
    for name, columns in old_lake.COLUMNS.items():
        now = table(work, name)
        assert now.location() == f"{stack.warehouse}/{work.pipeline.name}/{name}"
        assert [column for column in now.schema().column_names if column not in columns] == new.get(name, [])
        assert [field.name.endswith("_day") for field in now.spec().fields] == [True]
