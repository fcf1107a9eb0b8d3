"""Which tables are maintained, and how each is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import SparkSession

from twofold import catalog as catalogs
from twofold import locks, serving, tables
from twofold.definition.model import Pipeline, View
from twofold.settings import Settings


@dataclass(frozen=True)
class Layout:
    """How one table's files are rewritten."""

    table: str
    order: str | None
    """Sort order of rewritten files: "" is the table's own, None leaves the rows as they lie."""
    append_only: bool = False
    """Its writer only appends, so a rewrite gets in nobody's way."""
    where: str = ""
    """Only files of these rows are rewritten."""


def layouts(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> list[Layout]:
    """All tables of the pipeline that exist; view tables only of declared views."""
    running = locks.is_held(settings, pipeline.name, "stream")
    wanted = [
        Layout(tables.STREAM_LOG, "kafka_partition, kafka_offset", append_only=True),
        Layout(tables.BATCH_LOG, "landing, file, row", append_only=True),
        Layout(tables.LANDED_FILES, None, append_only=True),
        Layout(tables.EVENTS, ""),
    ]
    catalog = catalogs.load(settings)
    for view in pipeline.views.values():
        wanted.append(Layout(tables.batch_view_name(view), None))
        name = tables.stream_view_name(view)
        if catalogs.find(catalog, pipeline.name, name) is not None:
            wanted.append(Layout(name, None, where=_closed(spark, pipeline, view) if running else ""))
    return [layout for layout in wanted if catalogs.find(catalog, pipeline.name, layout.table) is not None]


def _closed(spark: SparkSession, pipeline: Pipeline, view: View) -> str:
    """Days on which the running job changes no window any more: a rewrite of others would make its upsert fail.

    What it writes next ends past the watermark, which is at least the latest window's start less the lateness.
    """
    name = tables.qualified(pipeline, tables.stream_view_name(view))
    latest = spark.sql(f"SELECT unix_micros(max(window_start)) AS _tw_latest FROM {name}").collect()[0]["_tw_latest"]
    moment = datetime.fromtimestamp((latest or 0) / 1_000_000, UTC)
    return f"window_start < {serving.moment((moment - pipeline.lateness - view.window).date())}"
