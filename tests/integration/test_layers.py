"""Both layers at work: at every step the unified answer equals a plain recomputation, and the proof holds."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition
from pyspark.sql import SparkSession

from spark_jobs import union
from tests import at_work, conftest, lake, small_world
from tests.at_work import Work
from tests.small_world import Row, event
from twofold import catalog as catalogs
from twofold import tables
from twofold.definition.load import load_file
from twofold.definition.model import Pipeline
from twofold.settings import Settings

Define = Callable[..., Pipeline]

MEASURES = conftest.DEFINITION["views"]["by_kind"]["measures"]
SLIDING = {"window": "1 day", "every": "6 hours", "by": ["kind"], "measures": MEASURES}
DAY = 24 * 60
PAYMENTS = Path(__file__).parents[1] / "pipelines" / "payments.yaml"


# ---- what a view must hold ----


def folded(work: Work, view: str) -> list[tuple[Any, ...]]:
    """A view recomputed from all that was sent and landed."""
    declared = work.pipeline.views[view]
    rows = [row for row in work.winners() if not row["withdrawn"]]
    return sorted(tuple(row.values()) for row in small_world.fold(rows, declared.window, declared.every).to_pylist())


def batch_view(work: Work, view: str) -> list[tuple[Any, ...]]:
    """The rows of batch_<view>."""
    table = catalogs.load(work.settings).load_table((work.pipeline.name, tables.batch_view_name(view)))
    names = ("window_start", "window_end", "kind", "events", "total", "mean")
    return sorted(tuple(row[name] for name in names) for row in table.scan().to_arrow().to_pylist())


def unified_view(work: Work, view: str) -> list[tuple[Any, ...]]:
    """The rows of unified_<view>."""
    return sorted(work.query(f"SELECT window_start, window_end, kind, events, total, mean FROM unified_{view}"))


def exact(work: Work) -> None:
    """Before the union and after it: unified events, unified views, proof, and then the batch views."""
    for behind in (True, False):
        assert work.unified() == work.expected()
        for view in work.pipeline.views:
            assert unified_view(work, view) == folded(work, view)
        work.holds(behind=behind)
        if behind:
            work.union()
    for view in work.pipeline.views:
        assert batch_view(work, view) == folded(work, view)
        assert work.query(f"SELECT DISTINCT layer FROM unified_{view}") == [("batch",)]


# ---- step by step ----


def test_every_way_two_layers_can_disagree(stack: Settings, spark: SparkSession, define: Define) -> None:
    work = Work(spark, stack, define(event={"id_horizon": "3 days"}))

    # Duplicates within the stream, in both partitions; some agree, some do not; one is filtered.
    work.send(*(event(f"s{i}", 40 * i, "abc"[i % 3], i) for i in range(60)), event("f", 9, hidden=True))
    work.send(event("s3", 120, "a", 3), event("s5", 215, "b", -5), event("x", 50), event("x", 50), partition=1)
    work.drain()
    exact(work)

    # Late by far more than the lateness: in the exact answers at once, in the live view with the next union.
    live = "SELECT sum(total) FROM live_by_kind WHERE kind = 'c'"
    before = work.query(live)[0][0]
    work.send(event("late", -2 * DAY, "c", 100), event("late-too", 30, "c", 100))
    work.drain()
    assert work.query(live) == [(before,)]
    exact(work)
    assert work.query(live) == [(before + 200,)]

    # By batch: a correction, one that moves an event to another day, a withdrawal, an event of its own,
    # one that the stream sends afterwards, and a correction of a correction in the same file.
    corrections = [
        event("s1", 40, "b", 900),
        event("s2", 80 + 2 * DAY, "a", 901),
        event("s4", 160, "c", 902, hidden=True),
        event("own", 7, "a", 903),
        event("soon", 8, "a", 904),
        event("s6", 240, "a", 905),
        event("s6", 240 + DAY, "b", 906),
    ]
    work.land("corrections.json", *corrections)
    work.send(event("soon", 8, "c", 1))
    work.drain()
    exact(work)

    # Late duplicates of the moved, of the withdrawn and of the corrected one change nothing, nor does a replay.
    work.send(event("s2", 80, "c", 2), event("s4", 160, "b", 4), event("s6", 240, "c", 6), event("s1", 40, "b", 1))
    work.send(*(event(f"s{i}", 40 * i, "abc"[i % 3], i) for i in range(10, 60, 7)), partition=1)
    work.drain()
    exact(work)

    # A file with another content, and back to the first: the latest landing counts, also for what it withdraws.
    work.land("corrections.json", event("s4", 160, "c", 910), event("own", 7 + DAY, "a", 911))
    assert work.unified() == work.expected()
    work.land("corrections.json", *corrections)
    work.land("nothing.json", event("s7", 280, "b", 1, hidden=True), event("never-sent", 1, hidden=True))
    exact(work)
    assert "s4" not in {row[0] for row in work.unified()}


def test_an_open_window_is_exact_before_and_after_each_union(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    """Incident: while its source was quiet, a window went without the record that came last, and without a correction.

    The stream's row was served, unions or not, until the window was sealed; and `prove` compared no such row.
    """
    work = Work(spark, stack, define())
    sql = "SELECT sum(events), sum(total) FROM unified_by_kind"
    for number, (key, minutes) in enumerate((("a", 50), ("b", 55), ("c", 20)), 1):
        work.send(event(key, minutes, "a", 1))
        work.drain()
        assert work.query(sql) == [(number, number)]
    exact(work)
    work.land("correction.json", event("a", 50, "b", 100))
    assert work.query(sql) == [(3, 102)]
    exact(work)
    assert work.query(sql) == [(3, 102)]
    assert work.query("SELECT kind, events, total FROM live_by_kind ORDER BY 1") == [("a", 2, 2), ("b", 1, 100)]


def test_a_record_that_is_ahead_seals_no_window_in_progress(
    stack: Settings, spark: SparkSession, define: Define
) -> None:
    """Incident: one clock 23 hours ahead, and for 23 hours each window was called final before it had ended."""
    work = Work(spark, stack, define())
    now = (datetime.now(UTC) - small_world.START) / timedelta(minutes=1)
    for number, minutes in enumerate((now + 23 * 60, now, now)):
        work.send(event(f"e{number}", minutes))
        work.drain()
    exact(work)
    work.send(event("e3", now))
    work.drain()
    shown = work.query("SELECT sum(events), bool_or(final) FROM unified_by_kind WHERE window_start <= now()")
    assert shown == [(3, False)]
    work.holds(behind=True)


def test_unions_while_the_stream_runs(stack: Settings, spark: SparkSession, define: Define) -> None:
    """Whatever moves from the log into `events` meanwhile: no reader sees it twice, or not at all."""
    work = Work(spark, stack, define(stream={"trigger": "200 milliseconds"}))
    stop = threading.Event()
    with ThreadPoolExecutor() as pool, ExitStack() as at_end:
        at_end.callback(stop.set)
        job = pool.submit(work.stream, stop, until_caught_up=False)
        for number in range(3):
            for part in range(4):
                first = 40 * (4 * number + part)
                work.send(*(event(f"e{i}", i, "abc"[i % 3]) for i in range(first, first + 50)), partition=part % 2)
            at_work.eventually(lambda: work.landed() > 200 * number)  # noqa: B023
            work.union()
            work.holds(behind=True)
    job.result()
    work.drain()
    exact(work)


def test_a_pipeline_unlike_the_others_beside_them(
    stack: Settings, spark: SparkSession, define: Define, pipelines_folder: Path
) -> None:
    """Long ids, decimals, dates, no filter, two views; both pipelines stream at once, each with a driver."""
    name = conftest.random_name()
    path = pipelines_folder / f"{name}.yaml"
    text = PAYMENTS.read_text().replace("name: payments", f"name: {name}").replace("payments-v1", name)
    path.write_text(text)
    payments, other = Work(spark, stack, load_file(path)), Work(spark, stack, define())
    twofold = ("produce", name, "--generate", "1000", "--duplicates", "0.1", "--late", "0.1", "--out-of-order", "0.1")
    with at_work.running(stack, *twofold) as producer:
        other.send(*(event(f"s{i}", i) for i in range(50)))
        assert producer.ends() == 0, producer.said
    with at_work.running(stack, "stream", name, "--until-caught-up") as job:
        other.drain()
        assert job.ends() == 0, job.said
    exact(other)
    first = first_payments(payments)
    unions = 2
    for _ in range(unions):
        counts = payments.query("SELECT currency, count(*), sum(amount) FROM unified_events GROUP BY 1 ORDER BY 1")
        assert counts == first
        payments.union()
    shown = payments.query("SELECT currency, sum(payments), sum(turnover) FROM batch_turnover GROUP BY 1 ORDER BY 1")
    assert shown == first
    proof = payments.holds(proved=True)
    assert next(check for check in proof.checks if check.id == "I1").numbers["acknowledged"] == 1000


def first_payments(work: Work) -> list[tuple[str, int, Decimal]]:
    """Number and sum of the payments per currency, from the topic itself: the first record of each id."""
    place = TopicPartition(work.pipeline.topic.name, 0)
    consumer = KafkaConsumer(bootstrap_servers=work.settings.kafka_bootstrap, auto_offset_reset="earliest")
    consumer.assign([place])
    values: list[bytes] = []
    while len(values) < consumer.end_offsets([place])[place]:
        values += [record.value for record in consumer.poll(timeout_ms=1000).get(place, [])]
    consumer.close()
    first: dict[int, dict[str, Any]] = {}
    for value in values:
        payment = orjson.loads(value)
        first.setdefault(payment["payment_id"], payment)
    sums: dict[str, tuple[int, Decimal]] = {}
    for payment in first.values():
        count, total = sums.get(payment["currency"], (0, Decimal()))
        sums[payment["currency"]] = count + 1, total + Decimal(str(payment["amount"]))
    return sorted((currency, *both) for currency, both in sums.items())


# ---- any history ----


def events_of(hidden: st.SearchStrategy[bool]) -> st.SearchStrategy[Row]:
    """Few ids, so that they meet; few days, so that some meet on other days and some days stay untouched."""
    return st.builds(
        event,
        st.sampled_from("abcdefgh"),
        st.integers(0, 20).map(lambda sixths: sixths * 4 * 60.0),
        st.sampled_from("abc"),
        st.integers(-9, 9),
        hidden,
    )


STEPS = st.lists(
    st.tuples(
        st.lists(events_of(st.sampled_from([False, False, True])), max_size=8),
        st.lists(events_of(st.booleans()), max_size=5),
    ),
    min_size=2,
    max_size=2,
)
"""What is streamed and what is landed before each union."""


@settings(
    max_examples=3,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(steps=STEPS)
def test_any_history_is_united_exactly(
    stack: Settings, spark: SparkSession, declared: Pipeline, steps: list[tuple[list[Row], list[Row]]]
) -> None:
    """The union alone, on logs filled directly: after each step `events`, its views and the unified events."""
    work = Work(spark, stack, dataclasses.replace(declared, name=conftest.random_name()))
    made = lake.make(stack, work.pipeline)
    for number, (streamed, landed) in enumerate(steps, 1):
        lake.land_records(work, made[tables.STREAM_LOG], number, streamed)
        lake.land_file(work, made[tables.BATCH_LOG], number, landed)
        assert work.unified() == work.expected()
        union.unite(work.job)
        for view in work.pipeline.views.values():
            union.recompute_view(work.job, view)
            assert batch_view(work, view.name) == folded(work, view.name)
        assert work.unified() == work.expected()
        united = work.query("SELECT id, layer, withdrawn FROM events ORDER BY id")
        assert united == sorted((row["id"], row["layer"], row["withdrawn"]) for row in work.winners())


@pytest.fixture
def declared(define: Define) -> Pipeline:
    """One definition for all examples."""
    return define(views={"sliding": SLIDING}, event={"id_horizon": "4 days"})
