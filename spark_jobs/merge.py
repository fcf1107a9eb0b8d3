"""The union itself: everything past the boundary into `events`, and the boundary with it, in one commit.

    contenders (both logs past the boundary) ─► tail: one winner per id
    `events` on the days within the id horizon ─► hits ─► decided: who wins, per id
    days of winning tail rows and of beaten rows ─► rewritten whole, sorted: what stays ∪ what won

The commit holds only on top of the snapshot that was read: of two unions at once the second notices the first's
commit, reads the new boundary and goes again. The pipeline's lock only keeps that from being the usual case.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from py4j.protocol import Py4JJavaError
from pyiceberg.exceptions import CommitFailedException
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import publishing
from spark_jobs.publishing import tagged
from twofold import boundary, serving, tables
from twofold import catalog as catalogs
from twofold.boundary import Boundary, History, Landed
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.settings import Settings

_ATTEMPTS = 5
_CONFLICTS = ("ValidationException", "CommitFailedException", "Missing required files")


@dataclass(frozen=True)
class Pinned:
    """What one attempt reads: `events` first, then the logs, so what is past the boundary is all there."""

    events: History
    boundary: Boundary
    stream: tuple[int | None, Landed]
    batch: tuple[int | None, Landed]

    @property
    def next(self) -> Boundary:
        """The boundary that covers all that is pinned."""
        before, (_, stream), (_, batch) = self.boundary, self.stream, self.batch
        return Boundary(
            before.pipeline,
            stream.topic_id or before.topic_id,
            # A log that was put back to an earlier state must not take the boundary back with it.
            {**before.offsets, **{p: max(end, before.offsets.get(p, 0)) for p, end in stream.offsets.items()}},
            max(before.landing, batch.landing),
            before.max_event_time,
        )

    @property
    def has_news(self) -> bool:
        """Whether anything was landed past the boundary."""
        return (self.next.offsets, self.next.landing) != (self.boundary.offsets, self.boundary.landing)


@dataclass(frozen=True)
class Merged:
    """What a union did, in rows."""

    stream_rows: int = 0
    batch_rows: int = 0
    inserted: int = 0
    replaced: int = 0
    days: tuple[date, ...] = ()
    boundary: Boundary | None = None


def merge(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> Merged:
    """Union until the commit holds; raise after too many conflicts."""
    for _ in range(_ATTEMPTS):
        pinned = pin(spark, settings, pipeline)
        if not pinned.has_news:
            return Merged(boundary=pinned.boundary)
        try:
            return _attempt(spark, settings, pipeline, pinned)
        except CommitFailedException:
            continue
        except (PySparkException, Py4JJavaError) as error:
            if not any(sign in str(error) for sign in _CONFLICTS):
                raise
    raise TwofoldError(
        f"{pipeline.name}.events was changed by others during each of {_ATTEMPTS} attempts",
        "see that only one union or maintenance runs at a time, then run the union again: nothing was lost",
    )


def pin(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> Pinned:
    """Read the boundary and the state of both logs; give an empty `events` its first snapshot to validate against."""
    catalog = catalogs.load(settings)
    events = catalogs.history(catalogs.find(catalog, pipeline.name, tables.EVENTS))
    if events.head is None:
        name = tables.qualified(pipeline, tables.EVENTS)
        tagged(spark.table(name).limit(0).writeTo(name), boundary.encode(Boundary(pipeline.name))).append()
        events = catalogs.history(catalogs.find(catalog, pipeline.name, tables.EVENTS))
    stream = catalogs.history(catalogs.find(catalog, pipeline.name, tables.STREAM_LOG))
    batch = catalogs.history(catalogs.find(catalog, pipeline.name, tables.BATCH_LOG))
    landed = boundary.landed(stream, pipeline.name)
    return Pinned(
        events,
        boundary.boundary(events, pipeline.name, landed.topic_id),
        (stream.head, landed),
        (batch.head, boundary.landed(batch, pipeline.name)),
    )


def read(spark: SparkSession, pipeline: Pipeline, table: str, snapshot: int | None) -> DataFrame:
    """A table as of a snapshot, with today's columns; empty where it had none yet."""
    today = spark.table(tables.qualified(pipeline, table))
    if snapshot is None:
        return today.limit(0)
    rows = spark.read.option("versionAsOf", snapshot).table(tables.qualified(pipeline, table))
    # A snapshot has the columns of its own day: a field declared since is null in it.
    later = (field for field in today.schema if field.name not in rows.columns)
    return rows.select("*", *(F.lit(None).cast(field.dataType).alias(field.name) for field in later))


def _attempt(spark: SparkSession, settings: Settings, pipeline: Pipeline, pinned: Pinned) -> Merged:
    # Not kept: counting it reads two columns, and the tail reads it once.
    _view(contenders(spark, pipeline, pinned), "_tw_contenders")
    tail = _view(spark.sql(serving.winners(pipeline, "_tw_contenders")).persist(), "_tw_tail")
    try:
        counts = seen(spark, pipeline)
        days = _decide(spark, pipeline, pinned)
        latest = [t for t in (pinned.boundary.max_event_time, counts["latest"]) if t is not None]
        after = replace(pinned.next, max_event_time=max(latest, default=None), touched_days=days)
        changed = _rows(spark, pipeline, pinned, days)
        _commit(changed, settings, pipeline, pinned, after)
        wins, beaten = _count(spark, pipeline)
        return Merged(counts["stream"], counts["batch"], wins - beaten, beaten, days, after)
    finally:
        tail.unpersist()


def contenders(spark: SparkSession, pipeline: Pipeline, pinned: Pinned) -> DataFrame:
    """Everything past the pinned boundary that takes part, with the columns of `events`."""
    _view(read(spark, pipeline, tables.STREAM_LOG, pinned.stream[0]), "_tw_stream_pinned")
    _view(read(spark, pipeline, tables.BATCH_LOG, pinned.batch[0]), "_tw_batch_pinned")
    stream = serving.stream_contenders(pipeline, "_tw_stream_pinned", pinned.boundary.offsets)
    batch = serving.batch_contenders(pipeline, "_tw_batch_pinned", pinned.boundary.landing)
    return spark.sql(f"{stream}\nUNION ALL\n{batch}")


def seen(spark: SparkSession, pipeline: Pipeline) -> dict[str, Any]:
    """Rows per layer, and the highest event time among the stream's."""
    row = spark.sql(
        f"""SELECT count_if(layer = 'stream') AS _tw_stream, count_if(layer = 'batch') AS _tw_batch,
  unix_micros(max(CASE WHEN layer = 'stream' THEN `{pipeline.event.time}` END)) AS _tw_latest FROM _tw_contenders"""
    ).collect()[0]
    latest = row["_tw_latest"]
    return {
        "stream": row["_tw_stream"],
        "batch": row["_tw_batch"],
        "latest": None if latest is None else datetime.fromtimestamp(latest / 1_000_000, UTC),
    }


def _decide(spark: SparkSession, pipeline: Pipeline, pinned: Pinned) -> tuple[date, ...]:
    """Make the views of hits, decided and beaten; returns the days that must be rewritten."""
    time = pipeline.event.time
    near = serving.widened(_days(spark, f"SELECT `{time}` AS _tw_at FROM _tw_tail"), pipeline.event.id_horizon)
    events = read(spark, pipeline, tables.EVENTS, pinned.events.head)
    _view(events.where(serving.on_days(f"`{time}`", near)), "_tw_near")
    _view(spark.sql(serving.hits(pipeline, "_tw_near", "_tw_tail")).localCheckpoint(), "_tw_hits")
    _view(spark.sql(serving.decided(pipeline, "_tw_tail", "_tw_hits")).localCheckpoint(), "_tw_decided")
    _view(spark.sql(f"SELECT * FROM {serving.beaten(pipeline, '_tw_hits', '_tw_decided')}"), "_tw_beaten")
    _view(spark.sql(serving.winning_tail(pipeline, "_tw_tail", "_tw_decided")), "_tw_winning")
    times = (f"SELECT `{time}` AS _tw_at FROM {relation}" for relation in ("_tw_winning", "_tw_beaten"))
    return tuple(sorted(_days(spark, " UNION ALL ".join(times))))


def _days(spark: SparkSession, times: str) -> set[date]:
    found = spark.sql(f"SELECT DISTINCT CAST(_tw_at AS DATE) AS _tw_day FROM ({times})").collect()
    return {row["_tw_day"] for row in found}


def _rows(spark: SparkSession, pipeline: Pipeline, pinned: Pinned, days: tuple[date, ...]) -> DataFrame:
    """All rows of the days to rewrite: what stays, and what won."""
    events = read(spark, pipeline, tables.EVENTS, pinned.events.head)
    _view(events.where(serving.on_days(f"`{pipeline.event.time}`", days)), "_tw_touched")
    names = serving.columns(tables.events(pipeline).column_names)
    stays = serving.unbeaten(pipeline, "_tw_touched", "_tw_decided")
    return spark.sql(f"SELECT {names} FROM ({stays}) UNION ALL SELECT {names} FROM _tw_winning")


def _commit(rows: DataFrame, settings: Settings, pipeline: Pipeline, pinned: Pinned, after: Boundary) -> None:
    days = after.touched_days
    overwrite(
        rows, settings, pipeline, pinned, after, serving.on_days(f"`{pipeline.event.time}`", days) if days else None
    )


def overwrite(
    rows: DataFrame, settings: Settings, pipeline: Pipeline, pinned: Pinned, after: Boundary, condition: str | None
) -> None:
    """Put `rows` in place of those that meet `condition`; fails if `events` was changed since it was pinned."""
    assert pinned.events.head is not None
    table = (pipeline.name, tables.EVENTS)
    publishing.overwrite(rows, settings, table, pinned.events.head, condition, boundary.encode(after))


def _count(spark: SparkSession, pipeline: Pipeline) -> tuple[int, int]:
    """Rows of the tail that won, and rows of `events` that they beat."""
    counts = "SELECT (SELECT count(*) FROM _tw_winning), (SELECT count(*) FROM _tw_beaten)"
    wins, beaten = spark.sql(counts).collect()[0]
    return wins, beaten


def _view(frame: DataFrame, name: str) -> DataFrame:
    frame.createOrReplaceTempView(name)
    return frame
