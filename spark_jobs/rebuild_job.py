"""Rebuild `events` and all views from the logs, with the current definition; nothing is visible before the swap.

    both logs, pinned ─► winners ─► `events`, one commit ─► batch_<view>, one commit each
    view queries ─► checkpoints discarded: the next `twofold stream` folds the whole log, and swaps it in

Killed midway, a table is as it was or rebuilt. Rebuilt `events` count as changed on all days, so views that were not
reached are recomputed by the next union; views of a changed declaration stay refused until the next rebuild.

Manually: `python -m spark_jobs.rebuild_job flights`
"""

from __future__ import annotations

import time
from typing import Any

from spark_jobs import outcome, stream_log, union
from spark_jobs.checkpoints import Checkpoint
from spark_jobs.spark_session import LONG_S, Job, started_job
from twofold import commits, schemas, table_state, tables
from twofold.commands import jobs
from twofold.definition import fingerprint
from twofold.definition.model import View
from twofold.lake import Lake
from twofold.reader.pinned import pin
from twofold.table_state import Folded


def run(lake: Lake) -> dict[str, Any]:
    """Refuse while the streaming job runs; else rebuild, with unions kept out."""
    lake.ensure()
    with started_job(lake, "rebuild") as job, job.lock("stream"), job.lock("union", wait_s=LONG_S):
        return rebuild(job)


def rebuild(job: Job) -> dict[str, Any]:
    """All steps; returns the counts."""
    started = time.monotonic()
    views = job.pipeline.views
    made = union.recreate(job.lake)
    events = {"stream_rows": made.stream_rows, "batch_rows": made.batch_rows, "rows": made.inserted}
    batch = {view.name: union.rebuild_view(job, view) for view in views.values()}
    for view in views.values():
        _restart_stream_view(job, view)
    Checkpoint.of(job, stream_log.QUERY).discard()
    there = {name[-1] for name in job.lake.catalog().list_tables(job.lake.name)}
    return {
        "pipeline": job.pipeline.name,
        "events": events,
        "batch_view_rows": batch,
        "stream_views": list(views),
        # Tables of views that the definition no longer has: left as they are.
        "undeclared": sorted(there.difference({*tables.names(job.pipeline), tables.LEDGER})),
        "seconds": round(time.monotonic() - started, 1),
    }


def _restart_stream_view(job: Job, view: View) -> None:
    """Let the view's query start from the beginning.

    The checkpoint is removed first: if the table were emptied first and the job killed then, the old checkpoint would
    resume in the middle, and the view would lack its history for good.
    """
    Checkpoint.of(job, view.name).discard()
    pipeline, name = job.pipeline, tables.stream_view_name(view)
    found = pin(job.lake.catalog(), pipeline.name, name)
    if found.table is not None and schemas.is_outdated(found.table, pipeline, view):
        table, updates = schemas.redeclared(found.table, pipeline, view, name)
        nothing_read = Folded(None, fingerprint.view(pipeline, view))
        commits.replace(table, found.history.head, found.all_files, [], table_state.encode(nothing_read), updates)


def _sentences(report: dict[str, Any]) -> list[str]:
    name, events = report["pipeline"], report["events"]
    return [
        f"{name}: rebuilt in {report['seconds']} s",
        f"  events: {events['rows']:,} rows "
        f"from {events['stream_rows']:,} stream and {events['batch_rows']:,} batch rows",
        *(f"  {tables.batch_view_name(view)}: {rows:,} rows" for view, rows in report["batch_view_rows"].items()),
        *(
            f"  {tables.stream_view_name(view)}: rebuilt by the next `twofold stream {name}`"
            for view in report["stream_views"]
        ),
        *(f"  {table}: not declared any more, left as it is" for table in report["undeclared"]),
    ]


main = outcome.program(jobs.rebuild, run, _sentences)


if __name__ == "__main__":
    main()
