"""Queries as users run them: what they read, how they print, what they refuse."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import duckdb
import pytest
import sqlalchemy
from pyiceberg.catalog import Catalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform
from pyiceberg.types import DoubleType, IcebergType, LongType, NestedField, StringType, TimestamptzType

from tests import lake
from twofold import catalog, database, tables
from twofold.contract import reasons
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline
from twofold.errors import BoundaryError, NotRunning, QueryError
from twofold.reader import Reader, pinned, session
from twofold.reader.pinned import Pinned
from twofold.settings import Settings
from twofold.table_state import Boundary, Folded, Landed

START = datetime(2013, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
Row = dict[str, Any]
Define = Callable[..., Pipeline]
Run = Callable[..., CompletedProcess[str]]


def sent(offset: int, hours: float, **fields: object) -> Row:
    """An accepted record of partition 0, with an id of its own."""
    event = {"id": f"e{offset:03}", "at": START + hours * HOUR, "kind": "a", "value": offset}
    kafka = {"kafka_partition": 0, "kafka_offset": offset, "kafka_timestamp": START + hours * HOUR, "landing": 1}
    return {**event, "outcome": "accepted", **kafka, **fields}


def united(row: Row, **fields: object) -> Row:
    """The row of `events` that a record becomes."""
    return {**row, "layer": "stream", "withdrawn": False, "landing": None, **fields}


def fill(stack: Settings, pipeline: Pipeline, past: int = 3) -> dict[str, Table]:
    """30 records, one every 8 hours for 10 days; all but the last `past` are in `events`."""
    made = lake.make(stack, pipeline)
    rows = [sent(offset, 8 * offset) for offset in range(30)]
    edge = 30 - past
    lake.append(made[tables.STREAM_LOG], rows, Landed(pipeline.name, topic_id="t", offsets={0: 30}))
    lake.append(made[tables.EVENTS], map(united, rows[:edge]), Boundary(pipeline.name, "t", {0: edge}))
    return made


def answer(stack: Settings, pipeline: Pipeline, sql: str) -> list[tuple[Any, ...]]:
    """A session of its own."""
    with Reader(stack, {pipeline.name: pipeline}) as reader:
        return reader.query(sql, pipeline.name).fetchall()


def plan(stack: Settings, pipeline: Pipeline, sql: str) -> str:
    """What DuckDB really did."""
    return str(answer(stack, pipeline, f"EXPLAIN ANALYZE {sql}")[0][1])


def test_reads_only_the_files_of_the_days_asked_for(stack: Settings, define: Define) -> None:
    """One day of ten: one file of `events`; the tail is not read again."""
    pipeline = define()
    fill(stack, pipeline)
    day = "\"at\" >= '2013-05-03' AND \"at\" < '2013-05-04'"
    assert "Total Files Read: 1" in plan(stack, pipeline, f"SELECT max(id) FROM unified_events WHERE {day}")
    assert "Total Files Read: 9" in plan(stack, pipeline, "SELECT max(id) FROM unified_events")
    assert answer(stack, pipeline, f"SELECT count(*) FROM unified_events WHERE {day}") == [(3,)]


def test_a_narrow_query_leaves_nothing_out_of_the_next(stack: Settings, define: Define) -> None:
    """Two queries of one session: the second has no condition, and sees what the first did not need."""
    pipeline = define()
    fill(stack, pipeline)
    with Reader(stack, {pipeline.name: pipeline}) as reader:
        day = "\"at\" >= '2013-05-03' AND \"at\" < '2013-05-04'"
        assert reader.query(f"SELECT count(*) FROM unified_events WHERE {day}", pipeline.name).fetchall() == [(3,)]
        assert reader.query("SELECT count(*) FROM unified_events", pipeline.name).fetchall() == [(30,)]


def test_joins_only_the_days_that_a_correction_touches(stack: Settings, define: Define) -> None:
    """No id of the tail in `events`: no join at all. One corrected: its old day alone is joined."""
    pipeline = define()
    made = fill(stack, pipeline)
    sql = "SELECT max(value) FROM unified_events"
    assert "JOIN" not in plan(stack, pipeline, sql).upper().replace(" ", "_")
    corrected = {**sent(4, 36), "value": 777, "landing": 1, "file": "fix.csv", "row": 1, "landed_at": START}
    lake.append(made[tables.BATCH_LOG], [corrected], Landed(pipeline.name, landing=1))
    joined = plan(stack, pipeline, sql)
    assert "Join" in joined
    assert "Total Files Read: 8" in joined
    assert "Total Files Read: 1" in joined
    assert answer(stack, pipeline, sql) == [(777,)]


def test_a_union_that_commits_midway_changes_nothing(
    stack: Settings, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the pins of `events` and of the logs, and after them, rows neither vanish nor double."""
    pipeline = define()
    made = fill(stack, pipeline)
    tail = [united(sent(offset, 8 * offset)) for offset in range(27, 30)]
    pin = pinned.pin

    def pin_and_unite(catalog: Catalog, namespace: str, name: str, declared: tables.TableShape | None) -> Pinned:
        found = pin(catalog, namespace, name, declared)
        if name == tables.EVENTS:
            lake.append(made[tables.EVENTS], tail, Boundary(pipeline.name, "t", {0: 30}))
        return found

    monkeypatch.setattr(session, "pin", pin_and_unite)
    sql = "SELECT count(*), count(DISTINCT id) FROM unified_events"
    with Reader(stack, {pipeline.name: pipeline}) as reader:
        assert reader.query(sql, pipeline.name).fetchall() == [(30, 30)]
        lake.append(made[tables.STREAM_LOG], [sent(30, 1)], Landed(pipeline.name, topic_id="t", offsets={0: 31}))
        assert reader.query(sql, pipeline.name).fetchall() == [(30, 30)]
    assert answer(stack, pipeline, sql) == [(31, 31)]


def test_a_column_added_later_is_null_before(stack: Settings, define: Define) -> None:
    """In files written before it was declared, and in tables that no job has extended yet."""
    before = define(event={"fields": {"value": None}}, views=None)
    made = lake.make(stack, before)
    lake.append(made[tables.STREAM_LOG], [sent(0, 0), sent(1, 1)], Landed(before.name, offsets={0: 2}))
    lake.append(made[tables.EVENTS], [united(sent(0, 0))], Boundary(before.name, None, {0: 1}))
    after = define(name=before.name)
    sql = "SELECT id, value FROM unified_events WHERE value IS NULL OR value > 0 ORDER BY id"
    assert answer(stack, after, sql) == [("e000", None), ("e001", None)]
    made = lake.make(stack, after)
    lake.append(made[tables.STREAM_LOG], [sent(2, 2)], Landed(before.name, offsets={0: 3}))
    assert answer(stack, after, sql) == [("e000", None), ("e001", None), ("e002", 2)]


def test_a_catalog_that_goes_away_midway_is_told_in_a_sentence(stack: Settings, define: Define) -> None:
    """Its PostgreSQL ends the connection in a statement, or before the commit; the next one is served again."""
    end = "SELECT pg_terminate_backend(pg_backend_pid())"
    engine = catalog.load(stack).engine
    with pytest.raises(NotRunning, match=str(stack.postgres_port)), engine.connect() as connection:
        connection.execute(sqlalchemy.text(end))
    with pytest.raises(NotRunning, match=str(stack.postgres_port)), database.session(stack) as session:
        session.execute(end)
    ended = "SELECT pg_terminate_backend(%s, 10000)"
    with pytest.raises(NotRunning, match=str(stack.postgres_port)), database.session(stack) as session:
        session.execute("SELECT 1")
        with database.session(stack) as other:  # so that nothing is left to do but to commit
            other.execute(ended, [session.info.backend_pid])
    assert catalog.find(catalog.load(stack), define().name, tables.EVENTS) is None


def test_a_boundary_of_another_topic_is_refused(stack: Settings, define: Define) -> None:
    """Its offsets mean nothing in this log."""
    pipeline = define()
    made = fill(stack, pipeline)
    lake.append(made[tables.STREAM_LOG], [sent(0, 0)], Landed(pipeline.name, topic_id="other", offsets={0: 1}))
    with pytest.raises(BoundaryError, match="deleted and created again"):
        answer(stack, pipeline, "SELECT count(*) FROM unified_events")


def view_table(stack: Settings, pipeline: Pipeline, name: str, rows: list[Row], folded: Folded) -> None:
    """A table of the view `by_kind`, as the jobs make it."""
    kinds: dict[str, IcebergType] = {
        "window_start": TimestamptzType(),
        "window_end": TimestamptzType(),
        "kind": StringType(),
        "events": LongType(),
        "total": LongType(),
        "mean": DoubleType(),
        **({tables.VERSION: LongType()} if name.startswith("stream_") else {}),
    }
    schema = Schema(*(NestedField(i, column, kind) for i, (column, kind) in enumerate(kinds.items(), 1)))
    day = PartitionSpec(PartitionField(1, 1000, DayTransform(), "window_start_day"))
    made = catalog.load(stack).create_table((pipeline.name, name), schema, partition_spec=day)
    lake.append(made, rows, folded)


def window(hour: int, events: int, kind: str = "a") -> Row:
    """One row of the view."""
    start = START + hour * HOUR
    return {"window_start": start, "window_end": start + HOUR, "kind": kind, "events": events, "mean": 1.5}


def test_a_live_view_is_what_the_batch_layer_has_and_past_it_the_newest_of_the_stream(
    stack: Settings, define: Define
) -> None:
    """No log is read: it says what the layers have computed, and of a window's versions the last."""
    pipeline = define()
    fill(stack, pipeline)
    sql = "SELECT hour(window_start), kind, events, layer, final FROM live_by_kind ORDER BY ALL"
    with pytest.raises(QueryError, match="no job has computed this view"):
        answer(stack, pipeline, sql)
    streamed = [{**window(hour, 10 + hour), tables.VERSION: 6} for hour in range(3)]
    declared = fingerprint.view(pipeline, *pipeline.views.values())
    view_table(stack, pipeline, "stream_by_kind", streamed, Folded(1, declared))
    assert answer(stack, pipeline, sql) == [(hour, "a", 10 + hour, "stream", False) for hour in range(3)]

    table = catalog.load(stack).load_table((pipeline.name, "stream_by_kind"))
    newer = [{**window(2, 13), tables.VERSION: 7}, {**window(2, 14), tables.VERSION: 8}]
    lake.append(table, newer, Folded(2, declared))
    assert answer(stack, pipeline, sql)[2:] == [(2, "a", 14, "stream", False)]

    batch = [window(0, 20), window(1, 21), window(1, 31, "b")]
    view_table(stack, pipeline, "batch_by_kind", batch, Folded(1, declared, START + HOUR + HOUR / 2))
    with Reader(stack, {pipeline.name: pipeline}) as reader:
        assert reader.query(sql, pipeline.name).fetchall() == [
            (0, "a", 20, "batch", True),
            (1, "a", 21, "batch", False),
            (1, "b", 31, "batch", False),
            (2, "a", 14, "stream", False),
        ]
        assert {tables.STREAM_LOG, tables.BATCH_LOG}.isdisjoint(name for _, name in reader._pinned)


def test_two_pipelines_in_one_query_and_names_to_choose_from(stack: Settings, define: Define) -> None:
    """Prefixes tell pipelines apart; a name that is not there brings the nearest; one that never ran says so."""
    one, two, never = define(), define(), define()
    fill(stack, one)
    fill(stack, two, past=30)
    both = {pipeline.name: pipeline for pipeline in (one, two, never)}
    with Reader(stack, both) as reader:
        sql = f"SELECT count(*) FROM {one.name}.unified_events JOIN {two.name}.stream_log USING (id)"
        assert reader.query(sql).fetchall() == [(30,)]
        assert reader.query("SELECT count(*) FROM landed_files", one.name).fetchall() == [(0,)]
        with pytest.raises(QueryError, match=f'no table {one.name}.unified_event .*"{one.name}.unified_events"'):
            reader.query(f"SELECT * FROM {one.name}.unified_event")
        with pytest.raises(QueryError, match="none of its jobs ever ran"):
            reader.query(f"SELECT * FROM {never.name}.unified_events")
        listed = [name for _, name in reader.query("SHOW TABLES", one.name).fetchall()]
    assert {"unified_events", "unified_by_kind", "stream_log", "landed_files"} <= set(listed)


def test_formats(stack: Settings, define: Define, twofold: Run, tmp_path: Path) -> None:
    """The same rows in each form: moments with their zone, decimals exact, NaN null in JSON, files whole."""
    pipeline = define()
    fill(stack, pipeline)
    sql = """SELECT "at", 12345678901234567890.10::DECIMAL(30, 2) AS exact, 'NaN'::DOUBLE AS nan, 1 AS a, 2 AS a,
        {'when': "at", 'x': [1.5::DOUBLE]} AS nested, '\\x00é"'::VARCHAR AS text, NULL AS nothing
        FROM unified_events WHERE id = 'e001'; -- one"""
    raw = twofold("query", "-p", pipeline.name, "--format", "json", "-", text_in=sql).stdout
    assert "12345678901234567890.10," in raw
    (row,) = json.loads(raw)
    assert row["at"] == "2013-05-01T08:00:00Z"
    assert (row["nan"], row["a"], row["a_2"], row["nothing"]) == (None, 1, 2, None)
    assert row["nested"] == {"when": "2013-05-01T08:00:00Z", "x": [1.5]}
    target = tmp_path / "rows.csv"
    assert twofold("query", "-p", pipeline.name, sql, "--output", str(target)).stdout == ""
    (line,) = csv.DictReader(io.StringIO(target.read_text()))
    assert (line["at"], line["exact"], line["nan"]) == ("2013-05-01T08:00:00Z", "12345678901234567890.10", "nan")
    failed = twofold("query", "SELECT error('no') FROM range(5)", "-o", str(target), check=False)
    assert (failed.returncode, "Traceback" in failed.stderr, "error:" in failed.stderr) == (1, False, True)
    assert list(tmp_path.iterdir()) == [target]
    twofold("query", f"FROM {pipeline.name}.unified_events", "-o", str(tmp_path / "rows.parquet"))
    assert duckdb.execute(f"SELECT count(*) FROM '{tmp_path}/rows.parquet'").fetchall() == [(30,)]
    assert "e029" in twofold("query", f"SELECT * FROM {pipeline.name}.unified_events").stdout


def test_rejects(stack: Settings, define: Define, twofold: Run, tmp_path: Path) -> None:
    """Reasons are counted by kind; bytes come back exactly, those with line breaks each in a file of its own."""
    pipeline = define()
    made = fill(stack, pipeline)
    payloads = [b'{"id": 1, \xff}', b'{"value": "x"}', b"{\n}", None]
    faults = [
        reasons.not_json(), reasons.joined([reasons.missing("id"), reasons.wrong_type("value", "int", "x")]),
        reasons.missing("id"), reasons.empty(),
    ]  # fmt: skip
    rejected = [
        {
            **sent(30 + i, 300), "outcome": "rejected", "reason_kind": fault.kind, "reason": fault.text,
            "payload": payload, "id": None, "at": None,
        }
        for i, (fault, payload) in enumerate(zip(faults, payloads, strict=True))
    ]  # fmt: skip
    lake.append(made[tables.STREAM_LOG], rejected, Landed(pipeline.name, topic_id="t", offsets={0: 34}))
    row = {"landing": 1, "file": "a.csv", "row": 7, "landed_at": START, "outcome": "rejected"}
    fault = reasons.missing("id")
    told = {"reason_kind": fault.kind, "reason": fault.text, "payload": b"{}"}
    lake.append(made[tables.BATCH_LOG], [{**row, **told}])
    aside = {"landing": 1, "file": "b.parquet", "reason": "not a Parquet file", "landed_at": START, "size_bytes": 3}
    lake.append(made[tables.LANDED_FILES], [aside])
    found = json.loads(twofold("rejects", pipeline.name, "--json").stdout)
    counts = {(kind["layer"], kind["kind"]): kind["count"] for kind in found["rejected"]}
    assert (counts["batch", "missing"], counts["stream", "not_json"], counts["stream", "missing"]) == (1, 1, 2)
    (sample,) = next(kind["samples"] for kind in found["rejected"] if kind["kind"] == "not_json")
    assert sample["reason"] == "not JSON: expected one object"
    assert (sample["place"], sample["payload"]) == (f"{pipeline.topic.name}[0]@30", '{"id": 1, \\xff}')
    assert [file["file"] for file in found["set_aside"]] == ["b.parquet"]
    assert "b.parquet set aside: not a Parquet file" in twofold("rejects", pipeline.name).stdout
    target = tmp_path / "fix.jsonl"
    said = twofold("rejects", pipeline.name, "--to", str(target)).stderr
    assert target.read_bytes() == b'{"id": 1, \xff}\n{"value": "x"}\n{}\n'
    assert [path.read_bytes() for path in (tmp_path / "fix.jsonl.apart").iterdir()] == [b"{\n}"]
    assert "1 records had no value" in said
    assert (
        twofold("rejects", pipeline.name, "--since", "2013-05-10", "--json", "--layer", "batch").stdout.count("[]") == 2
    )


def test_export(stack: Settings, define: Define, twofold: Run, tmp_path: Path) -> None:
    """By day, or sorted in one file; a folder with something in it is only replaced when asked to."""
    pipeline = define()
    fill(stack, pipeline)
    target = tmp_path / "out"
    twofold("export", pipeline.name, "--to", str(target))
    days = duckdb.execute(
        f"SELECT DISTINCT at_day FROM read_parquet('{target}/**/*.parquet', hive_partitioning = true)"
    )
    assert len(days.fetchall()) == 10
    refused = twofold("export", pipeline.name, "--to", str(target), check=False)
    assert (refused.returncode, "is not empty" in refused.stderr) == (1, True)
    twofold("export", pipeline.name, "--to", str(target), "--single", "--overwrite")
    assert [path.name for path in target.iterdir()] == ["events.parquet"]
    ids = [row[0] for row in duckdb.execute(f"SELECT id FROM '{target}/events.parquet'").fetchall()]
    assert ids == [f"e{offset:03}" for offset in range(30)]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_from_an_s3_store(minio_stack: Settings, define: Define) -> None:
    """Remote files are read by another library: pruning, missing columns and corrections work there too."""
    before = define(event={"fields": {"value": None}}, views=None)
    made = fill(minio_stack, before)
    after = define(name=before.name)
    corrected = {**sent(4, 36), "landing": 1, "file": "fix.csv", "row": 1, "landed_at": START}
    lake.append(made[tables.BATCH_LOG], [corrected], Landed(after.name, landing=1))
    sql = "SELECT count(*), count(value), count(*) FILTER (layer = 'batch') FROM unified_events"
    assert answer(minio_stack, after, sql) == [(30, 0, 1)]
    day = "\"at\" >= '2013-05-02' AND \"at\" < '2013-05-03'"
    assert answer(minio_stack, after, f"SELECT max(id) FROM unified_events WHERE {day}") == [("e005",)]
    assert answer(minio_stack, dataclasses.replace(after), "SELECT count(*) FROM stream_log") == [(30,)]
