"""Retention of stream_log: whole days that everyone has read, first promised in a property, then deleted.

Killed in between, the promise stands and the rows are deleted by the next run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from pyspark.sql import SparkSession

from spark_jobs import checkpoints
from twofold import catalog as catalogs
from twofold import retention, serving, table_state, tables
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.retention import Stretch
from twofold.settings import Settings
from twofold.table_state import History


@dataclass(frozen=True)
class Retained:
    """What retention left of stream_log."""

    first_day: date | None = None
    """All days (of Kafka's clock) before it are gone; None: nothing was asked, or nothing could go."""
    deleted_rows: int = 0
    offsets: Mapping[int, int] = field(default_factory=dict)
    """Partition → first offset left."""


def apply(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, keep: timedelta, now: datetime, dry_run: bool
) -> Retained:
    """Delete the days of stream_log that are older than `keep` and far enough behind everyone who reads it."""
    table = catalogs.find(catalogs.load(settings), pipeline.name, tables.STREAM_LOG)
    before = table_state.retained_from(table.properties) if table else {}
    stretches = _stretches(spark, pipeline)
    readers = _readers(spark, settings, pipeline)
    day = retention.first_day_kept(stretches, readers, now.date(), keep)
    rows = sum(stretch.last - stretch.first + 1 for stretch in stretches if stretch.day < day)
    if not rows:
        return Retained(offsets=before)
    offsets = retention.offsets_kept_from(stretches, day, before)
    if not dry_run:
        _delete(spark, pipeline, day, offsets)
    return Retained(day, rows, offsets)


def _stretches(spark: SparkSession, pipeline: Pipeline) -> list[Stretch]:
    found = spark.sql(
        f"""SELECT CAST(kafka_timestamp AS DATE) AS _tw_day, kafka_partition, min(kafka_offset) AS _tw_first,
  max(kafka_offset) AS _tw_last FROM {tables.qualified(pipeline, tables.STREAM_LOG)} GROUP BY 1, 2"""
    ).collect()
    return [Stretch(row["_tw_day"], row["kafka_partition"], row["_tw_first"], row["_tw_last"]) for row in found]


def _readers(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> list[dict[int, int]]:
    """Offsets (exclusive) that the union and each view query have behind them; a view not begun has none."""
    log, events = (Lake(settings, pipeline).history(name) for name in (tables.STREAM_LOG, tables.EVENTS))
    positions = [table_state.boundary(events, pipeline.name).offsets]
    for view in pipeline.views:
        resumed = checkpoints.resumed_from(spark, settings.checkpoint(pipeline.name, view))
        read = History(log.snapshots, resumed["snapshot_id"] if resumed else None)
        positions.append(table_state.landed(read, pipeline.name).offsets)
    return positions


def _delete(spark: SparkSession, pipeline: Pipeline, day: date, offsets: Mapping[int, int]) -> None:
    name = tables.qualified(pipeline, tables.STREAM_LOG)
    promised = json.dumps({str(partition): offset for partition, offset in sorted(offsets.items())})
    spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('{table_state.RETAINED_FROM}' = '{promised}')")
    spark.sql(f"DELETE FROM {name} WHERE kafka_timestamp < {serving.moment(day)}")
