"""The view queries: stream_log ─► watermark ─► dedup ─► windows ─► stream_<view>, upserted while a window is open.

They read the landed table, not Kafka: a record is parsed once, and a view added later finds all of history there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from spark_jobs import checkpoints, folds, stream_start, view_fill
from spark_jobs.folds import tagged
from spark_jobs.stream_log import Trigger
from twofold import boundary, serving, tables, view_tables
from twofold import catalog as catalogs
from twofold.boundary import Folded
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.settings import Settings

_POLL_MS = 500


@dataclass(frozen=True)
class ViewWriter:
    """One view's query."""

    spark: SparkSession
    settings: Settings
    pipeline: Pipeline
    view: View

    @property
    def checkpoint(self) -> str:
        """Where the view's query keeps its state and how far it has read stream_log."""
        return self.settings.checkpoint(self.pipeline.name, self.view.name)

    @property
    def table(self) -> str:
        """Qualified name of stream_<view>."""
        return tables.qualified(self.pipeline, tables.stream_view_name(self.view))

    def ensure(self) -> None:
        """Make the table, or refuse a changed declaration, before anything is written."""
        name = tables.stream_view_name(self.view)
        view_tables.ensured(catalogs.load(self.settings), self.pipeline, self.view, name)

    def start(self, trigger: Trigger) -> StreamingQuery:
        """Start where the checkpoint is; without one, fill the view with what is landed, and go on from there."""
        whole = stream_start.prepare(self.spark, self.settings, self.pipeline.name, self.view.name)
        filled = whole and view_fill.fill(self.spark, self.settings, self.pipeline, self.view, whole)
        log = (
            self.spark.readStream.format("iceberg")
            .option("streaming-max-rows-per-micro-batch", tables.VIEW_ROWS_PER_BATCH)
            .option("streaming-snapshot-polling-interval-ms", _POLL_MS)
            # Retention deletes old rows of the log; what it took was folded before.
            .option("streaming-skip-delete-snapshots", "true")
            .load(tables.qualified(self.pipeline, tables.STREAM_LOG))
        )
        rows = filled.rest(log) if filled else log
        updates = folds.fold(self._distinct(rows), self.pipeline, self.view)
        writer = updates.writeStream.queryName(f"{self.pipeline.name}_{self.view.name}").outputMode("update")
        write = self.write_after_fill if filled else self.write
        query = writer.foreachBatch(write).option("checkpointLocation", self.checkpoint)
        return query.trigger(**trigger).start()

    def _distinct(self, log: DataFrame) -> DataFrame:
        """Accepted rows, the first of each id within the lateness, with only the columns that the view needs."""
        event = self.pipeline.event
        accepted = log.where(F.col("outcome") == tables.ACCEPTED)
        lateness = f"{int(self.pipeline.lateness.total_seconds() * 1000)} milliseconds"
        return accepted.withWatermark(event.time, lateness).dropDuplicatesWithinWatermark([event.id])

    def write_after_fill(self, updates: DataFrame, batch_id: int) -> None:
        """The first batch of a filled view only makes the state: its windows are there, and some only begin in it."""
        if batch_id == 0:
            updates.write.format("noop").mode("overwrite").save()
        else:
            self.write(updates, batch_id)

    def write(self, updates: DataFrame, batch_id: int) -> None:
        """Upsert the windows that changed, by their keys: a replayed batch writes the same rows again."""
        updates.persist()
        try:
            days = [day for (day,) in updates.select(F.to_date("window_start")).distinct().collect()]
            end = checkpoints.offsets(self.spark, self.checkpoint, batch_id)
            state = boundary.encode(self._state(end))
            if stream_start.reads_everything(batch_id, end):
                tagged(updates.writeTo(self.table), state).overwrite(F.lit(True))
            elif days:
                self._upsert(updates, days, state)
            else:
                # Nothing changed, and still the table says how far the log was read.
                tagged(updates.writeTo(self.table), state).append()
        finally:
            updates.unpersist()

    def _upsert(self, updates: DataFrame, days: list[date], state: Mapping[str, str]) -> None:
        session = updates.sparkSession
        updates.withColumn(tables.VERSION, F.lit(None).cast("bigint")).createOrReplaceTempView("_tw_updates")
        for key, value in state.items():
            session.conf.set(f"spark.sql.iceberg.snapshot-property.{key}", value)
        session.sql(self._merge(serving.on_days("_tw_t.window_start", days)))

    def _state(self, end: Mapping[str, Any] | None) -> Folded:
        return Folded(end["snapshot_id"] if end else None, fingerprint.view(self.pipeline, self.view))

    def _merge(self, on_days: str) -> str:
        same = " AND ".join(f"_tw_t.`{key}` <=> _tw_u.`{key}`" for key in tables.view_keys(self.view))
        return f"""MERGE INTO {self.table} _tw_t USING _tw_updates _tw_u ON {same} AND {on_days}
WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"""
