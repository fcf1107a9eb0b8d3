"""The union: both layers into `events`, then each batch view up to it.

Manually: `python -m spark_jobs.union_job flights`
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from spark_jobs import outcome
from spark_jobs.spark_session import Job, declared, started_job
from spark_jobs.union import recompute_view, unite
from twofold import job_metrics, metrics, table_state, tables
from twofold.lake import Lake
from twofold.metrics import Meter

_WAIT_S = 600.0
"""A second union waits for the first: it then finds what is left, which may be nothing."""


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@outcome.option
def main(pipeline: str, as_json: bool, outcome_file: Path | None) -> None:
    """Union PIPELINE once."""

    outcome.run(lambda: run(declared(pipeline)), _sentence, as_json, outcome_file)


def run(lake: Lake) -> dict[str, Any]:
    """Check, lock, union, measure; returns the counts."""
    with job_metrics.measured(lake, "union") as meter:
        lake.ensure()
        with started_job(lake, "union", short_lived=True) as job, job.lock("union", wait_s=_WAIT_S):
            report = union(job)
        _measure(lake, meter, report)
    return report


def union(job: Job) -> dict[str, Any]:
    """Take in what is past the boundary, then fold the windows touched."""
    started, started_at = time.monotonic(), time.time()
    united = unite(job)
    views = {view.name: recompute_view(job, view) for view in job.pipeline.views.values()}
    return {
        "pipeline": job.pipeline.name,
        "stream_rows": united.stream_rows,
        "batch_rows": united.batch_rows,
        "inserted": united.inserted,
        "replaced": united.replaced,
        "days": len(united.days),
        "view_days": views,
        "landing": united.boundary.landing if united.boundary else 0,
        "offsets": united.boundary.offsets if united.boundary else {},
        "unioned_at": started_at,
        "seconds": round(time.monotonic() - started, 1),
    }


def _measure(lake: Lake, meter: Meter, report: dict[str, Any]) -> None:
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


def _sentence(report: dict[str, Any]) -> str:
    return (
        f"{report['pipeline']}: {report['stream_rows']:,} stream and {report['batch_rows']:,} batch rows past the "
        f"boundary: {report['inserted']:,} events new, {report['replaced']:,} replaced, "
        f"{report['days']} days rewritten, "
        f"{sum(report['view_days'].values())} days of windows recomputed, in {report['seconds']} s"
    )


if __name__ == "__main__":
    main()
