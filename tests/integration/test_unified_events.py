"""`unified_events` and each `unified_<view>` equal a plain recomputation from everything landed, at every instant.

That is wherever the boundary stands, and whichever union the batch views are of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table
from pyspark.sql import SparkSession

from spark_jobs import unified_views
from tests import conftest, lake, small_world
from twofold import catalog as catalogs
from twofold import serving, table_state, tables, windows
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.reader import Reader
from twofold.reader import unified as reader_unified
from twofold.settings import Settings
from twofold.table_state import Boundary, Folded, Landed, encode

START = datetime(2013, 5, 1, tzinfo=UTC)
PROVENANCE = ("layer", "landing", "file", "row", "kafka_timestamp", "kafka_partition", "kafka_offset")
HOUR = timedelta(hours=1)
SEALED = START + timedelta(hours=50)
MEASURES = conftest.DEFINITION["views"]["by_kind"]["measures"]
SLIDING = {"window": "2 days", "every": "12 hours", "by": ["kind"], "measures": MEASURES}
COLUMNS = ("window_start", "window_end", "kind", *MEASURES)
REAL_TIMES = serving.touched_times
Row = dict[str, Any]


@dataclass(frozen=True)
class History:
    """What was ever sent and landed, and how far the last union got."""

    stream: list[Row]
    batch: list[Row]
    offsets: dict[int, int]
    landing: int

    def united(self, row: Row) -> bool:
        """Whether the last union covered this row."""
        if "landing" in row:
            return bool(row["landing"] <= self.landing)
        return bool(row["kafka_offset"] < self.offsets.get(row["kafka_partition"], 0))


def events_of() -> st.SearchStrategy[Row]:
    """Few ids, so that they meet; few days, so that some meet on other days and some days stay untouched."""
    return st.fixed_dictionaries({
        "id": st.sampled_from("abcdef"),
        "at": st.integers(0, 6 * 24).map(lambda hours: START + timedelta(hours=hours)),
        "value": st.integers(-9, 9),
        "outcome": st.sampled_from(["accepted", "accepted", "accepted", "filtered", "rejected"]),
    })  # fmt: skip


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Two partitions, three landings of two files, a boundary anywhere; Kafka times may tie and go backwards."""
    stream: list[Row] = []
    for partition in range(2):
        for offset, event in enumerate(draw(st.lists(events_of(), max_size=8))):
            moment = START + timedelta(minutes=draw(st.integers(0, 20)))
            stream.append({**event, "kafka_partition": partition, "kafka_offset": offset, "kafka_timestamp": moment})
    batch: list[Row] = []
    for landing in range(1, 4):
        for file in ("x.csv", "y.csv"):
            for row, event in enumerate(draw(st.lists(events_of(), max_size=4)), 1):
                batch.append({**event, "landing": landing, "file": file, "row": row, "landed_at": START})
    named = draw(st.sets(st.sampled_from([0, 1])))
    ends = {partition: sum(row["kafka_partition"] == partition for row in stream) for partition in named}
    return History(
        [kept(row) for row in stream],
        [kept(row) for row in batch],
        {partition: draw(st.integers(0, end)) for partition, end in ends.items()},
        draw(st.integers(0, 3)),
    )


def kept(row: Row) -> Row:
    """As the logs have it: a rejected record has a reason and its bytes, and no event."""
    if row["outcome"] != "rejected":
        return row
    rest = {name: value for name, value in row.items() if name not in ("id", "at", "value")}
    return {**rest, "reason": "missing id", "payload": b"{}"}


def winners(history: History, *, united_only: bool) -> dict[str, Row]:
    """The plain recomputation: what wins per id, withdrawn ones included."""
    best: dict[str, tuple[tuple[Any, ...], Row]] = {}
    for row in [*history.stream, *history.batch]:
        is_batch = "landing" in row
        if row["outcome"] not in (("accepted", "filtered") if is_batch else ("accepted",)):
            continue
        if united_only and not history.united(row):
            continue
        event = {
            **row,
            "kind": kind(row),
            "layer": "batch" if is_batch else "stream",
            "withdrawn": is_batch and row["outcome"] == "filtered",
        }
        rank = (
            (1, row["landing"], row["file"], row["row"])
            if is_batch
            else (0, START - row["kafka_timestamp"], -row["kafka_partition"], -row["kafka_offset"])
        )
        if row["id"] not in best or best[row["id"]][0] < rank:
            best[row["id"]] = (rank, event)
    return {key: row for key, (_, row) in best.items()}


def kind(row: Row) -> str:
    """A group that a correction of the value may change."""
    return "ab"[row.get("value", 0) % 2]


def land(stack: Settings, pipeline: Pipeline, history: History) -> None:
    """Fill the tables: each log in two commits that say what they hold, then `events` as the union left it."""
    made = lake.make(stack, pipeline)
    for start, end in ((0, 2), (2, 99)):
        rows = [row for row in history.stream if start <= row["kafka_offset"] < end]
        held = {p: min(end, sum(row["kafka_partition"] == p for row in history.stream)) for p in (0, 1)}
        append(made[tables.STREAM_LOG], rows, Landed(pipeline.name, topic_id="t", offsets=held))
    for landings in ((1,), (2, 3)):
        rows = [row for row in history.batch if row["landing"] in landings]
        append(made[tables.BATCH_LOG], rows, Landed(pipeline.name, landing=landings[-1]))
    united = list(winners(history, united_only=True).values())
    append(made[tables.EVENTS], united, Boundary(pipeline.name, "t", history.offsets, history.landing))


def append(table: Table, rows: list[Row], state: Boundary | Landed) -> None:
    """One commit; none without rows, but for a boundary."""
    if rows or isinstance(state, Boundary):
        lake.append(table, [{"kind": kind(row), **row} for row in rows], state)


def unified(stack: Settings, pipeline: Pipeline, condition: str = "TRUE") -> list[tuple[Any, ...]]:
    """Id, event time, value and provenance of the unified events, as text where types have no plain Python value."""
    columns = ", ".join(["id", 'CAST("at" AS VARCHAR)', "value", *(f"CAST({name} AS VARCHAR)" for name in PROVENANCE)])
    with Reader(stack, {pipeline.name: pipeline}) as reader:
        sql = f"SELECT {columns} FROM unified_events WHERE {condition} ORDER BY ALL"
        return reader.query(sql, pipeline.name).fetchall()


def expected(history: History, keep: Callable[[Row], bool] = lambda row: True) -> list[tuple[Any, ...]]:
    """The same of the plain recomputation."""

    def text(value: object) -> object:
        return value.isoformat(sep=" ")[:-3] if isinstance(value, datetime) else None if value is None else str(value)

    rows = [row for row in winners(history, united_only=False).values() if not row["withdrawn"] and keep(row)]
    return sorted(
        (row["id"], text(row["at"]), row["value"], *(text(row.get(name)) for name in PROVENANCE)) for row in rows
    )


@pytest.fixture
def declared(define: Callable[..., Pipeline]) -> Pipeline:
    """One definition for all examples of a test, with a tumbling view and a sliding one."""
    return define(views={"sliding": SLIDING})


def fresh(declared: Pipeline) -> Pipeline:
    """The same under a name of its own, so with tables of its own."""
    return dataclasses.replace(declared, name=conftest.random_name())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
def test_equals_a_plain_recomputation(stack: Settings, declared: Pipeline, history: History) -> None:
    """At any boundary: ids in both layers, corrections, withdrawals, moved days, late duplicates."""
    pipeline = fresh(declared)
    land(stack, pipeline, history)
    assert unified(stack, pipeline) == expected(history)
    # Pruning comes after precedence: a row that lost must not come back because the winner is on another day.
    low, high = START + timedelta(days=2), START + timedelta(days=4)
    condition = f"\"at\" >= '{low}' AND \"at\" < '{high}'"
    assert unified(stack, pipeline, condition) == expected(history, lambda row: low <= row["at"] < high)


def stream_row(offset: int, key: str, hours: int) -> Row:
    """An accepted record of partition 0."""
    moment = START + timedelta(minutes=offset)
    return {
        "id": key,
        "at": START + timedelta(hours=hours),
        "value": offset,
        "outcome": "accepted",
        "kafka_partition": 0,
        "kafka_offset": offset,
        "kafka_timestamp": moment,
    }


def batch_row(landing: int, key: str, hours: int, outcome: str = "accepted") -> Row:
    """A row of a file of its own."""
    event = {"id": key, "at": START + timedelta(hours=hours), "value": 100 + landing, "outcome": outcome}
    return {**event, "landing": landing, "file": "x.csv", "row": 1, "landed_at": START}


EVERY_RULE = History(
    # b moves a day by correction, c is withdrawn, d and the late duplicate of a come past the boundary.
    [
        stream_row(0, "a", 1),
        stream_row(1, "b", 2),
        stream_row(2, "c", 3),
        stream_row(3, "a", 30),
        stream_row(4, "d", 90),
    ],
    [batch_row(1, "a", 1), batch_row(2, "a", 5), batch_row(2, "b", 50), batch_row(3, "c", 3, "filtered")],
    {0: 3},
    1,
)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("PRECEDENCE", ("CASE layer WHEN 'batch' THEN 1 ELSE 0 END", *serving.PRECEDENCE[1:])),
        ("PRECEDENCE", (serving.PRECEDENCE[0], "landing ASC NULLS LAST", *serving.PRECEDENCE[2:])),
        ("past_offsets", lambda offsets: "FALSE"),
        ("_beaten", lambda pipeline, hits, decided: f"(SELECT * FROM {hits} WHERE FALSE)"),
        ("widened", lambda days, horizon: set()),
    ],
    ids=["stream before batch", "first landing wins", "tail lost", "beaten rows stay", "events not looked up"],
)
def test_a_broken_rule_is_caught(
    stack: Settings, declared: Pipeline, monkeypatch: pytest.MonkeyPatch, name: str, broken: object
) -> None:
    """The comparison above sees each rule of precedence and of the boundary."""
    pipeline = fresh(declared)
    land(stack, pipeline, EVERY_RULE)
    assert unified(stack, pipeline) == expected(EVERY_RULE)
    monkeypatch.setattr(serving, name, broken)
    assert unified(stack, pipeline) != expected(EVERY_RULE)


# ---- views ----


def fold(history: History, view: View, *, united_only: bool = False) -> list[tuple[Any, ...]]:
    """The view, recomputed plainly."""
    rows = [row for row in winners(history, united_only=united_only).values() if not row["withdrawn"]]
    return sorted(tuple(row.values()) for row in small_world.fold(rows, view.window, view.every).to_pylist())


def fill_views(stack: Settings, pipeline: Pipeline, history: History) -> None:
    """The batch views, as the union left them that made `events` as it is."""
    catalog = catalogs.load(stack)
    snapshot = catalog.load_table((pipeline.name, tables.EVENTS)).metadata.current_snapshot_id
    shape = small_world.fold([{"at": START, "kind": "a", "value": 1}], HOUR, HOUR).schema
    for view in pipeline.views.values():
        name = (pipeline.name, tables.batch_view_name(view))
        table = catalog.create_table_if_not_exists(name, shape)
        rows = [dict(zip(shape.names, row, strict=True)) for row in fold(history, view, united_only=True)]
        state = Folded(snapshot, fingerprint.view(pipeline, view), SEALED)
        table.overwrite(pa.Table.from_pylist(rows, schema=shape), snapshot_properties=encode(state))


def unite(stack: Settings, pipeline: Pipeline, before: History, after: History) -> None:
    """Another union, which gets further: it says which days of event time it changed."""
    table = catalogs.load(stack).load_table((pipeline.name, tables.EVENTS))
    old, new = (winners(history, united_only=True) for history in (before, after))
    changed = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    days = {rows[key]["at"].date() for rows in (old, new) for key in changed if key in rows}
    schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
    rows = [{name: row.get(name) for name in schema.names} for row in new.values()]
    state = Boundary(pipeline.name, "t", after.offsets, after.landing, touched_days=tuple(sorted(days)))
    table.overwrite(pa.Table.from_pylist(rows, schema=schema), snapshot_properties=encode(state))


def unified_view(stack: Settings, pipeline: Pipeline, view: View, columns: Iterable[str] = COLUMNS) -> list[Any]:
    """Rows of `unified_<view>`."""
    with Reader(stack, {pipeline.name: pipeline}) as reader:
        sql = f"SELECT {', '.join(columns)} FROM unified_{view.name}"
        return sorted(reader.query(sql, pipeline.name).fetchall())


def further(history: History) -> History:
    """The same, with all of it united."""
    ends = {p: sum(row["kafka_partition"] == p for row in history.stream) for p in (0, 1)}
    return dataclasses.replace(history, offsets=ends, landing=3)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
def test_views_equal_a_plain_recomputation_before_during_and_after_a_union(
    stack: Settings, declared: Pipeline, history: History
) -> None:
    """Corrections, withdrawals, moved days, late rows and duplicates, in open windows and in sealed ones."""
    pipeline = fresh(declared)
    land(stack, pipeline, history)
    steps: list[Callable[[], None]] = [
        lambda: None,  # no view was ever computed
        lambda: fill_views(stack, pipeline, history),
        lambda: unite(stack, pipeline, history, further(history)),  # killed before its views
        lambda: fill_views(stack, pipeline, further(history)),
    ]
    for number, step in enumerate(steps):
        step()
        for view in pipeline.views.values():
            assert unified_view(stack, pipeline, view) == fold(history, view), (number, view.name)
    layers = {row[0] for view in pipeline.views.values() for row in unified_view(stack, pipeline, view, ["layer"])}
    assert layers <= {"batch"}  # nothing is past the boundary any more


def test_only_windows_that_something_new_touches_are_folded(stack: Settings, declared: Pipeline) -> None:
    """Of the tail: a correction that moves b from hour 2 to 50, a withdrawal in hour 3, a new event in hour 90."""
    pipeline = fresh(declared)
    land(stack, pipeline, EVERY_RULE)
    fill_views(stack, pipeline, EVERY_RULE)
    shown = unified_view(stack, pipeline, pipeline.views["by_kind"], ["hour(window_start)", "layer", "final"])
    assert shown == [(2, "both", False), (5, "both", True), (18, "both", False)]


@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [
        (serving, "touched_times", lambda pipeline, found: []),
        (serving, "touched_times", lambda pipeline, found: REAL_TIMES(pipeline, found)[:1]),
        (table_state, "touched_since", lambda history, snapshot: set()),
        (windows, "days_of", lambda view, starts: "SELECT 0"),
        (serving, "_without", lambda touched: ""),
        (reader_unified, "_same", lambda pipeline, view, state: True),
    ],
    ids=["tail", "beaten rows", "days since the batch view", "days to read", "both at once", "another declaration"],
)
def test_a_broken_rule_of_views_is_caught(
    stack: Settings, declared: Pipeline, monkeypatch: pytest.MonkeyPatch, module: object, name: str, broken: object
) -> None:
    """The comparison above sees which windows are folded, and from which days."""
    pipeline = fresh(declared)
    # Nothing new is said of f, which shares a window with the corrected a, and of g, which does not.
    united = [{**row, "kafka_partition": 1} for row in (stream_row(0, "f", 5), stream_row(1, "g", 130))]
    history = dataclasses.replace(EVERY_RULE, stream=[*EVERY_RULE.stream, *united], offsets={0: 3, 1: 2})
    land(stack, pipeline, history)
    before = dataclasses.replace(pipeline.views["sliding"], every=24 * HOUR if name == "_same" else 12 * HOUR)
    fill_views(stack, dataclasses.replace(pipeline, views={**pipeline.views, "sliding": before}), history)
    if name == "touched_since":
        unite(stack, pipeline, history, further(history))

    def right() -> bool:
        return all(unified_view(stack, pipeline, view) == fold(history, view) for view in pipeline.views.values())

    assert right()
    monkeypatch.setattr(module, name, broken)
    assert not right()


def test_spark_answers_the_same(stack: Settings, spark: SparkSession, declared: Pipeline) -> None:
    """One SQL for both engines: Spark's pinned views hold the rows that DuckDB finds."""
    pipeline = fresh(declared)
    land(stack, pipeline, EVERY_RULE)
    fill_views(stack, pipeline, EVERY_RULE)
    made = ["unified_by_kind", "live_by_kind", "unified_sliding", "live_sliding"]
    assert unified_views.create_views(spark, stack, pipeline) == ["unified_events", *made]
    names = ["id", "at", "value", *PROVENANCE]
    moments = {name: f"date_format({name}, 'yyyy-MM-dd HH:mm:ss+00')" for name in ("at", "kafka_timestamp")}
    columns = [moments.get(n, n if n in ("id", "value") else f"CAST({n} AS STRING)") for n in names]
    rows = spark.sql(f"SELECT {', '.join(columns)} FROM unified_events").collect()
    view_columns = ["unix_micros(window_start)", "kind", *MEASURES, "layer", "final"]
    found = {name: sorted(map(tuple, spark.table(name).selectExpr(*view_columns).collect())) for name in made}
    assert sorted(tuple(row) for row in rows) == expected(EVERY_RULE) == unified(stack, pipeline)
    asked = ["epoch_us(window_start)", *view_columns[1:]]
    with Reader(stack, {pipeline.name: pipeline}) as reader:
        for name in made:
            answered = reader.query(f"SELECT {', '.join(asked)} FROM {name}", pipeline.name).fetchall()
            assert found[name] == sorted(answered), name
    exact = unified_view(stack, pipeline, pipeline.views["sliding"], view_columns[1:-2])
    assert exact == sorted(row[2:] for row in fold(EVERY_RULE, pipeline.views["sliding"]))
