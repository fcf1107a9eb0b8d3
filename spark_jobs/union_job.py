"""The union: both layers into `events`, then each batch view up to it.

By hand: `python -m spark_jobs.union_job flights`
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from pyspark.sql import SparkSession

from spark_jobs import batch_views, locks, outcome, session
from spark_jobs.union import unite
from twofold import boundary, catalog, ensure, job_metrics, metrics, tables
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.metrics import Meter
from twofold.settings import Settings

_WAIT_S = 600.0
"""A second union waits for the first: it then finds what is left, which may be nothing."""


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@outcome.option
def main(pipeline: str, as_json: bool, outcome_file: Path | None) -> None:
    """Union PIPELINE once."""

    def work() -> dict[str, Any]:
        settings = Settings()
        return run(settings, load_pipeline(settings, pipeline))

    outcome.run(work, _sentence, as_json, outcome_file)


def run(settings: Settings, pipeline: Pipeline) -> dict[str, Any]:
    """Check, lock, union, measure; returns the counts."""
    with job_metrics.measured(Lake(settings, pipeline), "union") as meter:
        report = _run(settings, pipeline)
        _measure(settings, pipeline, meter, report)
    return report


def _run(settings: Settings, pipeline: Pipeline) -> dict[str, Any]:
    ensure.ensure(catalog.load(settings), pipeline)
    spark = session.build(settings, f"twofold-{pipeline.name}-union", short_lived=True)
    try:
        with locks.hold(spark, settings, pipeline.name, "union", wait_s=_WAIT_S):
            return union(spark, settings, pipeline)
    finally:
        spark.stop()


def union(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> dict[str, Any]:
    """Take in what is past the boundary, then fold the windows touched."""
    started, started_at = time.monotonic(), time.time()
    united = unite(spark, settings, pipeline)
    views = {view.name: batch_views.recompute(spark, settings, pipeline, view) for view in pipeline.views.values()}
    return {
        "pipeline": pipeline.name,
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


def _measure(settings: Settings, pipeline: Pipeline, meter: Meter, report: dict[str, Any]) -> None:
    new, corrected = report["inserted"], report["replaced"]
    meter.count(metrics.UNION_ROWS, new, result="new")
    meter.count(metrics.UNION_ROWS, corrected, result="corrected")
    seen = report["stream_rows"] + report["batch_rows"]
    meter.count(metrics.UNION_ROWS, max(0, seen - new - corrected), result="duplicate")
    meter.gauge(metrics.UNION_BOUNDARY, report["unioned_at"])
    for view in pipeline.views.values():
        folded = boundary.folded(Lake(settings, pipeline).history(tables.batch_view_name(view)))
        if folded and folded.sealed_through:
            meter.gauge(metrics.UNION_SEALED, max(folded.sealed_through.timestamp(), 0.0), view=view.name)
    job_metrics.send_tables(Lake(settings, pipeline), meter)


def _sentence(report: dict[str, Any]) -> str:
    return (
        f"{report['pipeline']}: {report['stream_rows']:,} stream and {report['batch_rows']:,} batch rows past the "
        f"boundary: {report['inserted']:,} events new, {report['replaced']:,} replaced, "
        f"{report['days']} days rewritten, "
        f"{sum(report['view_days'].values())} days of windows recomputed, in {report['seconds']} s"
    )


if __name__ == "__main__":
    main()
