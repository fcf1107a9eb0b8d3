"""Expiry of a table's snapshots, as far as `twofold.retention`'s guards let it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pyspark.sql import SparkSession

from spark_jobs import checkpoints
from twofold import retention, table_state, tables
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.retention import Upkeep
from twofold.settings import CATALOG, Settings
from twofold.table_state import Boundary, Folded, History, Landed

_IDS_PER_CALL = 2000
LOG_RETENTION = timedelta(hours=1)
"""How long a reader of stream_log may take; its exactness needs no old snapshots."""


@dataclass(frozen=True)
class Expired:
    """What expiry did to one table."""

    snapshots: int = 0
    kept: int = 0
    files: int = 0
    """Data files, manifests and manifest lists that only expired snapshots referred to."""
    guards: Mapping[str, int] = field(default_factory=dict)
    """What keeps how many of the newest snapshots."""


def expire(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, table: str, asked: Upkeep, now: datetime
) -> Expired:
    """Expire what no guard keeps; each call names its snapshots, so commits made meanwhile are never touched."""
    history = Lake(settings, pipeline).history(table)
    guards = guards_of(spark, settings, pipeline, table, history) | {
        "age": retention.is_young(history, now, asked.snapshot_retention, _most(pipeline, table)),
        "newest": asked.keep_snapshots,
    }
    ids = retention.expirable(history, guards)
    depth = sum(1 for _ in history.ancestors())
    files = 0 if asked.dry_run else sum(_call(spark, pipeline, table, part) for part in _parts(ids))
    return Expired(len(ids), depth - len(ids), files, {name: min(depth, kept) for name, kept in guards.items()})


def log_expirable(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, history: History, now: datetime
) -> list[int]:
    """What the landing query may expire of stream_log while it runs: all but an hour, and what anybody still needs."""
    guards = guards_of(spark, settings, pipeline, tables.STREAM_LOG, history)
    edge = table_state.boundary(Lake(settings, pipeline).history(tables.EVENTS), pipeline.name)
    behind = table_state.covered(history, edge)
    young = {
        "age": retention.is_young(history, now, LOG_RETENTION, retention.MOST_PER_BATCH),
        # Readers look for what is past the boundary in the files that were added since.
        "query": min(retention.is_resumed_from(history, behind.id), retention.MOST_PER_BATCH) if behind else 0,
    }
    return retention.expirable(history, guards | young)


def per_batch_tables(pipeline: Pipeline) -> list[str]:
    """Tables that get a snapshot with every micro-batch."""
    return [tables.STREAM_LOG, *(tables.stream_view_name(view) for view in pipeline.views)]


def _most(pipeline: Pipeline, table: str) -> int:
    return retention.MOST_PER_BATCH if table in per_batch_tables(pipeline) else retention.EVERYTHING


def guards_of(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, table: str, history: History
) -> dict[str, int]:
    """What must be kept of this table whatever its age: the state it carries, and what its readers go on from."""
    if history.head is None or table == tables.LANDED_FILES:
        return {}
    if table == tables.STREAM_LOG:
        readers = {f"view {view}": _resumes(spark, settings, pipeline, view, history) for view in pipeline.views}
        return {"state": retention.carries_state(history, Landed.KEY), **readers}
    if table == tables.EVENTS:
        readers = {f"view {view}": _recomputes(settings, pipeline, view, history) for view in pipeline.views}
        return {"state": retention.carries_state(history, Boundary.KEY), **readers}
    return {"state": retention.carries_state(history, Landed.KEY if table == tables.BATCH_LOG else Folded.KEY)}


def _resumes(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: str, log: History) -> int:
    """What a view's query may have to read again: its checkpoint knows, its table only knows what was written."""
    resumed = checkpoints.resumed_from(spark, settings.checkpoint(pipeline.name, view))
    return retention.is_not_begun(log) if resumed is None else retention.is_resumed_from(log, resumed["snapshot_id"])


def _recomputes(settings: Settings, pipeline: Pipeline, view: str, events: History) -> int:
    """What says which days a batch view has yet to recompute; without it the view is computed whole, once."""
    known = table_state.folded(Lake(settings, pipeline).history(tables.batch_view_name(view)))
    if known is None or known.snapshot is None or events.since(known.snapshot) is None:
        return 0
    return retention.is_resumed_from(events, known.snapshot)


def _call(spark: SparkSession, pipeline: Pipeline, table: str, ids: list[int]) -> int:
    # With ids alone, everything older than five days would go too.
    row = spark.sql(
        f"CALL {CATALOG}.system.expire_snapshots(table => '{tables.qualified(pipeline, table)}', "
        f"older_than => TIMESTAMP '1970-01-01 00:00:00', snapshot_ids => array({', '.join(map(str, ids))}))"
    ).collect()[0]
    return sum(row.asDict().values())


def _parts(ids: list[int]) -> list[list[int]]:
    return [ids[start : start + _IDS_PER_CALL] for start in range(0, len(ids), _IDS_PER_CALL)]
