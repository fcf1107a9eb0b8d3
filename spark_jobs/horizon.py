"""Ids whose rows lie further apart in event time than `id_horizon`: look-ups by id do not reach that far."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import SparkSession

from twofold import serving, tables
from twofold.definition.model import Pipeline

_SHOWN = 10


@dataclass(frozen=True)
class Beyond:
    """How many ids, and some of them."""

    ids: int
    shown: tuple[str, ...]


def ids_beyond(spark: SparkSession, pipeline: Pipeline) -> Beyond:
    """Find them in both logs: only their id and event time are read."""
    stream, batch = (tables.qualified(pipeline, name) for name in (tables.STREAM_LOG, tables.BATCH_LOG))
    key, time = f"`{pipeline.event.id}`", f"`{pipeline.event.time}`"
    far = spark.sql(
        f"""SELECT CAST({key} AS STRING) AS _tw_id FROM (
  {serving.stream_contenders(pipeline, stream, {})} UNION ALL {serving.batch_contenders(pipeline, batch, 0)})
GROUP BY {key}
HAVING unix_micros(max({time})) - unix_micros(min({time})) > {_microseconds(pipeline)}"""
    ).persist()
    try:
        shown = [row["_tw_id"] for row in far.orderBy("_tw_id").limit(_SHOWN).collect()]
        return Beyond(far.count(), tuple(shown))
    finally:
        far.unpersist()


def _microseconds(pipeline: Pipeline) -> int:
    return int(pipeline.event.id_horizon.total_seconds() * 1_000_000)
