"""The batch job on real files: the same contract for every format, and each file exactly once whatever happens."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark import cloudpickle
from pyspark.sql import SparkSession

from spark_jobs import batch_log
from spark_jobs.batch_log import BatchRun, Landing
from spark_jobs.spark_session import Job
from spark_jobs.tasks import FromInbox, Ingested
from tests import at_work, running
from twofold import catalog as catalogs
from twofold import kafka, schemas, tables
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.proof.prover import prove
from twofold.settings import Settings
from twofold.table_files import Writer
from twofold.taken import Chosen, TakenFiles

Row = dict[str, Any]
Define = Callable[..., Pipeline]
Run = Callable[..., list[Landing]]
Command = Callable[..., subprocess.CompletedProcess[str]]

EVERY_TYPE = {
    "amount": {"type": "decimal(10,2)"},
    "ratio": {"type": "double"},
    "day": {"type": "date"},
    "count": {"type": "long"},
}
RECORDS: list[Row] = [
    dict(zip(("id", "at", "kind", "value", "hidden", "amount", "ratio", "day", "count"), values, strict=True))
    for values in (
        ("a1", "2024-05-01T00:00:01.000002Z", "a", 1, None, "10.25", 0.1, "2024-02-29", 9007199254740993),
        ("ü2", "2024-05-01T00:00:02Z", "b", None, True, "-0.01", 1e-7, None, None),
        ("a3", "2024-05-01T00:00:03Z", "a", 1001, False, None, None, None, -1),
        (None, "2024-05-01T00:00:04Z", "z", 3, None, "1.00", 2.0, None, 0),
        ('a5 "q", x', "2099-05-01T00:00:05Z", "c", 4, None, "1.00", 2.0, None, 0),
        ("two\nlines", "2024-05-01T00:00:06Z", "c", -5, False, "99999999.99", -2.5, "2024-01-01", 1),
    )
]
OUTCOME_WORDS = (tables.ACCEPTED, tables.FILTERED, tables.REJECTED)
OUTCOMES = ["accepted", "filtered", "rejected", "rejected", "rejected", "accepted"]


@pytest.fixture
def run(stack: Settings, spark: SparkSession) -> Callable[..., list[Landing]]:
    """A batch run in this process."""

    def run(pipeline: Pipeline, *, unlocked: bool = False, now: Callable[[], datetime] | None = None) -> list[Landing]:
        schemas.ensure_tables(catalogs.load(stack), pipeline)
        job = Job(spark, Lake(stack, pipeline))
        with nullcontext() if unlocked else job.lock("batch", wait_s=30):
            batch = BatchRun(job)
            batch.now = now or batch.now
            batch.run()
        return batch.landings

    return run


def counts(landed: Landing) -> tuple[int, ...]:
    """Rows accepted, filtered, rejected."""
    return tuple(landed.total[outcome] for outcome in OUTCOME_WORDS)


def folder_of(settings: Settings, pipeline: Pipeline) -> Path:
    path = settings.home / "bucket" / "landing" / pipeline.name
    path.mkdir(parents=True, exist_ok=True)
    return path


def rows_of(settings: Settings, pipeline: Pipeline, table: str = tables.BATCH_LOG) -> list[Row]:
    """All rows, in the order in which they were landed."""
    found = catalogs.load(settings).load_table((pipeline.name, table)).scan().to_arrow().to_pylist()
    return sorted(found, key=lambda row: (row["landing"], row["file"], row.get("row") or 0))


def lines(*keys: str, kind: str = "a") -> bytes:
    """JSON lines, one event a key."""
    events = ({"id": key, "at": "2024-05-01T00:00:00Z", "kind": kind} for key in keys)
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def ids(settings: Settings, pipeline: Pipeline) -> list[tuple[int, str, str]]:
    return [(row["landing"], row["file"], row["id"]) for row in rows_of(settings, pipeline)]


# ---- the same contract for every format ----


def write_every_format(folder: Path) -> None:
    """RECORDS in each accepted format; Parquet twice: typed, and with the types of careless writers."""
    as_json = b"\r\n".join(json.dumps(record, ensure_ascii=False).encode() for record in RECORDS)
    (folder / "r.json").write_bytes(as_json)
    (folder / "r.ndjson").write_bytes(b"\xef\xbb\xbf" + as_json)
    (folder / "year=2024").mkdir()
    (folder / "year=2024" / "r [1]{x}*?%20.jsonl.gz").write_bytes(gzip.compress(as_json))
    everything = pa.Table.from_pylist(RECORDS)
    database = duckdb.connect()
    database.sql("SET TimeZone = 'UTC'")
    database.register("records", everything)
    database.sql("SELECT * FROM records").write_csv(str(folder / "r.csv"))
    database.sql(
        'SELECT "count", 1 AS unknown, "day", ratio, amount, hidden, "value", kind, "at", id FROM records'
    ).write_csv(str(folder / "turned.csv.gz"), compression="gzip")
    (folder / "bom.csv").write_bytes(b"\xef\xbb\xbf" + (folder / "r.csv").read_bytes())
    pq.write_table(everything, folder / "texts.parquet")
    typed = """SELECT * REPLACE (CAST("at" AS TIMESTAMPTZ) AS "at", CAST(amount AS DECIMAL(20, 4)) AS amount,
                                 CAST("value" AS DOUBLE) AS "value", CAST("day" AS DATE) AS "day") FROM records"""
    pq.write_table(database.sql(typed).to_arrow_table(), folder / "typed.parquet")
    careless = """SELECT * REPLACE (CAST(CAST("at" AS TIMESTAMPTZ) AT TIME ZONE 'UTC' AS TIMESTAMP_NS) AS "at",
                                    CAST("day" AS TIMESTAMP) AS "day", encode(id) AS id) FROM records"""
    pq.write_table(database.sql(careless).to_arrow_table(), folder / "careless.parquet")


def test_every_format_gives_the_same_rows_and_outcomes(stack: Settings, define: Define, run: Run) -> None:
    pipeline = define(event={"fields": EVERY_TYPE})
    write_every_format(folder_of(stack, pipeline))
    (landed,) = run(pipeline)
    assert {file.file.name for file in landed.files} == {
        "r.json", "r.ndjson", "year=2024/r [1]{x}*?%20.jsonl.gz", "r.csv", "turned.csv.gz", "bom.csv",
        "texts.parquet", "typed.parquet", "careless.parquet",
    }  # fmt: skip
    by_outcome = {file.file.name: tuple(file.counts[word] for word in OUTCOME_WORDS) for file in landed.files}
    assert set(by_outcome.values()) == {(2, 1, 3)}
    compared = (*pipeline.columns, "row", "outcome", "reason")
    by_file: dict[str, list[Row]] = {}
    for row in rows_of(stack, pipeline):
        by_file.setdefault(row["file"], []).append({name: row[name] for name in compared})
    expected = by_file["r.json"]
    assert [row["outcome"] for row in expected] == OUTCOMES
    assert [row["row"] for row in expected] == [1, 2, 3, 4, 5, 6]
    assert expected[0]["at"] == datetime(2024, 5, 1, 0, 0, 1, 2, UTC)
    assert (str(expected[0]["amount"]), expected[0]["count"], str(expected[0]["day"])) == (
        "10.25", 9007199254740993, "2024-02-29",
    )  # fmt: skip
    assert "value out of range: 1001 > 1000" in expected[2]["reason"]
    assert expected[3]["reason"] == "missing id; kind not one of a, b, c: z"
    assert expected[4]["reason"].startswith("from the future")
    for name, found in by_file.items():
        assert found == expected, name


def test_hostile_lines_keep_their_bytes_and_their_numbers(stack: Settings, define: Define, run: Run) -> None:
    pipeline = define()
    big = b'{"id":"' + b"x" * (10 << 20) + b'"}'
    bad = [b'{"id":"\xff\xfe"}', b"not JSON", b"[" * 5000, b'{"id":"n","at":NaN}', big, b"\x00", b'{"id":1}{"id":2}']
    (folder_of(stack, pipeline) / "hostile.json").write_bytes(
        b"\n \r\n" + b"\n".join(bad) + b"\n\n\n" + lines("good").rstrip(b"\n")
    )
    (landed,) = run(pipeline)
    assert counts(landed) == (1, 0, len(bad))
    found = rows_of(stack, pipeline)
    assert [(row["row"], row["payload"]) for row in found[:-1]] == list(enumerate(bad, 3))
    assert all(row["reason"] for row in found[:-1])
    assert (found[-1]["id"], found[-1]["row"], found[-1]["payload"]) == ("good", len(bad) + 5, None)


def test_hostile_csv_rows_are_rejected_one_by_one(stack: Settings, define: Define, run: Run) -> None:
    pipeline = define()
    good = b"2024-05-01T00:00:00Z,a,1"
    body = b"\r\n".join(
        [
            b"id,at,kind,value",
            b'"a ""1""\r\nx",' + good,
            b"short,2024-05-01",
            b"long," + good + b",2",
            b"\xff\xc3\xbc," + good,
            b"",
            b'"",' + good,
            b"," + good,
            b"last,2024-05-01T00:00:00Z,a,",
        ]
    )
    (folder_of(stack, pipeline) / "h.csv").write_bytes(body + b"\nmixed," + good + b"\n")
    (folder_of(stack, pipeline) / "mac.csv").write_bytes(b"id,at,kind,value\rm1," + good + b"\rm2," + good + b"\r")
    run(pipeline)
    found = [row for row in rows_of(stack, pipeline) if row["file"] == "h.csv"]
    accepted = [(row["id"], row["value"]) for row in found if row["outcome"] == "accepted"]
    assert accepted == [('a "1"\r\nx', 1), ("", 1), ("last", None), ("mixed", 1)]
    rejected = {row["reason"]: row["payload"] for row in found if row["outcome"] == "rejected"}
    assert len([row for row in found if row["outcome"] == "rejected"]) == 4
    assert rejected["unknown encoding: not UTF-8"] == b"\xff\xc3\xbc," + good
    assert rejected["malformed row: wrong number of columns: the header has 4, the row 5"] == b"long," + good + b",2"
    assert json.loads(rejected["missing id"])["kind"] == "a"
    assert [row["id"] for row in rows_of(stack, pipeline) if row["file"] == "mac.csv"] == ["m1", "m2"]


def test_row_numbers_run_through_all_pieces_of_a_file(stack: Settings, define: Define, run: Run) -> None:
    pipeline = define()
    folder, many = folder_of(stack, pipeline), 150_000
    body = [lines(f"e{n}") if n % 7 else b"\n" for n in range(1, many + 1)]
    (folder / "pieces.json").write_bytes(b"".join(body))
    (folder / "other.json").write_bytes(lines("x1", "x2"))
    run(pipeline)
    found = {row["id"]: (row["file"], row["row"]) for row in rows_of(stack, pipeline)}
    expected = {f"e{n}": ("pieces.json", n) for n in range(1, many + 1) if n % 7}
    assert found == expected | {"x1": ("other.json", 1), "x2": ("other.json", 2)}


class Crashing(FromInbox):
    """Tasks whose process ends, as by a fault in a library, at files named so; apart, only at those named `reader`."""

    def _take(self, chosen: Chosen, shared: Writer, done: Ingested) -> None:
        if chosen.file.name.startswith("reader") or (chosen.file.name.startswith("record") and not self.apart):
            os.kill(os.getpid(), signal.SIGSEGV)
        super()._take(chosen, shared, done)


def test_a_file_that_ends_the_process_which_reads_it_is_out_alone(
    stack: Settings, define: Define, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = define()
    catalog, folder = catalogs.load(stack), folder_of(stack, pipeline)
    schemas.ensure_tables(catalog, pipeline)
    for name in ("a.json", "reader.json", "record.json", "z.json"):
        (folder / name).write_bytes(lines(name))
    # The workers do not have this module: what it defines is sent to them.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    monkeypatch.setattr(batch_log, "FromInbox", Crashing)
    run = BatchRun(Job(spark, Lake(stack, pipeline)))
    run.run()
    (landed,) = run.landings
    assert {file.file.name: file.reason for file in landed.files if file.reason} == {
        "reader.json": "the process that read it crashed, twice"
    }
    assert [key for _, _, key in ids(stack, pipeline)] == ["a.json", "record.json", "z.json"]
    run = BatchRun(Job(spark, Lake(stack, pipeline)))
    run.run()
    assert run.landings == []


# ---- each file exactly once ----


def test_a_file_is_landed_anew_only_when_its_content_changed(stack: Settings, define: Define, run: Run) -> None:
    pipeline = define()
    file = folder_of(stack, pipeline) / "f.json"
    for content in (lines("a"), lines("b"), lines("a")):
        file.write_bytes(content)
        assert len(run(pipeline)) == 1
        assert run(pipeline) == []
    os.utime(file, (0, 0))
    assert run(pipeline) == []
    assert ids(stack, pipeline) == [(1, "f.json", "a"), (2, "f.json", "b"), (3, "f.json", "a")]
    assert [row["landing"] for row in rows_of(stack, pipeline, tables.LANDED_FILES)] == [1, 2, 3]


def test_taken_files_leave_the_inbox_and_the_proof_reads_their_archive(
    stack: Settings, define: Define, run: Run
) -> None:
    pipeline = define(files={"taken": "archive"}, views=None)
    kafka.ensure(stack, pipeline)
    file = folder_of(stack, pipeline) / "f.json"
    for key in ("a", "b"):
        file.write_bytes(lines(key))
        assert len(run(pipeline)) == 1
        assert not file.exists()
    checks = {check.id: check for check in prove(Lake(stack, pipeline), 60, lambda line: None).checks}
    assert (checks["I4"].numbers["files_recounted"], checks["I4"].state) == (2, "holds"), checks["I4"]
    pipeline = define(name=pipeline.name, topic={"name": pipeline.name}, files={"taken": "delete"}, views=None)
    file.write_bytes(lines("c"))
    run(pipeline)
    assert not file.exists()
    checks = {check.id: check for check in prove(Lake(stack, pipeline), 60, lambda line: None).checks}
    assert "f.json (landing 3)" in checks["I4"].text
    assert (checks["I4"].numbers["files_recounted"], checks["I4"].state) == (2, "not proved"), checks["I4"]
    assert run(pipeline) == []


def test_broken_files_are_set_aside_and_block_no_other(stack: Settings, define: Define, run: Run) -> None:
    pipeline = define()
    folder = folder_of(stack, pipeline)
    (folder / "cut.json.gz").write_bytes(gzip.compress(lines("x") * 999)[:-20])
    (folder / "headless.csv").write_bytes(b"1,2024-05-01,a\n")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "wide.csv").write_bytes("\ufeffid,at,kind\n".encode("utf-16"))
    (folder / "twice.csv").write_bytes(b"id,at,kind,id\n")
    (folder / "notes.txt").write_bytes(b"x")
    (folder / "a:b.json").write_bytes(lines("x"))
    (folder / "foot.parquet").write_bytes(b"PAR1 no footer")
    table = pa.table({"id": [f"p{n}" for n in range(5000)], "at": ["2024-05-01T00:00:00Z"] * 5000})
    pq.write_table(table, folder / "rotten.parquet", compression="none", use_dictionary=False)
    rotten = bytearray((folder / "rotten.parquet").read_bytes())
    rotten[4:60] = b"\xff" * 56
    (folder / "rotten.parquet").write_bytes(rotten)
    (folder / ".hidden.json").write_bytes(lines("x"))
    (folder / "none.json").write_bytes(b"")
    (folder / "header.csv").write_bytes(b"id,at,kind")
    (folder / "good.json").write_bytes(lines("g"))
    landed = [file for one in run(pipeline) for file in one.files]
    assert {file.file.name for file in landed if not file.reason} == {
        "none.json", "header.csv", "good.json", "wide.csv", "a:b.json",
    }  # fmt: skip
    reasons = {file.file.name: file.reason for file in landed if file.reason}
    assert reasons.keys() == {
        "cut.json.gz", "headless.csv", "empty.csv", "twice.csv", "notes.txt", "foot.parquet", "rotten.parquet",
    }  # fmt: skip
    assert "gzip" in reasons["cut.json.gz"]
    assert "id" in reasons["twice.csv"]
    assert run(pipeline) == []
    whole = gzip.compress(lines("x"), mtime=0)
    (folder / "cut.json.gz").write_bytes(whole)
    run(pipeline)
    landed_ids = [(1, "a:b.json", "x"), (1, "good.json", "g"), (2, "cut.json.gz", "x")]
    assert ids(stack, pipeline) == landed_ids
    # It is copied again, and met before the copy ends: the whole one is what was ingested.
    (folder / "cut.json.gz").write_bytes(whole[:-9])
    assert [file.reason != "" for one in run(pipeline) for file in one.files] == [True]
    (folder / "cut.json.gz").write_bytes(whole)
    assert (run(pipeline), ids(stack, pipeline)) == ([], landed_ids)
    recorded = {row["file"]: row for row in rows_of(stack, pipeline, tables.LANDED_FILES)}
    assert recorded["rotten.parquet"]["reason"] == reasons["rotten.parquet"]
    assert (recorded["good.json"]["rows"], recorded["good.json"]["reason"]) == (1, None)


def test_only_broken_files_still_make_a_landing(stack: Settings, define: Define, run: Run) -> None:
    pipeline = define()
    (folder_of(stack, pipeline) / "empty.csv").write_bytes(b"")
    (landed,) = run(pipeline)
    assert (landed.number, counts(landed)) == (1, (0, 0, 0))
    assert run(pipeline) == []


def test_a_file_replaced_while_it_is_read_is_read_again(stack: Settings, define: Define, run: Run) -> None:
    pipeline = define()
    file = folder_of(stack, pipeline) / "f.json"
    file.write_bytes(lines("old"))

    def replace_and_tell() -> datetime:
        # The clock is read once per attempt, after the file was hashed and before Spark reads it.
        if file.read_bytes() == lines("old"):
            file.write_bytes(lines("new", "more"))
        return datetime.now(UTC)

    (landed,) = run(pipeline, now=replace_and_tell)
    assert (landed.number, counts(landed)) == (1, (2, 0, 0))
    assert run(pipeline) == []
    assert [key for _, _, key in ids(stack, pipeline)] == ["new", "more"]


def test_several_jobs_at_once_make_the_tables(stack: Settings, define: Define) -> None:
    catalog, together = catalogs.load(stack), Barrier(4)

    def make(pipeline: Pipeline) -> set[str]:
        together.wait()
        return set(schemas.ensure_tables(catalog, pipeline))

    with ThreadPoolExecutor(4) as jobs:
        for pipeline in [define() for _ in range(5)]:
            made = list(jobs.map(make, [pipeline] * 4))
            assert made == [{tables.STREAM_LOG, tables.BATCH_LOG, tables.EVENTS, tables.LANDED_FILES}] * 4


def test_two_runs_at_once_take_a_file_once(stack: Settings, define: Define) -> None:
    pipeline = define()
    (folder_of(stack, pipeline) / "f.json").write_bytes(lines("a", "b"))
    with batch(stack, pipeline) as first, batch(stack, pipeline) as second:
        assert [first.ends(), second.ends()] == [0, 0], first.said + second.said
        assert sorted("nothing new" in job.said for job in (first, second)) == [False, True]
    assert ids(stack, pipeline) == [(1, "f.json", "a"), (1, "f.json", "b")]


@pytest.mark.parametrize("table", [tables.BATCH_LOG, tables.LANDED_FILES])
def test_killed_in_either_commit_a_file_is_taken_once(stack: Settings, define: Define, run: Run, table: str) -> None:
    pipeline = define()
    schemas.ensure_tables(catalogs.load(stack), pipeline)
    (folder_of(stack, pipeline) / "f.json").write_bytes(lines("a", "b"))
    with at_work.hold(stack, pipeline, table) as held, batch(stack, pipeline) as job:
        held.wait_for_commit(job)
        job.kill()
        held.lose_commits()
    run(pipeline)
    assert run(pipeline) == []
    assert ids(stack, pipeline) == [(1, "f.json", "a"), (1, "f.json", "b")]
    recorded = rows_of(stack, pipeline, tables.LANDED_FILES)
    assert [(row["landing"], row["file"], row["rows"]) for row in recorded] == [(1, "f.json", 2)]


def test_a_commit_in_flight_of_a_killed_run_does_not_double_the_next(stack: Settings, define: Define, run: Run) -> None:
    pipeline = define()
    schemas.ensure_tables(catalogs.load(stack), pipeline)
    (folder_of(stack, pipeline) / "f.json").write_bytes(lines("a", "b"))
    with ExitStack() as until_the_end:
        with at_work.hold(stack, pipeline, tables.BATCH_LOG) as held:
            with batch(stack, pipeline) as killed:
                held.wait_for_commit(killed)
                killed.kill()
            # PostgreSQL does not notice, and would still run the dead commit once the row is free.
            dead = set(held.commits())
            second = until_the_end.enter_context(batch(stack, pipeline))
            at_work.eventually(lambda: set(held.commits()) - dead, second)
        assert second.ends() == 0, second.said
    run(pipeline)
    assert ids(stack, pipeline) == [(1, "f.json", "a"), (1, "f.json", "b")]


def test_a_run_that_lost_its_lock_unseen_lands_nothing_twice(stack: Settings, define: Define, run: Run) -> None:
    """The lock's connection died with PostgreSQL and nobody noticed: a second run took the file, the first goes on."""
    pipeline = define()
    catalog = catalogs.load(stack)
    schemas.ensure_tables(catalog, pipeline)
    # Several times what is kept in memory: the first data file is begun long before all are read.
    many = 1_000_000
    (folder_of(stack, pipeline) / "f.json").write_bytes(lines(*(f"e{n}" for n in range(many))))
    data = Path(catalog.load_table((pipeline.name, tables.BATCH_LOG)).location().removeprefix("file://"))
    with batch(stack, pipeline) as first:
        at_work.eventually(lambda: list(data.rglob("*.parquet")), first)
        first.pause()
        assert len(run(pipeline, unlocked=True)) == 1
        first.resume()
        # Paused for longer than PostgreSQL keeps a silent session, it notices, which is as good.
        said = {0: "nothing new", 1: "was lost"}[first.ends()]
        assert said in first.said, first.said
    found = catalogs.load(stack).load_table((pipeline.name, tables.BATCH_LOG)).scan(selected_fields=("id",)).to_arrow()
    assert (found.num_rows, len(found["id"].unique())) == (many, many)
    assert len(rows_of(stack, pipeline, tables.LANDED_FILES)) == 1
    assert run(pipeline) == []


def batch(settings: Settings, pipeline: Pipeline) -> AbstractContextManager[at_work.Job]:
    return at_work.running(settings, "batch", pipeline.name, "--wait", "120")


# ---- put by command ----


def test_landed_by_command_and_corrected_under_the_same_name(
    stack: Settings, twofold: Command, define: Define, run: Run, tmp_path: Path
) -> None:
    pipeline = define()
    source = tmp_path / "source.json"
    for key in ("a", "b"):
        source.write_bytes(lines(key))
        twofold("land", pipeline.name, str(source), "--as", "sub/day.json")
        assert len(run(pipeline)) == 1
    assert ids(stack, pipeline) == [(1, "sub/day.json", "a"), (2, "sub/day.json", "b")]
    assert [path.name for path in folder_of(stack, pipeline).rglob("*") if path.is_file()] == ["day.json"]


def test_on_s3_files_are_put_whole_and_taken_once(minio_stack: Settings, define: Define, tmp_path: Path) -> None:
    pipeline = define(files={"taken": "archive"})
    source = tmp_path / "day.json.gz"
    source.write_bytes(gzip.compress(lines("a", "b")))
    for taken in (2, 0):
        running.run(minio_stack, "land", pipeline.name, str(source), "--as", "sub/day 1%20.json.gz")
        assert json.loads(running.run(minio_stack, "batch", pipeline.name, "--json").stdout)["rows"] == taken
    assert ids(minio_stack, pipeline) == [(1, "sub/day 1%20.json.gz", "a"), (1, "sub/day 1%20.json.gz", "b")]
    lake = Lake(minio_stack, pipeline)
    assert lake.inbox().files() == []
    assert [file.name for file in lake.archive().files()] == ["000001/sub/day 1%20.json.gz"]
    (row,) = lake.landed_files()
    assert TakenFiles(lake).absence(row["landing"], row["file"], row["version"], row["sha256"]) == ""
