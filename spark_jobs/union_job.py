"""The union: both layers into `events`, then each batch view up to it.

Manually: `python -m spark_jobs.union_job flights`
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from spark_jobs import outcome
from spark_jobs.spark_session import LONG_S, Job, started_job
from spark_jobs.union import recompute_view, unite
from twofold import job_metrics, looks
from twofold.commands import jobs
from twofold.lake import Lake


def run(lake: Lake) -> dict[str, Any]:
    """Look, lock, union, measure; returns the counts. No JVM is started where nothing is new."""
    if (report := looks.idle(lake, looks.UNION)) is not None:
        return report
    with job_metrics.measured(lake, looks.UNION) as meter:
        with started_job(lake, "union", short_lived=True) as job, job.lock("union", wait_s=LONG_S):
            report = union(job)
        looks.measure_union(lake, meter, report)
    return report


def union(job: Job) -> dict[str, Any]:
    """Take in what is past the boundary, then fold the windows touched."""
    started = time.time()
    united = unite(job)
    return looks.union_report(
        job.pipeline,
        united.boundary,
        started,
        view_days={view.name: recompute_view(job, view) for view in job.pipeline.views.values()},
        stream_rows=united.stream_rows,
        batch_rows=united.batch_rows,
        inserted=united.inserted,
        replaced=united.replaced,
        days=len(united.days),
    )


def _sentence(report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{report['pipeline']}: {report['stream_rows']:,} stream and {report['batch_rows']:,} batch rows past the "
        f"boundary: {report['inserted']:,} events new, {report['replaced']:,} replaced, "
        f"{report['days']} days rewritten, "
        f"{sum(report['view_days'].values())} days of windows recomputed, in {report['seconds']} s"
    )


main = outcome.program(jobs.union, run, _sentence)


if __name__ == "__main__":
    main()
