"""A view over all that is landed, at once: asking a state store about each row costs many times more.

stream_log as of a snapshot ─┬─► one row per id ─► fold ─► stream_<view>, whole
                             └─► rows that a later one can still meet ─► the query's first batch, for its state
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import folds
from spark_jobs.folds import read, tagged
from twofold import boundary, serving, tables
from twofold import catalog as catalogs
from twofold.boundary import Folded, History
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.settings import Settings

_LOG = "_tw_landed"


@dataclass(frozen=True)
class Filled:
    """What a filled view covers, but for the windows and ids that the query has to know of."""

    pipeline: Pipeline
    landing: int
    open_from: int
    """Event time in microseconds: rows before it meet no row that is still on time."""

    def rest(self, log: DataFrame) -> DataFrame:
        """The rows that the query needs: those that are open, and all that was landed since."""
        is_open = F.col(self.pipeline.event.time) >= F.timestamp_micros(F.lit(self.open_from))
        return log.where(is_open | (F.col("landing") > self.landing))


def fill(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View, snapshot: int) -> Filled | None:
    """Replace the view by its fold over `snapshot` of stream_log; None where that has no window."""
    read(spark, pipeline, tables.STREAM_LOG, snapshot).createOrReplaceTempView(_LOG)
    contenders = serving.stream_contenders(pipeline, _LOG, {})
    distinct = spark.sql(serving.winners(pipeline, f"({contenders})", pipeline.columns))
    state = boundary.encode(Folded(snapshot, fingerprint.view(pipeline, view)))
    table = tables.qualified(pipeline, tables.stream_view_name(view))
    tagged(folds.fold(distinct, pipeline, view).writeTo(table), state).overwrite(F.lit(True))
    latest = spark.table(table).select(F.unix_micros(F.max("window_start"))).collect()[0][0]
    if latest is None:
        return None
    log = catalogs.read_history(settings, pipeline.name, tables.STREAM_LOG)
    landing = boundary.landed(History(log.snapshots, snapshot), pipeline.name).landing
    return Filled(pipeline, landing, latest - _reach(pipeline, view))


def _reach(pipeline: Pipeline, view: View) -> int:
    """How far behind the latest window's start, in microseconds, there is something that the query has to know of.

    Windows are open up to the lateness behind the latest event; an id is remembered for the lateness again.
    """
    return int((2 * pipeline.lateness + view.window).total_seconds() * 1_000_000)
