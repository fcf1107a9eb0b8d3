"""What a finished batch comes to in metrics, from Spark's own account of it."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from spark_jobs.stream_progress import Finished, send, send_log, send_view
from spark_jobs.tasks import FromKafka, packed
from tests import overhear, running
from tests.conftest import write_definition
from twofold import metrics, schemas, tables
from twofold.catalog import LakeCatalog
from twofold.ledger import Erased
from twofold.metrics import Meter
from twofold.schema_registry import Registry
from twofold.settings import Settings
from twofold.table_files import Place

LANDING: dict[str, Any] = {
    "name": "flights_log",
    "timestamp": "2026-11-23T07:00:00.500Z",
    "batchId": 7,
    "batchDuration": 2000,
    "numInputRows": 500,
    "inputRowsPerSecond": 250.0,
    "durationMs": {"addBatch": 1500, "walCommit": 55, "somethingNew": 1},
    "stateOperators": [],
    "sources": [
        {
            "startOffset": {"flights": {"0": 10}},
            "endOffset": {"flights": {"0": 300, "1": 210}},
            "latestOffset": {"flights": {"0": 300, "1": 240, "2": 9}},
        }
    ],
}
VIEW: dict[str, Any] = {
    **LANDING,
    "name": "flights_by_kind",
    "eventTime": {"watermark": "2013-05-01T00:00:00.000Z"},
    "stateOperators": [
        {"numRowsTotal": 3, "memoryUsedBytes": 1000, "numRowsDroppedByWatermark": 2},
        {"numRowsTotal": 4, "memoryUsedBytes": 500, "numRowsDroppedByWatermark": 1},
    ],
    "sources": [{"endOffset": {"snapshot_id": 1}, "latestOffset": None}],
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return running.fresh_settings(tmp_path, tmp_path)


def sent(settings: Settings, batch: Finished, *senders: Any) -> dict[str, str]:  # noqa: ANN401
    """Name and tags → value."""
    with overhear.statsd_lines(settings) as lines:
        for sender in senders:
            sender(Meter(settings, "flights"), batch)
    return {name: value for name, _, value in (line.rpartition(":") for line in lines)}


def test_a_landing_batch_tells_what_it_left_behind(settings: Settings) -> None:
    found = sent(settings, Finished("log", LANDING), send, partial(send_log, newest={}))
    behind, query = metrics.STREAM_BEHIND.name, "pipeline=flights,query=log"
    assert {name: found[name] for name in found if name.startswith(behind)} == {
        f"{behind},pipeline=flights,partition=0": "0|g",
        f"{behind},pipeline=flights,partition=1": "30|g",
        f"{behind},pipeline=flights,partition=2": "9|g",
    }
    assert found[f"{metrics.STREAM_BATCH.name},{query}"] == "7|g"
    assert found[f"{metrics.STREAM_ROWS_IN.name},{query}"] == "500|c"
    assert found[f"{metrics.STREAM_RATE.name},{query}"] == "250.0|g"
    assert found[f"{metrics.STREAM_BATCH_SECONDS.name},{query}"] == "2000.000000|ms"
    assert found[f"{metrics.STREAM_BATCH_PART.name},{query},part=addBatch"] == "1.5|g"
    assert found[f"{metrics.STREAM_BATCH_PART.name},{query},part=other"] == "0.001|g"


BEGAN = 1795417200.5
FRESH: dict[str, tuple[dict[int, float], float | None]] = {
    "the oldest stamp of those behind; of the first partition nothing is left": ({0: 10.0, 1: 300.0, 2: 250.5}, 250.5),
    "stamps from the future": ({1: BEGAN + 5, 2: BEGAN + 9}, BEGAN),
    "one behind whose stamp is not known": ({0: 10.0, 1: 300.0}, None),
    "landed before a restart": ({}, None),
}


@pytest.mark.parametrize("name", FRESH)
def test_a_stream_that_is_behind_is_as_fresh_as_the_partition_that_is_oldest(settings: Settings, name: str) -> None:
    newest, fresh = FRESH[name]
    metric = f"{metrics.STREAM_FRESH.name},pipeline=flights"
    found = sent(settings, Finished("log", LANDING), partial(send_log, newest=newest))
    assert found.get(metric) == (None if fresh is None else f"{fresh}|g")


def test_a_stream_with_nothing_left_is_as_fresh_as_the_beginning_of_its_batch(settings: Settings) -> None:
    source = LANDING["sources"][0]
    whole = {**LANDING, "sources": [{**source, "latestOffset": source["endOffset"]}]}
    found = sent(settings, Finished("log", whole), partial(send_log, newest={0: 10.0, 1: 300.0}))
    assert found[f"{metrics.STREAM_FRESH.name},pipeline=flights"] == f"{BEGAN}|g"
    drained = sent(settings, Finished("log", whole), partial(send_log, newest={}, asked_at=BEGAN - 60))
    assert drained[f"{metrics.STREAM_FRESH.name},pipeline=flights"] == f"{BEGAN - 60}|g"


def test_a_views_batch_tells_state_watermark_and_late_rows_of_all_its_operators(settings: Settings) -> None:
    found = sent(settings, Finished("by_kind", VIEW), send_view)
    tags = "pipeline=flights,query=by_kind"
    assert found == {
        f"{metrics.STREAM_STATE_ROWS.name},{tags}": "7|g",
        f"{metrics.STREAM_STATE_BYTES.name},{tags}": "1500|g",
        f"{metrics.STREAM_LATE.name},{tags}": "3|c",
        f"{metrics.STREAM_WATERMARK.name},{tags}": "1367366400.0|g",
    }


def test_the_newest_time_stamp_of_a_batch_may_lie_beyond_any_calendar(lake: LakeCatalog, tmp_path: Path) -> None:
    """As in a topic whose senders chose them, until it was made as declared (`twofold topic --repair`)."""
    pipeline, beyond = write_definition(tmp_path), 1_772_323_200_007_000_000
    log = schemas.ensure_tables(lake, pipeline)[tables.STREAM_LOG]
    batch = pa.RecordBatch.from_pydict(
        {
            "value": pa.array([b"{}", b"{}", b"{}"], pa.binary()),
            "partition": pa.array([0, 1, 1], pa.int32()),
            "offset": pa.array([0, 0, 1], pa.int64()),
            "timestamp": pa.array([500_000, beyond, 0], pa.timestamp("us", "UTC")),
        }
    )
    task = FromKafka(packed(pipeline, Place.of(log), Erased()), 1, Registry.of(Settings(home=tmp_path)))
    (row,) = task([batch])
    done = pickle.loads(row["result"][0].as_py())
    assert (done.newest, done.counts["rejected"]) == ({0: 0.5, 1: beyond / 1_000_000}, 3)
