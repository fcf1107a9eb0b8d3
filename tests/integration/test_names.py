"""A pipeline whose every name is a word of SQL, or what generated SQL once called something, through both layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from pyspark.sql import SparkSession

from spark_jobs import maintenance, unified_views
from tests.at_work import Work
from twofold import comparison, tables
from twofold.definition.load import load_file
from twofold.reader import Reader
from twofold.settings import Settings

START = datetime(2024, 5, 1, tzinfo=UTC)
FIELDS = ("place", "times", "at_day", "united", "order", "t", "select", "kafka_timestamp_day")
DEFINITION: dict[str, Any] = {
    "name": "order",
    "topic": {"name": "order", "partitions": 1},
    "event": {
        "id": "id",
        "time": "at",
        "fields": {
            "id": {"type": "string", "required": True},
            "at": {"type": "timestamp", "required": True},
            "window": {"type": "string", "required": True},
            **{name: {"type": "int"} for name in FIELDS},
        },
    },
    "filter": "`order` is null or `order` >= 0",
    "lateness": "10 minutes",
    "views": {
        "group": {
            "window": "1 hour",
            "by": ["window", "t"],
            "measures": {"times": "count(*)", "place": "sum(place)", "difference": "max(`select`)"},
        },
        "updates": {"window": "2 hours", "every": "1 hour", "measures": {"times": "count(*)", "a_times": "max(times)"}},
    },
}


ANSWER = [
    ("b", 50, 52, "batch"),
    ("s1", 10, 12, "stream"),
    ("s2", 7, 22, "batch"),
    ("s200", 2000, 2002, "stream"),
    ("s70", 700, 702, "stream"),
]
"""Id, place, at_day and layer: s2 is corrected, and s3 withdrawn, by the file."""


def record(key: str, minutes: int, **others: object) -> dict[str, Any]:
    """An event as it is sent, each field another number."""
    at = (START + timedelta(minutes=minutes)).isoformat()
    numbers = {name: 10 * minutes + place for place, name in enumerate(FIELDS)}
    return {"id": key, "at": at, "window": "w", **numbers, "t": minutes % 2, **others}


def send(work: Work, *records: dict[str, Any]) -> None:
    """To Kafka, acknowledged."""
    work.send_values(*(json.dumps(one).encode() for one in records), partition=None)


def put(work: Work, name: str, *records: dict[str, Any]) -> None:
    """A file to be landed."""
    work.put(name, "".join(json.dumps(one) + "\n" for one in records).encode())


def test_names_that_are_words_of_sql(
    stack: Settings,
    pipelines_folder: Path,
    spark: SparkSession,
    twofold: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """Stream, batch, union, query, comparison, export, maintenance and proof, from a pipeline called `order`."""
    path = pipelines_folder / "order.yaml"
    path.write_text(json.dumps(DEFINITION))
    work = Work(spark, stack, load_file(path))
    send(work, *(record(f"s{minute}", minute) for minute in (1, 2, 3, 70, 200)), record("s1", 1), record("s2", 2))
    work.drain()
    put(work, "f.jsonl", record("s2", 2, place=7), record("s3", 3, order=-1), record("b", 5))
    twofold("batch", "order")
    before = unified_rows(work)
    work.holds(behind=True)
    work.union()
    assert unified_rows(work) == before == ANSWER
    # The second run meets rows of `events`, and the view's upsert its open windows.
    send(work, record("s71", 71), record("s1", 1), record("s201", 201))
    work.drain()
    work.union()
    work.holds()

    found = twofold(
        "query", "--format", "json", "SELECT id, place, at_day FROM order.unified_events ORDER BY id LIMIT 1"
    )
    assert json.loads(found.stdout) == [{"id": "b", "place": 50, "at_day": 52}]
    totals = work.query("SELECT sum(times) FROM unified_group WHERE \"window\" = 'w'")
    assert totals == [(7,)]
    assert set(comparison.compare(work.lake).views) == {"group", "updates"}
    twofold("export", "order", "--to", str(tmp_path / "plain"))
    assert {folder.name for folder in (tmp_path / "plain").iterdir()} == {"at_day_=2024-05-01"}
    twofold("maintain", "order")
    maintenance.rewrite_files(work.job, tables.STREAM_LOG, 2)
    assert maintenance.search_beyond(work.lake, keep=False).ids == 0
    twofold("rebuild", "order")
    work.drain()
    work.holds()

    views = [f"{kind}_{view}" for view in ("group", "updates") for kind in ("unified", "live")]
    assert unified_views.create_views(spark, stack, work.pipeline) == ["unified_events", *views]
    rows = spark.sql("SELECT id, place FROM unified_events WHERE id LIKE 's2%' ORDER BY id").collect()
    assert [tuple(row) for row in rows] == [("s2", 7), ("s200", 2000), ("s201", 2010)]


def unified_rows(work: Work) -> list[tuple[Any, ...]]:
    """As a query that names the pipeline without quotes sees them."""
    with Reader(work.settings, {work.pipeline.name: work.pipeline}) as reader:
        return reader.query("SELECT id, place, at_day, layer FROM order.unified_events ORDER BY id").fetchall()
