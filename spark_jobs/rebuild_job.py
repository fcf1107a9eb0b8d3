"""Make `events` and all views anew from the logs, with the current definition; nothing of it shows before its swap.

    both logs, pinned ─► winners ─► `events`, one commit ─► batch_<view>, one commit each
    view queries ─► checkpoints discarded: the next `twofold stream` folds the whole log, and swaps it in

Killed midway, a table is as it was or anew. `events` made anew counts as changed on all days, so views that were not
reached are recomputed by the next union; of a changed declaration they stay refused until the next rebuild.

By hand: `python -m spark_jobs.rebuild_job flights`
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from pyspark.sql import DataFrame, SparkSession

from spark_jobs import batch_views, checkpoints, folds, locks, merge, outcome, session, stream_log
from spark_jobs.merge import Pinned, read
from twofold import boundary, catalog, ensure, serving, tables
from twofold.boundary import Boundary
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline, View
from twofold.settings import Settings

_WAIT_S = 600.0


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@outcome.option
def main(pipeline: str, as_json: bool, outcome_file: Path | None) -> None:
    """Rebuild PIPELINE."""

    def work() -> dict[str, Any]:
        settings = Settings()
        return run(settings, load_pipeline(settings, pipeline))

    outcome.run(work, lambda report: "\n".join(_sentences(report)), as_json, outcome_file)


def run(settings: Settings, pipeline: Pipeline) -> dict[str, Any]:
    """Refuse while the streaming job runs; else rebuild, with unions kept out."""
    made = ensure.ensure(catalog.load(settings), pipeline)
    log = made[tables.STREAM_LOG]
    spark = session.build(settings, f"twofold-{pipeline.name}-rebuild")
    try:
        with (
            locks.hold(spark, settings, pipeline.name, "stream"),
            locks.hold(spark, settings, pipeline.name, "union", wait_s=_WAIT_S),
        ):
            return rebuild(spark, settings, pipeline, boundary.retained_from(log.properties))
    finally:
        spark.stop()


def rebuild(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, retained_from: dict[int, int]
) -> dict[str, Any]:
    """All steps; returns the counts."""
    started = time.monotonic()
    events = rebuild_events(spark, settings, pipeline, retained_from)
    batch = {view.name: rebuild_batch_view(spark, settings, pipeline, view) for view in pipeline.views.values()}
    for view in pipeline.views.values():
        restart_stream_view(spark, settings, pipeline, view)
    checkpoints.discard(spark, settings.checkpoint(pipeline.name, stream_log.QUERY))
    return {
        "pipeline": pipeline.name,
        "events": events,
        "batch_view_rows": batch,
        "stream_views": list(pipeline.views),
        "undeclared": _undeclared(settings, pipeline),
        "seconds": round(time.monotonic() - started, 1),
    }


def rebuild_events(
    spark: SparkSession, settings: Settings, pipeline: Pipeline, retained_from: dict[int, int]
) -> dict[str, int]:
    """The winners among all that ever took part, in one commit, with the boundary that covers them."""
    now = merge.pin(spark, settings, pipeline)
    from_scratch = replace(now, boundary=Boundary(pipeline.name))
    rows = merge.contenders(spark, pipeline, from_scratch).unionByName(
        _no_longer_logged(spark, pipeline, now, retained_from)
    )
    rows.persist().createOrReplaceTempView("_tw_contenders")
    try:
        seen = merge.seen(spark, pipeline)
        latest = [moment for moment in (now.boundary.max_event_time, seen["latest"]) if moment is not None]
        after = replace(from_scratch.next, max_event_time=max(latest, default=None), rebuilt=True)
        merge.overwrite(spark.sql(serving.winners(pipeline, "_tw_contenders")), settings, pipeline, now, after, "true")
        return {"stream_rows": seen["stream"], "batch_rows": seen["batch"], "rows": _count(spark, pipeline)}
    finally:
        rows.unpersist()


def _no_longer_logged(
    spark: SparkSession, pipeline: Pipeline, pinned: Pinned, retained_from: dict[int, int]
) -> DataFrame:
    """Rows of `events` whose record retention took from stream_log: there is nothing else to make them from."""
    events = read(spark, pipeline, tables.EVENTS, pinned.events.head)
    if not retained_from:
        return events.limit(0)
    named = serving.past_offsets(retained_from)
    return events.where(f"layer = '{tables.STREAM_LAYER}' AND NOT {named}")


def rebuild_batch_view(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View) -> int:
    """The view over all of `events`, in one commit; a table of another declaration is replaced, columns and all."""
    table = tables.batch_view_name(view)
    name = tables.qualified(pipeline, table)
    if spark.catalog.tableExists(name) and folds.is_outdated(spark, pipeline, view, table):
        batch_views.replace_whole(spark, settings, pipeline, view)
    else:
        batch_views.recompute(spark, settings, pipeline, view)
    return spark.table(name).count()


def restart_stream_view(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View) -> None:
    """Let the view's query begin anew.

    First the checkpoint goes: were the table emptied first and the job killed then, the old checkpoint would go on
    in the middle, and the view would lack its history for good.
    """
    checkpoints.discard(spark, settings.checkpoint(pipeline.name, view.name))
    table = tables.stream_view_name(view)
    if spark.catalog.tableExists(tables.qualified(pipeline, table)) and folds.is_outdated(spark, pipeline, view, table):
        nothing = folds.fold(spark.table(tables.qualified(pipeline, tables.STREAM_LOG)).limit(0), pipeline, view)
        folds.replace_table(nothing, pipeline, view, table, {})


def _count(spark: SparkSession, pipeline: Pipeline) -> int:
    return spark.table(tables.qualified(pipeline, tables.EVENTS)).count()


def _undeclared(settings: Settings, pipeline: Pipeline) -> list[str]:
    """Tables of views that the definition no longer has: left as they are."""
    found = {name[-1] for name in catalog.load(settings).list_tables(pipeline.name)}
    return sorted(found.difference(tables.names(pipeline)))


def _sentences(report: dict[str, Any]) -> list[str]:
    name, events = report["pipeline"], report["events"]
    return [
        f"{name}: rebuilt in {report['seconds']} s",
        f"  events: {events['rows']:,} rows "
        f"from {events['stream_rows']:,} stream and {events['batch_rows']:,} batch rows",
        *(f"  {tables.batch_view_name(view)}: {rows:,} rows" for view, rows in report["batch_view_rows"].items()),
        *(
            f"  {tables.stream_view_name(view)}: made anew by the next `twofold stream {name}`"
            for view in report["stream_views"]
        ),
        *(f"  {table}: not declared any more, left as it is" for table in report["undeclared"]),
    ]


if __name__ == "__main__":
    main()
