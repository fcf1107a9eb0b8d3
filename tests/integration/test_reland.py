"""A definition that changes with data there, and `reland`: exact before, in between, killed, and after."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest
from pyspark.sql import SparkSession

from spark_jobs import spark_session, unified_views
from tests import at_work
from tests.at_work import Job, Work
from tests.small_world import event
from twofold import table_state, tables
from twofold.definition.model import Pipeline
from twofold.settings import Settings

Define = Callable[..., Pipeline]
Twofold = Callable[..., CompletedProcess[str]]

WIDER = {
    "value": {"type": "long", "max": 5_000_000_000},
    "extra": {"type": "int"},
    "kind": {"one_of": ["a", "b"]},
    "note": None,
    "price": {"type": "decimal(12,2)"},
}
"""A field wider and its rule looser, one new, one with a tighter rule, one dropped, one with more digits."""
MEASURES = {"events": "count(*)", "total": "sum(value)", "most": "max(value)", "paid": "sum(price)"}
VIEWS = {"by_kind": None, "by_value": {"window": "1 hour", "by": ["kind"], "measures": MEASURES}}


@pytest.fixture(scope="module")
def spark(stack: Settings) -> Iterator[SparkSession]:
    """For what is not killed."""
    spark = spark_session.build(stack, "test-reland")
    yield spark
    spark.stop()


@pytest.fixture
def work(stack: Settings, spark: SparkSession, define: Define) -> Work:
    """Both layers filled by a first definition and united, something past the boundary; then the definition changes."""
    before = {"note": {"type": "string"}, "price": {"type": "decimal(9,2)"}}
    first = define(event={"fields": before}, views=VIEWS)
    work = Work(spark, stack, first)
    work.send(*(sent(f"s{i}", 9 * i, "abc"[i % 3], i) for i in range(30)), sent("large", 20, "a", 2_000_000_000))
    work.drain()
    work.land("one.json", sent("s1", 9, "a", 100), sent("f1", 30, "c", 1), sent("huge", 40, "b", 3_000_000_000))
    work.union()
    work.send(sent("late", 10, "c", 7), sent("last", 300, "b", 8), partition=1)
    work.drain()
    assert outcomes(work) == {("accepted", 34), ("rejected", 2)}
    work.holds()
    work.pipeline = define(name=first.name, topic={"name": first.name}, event={"fields": WIDER}, views=VIEWS)
    return work


def sent(key: str, minutes: float, kind: str, value: int) -> dict[str, Any]:
    """An event with what only one of the definitions declares."""
    return {**event(key, minutes, kind, value), "extra": minutes, "note": key, "price": f"{value}.25"}


def outcomes(work: Work) -> set[tuple[Any, ...]]:
    logs = " UNION ALL ".join(f"SELECT outcome FROM {log}" for log in (tables.STREAM_LOG, tables.BATCH_LOG))
    return set(work.query(f"SELECT outcome, count(*) FROM ({logs}) GROUP BY 1"))


AFTER = {("accepted", 24), ("rejected", 12)}
"""Of 36 records eleven are of kind c; s1 has both layers."""


def relanded(work: Work) -> None:
    """All is as if it had been landed by the definition of today."""
    assert outcomes(work) == AFTER
    rows = work.query("SELECT id, value, extra FROM unified_events ORDER BY id")
    kept = [(f"s{i}", 100 if i == 1 else i, 9 * i) for i in range(30) if i % 3 != 2]
    new = [("huge", 3_000_000_000, 40), ("large", 2_000_000_000, 20), ("last", 8, 300)]
    assert rows == sorted(kept + new)
    assert work.query("SELECT sum(events), max(most) FROM unified_by_value") == [(23, 3_000_000_000)]
    paid = sum(Decimal(value) for _, value, _ in kept + new) + 23 * Decimal("0.25")
    assert work.query("SELECT sum(price) FROM unified_events") == [(paid,)]
    assert work.query("SELECT sum(paid) FROM unified_by_value") == [(paid,)]


def test_rows_of_before_stay_until_reland_and_then_follow(work: Work, twofold: Twofold) -> None:
    """With a new definition everything goes on; a dry run changes nothing; reland beside a running stream is exact."""
    name = work.pipeline.name
    checked = json.loads(twofold("check", "--against-tables", name, "--json").stdout)
    found = {(one["effect"], one["where"]) for one in checked[0]["differences"]}
    fields = "event.fields"
    assert found >= {
        ("follows", f"{fields}.value.type"),
        ("follows", f"{fields}.extra"),
        ("follows", f"{fields}.price.type"),
        ("follows", f"{fields}.note"),
        ("waits", f"{fields}.kind.one_of"),
        ("waits", f"{fields}.value.max"),
    }
    before = work.query("SELECT id, value, NULL::INT FROM unified_events ORDER BY id")
    work.drain()
    work.union()
    assert work.query("SELECT id, value, extra FROM unified_events ORDER BY id") == before
    assert in_spark(work) == [row[:2] for row in before]
    assert "c" in {kind for (kind,) in work.query("SELECT DISTINCT kind FROM unified_by_value")}
    work.holds()

    snapshots = work.snapshots()
    said = twofold("reland", name).stdout
    assert "accepted, now rejected" in said and "nothing was changed: --yes does it" in said
    assert work.snapshots() == snapshots
    with at_work.running(work.settings, "stream", name) as job:
        at_work.eventually(lambda: state(work, job) == "running", job)
        report = json.loads(twofold("reland", name, "--yes", "--json").stdout)
        assert {log: facts["changes"] for log, facts in report["logs"].items()} == {
            "stream_log": {"accepted, now rejected": 11, "accepted, other values": 21, "rejected, now accepted": 1},
            "batch_log": {"accepted, now rejected": 1, "accepted, other values": 1, "rejected, now accepted": 1},
        }
        relanded(work)
        # The view of the stream is filled again, and the stream goes on.
        c = "SELECT count(*) FROM stream_by_value WHERE kind = 'c'"
        at_work.eventually(lambda: work.query(c) == [(0,)], job)
        work.holds()
        work.send(sent("c", 301, "c", 9), sent("s0", 0, "b", 1))
        at_work.eventually(lambda: work.landed() == 35, job)
        assert job.exit_code() is None
        work.holds()
    assert json.loads(twofold("reland", name, "--yes", "--json").stdout)["logs"]["stream_log"]["changes"] == {}
    since = {
        table_state.defined_since(work.lake.table(log).properties) for log in (tables.STREAM_LOG, tables.BATCH_LOG)
    }
    assert since == {1}


def test_killed_at_any_point_it_leaves_the_old_or_the_new(work: Work, stack: Settings, twofold: Twofold) -> None:
    name, by_id = work.pipeline.name, "SELECT id, value FROM unified_events ORDER BY id"
    old = work.query(by_id)
    # No job has run with the new definition yet: the tables are as the old one made them.
    work.holds()
    work.lake.ensure()
    for killed_in in (tables.STREAM_LOG, tables.BATCH_LOG, tables.EVENTS, "batch_by_value"):
        with (
            at_work.hold(stack, work.pipeline, killed_in) as held,
            at_work.running(stack, "reland", name, "--yes") as job,
        ):
            held.wait_for_commit(job)
            job.kill()
            held.lose_commits()
        if killed_in == tables.STREAM_LOG:
            assert work.query(by_id) == old
        proof = work.holds(behind=True)
        assert proof.behind is (killed_in != tables.STREAM_LOG)
        assert in_spark(work) == work.query(by_id)
    relanded(work)
    work.union()
    relanded(work)
    work.drain()
    work.holds()


def test_what_is_gone_stays_and_only_what_is_asked_for_is_judged(work: Work, twofold: Twofold) -> None:
    name, folder = work.pipeline.name, work.lake.inbox()
    assert folder.version("one.json")
    (work.settings.home / "bucket" / "landing" / name / "one.json").unlink()
    # No job has brought the tables to the new definition yet; nor does a dry run.
    logs = (tables.STREAM_LOG, tables.BATCH_LOG)
    before = [work.lake.table(log).metadata_location for log in logs]
    report = json.loads(twofold("reland", name, "--json").stdout)
    changes = {"accepted, now rejected": 11, "accepted, other values": 21, "rejected, now accepted": 1}
    assert report["logs"]["stream_log"]["changes"] == changes
    assert [work.lake.table(log).metadata_location for log in logs] == before
    report = json.loads(twofold("reland", name, "--partition", "1", "--offsets", "0:1", "--json").stdout)
    (only,) = report["logs"].values()
    assert (only["judged"], only["changes"]) == (1, {"accepted, now rejected": 1})
    report = json.loads(twofold("reland", name, "--yes", "--json").stdout)
    assert report["logs"]["batch_log"]["not_judged"] == {"one.json (landing 1): it is not in the inbox any more": 3}
    assert work.query("SELECT kind, count(*) FROM unified_events WHERE kind = 'c' GROUP BY 1") == [("c", 1)]
    work.drain()
    work.holds()


def in_spark(work: Work) -> list[tuple[Any, ...]]:
    """Id and value of every event, as other Spark programs see them."""
    assert work.spark
    unified_views.create_views(work.spark, work.settings, work.pipeline)
    rows = work.spark.sql("SELECT id, value FROM unified_events ORDER BY id").collect()
    return [tuple(row) for row in rows]


def state(work: Work, job: Job) -> str:
    """What the running stream says of itself."""
    port = at_work.health_port(work.settings, work.pipeline, job)
    return str(httpx.get(f"http://127.0.0.1:{port}/healthz").json()["state"])
