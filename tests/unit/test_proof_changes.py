"""What a proof builds on: when it may, and that rows of the logs which were proved are still there as they were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import schema_to_pyarrow

from tests.small_world import event
from twofold import catalog as catalogs
from twofold import commits, schemas, table_state, tables
from twofold.catalog import LakeCatalog
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.proof import changes, last_proof, offsets, origins, recomputed, sql
from twofold.proof.findings import Check, Findings
from twofold.proof.last_proof import LastProof
from twofold.proof.sent import Sent
from twofold.proof.world import UNIFIED, World, connect, declared, pinned
from twofold.settings import Settings
from twofold.table_state import Boundary, Folded, Landed, Lost, encode

NOW = datetime(2026, 5, 1, tzinfo=UTC)
Row = dict[str, Any]
Change = Callable[[list[Row]], list[Row]]


def logged(number: int, **place: object) -> Row:
    row = event(f"s{number}", number, value=number)
    partition, offset = number % 2, number // 2
    arrived = NOW + timedelta(days=offset // 2)
    kafka = {"kafka_partition": partition, "kafka_offset": offset, "kafka_timestamp": arrived, "landing": 1}
    return {**row, "outcome": tables.ACCEPTED, **kafka, **place}


STREAM = [*map(logged, range(10)), {**logged(10), "outcome": tables.REJECTED, "payload": b"not JSON"}]
BATCH = [
    {**event(f"b{number}", number), "outcome": tables.ACCEPTED, "landing": 1, "file": "a.csv", "row": number}
    for number in (1, 2)
]
ENDS = {0: 6, 1: 5}
VIEW_TABLES = (tables.stream_view_name, tables.batch_view_name)


class Tables:
    """The logs and `events` of a pipeline."""

    def __init__(self, catalog: Catalog, pipeline: Pipeline) -> None:
        self.catalog, self.pipeline = catalog, pipeline

    def fill(self, seen: datetime | None = None) -> None:
        """All rows, all of them united."""
        pipeline = self.pipeline
        schemas.ensure_tables(self.catalog, pipeline)
        self.append(tables.STREAM_LOG, STREAM[:-1], Landed(pipeline.name, 1, "t", ENDS))
        self.append(tables.STREAM_LOG, STREAM[-1:], Landed(pipeline.name, 1, "t", ENDS))
        self.append(tables.BATCH_LOG, BATCH, Landed(pipeline.name, 1))
        self.append(tables.LANDED_FILES, [{"landing": 1, "file": "a.csv", "rows": 2, "sha256": "a"}])
        united = [{**row, "layer": "stream", "withdrawn": False, "landing": None} for row in STREAM[:-1]]
        united += [{**row, "layer": "batch", "withdrawn": False} for row in BATCH]
        self.append(tables.EVENTS, united, Boundary(pipeline.name, "t", ENDS, 1, seen=seen))

    def append(self, name: str, rows: list[Row], state: Landed | Boundary | Folded | None = None) -> None:
        table = self.catalog.load_table((self.pipeline.name, name))
        schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
        complete = [{column: row.get(column) for column in schema.names} for row in rows]
        table.append(pa.Table.from_pylist(complete, schema=schema), snapshot_properties=encode(state) if state else {})

    def head(self, name: str) -> int | None:
        return self.catalog.load_table((self.pipeline.name, name)).metadata.current_snapshot_id

    def rewrite(self, name: str, change: Change) -> None:
        """All rows in new files, as a compaction writes them, each as `change` has it."""
        table = self.catalog.load_table((self.pipeline.name, name))
        rows = table.scan().to_arrow()
        table.delete(AlwaysTrue())
        table.append(pa.Table.from_pylist(change(rows.to_pylist()), schema=rows.schema))

    def make_again(self, name: str) -> None:
        """The same rows in another table of this name, with more commits than the one before had."""
        table = self.catalog.load_table((self.pipeline.name, name))
        rows = table.scan().to_arrow()
        self.catalog.drop_table((self.pipeline.name, name))
        again = self.catalog.create_table((self.pipeline.name, name), table.schema(), properties=table.properties)
        for part in (rows[:0], rows[:0], rows):
            again.append(part, snapshot_properties=encode(Landed(self.pipeline.name, 1)))

    def world(self, folder: Path) -> World:
        views = [name(view) for view in self.pipeline.views.values() for name in VIEW_TABLES]
        names = [*declared(self.pipeline), *views]
        pins = {name: pinned(name, catalogs.find(self.catalog, self.pipeline.name, name)) for name in names}
        sent = Sent(self.pipeline.name, "t", ends=ENDS)
        return World(Lake(Settings(), self.pipeline), connect(folder), sent, pins)

    def seen(self, folder: Path) -> LastProof | None:
        """What a proof in full has seen."""
        world = self.world(folder)
        for name in declared(self.pipeline):
            world.register(name, world.pins[name])
        return changes.seen(world, [Check("I2", True, False, "", proved=False)], NOW)

    def proved(self, folder: Path) -> LastProof:
        """The same, after a way through the database."""
        seen = self.seen(folder)
        assert seen
        kept = last_proof.read(json.loads(json.dumps(last_proof.as_json(seen))))
        assert kept == seen
        return kept


@dataclass(frozen=True)
class Start:
    """A lake that many tests begin with, and what a proof of it in full has seen."""

    pipeline: Pipeline
    database: Path
    warehouse: str
    proved: LastProof

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Tables]:
        """Its tables in a catalog of one's own: files are never changed, so all catalogs can refer to the same ones."""
        catalog = LakeCatalog("test", uri=f"sqlite:///{shutil.copy(self.database, folder)}", warehouse=self.warehouse)
        yield Tables(catalog, self.pipeline)
        catalog.engine.dispose()


def start(folder: Path, pipeline: Pipeline, seen: datetime | None = None) -> Start:
    """A lake in `folder`, its views as they are before the first window."""
    database, warehouse = folder / "start.db", f"file://{folder}/tables"
    catalog = LakeCatalog("test", uri=f"sqlite:///{database}", warehouse=warehouse)
    made = Tables(catalog, pipeline)
    made.fill(seen)
    for view in pipeline.views.values():
        for name in VIEW_TABLES:
            schemas.ensure_view(catalog, pipeline, view, name(view))
        folded = Folded(made.head(tables.EVENTS), fingerprint.view(pipeline, view))
        made.append(tables.batch_view_name(view), [], folded)
    proved = made.proved(folder)
    catalog.engine.dispose()
    return Start(pipeline, database, warehouse, proved)


@pytest.fixture(scope="module")
def without_views(tmp_path_factory: pytest.TempPathFactory, define: Callable[..., Pipeline]) -> Start:
    return start(tmp_path_factory.mktemp("lake"), define(views=None))


@pytest.fixture(scope="module")
def with_view(tmp_path_factory: pytest.TempPathFactory, define: Callable[..., Pipeline]) -> Start:
    return start(tmp_path_factory.mktemp("lake"), define(views=VIEW), seen=event("last", 9)["at"])


@pytest.fixture
def made(without_views: Start, tmp_path: Path) -> Iterator[Tables]:
    with without_views.opened(tmp_path) as found:
        yield found


@pytest.fixture
def last(without_views: Start) -> LastProof:
    """What a proof of `made`, as it is at first, has seen."""
    return without_views.proved


def test_what_a_proof_had_seen(made: Tables, last: LastProof, tmp_path: Path) -> None:
    seen, day = made.proved(tmp_path), int(NOW.timestamp()) // 86_400
    assert seen == last
    assert (seen.offsets, seen.landing, seen.first_landing, seen.unproved) == (ENDS, 1, 2, ("I2",))
    assert [(block[0], block[2] - day, *kept[::2]) for block, kept in seen.sums[tables.STREAM_LOG]] == [
        *((0, 0, 2, 0), (0, 1, 2, 2), (0, 2, 2, 4)),
        *((1, 0, 2, 0), (1, 1, 2, 2), (1, 2, 1, 4)),
    ]
    assert {block: kept[0] for block, kept in seen.sums[tables.BATCH_LOG]} == {(0, 1, 0): 2}
    assert changes.seen(made.world(tmp_path), [Check("I2", False, False, "")], NOW) is None
    made.rewrite(tables.LANDED_FILES, lambda rows: [])
    assert made.proved(tmp_path).sums[tables.LANDED_FILES] == [((0, 0, 0), (0, 0, 0))]
    due = [last_proof.is_due_in_full(seen, NOW + timedelta(days=days)) for days in (1, 6, 7)]
    assert (due, last_proof.is_due_in_full(None, NOW)) == ([False, False, True], True)


def only(key: str, **other: object) -> Change:
    return lambda rows: [{**row, **other} if key in (row.get("id"), row.get("file")) else row for row in rows]


REWRITTEN: dict[str, tuple[str, Change, str]] = {
    "as it was": (tables.STREAM_LOG, lambda rows: rows[::-1], ""),
    "a value": (tables.STREAM_LOG, only("s4", value=5), "[0]@0–249,999: 2 rows, with other values"),
    "a payload cut": (
        tables.STREAM_LOG,
        lambda rows: [{**row, "payload": row["payload"] and b"not"} for row in rows],
        "[0]@0–249,999: 2 rows, with other values",
    ),
    "two values swapped": (
        tables.STREAM_LOG,
        lambda rows: only("s4", value=6)(only("s6", value=4)(rows)),
        "[0]@0–249,999: 2 rows, with other values",
    ),
    "a row doubled": (tables.STREAM_LOG, lambda rows: [*rows, rows[0]], "rows then, "),
    "a row lost": (tables.STREAM_LOG, lambda rows: rows[1:], "rows then, "),
    "a row moved": (tables.STREAM_LOG, only("s4", kafka_partition=1), "[1]@0–249,999: 2 rows then, 3 now"),
    "one for another": (tables.STREAM_LOG, only("s4", kafka_offset=1), "[0]@0–249,999: 2 rows, with other values"),
    "a file's row of no landing": (
        tables.BATCH_LOG,
        lambda rows: [{**rows[0], "landing": None}, rows[1]],
        "landing 1: ",
    ),
    "all rows of no landing": (
        tables.BATCH_LOG,
        lambda rows: [{**row, "landing": None} for row in rows],
        "landing 1: 2 rows then, 0",
    ),
    "a file's row": (tables.BATCH_LOG, only("b1", kind="z"), "landing 1: 2 rows, with other values"),
    "all moved, and said to be old": (
        tables.STREAM_LOG,
        lambda rows: [{**row, "kafka_partition": 7} for row in rows],
        "[0]@0–249,999: 2 rows then, 0 now",
    ),
    "an event": (tables.EVENTS, only("s4", value=5), "events: id 's4' from "),
}


@pytest.mark.parametrize("case", REWRITTEN)
def test_rows_that_were_proved_are_still_there(made: Tables, last: LastProof, tmp_path: Path, case: str) -> None:
    table, change, offender = REWRITTEN[case]
    made.rewrite(table, change)
    check = kept(made, last, tmp_path)
    assert check.ok == (not offender), check
    assert any(offender in one for one in check.offenders) or not offender, check


@pytest.mark.parametrize("case", ["as it was", "a value", "a row moved"])
def test_of_rows_that_retention_has_left_too(made: Tables, last: LastProof, tmp_path: Path, case: str) -> None:
    log = made.catalog.load_table((made.pipeline.name, tables.STREAM_LOG))
    commits.set_properties(log, {table_state.RETAINED_FROM: '{"0": 2, "1": 2}'})
    log.refresh().delete("kafka_offset < 2")
    _, change, offender = REWRITTEN[case]
    made.rewrite(tables.STREAM_LOG, change)
    assert kept(made, last, tmp_path).ok == (not offender)


def kept(made: Tables, last: LastProof, folder: Path) -> Check:
    world = made.world(folder)
    assert changes.obstacle(world, last) == ""
    changes.narrow(world, last)
    found = Findings("I4")
    changes.compare_kept(world, found)
    return found.check()


def test_new_rows_and_the_days_that_they_touch(made: Tables, last: LastProof, tmp_path: Path) -> None:
    day = 1440
    new = {**logged(12), **event("s2", 3 * day, value=12), "landing": 2}
    made.append(tables.STREAM_LOG, [new], Landed(made.pipeline.name, 2, "t", {0: 7, 1: 5}))
    world = made.world(tmp_path)
    changes.narrow(world, last)
    assert world.rows(f"SELECT id, kafka_offset FROM {tables.STREAM_LOG}") == [("s2", 6)]
    assert [(high - low) // changes.DAY_US for low, high in world.scope.ranges or ()] == [1, 1]
    # The row that it competes with, and all else of that day.
    assert world.number("SELECT count(*) FROM _tw_events_then") == 12
    later = changes.seen(world, [Check("I4", True, False, "", proved=False)], NOW)
    assert later and later.first_landing == 2 and later.sums == last.sums and later.in_full_at == last.in_full_at
    # Nobody looks at these rows again.
    assert later.unproved == ("I4",)

    # A union that keeps both rows, on days far apart.
    both = {**new, "layer": "stream", "withdrawn": False, "landing": None}
    made.append(tables.EVENTS, [both], Boundary(made.pipeline.name, "t", {0: 7, 1: 5}, 1))
    world = made.world(tmp_path)
    changes.narrow(world, last)
    world.connection.execute(f"CREATE TABLE {UNIFIED} AS FROM {tables.EVENTS}")
    assert "events: id 's2' 2 times" in recomputed.one_row_per_id(world).offenders[0]


OTHERWISE: dict[str, tuple[str, dict[str, object], str]] = {
    "as the filter says": (tables.STREAM_LOG, {}, ""),
    "filtered": (tables.STREAM_LOG, {"outcome": "filtered"}, "[0]@2: filtered, though the filter says otherwise"),
    "accepted": (tables.STREAM_LOG, {"hidden": True}, "[0]@2: accepted, though the filter says otherwise"),
    "rejected": (tables.STREAM_LOG, {"outcome": "rejected"}, ""),
    "no outcome": (tables.STREAM_LOG, {"outcome": None}, "[0]@2: null, which is no outcome"),
    "another outcome": (tables.STREAM_LOG, {"outcome": "odd"}, "[0]@2: odd, which is no outcome"),
    "of no landing": (tables.STREAM_LOG, {"hidden": True, "landing": None}, "[0]@2: accepted, though the filter says"),
    "no id": (tables.STREAM_LOG, {"id": None}, "[0]@2: accepted without an id"),
    "a file's": (tables.BATCH_LOG, {"outcome": None}, "a.csv:1 (landing 1): null, which is no outcome"),
    "a file's without id": (tables.BATCH_LOG, {"id": None}, "a.csv:1 (landing 1): accepted without an id"),
}


@pytest.mark.parametrize("case", OTHERWISE)
@pytest.mark.parametrize("since", [1, 2], ids=["of today", "of before"])
def test_rows_with_another_outcome_than_the_filter_says(made: Tables, tmp_path: Path, case: str, since: int) -> None:
    """What was landed under another filter is not proved; an outcome that is none never was right."""
    name, other, said = OTHERWISE[case]
    key = "s4" if name == tables.STREAM_LOG else "b1"
    made.rewrite(name, only(key, **other))
    log = made.catalog.load_table((made.pipeline.name, name))
    commits.set_properties(log, {table_state.DEFINED_SINCE: str(since)})
    world = made.world(tmp_path)
    for log_name in (tables.STREAM_LOG, tables.BATCH_LOG):
        world.register(log_name, world.pins[log_name])
    found = Findings("I4")
    origins.outcomes(world, found)
    check = found.check()
    before = since == 2 and "outcome" not in said and case != "of no landing"
    assert check.state == ("holds" if not said else "not proved" if before else "violated"), check
    assert said in (check.text if before else " ".join(check.offenders))
    assert check.numbers == {
        "rows_filtered_wrongly": int(check.state == "violated"),
        "rows_filtered_otherwise_before": int(check.state == "not proved"),
    }


def test_of_rows_that_no_job_has_met_with_the_definition_of_today_nothing_is_violated(
    made: Tables, define: Callable[..., Pipeline], tmp_path: Path
) -> None:
    """They were passed over without a word."""
    other = define(name=made.pipeline.name, topic={"name": made.pipeline.topic.name}, filter="value > 4", views=None)
    world = Tables(made.catalog, other).world(tmp_path)
    for name in (tables.STREAM_LOG, tables.BATCH_LOG):
        world.register(name, world.pins[name])
    found = Findings("I4")
    origins.outcomes(world, found)
    check = found.check()
    assert (check.state, check.numbers["rows_filtered_otherwise_before"]) == ("not proved", 7), check
    assert "5 differences in rows of stream_log that were landed under an earlier definition, such as" in check.text


@pytest.mark.parametrize(
    ("elements", "torn"),
    [
        ([1, 2, 3], False),
        ([0], False),
        ([1, 3], True),
        ([2, 3], True),
        ([0, 1], True),
        ([0, 0], True),
        ([None], True),
        ([1, 2, None], True),
        ([0, None], True),
    ],
)
def test_elements_of_a_record_are_all_there(tmp_path: Path, elements: list[int | None], torn: bool) -> None:
    connection = connect(tmp_path)
    connection.register("log", pa.table({"place": [1] * len(elements), "element": pa.array(elements, pa.int32())}))
    assert bool(connection.execute(sql.torn_elements("log", ["place"], "place")).fetchall()) == torn


@pytest.mark.parametrize(
    ("rows", "whole"),
    [
        ([(1, 1), (2, 1), (2, 2)], True),
        ([(1, 1)], False),
        ([(1, 1), (2, 1), (None, 1)], False),
        ([(1, 1), (2, 1), (2, 1)], False),
        ([(0, 1), (1, 1)], False),
        ([(-1, 1), (1, 1)], False),
    ],
)
def test_a_file_is_whole_by_the_numbers_of_its_records(
    lake: LakeCatalog, define: Callable[..., Pipeline], tmp_path: Path, rows: list[tuple[int | None, int]], whole: bool
) -> None:
    """Two records were landed, with `event.each`: a row without a number counted as an element, one numbered 0 as 1."""
    made = Tables(lake, define(event={"each": "items"}, views=None))
    schemas.ensure_tables(lake, made.pipeline)
    place = {"landing": 1, "file": "a.json", "outcome": tables.REJECTED}
    numbered = [{**place, "row": row, "element": element} for row, element in rows]
    file = {"landing": 1, "file": "a.json", "rows": 2, "version": "v", "sha256": "s"}
    made.append(tables.BATCH_LOG, numbered, Landed(made.pipeline.name, 1, files=(file,)))
    world = made.world(tmp_path)
    for name in (tables.BATCH_LOG, tables.LANDED_FILES):
        world.register(name, world.pins[name])
    origins._register_landed(world)
    (found,) = origins._taken(world)
    assert found.whole == whole


def test_kafka_was_set_back(made: Tables, last: LastProof, tmp_path: Path) -> None:
    """None of the rows that are looked at says so."""
    world = made.world(tmp_path)
    changes.narrow(world, last)
    name = made.pipeline.topic.name
    shorter, deleted = {**ENDS, 1: 3}, dict[int, int]()
    for before, after, offenders in (
        (ENDS, ENDS, []),
        (shorter, shorter, [f"{name}[1]@4: Kafka ends at 3"]),
        (shorter, deleted, [f"{name}[0]@5: Kafka ends at 0", f"{name}[1]@4: Kafka ends at 0"]),
    ):
        world.before, world.after = replace(world.before, ends=before), replace(world.before, ends=after)
        found = Findings("I4")
        origins.beyond_kafka(world, found)
        assert list(found.check().offenders) == offenders


def test_rows_without_a_place_are_told(made: Tables, define: Callable[..., Pipeline], tmp_path: Path) -> None:
    """No job writes them: they ended the proof with Python's own error, or were looked at by nobody."""
    made.append(tables.STREAM_LOG, [{**logged(4), "kafka_partition": None}, {**logged(6), "kafka_offset": None}])
    world = made.world(tmp_path)
    world.register(tables.STREAM_LOG, world.pins[tables.STREAM_LOG])
    assert offsets.each_once(world).text.startswith("2 rows without partition or offset")

    (view,) = define().views.values()
    columns = "'a' AS kind, 1 AS events, 1 AS total, 1 AS mean"
    near = f"[1] AS {sql.near('mean')}"
    expected = f"SELECT 0 AS {sql.START}, {changes.DAY_US // 24} AS {sql.END}, {columns}, {near}"
    world.connection.execute(
        f"""CREATE TEMP TABLE v AS SELECT *, {columns} FROM (VALUES
            (make_timestamptz(0), make_timestamptz({changes.DAY_US // 24})), (NULL, make_timestamptz(0)),
            (make_timestamptz(0), NULL)) AS _tw_v(window_start, window_end)"""
    )
    found = recomputed.compare(world, view, "v", expected)
    assert (found.compared, found.different) == (3, 2)
    assert {one.split(")")[0] for one in found.offenders} == {
        "v [1970-01-01T00:00:00Z, null",
        "v [null, 1970-01-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("begin", "end", "acknowledged", "states", "named"),
    [
        (6, 6, 5, ("holds", "holds"), ()),
        (6, 9, 8, ("behind", "behind"), ()),
        (9, 9, None, ("holds", "violated"), ("[0]@6–8",)),
        (9, 9, 8, ("violated", "violated"), ("[0]@6–8",)),
        (9, 12, 11, ("behind", "violated"), ("[0]@6–8",)),
    ],
)
def test_what_kafka_deleted_before_it_landed_is_lost(
    made: Tables,
    tmp_path: Path,
    begin: int,
    end: int,
    acknowledged: int | None,
    states: tuple[str, str],
    named: tuple[str, ...],
) -> None:
    world = made.world(tmp_path)
    world.register(tables.STREAM_LOG, world.pins[tables.STREAM_LOG])
    ends = {**ENDS, 0: end}
    told = {} if acknowledged is None else {0: acknowledged}
    world.before = replace(
        world.before, topic_id="t", begins={0: begin, 1: 0}, ends=ends, stable_ends=ends, acknowledged=told
    )
    found = offsets.acknowledged(world), offsets.each_once(world)
    assert tuple(one.state for one in found) == states, found
    assert found[1].offenders == tuple(f"{made.pipeline.topic.name}{place}" for place in named)


def test_what_came_about_after_kafka_was_asked_first_is_no_violation(made: Tables, tmp_path: Path) -> None:
    """The topic was made, and landed; Kafka deleted offsets, and they were accepted as lost."""
    lost = Lost(0, 6, 9, NOW)
    made.append(tables.STREAM_LOG, [], Landed(made.pipeline.name, 2, "t", {**ENDS, 0: 9}, lost=(lost,)))
    world = made.world(tmp_path)
    world.register(tables.STREAM_LOG, world.pins[tables.STREAM_LOG])
    world.after = replace(world.before, begins={0: 9, 1: 0})
    for before in (replace(world.before, begins={0: 0, 1: 0}), replace(world.before, topic_id=None, ends={})):
        world.before = before
        assert offsets.each_once(world).state == "holds"
    world.after = replace(world.before, topic_id="t", begins={0: 8, 1: 0})
    assert "said to be lost that Kafka still has" in offsets.each_once(world).text
    world.after = replace(world.before, topic_id=None)
    assert "is gone from Kafka" in offsets.each_once(world).text


def test_what_retention_took_of_an_idle_partition_had_landed(made: Tables, tmp_path: Path) -> None:
    made.rewrite(tables.STREAM_LOG, lambda rows: [row for row in rows if row["kafka_partition"] == 0])
    log = made.catalog.load_table((made.pipeline.name, tables.STREAM_LOG))
    with log.transaction() as change:
        change.set_properties({table_state.RETAINED_FROM: '{"1": 5}'})
    world = made.world(tmp_path)
    world.register(tables.STREAM_LOG, world.pins[tables.STREAM_LOG])
    world.before = replace(world.before, topic_id="t", acknowledged={0: 5, 1: 4})
    assert offsets.acknowledged(world).state == "holds"


@pytest.mark.parametrize(
    ("of_files", "lost", "invented"),
    [
        ({}, 0, 0),
        ({"outcome": tables.ACCEPTED}, 1, 1),
        ({"outcome": tables.FILTERED}, 0, 1),
        ({"outcome": tables.REJECTED, "id": None}, 0, 0),
        (None, 0, 1),
    ],
)
def test_a_row_of_files_beats_one_that_retention_took(
    made: Tables, tmp_path: Path, of_files: Row | None, lost: int, invented: int
) -> None:
    """Ids whose record is no longer in stream_log were left out, whatever the files have of them.

    One row without an id, last in the table, let none be compared.
    """
    log = made.catalog.load_table((made.pipeline.name, tables.STREAM_LOG))
    commits.set_properties(log, {table_state.RETAINED_FROM: '{"0": 2, "1": 2}'})
    log.refresh().delete("kafka_offset < 2")
    if of_files:
        row = {**event("s0", 0, value=100), "landing": 2, "file": "b.csv", "row": 1, **of_files}
        made.append(tables.BATCH_LOG, [row], Landed(made.pipeline.name, 2))
    world = made.world(tmp_path)
    for name in declared(made.pipeline):
        world.register(name, world.pins[name])
    world.connection.execute(f"CREATE TABLE {UNIFIED} AS FROM {tables.EVENTS} WHERE NOT withdrawn")
    if of_files is None:
        world.connection.execute(f"UPDATE {UNIFIED} SET id = NULL WHERE id = 's0'")
    numbers = recomputed.equals_from_scratch(world).numbers
    assert (numbers["lost"], numbers["invented"]) == (lost, invented)


def test_nothing_is_built_on_a_view_that_was_behind(
    lake: LakeCatalog, define: Callable[..., Pipeline], tmp_path: Path
) -> None:
    """What it will be filled with was not compared: a day that the union then forgets would never be looked at."""
    made = Tables(lake, define())
    made.fill()
    (view,) = made.pipeline.views.values()
    name = tables.batch_view_name(view)
    schemas.ensure_view(lake, made.pipeline, view, name)
    head = made.head(tables.EVENTS)
    assert made.seen(tmp_path) is None
    for snapshot, definition, kept in (
        (head, "of another declaration", False),
        (None, fingerprint.view(made.pipeline, view), False),
        (head, fingerprint.view(made.pipeline, view), True),
    ):
        made.append(name, [], Folded(snapshot, definition))
        assert bool(made.seen(tmp_path)) == kept
    made.append(tables.EVENTS, [], Boundary(made.pipeline.name, "t", ENDS, 1))
    assert made.seen(tmp_path)
    made.append(tables.EVENTS, [], Boundary(made.pipeline.name, "t", ENDS, 1, touched_days=(NOW.date(),)))
    assert made.seen(tmp_path) is None


CHANGED: dict[str, tuple[Callable[[Tables], object], str]] = {
    "a landed file": (lambda made: made.rewrite(tables.LANDED_FILES, only("a.csv", rows=3)), "rows of landed_files"),
    "none of them": (lambda made: made.rewrite(tables.LANDED_FILES, lambda rows: rows), ""),
    "events rebuilt": (
        lambda made: made.append(tables.EVENTS, [], Boundary(made.pipeline.name, "t", ENDS, 1, rebuilt=True)),
        "events was rebuilt",
    ),
    "a log made again": (lambda made: made.make_again(tables.BATCH_LOG), "twofold.uuid"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_everything_is_checked_where_tables_are_other_ones(
    made: Tables, last: LastProof, tmp_path: Path, case: str
) -> None:
    change, said = CHANGED[case]
    change(made)
    found = changes.obstacle(made.world(tmp_path), last)
    assert said in found and bool(said) == bool(found), found


VIEW = {"by_kind": {"window": "1 hour", "by": ["kind"], "measures": {"events": "count(*)"}}}
NEW = {"in time": (50, "s12"), "too late": (-60 * 24, "s12"), "of a known id": (50, "s2")}


@pytest.mark.parametrize("case", NEW)
@pytest.mark.parametrize("there", [True, False])
def test_a_window_of_a_stream_view_is_missed_where_a_new_row_is_certainly_in_it(
    with_view: Start, tmp_path: Path, case: str, there: bool
) -> None:
    with with_view.opened(tmp_path) as made:
        check = of_a_new_row(made, with_view.proved, tmp_path, case, there)
    (view,) = with_view.pipeline.views.values()
    name = tables.stream_view_name(view)
    missed = [f"{name} [2024-05-01T00:00:00Z, 2024-05-01T01:00:00Z) kind='b': missing"]
    assert [one for one in check.offenders if one.startswith(name)] == (
        missed if (case, there) == ("in time", False) else []
    ), check


def of_a_new_row(made: Tables, last: LastProof, folder: Path, case: str, there: bool) -> Check:
    """I5 after a row has come whose window the stream's view has, or has not."""
    (view,) = made.pipeline.views.values()
    name, log = tables.stream_view_name(view), tables.STREAM_LOG
    minutes, key = NEW[case]
    row = {**logged(12), **event(key, minutes, "b"), "landing": 2}
    made.append(log, [row], Landed(made.pipeline.name, 2, "t", {0: 7, 1: 5}))
    start = row["at"].replace(minute=0)
    window = {"window_start": start, "window_end": start + view.window, "kind": "b" if there else "a", "events": 1}
    made.append(name, [window], Folded(made.head(log), fingerprint.view(made.pipeline, view)))
    world = made.world(folder)
    changes.narrow(world, last)
    return recomputed.views_equal_recomputations(world)


def changed(made: Tables, last: LastProof) -> dict[str, tuple[LastProof | None, str]]:
    return {
        "none": (None, "no proof yet"),
        "rules": (replace(last, rules="others"), "another one"),
        "topic": (replace(last, topic_id="other"), "another topic"),
        "reland": (replace(last, relanded=(1, 0)), "judged again"),
        "ledger": (replace(last, rules=last_proof.rules(made.pipeline, ["a"])), "another one"),
        "release": (last_proof.read({**last_proof.as_json(last), "at": "?"}), "no proof yet"),
        "boundary": (replace(last, offsets={0: 7}), "covers less"),
        "landing": (replace(last, landing=2), "covers less"),
        "rollback": (replace(last, sequences={**last.sequences, tables.BATCH_LOG: 99}), "set back"),
        "expired": (replace(last, snapshots={tables.EVENTS: 7}), "has expired"),
        "erased": (replace(last, properties={**last.properties, tables.STREAM_LOG: {}}), "twofold.event"),
    }


def test_everything_is_checked_where_the_last_proof_cannot_be_built_on(
    made: Tables, last: LastProof, tmp_path: Path
) -> None:
    cases, world = changed(made, last), made.world(tmp_path)
    assert {name: said in changes.obstacle(world, last) for name, (last, said) in cases.items()} == dict.fromkeys(
        cases, True
    )
