"""The views of the speed layer: what counts, what is late; a batch done twice, or a lost state, changes no answer."""

from __future__ import annotations

import queue
import random
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_jobs import stream_views
from spark_jobs.checkpoints import Checkpoint
from spark_jobs.maintenance_job import Maintenance
from tests import at_work, small_world
from tests.at_work import Work, eventually
from twofold import catalog as catalogs
from twofold import health, table_state, tables
from twofold.definition.model import Pipeline
from twofold.retention import upkeep
from twofold.settings import Settings
from twofold.table_state import Folded

Define = Callable[..., Pipeline]
Capture = pytest.CaptureFixture[str]

MEASURES = {"events": "count(*)", "total": "sum(value)"}
COUNTED = "SELECT sum(events), sum(total) FROM stream_by_kind"


def state_of(work: Work, view: str = "by_kind") -> Folded:
    history = work.lake.history(tables.stream_view_name(view))
    found = table_state.folded(history)
    assert found is not None
    return found


def versions(work: Work, view: str = "by_kind") -> list[int]:
    """Of all rows that lie in the view's files, in force or not."""
    table = catalogs.load(work.settings).load_table((work.pipeline.name, tables.stream_view_name(view)))
    return sorted(table.scan().to_arrow()[tables.VERSION].to_pylist())


def _is_past(moment: datetime) -> bool:
    return datetime.now(UTC) > moment


def said(capsys: Capture) -> str:
    """The last line of the drain."""
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_what_comes_late_into_an_open_window_counts_and_what_is_dropped_is_told(
    stack: Settings, spark: SparkSession, define: Define, capsys: Capture
) -> None:
    """A window is open until its end and the lateness are past, whatever the age of a record in it."""
    work = Work(spark, stack, define())
    for minute in (50, 55, 20):
        work.send(small_world.event(f"m{minute}", minute, "a", 1))
        work.drain()
        assert "; 0 rows late" in said(capsys)
    assert work.query(COUNTED) == [(3, 3)]
    # The next two windows pass; the first one is closed, and one more for it is late, to the row.
    for minute in (150, 151):
        work.send(small_world.event(f"m{minute}", minute, "a", 1))
        work.drain()
        assert "; 0 rows late" in said(capsys)
    work.send(small_world.event("late", 30, "a", 1), small_world.event("m152", 152, "a", 1))
    work.drain()
    assert "; 1 rows late" in said(capsys)
    assert work.query(COUNTED) == [(6, 6)]
    work.holds(behind=True)
    work.union()
    work.holds()
    assert work.query("SELECT sum(events) FROM batch_by_kind") == [(7,)]


def test_a_record_ahead_of_its_arrival_does_not_close_the_windows_in_progress(
    stack: Settings, spark: SparkSession, define: Define, capsys: Capture
) -> None:
    work = Work(spark, stack, define())
    now = datetime.now(UTC).replace(microsecond=0)
    work.send({**small_world.event("ahead", 0, "a", 1), "at": now + timedelta(hours=23)})
    work.drain()
    for name in ("now1", "now2", "now3"):
        work.send({**small_world.event(name, 0, "a", 1), "at": now - timedelta(minutes=1)})
        work.drain()
        assert "; 0 rows late" in said(capsys)
    assert work.query(COUNTED) == [(4, 4)]
    work.holds(behind=True)


def test_a_record_ahead_of_its_arrival_that_comes_again_counts_once(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    """Its id was forgotten once the arrivals were further than twice the delay, long before its window was closed."""
    view = {"window": "1 second", "by": ["kind"], "measures": MEASURES}
    work = Work(spark, stack, define(lateness="1 ms", views={"by_kind": view}))
    now = datetime.now(UTC).replace(microsecond=0)
    ahead = {**small_world.event("ahead", 0, "a", 1), "at": now + timedelta(hours=1)}
    work.send(ahead)
    work.drain()
    for number in range(3):
        eventually(partial(_is_past, datetime.now(UTC) + timedelta(seconds=3)))
        work.send({**small_world.event(f"now{number}", 0, "b", 1), "at": datetime.now(UTC)})
        work.drain()
    work.send(ahead)
    work.drain()
    assert work.query("SELECT events FROM stream_by_kind WHERE kind = 'a'") == [(1,)]
    work.holds(behind=True)


def test_a_view_grouped_by_the_event_time_streams(stack: Settings, spark: SparkSession, define: Define) -> None:
    """Spark refuses a second column that carries the watermark."""
    work = Work(
        spark, stack, define(views={"by_kind": {"window": "1 hour", "by": ["at", "kind"], "measures": MEASURES}})
    )
    work.send(*(small_world.event(f"m{number}", number // 2, "a", 1) for number in range(4)))
    work.drain()
    work.send(small_world.event("again", 0, "a", 5))
    work.drain()
    found = 'SELECT minute("at"), kind, events, total FROM {} ORDER BY 1'
    assert work.query(found.format("stream_by_kind")) == [(0, "a", 3, 7), (1, "a", 2, 2)]
    work.holds(behind=True)
    work.union()
    assert work.query(found.format("batch_by_kind")) == [(0, "a", 3, 7), (1, "a", 2, 2)]
    work.holds()


def test_a_group_and_an_id_that_become_wider_stream_on(stack: Settings, spark: SparkSession, define: Define) -> None:
    """Spark takes no state whose keys have another type: the job ended at every start, and ingested nothing more."""
    views = {
        "by_kind": {"window": "1 hour", "by": ["value"], "measures": {"events": "count(*)"}},
        "all": {"window": "1 hour", "measures": {"events": "count(*)"}},
    }

    def declared(kind: str, **more: Any) -> Pipeline:  # noqa: ANN401
        fields = {"id": {"type": kind, "max_length": None}, "value": {"type": kind, "min": None, "max": None}}
        return define(event={"fields": fields}, views=views, **more)

    work = Work(spark, stack, declared("int"))
    name = work.pipeline.name
    for number, kind in ((1, "int"), (2, "long"), (3_000_000_000, "long")):
        work.pipeline = declared(kind, name=name, topic={"name": name})
        again = [{**small_world.event(str(number), number % 50, "a", value), "id": number} for value in (number, 1)]
        work.send_values(*map(small_world.as_json, again))
        work.drain()
    asked = "SELECT value, events FROM stream_by_kind ORDER BY 1"
    assert work.query(asked) == [(1, 1), (2, 1), (3_000_000_000, 1)]
    assert work.query("SELECT events FROM stream_all") == [(3,)]


def test_a_late_record_right_after_a_fill_replaces_no_closed_window(
    stack: Settings, spark: SparkSession, define: Define, capsys: Capture
) -> None:
    work = Work(spark, stack, define())
    work.send(*(small_world.event(f"old{i}", i, "a", 1) for i in range(5)), small_world.event("new", 600, "a", 1))
    work.drain()
    work.send(small_world.event("newer", 601, "a", 1))
    Checkpoint.of(work.job, "by_kind").discard()
    work.drain()
    capsys.readouterr()
    work.send(small_world.event("late", 10, "a", 1))
    work.drain()
    assert "; 1 rows late" in said(capsys)
    assert work.query(COUNTED) == [(7, 7)]
    work.holds(behind=True)


def test_versions_grow_and_a_batch_done_twice_appends_nothing(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    work = Work(spark, stack, define())
    name = work.pipeline.name
    seen: list[int] = []
    for number in range(3):
        work.send(small_world.event(f"e{number}", number, "a", 1))
        work.drain()
        seen.append(state_of(work).version or 0)
    assert seen == sorted(set(seen))
    assert versions(work) == seen

    # The commit of the last batch in the checkpoint is lost: Spark does the batch again.
    folder = Path(stack.checkpoint(name, "by_kind").removeprefix("file://"))
    newest = max(int(path.name) for path in (folder / "commits").iterdir() if path.name.isdigit())
    for path in (folder / "commits" / str(newest), folder / "commits" / f".{newest}.crc"):
        path.unlink()
    work.drain()
    assert versions(work) == seen
    assert work.query(COUNTED) == [(3, 3)]

    # A checkpoint older than its table appends nothing before it is where the table is.
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    for number in (3, 4):
        work.send(small_world.event(f"e{number}", number, "a", 1))
        work.drain()
        seen.append(state_of(work).version or 0)
    shutil.rmtree(folder)
    kept.rename(folder)
    work.send(small_world.event("e5", 5, "a", 1))
    work.drain()
    assert work.query(COUNTED) == [(6, 6)]
    assert max(versions(work)) > max(seen)

    # The checkpoint lost, and filled again: the versions go on.
    before = state_of(work).version or 0
    Checkpoint.of(work.job, "by_kind").discard()
    work.send(small_world.event("e6", 6, "a", 1))
    work.drain()
    assert (state_of(work).version or 0) > before
    assert len(set(versions(work))) == 1
    work.send(small_world.event("e7", 7, "a", 1))
    work.drain()
    assert work.query(COUNTED) == [(8, 8)]
    # Only duplicates: no window changes, and still the view has read them.
    work.send(small_world.event("e7", 7, "a", 1))
    work.drain()
    assert "has not read" not in str(work.holds(behind=True))
    assert not list(spark.streams._jsqm.listListeners()), "of all these jobs none is told of what comes after it"


def test_versions_are_folded_by_the_job_and_by_maintenance(
    stack: Settings, spark: SparkSession, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_views, "TIDY_EVERY", 4)
    monkeypatch.setattr("twofold.versions.StreamView.fold.__defaults__", (3,))
    work = Work(spark, stack, define())
    for number in range(7):
        work.send(small_world.event(f"e{number}", number, "abc"[number % 3], number))
        work.drain()
    before = work.query("FROM stream_by_kind ORDER BY ALL")
    asked = upkeep(snapshot_retention="0", keep_snapshots=1, min_input_files=2)
    told = Maintenance(work.job, asked, datetime.now(UTC)).run()["tables"]["stream_by_kind"]
    assert told["after"]["count"] == 1
    assert told["rewritten"]["into"] == 1
    assert work.query("FROM stream_by_kind ORDER BY ALL") == before
    assert len(versions(work)) == len(before) == 3
    work.send(small_world.event("e3", 3, "a", 3), small_world.event("e9", 9, "a", 9))
    work.drain()
    work.holds(behind=True)


def test_expressions_are_computed_before_and_after_the_sums(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    measures = {
        "events": "count(*)",
        "valued": "count(value)",
        "large": "count_if(value > 3 and kind <> 'b')",
        "ratio": "sum(value * 2) / count(*)",
        "mean": "avg(value + 1)",
        "span": "max(value) - min(value)",
        "texts": "concat(max(upper(kind)), '!')",
        "first": "min(at)",
        "some": "sum(value) FILTER (WHERE kind = 'a')",
        "long": f"max(value{' + value' * 75})",
    }
    views = {
        "by_kind": None,
        "computed": {"window": "1 hour", "every": "30 minutes", "by": ["kind"], "measures": measures},
        "plain": {"window": "1 day", "measures": {"events": "count(*)", "total": "sum(value)", "mean": "avg(value)"}},
    }
    work = Work(spark, stack, define(views=views))
    events = [small_world.event(f"e{i}", 7 * i, "abc"[i % 3], i) for i in range(40)]
    events[4]["value"] = None
    work.send(*events[:20])
    work.drain()
    work.send(*events[20:], events[3])
    work.drain()
    work.union()
    work.holds()
    for view in ("computed", "plain"):
        stream, batch = (work.query(f"FROM {layer}_{view} ORDER BY ALL") for layer in ("stream", "batch"))
        assert stream == batch


def test_a_checkpoint_that_is_discarded_while_it_is_read_has_begun_nothing(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "_names", lambda *_: ["4"])
    gone = Checkpoint(spark, str(tmp_path / "gone"))
    assert (gone.state_provider(), gone.resumed_from(), gone.offsets(4), gone.done("t")) == (None, None, None, {})


def test_a_checkpoint_that_begins_while_it_is_read_has_begun_or_not(spark: SparkSession, tmp_path: Path) -> None:
    """What made its folder between a look at it and the next is no fault of who looks."""
    folders: queue.SimpleQueue[Path | None] = queue.SimpleQueue()

    def begin() -> None:
        while folder := folders.get():
            time.sleep(random.uniform(0, 0.005))  # any moment of a look
            (folder / "offsets" / "0").mkdir(parents=True)

    with ThreadPoolExecutor() as pool, ExitStack() as at_end:
        at_end.callback(folders.put, None)
        begun = pool.submit(begin)
        for number in range(300):
            checkpoint = Checkpoint(spark, str(tmp_path / str(number)))
            folders.put(Path(checkpoint.path))
            while not checkpoint.has_begun():
                assert not begun.done()


def test_state_moves_between_memory_and_disk_only_by_a_fill(
    stack: Settings, spark: SparkSession, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(spark, stack, define())
    name = work.pipeline.name
    checkpoint = stack.checkpoint(name, "by_kind")

    def after(ids: int, **stream: Any) -> str | None:  # noqa: ANN401
        work.pipeline = define(name=name, topic={"name": name}, stream=stream)
        start = len(work.rows)
        work.send(*(small_world.event(f"e{start + i}", start + i, "a", 1) for i in range(ids)))
        work.drain()
        assert work.query(COUNTED) == [(len(work.rows), len(work.rows))]
        return Checkpoint(spark, checkpoint).state_provider()

    monkeypatch.setattr(stream_views, "BYTES_PER_ID", 1 << 18)
    assert after(1, state_memory=2) == stream_views.MEMORY
    # 5 ids of a quarter of a MiB fit, if not twice: what is there stays there, on either side.
    assert after(4, state_memory=2) == stream_views.MEMORY
    assert after(4, state_memory=2) == stream_views.ROCKSDB
    assert after(1, state_memory=4) == stream_views.ROCKSDB
    assert after(1, state_memory=100) == stream_views.MEMORY
    assert after(1, state_memory=0) == stream_views.ROCKSDB
    work.holds(behind=True)


def test_state_that_grows_past_the_memory_moves_to_disk_while_the_job_runs(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    views = {name: {"window": "1 hour", "by": ["kind"], "measures": MEASURES} for name in ("by_kind", "beside_it")}
    work = Work(spark, stack, define(stream={"trigger": "500 milliseconds", "state_memory": 1}, views=views))
    work.send(small_world.event("first", 0, "a", 1))

    def providers() -> set[str | None]:
        return {Checkpoint.of(work.job, view).state_provider() for view in views}

    def folded() -> list[int]:
        return [work.query(f"SELECT sum(events) FROM stream_{view}")[0][0] for view in views]

    stop = threading.Event()
    with ThreadPoolExecutor() as pool, ExitStack() as at_end:
        at_end.callback(stop.set)
        job = pool.submit(work.stream, stop, until_caught_up=False)
        at_work.eventually(lambda: providers() == {stream_views.MEMORY})
        work.send(*(small_world.event(f"e{i}", i / 1000, "a", 1) for i in range(20_000)))
        # The views have folded them all: state that has grown is seen as the batch after it is written.
        at_work.eventually(lambda: folded() == [20_001, 20_001])
        work.send(small_world.event("last", 21, "a", 1))
        at_work.eventually(lambda: providers() == {stream_views.ROCKSDB})
        at_work.eventually(lambda: work.query(COUNTED) == [(20_002, 20_002)])
    job.result()


def test_views_that_begin_before_anything_is_landed_begin_once(stack: Settings, define: Define) -> None:
    pipeline = define()
    work = Work(None, stack, pipeline)
    batches = stack.home / "bucket" / "checkpoints" / pipeline.name / "by_kind" / "commits"

    def began() -> bool:
        return (batches / "0").exists()

    with at_work.running(stack, "stream", pipeline.name) as job:
        port = at_work.health_port(stack, pipeline, job)
        at_work.eventually(lambda: began() and health.ask(f"127.0.0.1:{port}").get("idle"), job)
        work.send(small_world.event("first", 0, "a", 1))
        at_work.eventually(lambda: work.query(COUNTED) == [(1, 1)], job)
        said = job.said
    assert ("retrying" in said, "Truncated" in said) == (False, False), said


def test_a_view_has_a_trigger_of_its_own(stack: Settings, define: Define) -> None:
    """The stream lands every 200 ms; the view, which began on an empty log, waits for its next trigger, in 2029."""
    pipeline = define(stream={"trigger": "200 milliseconds", "views_trigger": "3650 days"})
    work = Work(None, stack, pipeline)
    view = pipeline.views["by_kind"]
    batches = stack.home / "bucket" / "checkpoints" / pipeline.name / view.name / "commits"
    with at_work.running(stack, "stream", pipeline.name) as job:
        at_work.eventually(lambda: (batches / "0").exists(), job)
        for number in range(4):
            work.send(small_world.event(f"e{number}", number))
            at_work.eventually(lambda: work.landed() == number + 1, job)  # noqa: B023
        assert [batch.name for batch in batches.iterdir() if batch.name.isdigit()] == ["0"]
    assert work.query("SELECT sum(events) FROM stream_by_kind") == [(None,)]
