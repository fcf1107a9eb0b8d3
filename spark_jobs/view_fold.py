"""A view's aggregation in Spark, the same for its query and for the batch that fills it.

accepted rows of stream_log ─► rows (columns, arrival, arguments) ─► one per id ─► fold: window × group × parts
"""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import view_tasks
from twofold import tables
from twofold.definition.model import Pipeline, View

SEEN = "_tw_seen"
"""When an event is known to have happened by: the earlier of its own time and Kafka's time stamp."""
_TIME = "_tw_time"
"""The event's time as a group: Spark takes no second column that carries the watermark."""


def delay(pipeline: Pipeline, view: View) -> timedelta:
    """How far the watermark is behind: so far that no row is dropped while one of its windows is open."""
    return pipeline.lateness + view.window


def accepted(log: DataFrame) -> DataFrame:
    """The rows of stream_log that take part."""
    return log.where(F.col(tables.OUTCOME) == tables.ACCEPTED)


def seen(pipeline: Pipeline) -> Column:
    """`SEEN` of each row."""
    return F.least(F.col(f"`{pipeline.event.time}`"), F.col("kafka_timestamp")).alias(SEEN)


def rows(taking_part: DataFrame, pipeline: Pipeline, view: View) -> DataFrame:
    """Accepted rows with only what the view needs: id, time, groups, `SEEN`, and a column for each part."""
    event = pipeline.event
    kept = tuple(dict.fromkeys([event.id, event.time, *view.by]))
    plain = view_tasks.plain(pipeline, view.parts)
    if plain is not None:
        arguments = [column.alias(name) for name, column in plain.items()]
        return taking_part.select(*(f"`{name}`" for name in kept), seen(pipeline), *arguments)
    used = taking_part.select(*(f"`{name}`" for name in view_tasks.needed(pipeline, view)), seen(pipeline))
    return view_tasks.Arguments((*kept, SEEN), view.parts).run(used)


def on_time(distinct: DataFrame, pipeline: Pipeline, view: View) -> DataFrame:
    """Hand the watermark on, from arrival to the event's own time, whose windows are closed by it.

    Spark takes a single watermark; on the event's own time it would be ahead wherever a clock is.
    """
    behind_ms = delay(pipeline, view) // timedelta(milliseconds=1)
    marked = F.col(f"`{pipeline.event.time}`").alias(
        pipeline.event.time, metadata={"spark.watermarkDelayMs": behind_ms}
    )
    others = [f"`{name}`" for name in distinct.columns if name not in (SEEN, pipeline.event.time)]
    plain = [F.col(f"`{pipeline.event.time}`").alias(_TIME)] if pipeline.event.time in view.by else []
    return distinct.select(marked, *plain, *others)


def fold(distinct: DataFrame, pipeline: Pipeline, view: View) -> DataFrame:
    """One row per window and group: window_start, window_end, groups, parts."""
    window = F.window(F.col(f"`{pipeline.event.time}`"), _interval(view.window), _interval(view.every))
    parts = [view_tasks.aggregate(part, F.col(part.name)) for part in view.parts]
    time = _TIME if _TIME in distinct.columns else pipeline.event.time
    groups = [F.col(f"`{time if name == pipeline.event.time else name}`") for name in view.by]
    folded = distinct.groupBy(window.alias("_tw_window"), *groups).agg(*parts)
    return folded.select(
        F.col("_tw_window.start").alias("window_start"),
        F.col("_tw_window.end").alias("window_end"),
        *(group.alias(name) for name, group in zip(view.by, groups, strict=True)),
        *(part.name for part in view.parts),
    )


def _interval(length: timedelta) -> str:
    return f"{length // timedelta(microseconds=1)} microseconds"
