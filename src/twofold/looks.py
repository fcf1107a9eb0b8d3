"""A look before a job starts: where nothing is new, a run ends here, without a JVM.

`twofold batch`, `twofold union` ─► python ─┐
Airflow's task ─────────────────────────────┴─► idle(lake, kind) ─┬─ nothing new ─► report, metrics: a good run
                                                                  └─ news ────────► the Spark job

A job that Airflow's task submits looks again, which takes it 20 ms: there it makes its tables, or adds columns to them,
by the definition that it has read itself.
"""

from __future__ import annotations

import time
from typing import Any

from twofold import job_metrics, metrics, table_state, tables, taken
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.lake import Lake
from twofold.metrics import Meter
from twofold.table_state import Boundary, Folded, History

Counts = dict[str, Any]
"""What a job reports: plain values, to be sent as JSON."""

BATCH, UNION = "batch", "union"


def idle(lake: Lake, kind: str) -> Counts | None:
    """The report of a run that has nothing to do, measured like any other; None where there is work."""
    look = {BATCH: _batch, UNION: _union}.get(kind)
    if look is None:
        return None
    with job_metrics.failure_kept(lake, kind):
        lake.ensure()
        report = look(lake)
    if report is not None:
        with job_metrics.measured(lake, kind, idle=True) as meter:
            if kind == UNION:
                measure_union(lake, meter, report)
    return report


def _batch(lake: Lake) -> Counts | None:
    book = taken.read_book(lake)
    if book.unrecorded():
        return None
    taken.settle(lake)
    lying = lake.inbox().files()
    if taken.new_files(lying, book.files):
        return None
    taken.put_away(lake, lying, book.files)
    return batch_report(warnings=taken.passed_over(lying))


def batch_report(**found: Any) -> Counts:  # noqa: ANN401
    """What a batch run reports, with what it `found` in place of nothing."""
    nothing = {"landings": [], **dict.fromkeys(tables.OUTCOMES, 0), "rows": 0, "files": [], "warnings": []}
    return {**nothing, **found}


def _union(lake: Lake) -> Counts | None:
    """As `spark_jobs.union` decides it: `events` is read first, so that everything past its boundary is seen."""
    started = time.time()
    events, name = lake.history(tables.EVENTS), lake.name
    stream, batch = (table_state.landed(lake.history(log), name) for log in (tables.STREAM_LOG, tables.BATCH_LOG))
    edge = table_state.boundary(events, name, stream.topic_id)
    if not edge.covers(stream, batch) or not edge.is_of(stream, batch):
        return None
    for view in lake.pipeline.views.values():
        known = table_state.folded(lake.history(tables.batch_view_name(view)))
        if known is None or known != view_state(lake.pipeline, view, events, known):
            return None
    return union_report(lake.pipeline, edge, started)


def view_state(pipeline: Pipeline, view: View, events: History, known: Folded | None) -> Folded:
    """The state of a batch view that is folded from these events; what is sealed stays sealed."""
    edge = table_state.boundary(events, pipeline.name)
    ends = (known and known.sealed_through, table_state.sealed_through(edge, pipeline.lateness))
    sealed = max((end for end in ends if end), default=None)
    return Folded(events.head, fingerprint.view(pipeline, view), sealed, types=fingerprint.types(pipeline, view))


def union_report(pipeline: Pipeline, edge: Boundary | None, started: float, **found: Any) -> Counts:  # noqa: ANN401
    """What a union that began at `started` (Unix seconds) reports, with what it `found` in place of nothing."""
    nothing = dict.fromkeys(("stream_rows", "batch_rows", "inserted", "replaced", "days"), 0)
    return {
        "pipeline": pipeline.name,
        **nothing,
        "view_days": dict.fromkeys(pipeline.views, 0),
        **found,
        "landing": edge.landing if edge else 0,
        "offsets": edge.offsets if edge else {},
        "unioned_at": started,
        "seconds": round(time.time() - started, 1),
    }


def measure_union(lake: Lake, meter: Meter, report: Counts) -> None:
    """Send what a union did, and the size of the tables after it."""
    new, corrected = report["inserted"], report["replaced"]
    meter.count(metrics.UNION_ROWS, new, result="new")
    meter.count(metrics.UNION_ROWS, corrected, result="corrected")
    seen = report["stream_rows"] + report["batch_rows"]
    meter.count(metrics.UNION_ROWS, max(0, seen - new - corrected), result="duplicate")
    meter.gauge(metrics.UNION_BOUNDARY, report["unioned_at"])
    for view in lake.pipeline.views.values():
        folded = table_state.folded(lake.history(tables.batch_view_name(view)))
        if folded and folded.sealed_through:
            meter.gauge(metrics.UNION_SEALED, max(folded.sealed_through.timestamp(), 0.0), view=view.name)
    job_metrics.send_tables(lake, meter)
