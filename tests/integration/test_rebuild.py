"""Rebuild: the same answer made again, another one where a view changed, and nothing at all where it was killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_jobs import rebuild_job, union
from tests import at_work
from tests.at_work import Work
from tests.small_world import event
from twofold import tables
from twofold.definition.model import Pipeline
from twofold.errors import IncompatibleDefinition, QueryError
from twofold.settings import Settings

Define = Callable[..., Pipeline]

WIDER = {"window": "2 hours", "by": ["kind"], "measures": {"events": "count(*)", "largest": "max(value)"}}


@pytest.fixture(scope="module")
def work(stack: Settings, spark: SparkSession, define: Define) -> Work:
    """Both layers at odds, united once, with something past the boundary."""
    work = Work(spark, stack, define())
    work.send(*(event(f"e{i}", 9 * i, "abc"[i % 3], i) for i in range(40)), event("gone", 12, hidden=True))
    work.send(event("e3", 27, "b", -3), event("late", -3000, "a", 1), partition=1)
    work.drain()
    work.land("one.json", event("e5", 45, "c", 500), event("e6", 54, "c", 6, hidden=True), event("own", 3000, "b", 2))
    work.union()
    work.send(event("e6", 54, "c", 7), event("new", 400, "a", 1))
    work.drain()
    return work


def rebuild(work: Work) -> dict[str, Any]:
    assert work.spark
    return rebuild_job.rebuild(work.job)


def exact(work: Work) -> None:
    assert work.unified() == work.expected()
    work.holds()


def test_rebuilt_is_as_before(work: Work) -> None:
    work.union()
    columns = "window_start, window_end, kind, events, total"
    before = work.query(f"SELECT {columns}, layer FROM unified_by_kind ORDER BY ALL")
    report = rebuild(work)
    assert report["events"] == {"stream_rows": 44, "batch_rows": 3, "rows": 43}
    assert work.unified() == work.expected()
    # Whether or not the stream has folded its log again.
    assert work.query(f"SELECT {columns}, layer FROM unified_by_kind ORDER BY ALL") == before
    work.drain()
    assert work.query(f"SELECT {columns}, layer FROM unified_by_kind ORDER BY ALL") == before
    exact(work)


def test_refused_while_the_stream_runs(
    work: Work, spark: SparkSession, twofold: Callable[..., Any], stack: Settings
) -> None:
    with work.job.lock("stream"):
        refused = twofold("rebuild", work.pipeline.name, check=False)
    assert refused.returncode == 1
    assert "another stream job" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_way_out_of_lost_checkpoints(work: Work) -> None:
    """Both queries' checkpoints are gone: the log goes on from its offsets, the view is made again, nothing doubles."""
    work.send(event("e7", 63, "a", 8), event("newer", 410, "a", 1))
    shutil.rmtree(work.settings.home / "bucket" / "checkpoints" / work.pipeline.name)
    work.drain()
    work.union()
    exact(work)


def test_killed_midway_changes_nothing(work: Work, stack: Settings) -> None:
    for table in (tables.EVENTS, tables.batch_view_name("by_kind")):
        before = work.snapshots()
        with (
            at_work.hold(stack, work.pipeline, table) as held,
            at_work.running(stack, "rebuild", work.pipeline.name) as job,
        ):
            held.wait_for_commit(job)
            job.kill()
            held.lose_commits()
        changed = {name for name, snapshot in work.snapshots().items() if before[name] != snapshot}
        assert changed == (set() if table == tables.EVENTS else {tables.EVENTS})
        assert work.unified() == work.expected()
        work.holds(behind=True)
    work.union()
    exact(work)


def test_a_changed_view_is_computed_anew(work: Work, define: Define) -> None:
    name = work.pipeline.name
    work.pipeline = define(name=name, views={"by_kind": None, "by_hours": WIDER})
    work.drain()
    changed = {**WIDER, "window": "3 hours"}
    work.pipeline = define(name=name, views={"by_kind": None, "by_hours": changed})
    with pytest.raises(IncompatibleDefinition, match=r"views\.by_hours"):
        work.drain()
    for name in ("live_by_hours", "stream_by_hours"):
        with pytest.raises(QueryError, match="of another declaration") as refused:
            work.query(f"FROM {name}")
        assert "twofold rebuild" in refused.value.remedy
    assert work.spark
    union.rebuild_view(work.job, work.pipeline.views["by_hours"])
    # Killed here, a rebuild leaves the stream's windows of two hours.
    hours, live = (
        work.query("SELECT INTERVAL 3 HOURS"),
        "FROM (SELECT window_end - window_start AS w, layer FROM live_by_hours)",
    )
    assert work.query(f"SELECT DISTINCT w, layer {live}") == [(*hours[0], "batch")]
    report = rebuild(work)
    assert report["undeclared"] == ["batch_by_kind", "stream_by_kind"]
    work.drain()
    exact(work)
    assert {row[0] for row in work.query("SELECT window_end - window_start FROM stream_by_hours")} == {
        row[0] for row in work.query("SELECT INTERVAL 3 HOURS")
    }
