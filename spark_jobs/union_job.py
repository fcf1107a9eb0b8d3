"""The union: both layers into `events`, then each batch view up to it.

By hand: `python -m spark_jobs.union_job flights`
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from pyspark.sql import SparkSession

from spark_jobs import batch_views, locks, merge, outcome, session
from twofold import catalog, ensure
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
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
    """Check, lock, union; returns the counts."""
    ensure.ensure(catalog.load(settings), pipeline)
    spark = session.build(settings, f"twofold-{pipeline.name}-union", short_lived=True)
    try:
        with locks.hold(spark, settings, pipeline.name, "union", wait_s=_WAIT_S):
            return union(spark, settings, pipeline)
    finally:
        spark.stop()


def union(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> dict[str, Any]:
    """Merge what is past the boundary, then recompute the windows touched."""
    started = time.monotonic()
    merged = merge.merge(spark, settings, pipeline)
    views = {view.name: batch_views.recompute(spark, settings, pipeline, view) for view in pipeline.views.values()}
    return {
        "pipeline": pipeline.name,
        "stream_rows": merged.stream_rows,
        "batch_rows": merged.batch_rows,
        "inserted": merged.inserted,
        "replaced": merged.replaced,
        "days": len(merged.days),
        "view_days": views,
        "landing": merged.boundary.landing if merged.boundary else 0,
        "offsets": merged.boundary.offsets if merged.boundary else {},
        "seconds": round(time.monotonic() - started, 1),
    }


def _sentence(report: dict[str, Any]) -> str:
    return (
        f"{report['pipeline']}: {report['stream_rows']:,} stream and {report['batch_rows']:,} batch rows past the "
        f"boundary: {report['inserted']:,} events new, {report['replaced']:,} replaced, "
        f"{report['days']} days rewritten, "
        f"{sum(report['view_days'].values())} days of windows recomputed, in {report['seconds']} s"
    )


if __name__ == "__main__":
    main()
