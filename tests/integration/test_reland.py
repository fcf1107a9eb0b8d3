"""A definition that changes with data there, and `reland`: exact before, in between, killed, and after."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from subprocess import CompletedProcess
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_jobs import erase_job, rebuild_job, reland_job, unified_views
from spark_jobs.erase import Wanted
from spark_jobs.reland import Asked
from tests import at_work, lake, small_world
from tests.at_work import Job, Work
from tests.small_world import event
from twofold import health, replay, table_state, tables
from twofold.definition.model import Pipeline
from twofold.proof.prover import prove
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
    # No job has run with the new definition yet: the tables are as the old one made them, views of narrower types.
    assert work.holds(behind=True).behind
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
        assert work.holds(behind=True).behind
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


GONE = "gone-4711"


def test_erased_ids_are_gone_everywhere_and_stay_gone(stack: Settings, spark: SparkSession, define: Define) -> None:
    """Killed between logs and `events`, finished by a second run; nothing that comes again brings it back."""
    by_id = {"window": "1 hour", "by": ["id"], "measures": {"events": "count(*)"}}
    work = Work(spark, stack, define(views={"by_id": by_id}))
    name, there = work.pipeline.name, f"SELECT count(*) FROM unified_events WHERE id = '{GONE}'"
    work.send(*(event(f"s{i}", 9 * i, "abc"[i % 3], i) for i in range(8)), event(GONE, 5))
    work.send_values(b'{"id": "%s", oops' % GONE.encode(), bad(GONE.replace("g", "\\u0067")), bad("s1"))
    work.drain()
    work.land("one.json", event("s1", 9, "a", 100), event(GONE, 30))
    work.union()
    work.send(event(GONE, 200, "b", 7), partition=1)
    work.drain()
    before = work.snapshots()
    wanted = Wanted(work.pipeline, frozenset([GONE]))
    found = erase_job.look(work.lake, wanted)
    assert found["rows"]["stream_log"] == {"accepted": 2, "rejected": 2}
    assert (found["files"], found["in_kafka"]["records"], found["in_kafka"]["until"]) == ({"one.json": 1}, 4, None)
    assert work.snapshots() == before
    with (
        at_work.hold(stack, work.pipeline, tables.EVENTS) as held,
        at_work.running(stack, "erase", name, "--id", GONE, "--yes") as job,
    ):
        held.wait_for_commit(job)
        job.kill()
        held.lose_commits()
    assert work.query(there) == [(0,)]
    assert [check.id for check in prove(work.lake, 60, print).checks if not check.ok] == ["I4"]

    erased = erase_job.erase(work.job, wanted, "me", "a test")
    assert (erased["entered"], erased["rows"]) == (0, {"batch_log": {}, "stream_log": {}, "events": {"events": 1}})
    no_byte_is_left(work)

    work.send(event(GONE, 201, "c", 8), event("last", 202, "c", 9))
    # A record that breaks another rule is of the id, too; whose it is nobody can tell where there is no id to read.
    work.send_values(bad(GONE), b"oops")
    work.drain()
    lines = (small_world.as_json(event(GONE, 40)), small_world.as_json(event("two", 41)), bad(GONE))
    replay.carry_out(work.lake, replay.plan_landings(work.lake, 1, None, "again"))
    work.put("two.json", b"".join(line + b"\n" for line in lines))
    work.take()
    assert work.union()["inserted"] == 2
    again = reland_job.run(work.lake, Asked(), go=True)
    assert {log: facts["changes"] for log, facts in again["logs"].items()} == {key: {} for key in again["logs"]}
    rebuild_job.rebuild(work.job)
    work.drain()
    assert work.query(there) == [(0,)]
    assert work.query("SELECT count(*) FROM unified_events") == [(10,)]
    proof = work.holds()
    (origins,) = (check for check in proof.checks if check.id == "I4")
    assert origins.numbers["records_erased"] == {"stream_log": 6, "batch_log": 3}
    assert origins.numbers["stream_log_rejected_without_ids"] == 1
    # The new file was landed blank, and still has it.
    finished = erase_job.erase(work.job, wanted, "me", "")
    assert (finished["files"], finished["rows"]["stream_log"], finished["rows"]["batch_log"]) == (
        {"two.json": 2},
        {},
        {},
    )
    assert finished["rejected_without_id"]["stream_log"] == 1
    no_byte_is_left(work)


def bad(id_: str) -> bytes:
    """A record whose value is no number."""
    return b'{"id": "%s", "value": "x"}' % id_.encode()


def no_byte_is_left(work: Work) -> None:
    """Not in any file of the pipeline's folders in the bucket."""
    bucket = work.settings.home / "bucket"
    folders = (bucket / root / work.pipeline.name for root in ("tables", "landing", "checkpoints"))
    assert [path for folder in folders for path in lake.holding(folder, GONE.encode())] == []


def in_spark(work: Work) -> list[tuple[Any, ...]]:
    """Id and value of every event, as other Spark programs see them."""
    assert work.spark
    unified_views.create_views(work.spark, work.settings, work.pipeline)
    rows = work.spark.sql("SELECT id, value FROM unified_events ORDER BY id").collect()
    return [tuple(row) for row in rows]


def state(work: Work, job: Job) -> str:
    """What the running stream says of itself."""
    port = at_work.health_port(work.settings, work.pipeline, job)
    return str(health.ask(f"127.0.0.1:{port}").get("state"))
