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
from pyiceberg.exceptions import CommitFailedException
from pyspark.sql import SparkSession

from spark_jobs import batch_views, checkpoints, locks, outcome, session, stream_log, union
from spark_jobs.days import Scratch
from spark_jobs.union import Logs
from twofold import boundary, catalog, commits, ensure, serving, tables, view_tables
from twofold.boundary import Boundary, Folded
from twofold.data_files import Place
from twofold.definition import fingerprint
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline, View
from twofold.reader.pinned import pin
from twofold.reader.unified import DuckDBEngine
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
    events = rebuild_events(settings, pipeline, retained_from)
    batch = {view.name: batch_views.rebuild(spark, settings, pipeline, view) for view in pipeline.views.values()}
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


def rebuild_events(settings: Settings, pipeline: Pipeline, retained_from: dict[int, int]) -> dict[str, int]:
    """The winners among all that ever took part, in one commit, with the boundary that covers them."""
    for _ in range(union.ATTEMPTS):
        now = union.read(settings, pipeline)
        try:
            with Scratch(settings) as duck:
                return _events(duck, pipeline, now, retained_from)
        except CommitFailedException:
            continue
    raise union.contended(pipeline, tables.EVENTS)


def _events(duck: Scratch, pipeline: Pipeline, now: Logs, retained_from: dict[int, int]) -> dict[str, int]:
    from_scratch = replace(now, boundary=Boundary(pipeline.name))
    engine = DuckDBEngine(duck.connection, pipeline, now.events, now.stream, now.batch, duck.read)
    known = replace(from_scratch.next, max_event_time=now.boundary.max_event_time, seen=now.boundary.seen)
    stream, batch, after = union.seen(duck, engine, pipeline, from_scratch, known)
    log = serving.stream_contenders(pipeline, engine.stream_log(from_scratch.boundary), {})
    files = serving.batch_contenders(pipeline, engine.batch_log(from_scratch.boundary), 0)
    kept = _no_longer_logged(pipeline, engine.events((), on=False), retained_from)
    stream += duck.number(f"SELECT count(*) FROM ({serving.duckdb(kept)})")
    rows = serving.duckdb(serving.winners(pipeline, f"({log} UNION ALL {files} UNION ALL {kept})"))
    new = duck.write(Place.of(now.events.made), rows, union.sort_order(pipeline))
    union.replace_files(now.events, now.events.all_files, new, replace(after, rebuilt=True))
    return {"stream_rows": stream, "batch_rows": batch, "rows": sum(file.record_count for file in new)}


def _no_longer_logged(pipeline: Pipeline, events: str, retained_from: dict[int, int]) -> str:
    """Rows of `events` whose record retention took from stream_log: there is nothing else to make them from."""
    named = f"NOT {serving.past_offsets(retained_from)}" if retained_from else "FALSE"
    # In the order of the contenders, which they are united with.
    names = serving.columns([*pipeline.columns, "layer", "withdrawn", *serving.PROVENANCE[1:]])
    return f"SELECT {names} FROM {events} WHERE layer = '{tables.STREAM_LAYER}' AND {named}"


def restart_stream_view(spark: SparkSession, settings: Settings, pipeline: Pipeline, view: View) -> None:
    """Let the view's query begin anew.

    First the checkpoint goes: were the table emptied first and the job killed then, the old checkpoint would go on
    in the middle, and the view would lack its history for good.
    """
    checkpoints.discard(spark, settings.checkpoint(pipeline.name, view.name))
    name = tables.stream_view_name(view)
    found = pin(catalog.load(settings), pipeline.name, name)
    if found.table is not None and view_tables.is_outdated(found.table, pipeline, view):
        table, updates = view_tables.redeclared(found.table, pipeline, view, name)
        nothing_read = Folded(None, fingerprint.view(pipeline, view))
        commits.replace(table, found.history.head, found.all_files, [], boundary.encode(nothing_read), updates)


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
