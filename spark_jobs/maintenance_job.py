"""Maintenance: small files, old snapshots, orphans, and what is wrong with ids. Safe to repeat, to kill, and to run
beside a streaming job.

    retention of stream_log (if asked) ─► logs compacted ─► under the union's lock: events and views compacted,
    snapshots expired as far as the guards let ─► orphans removed ─► ids further apart than id_horizon reported

By hand: `python -m spark_jobs.maintenance_job flights --dry-run`
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pyspark.sql import SparkSession

from spark_jobs import horizon, locks, log_retention, orphans, outcome, rewriting, session, snapshots, upkeep_plan
from spark_jobs.log_retention import Retained
from spark_jobs.rewriting import Rewritten
from spark_jobs.snapshots import Expired
from spark_jobs.upkeep_plan import Layout
from spark_jobs.upkeep_text import sentences
from twofold import catalog, ensure, job_metrics, upkeep
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.job_metrics import DataFiles
from twofold.lake import Lake
from twofold.settings import Settings
from twofold.upkeep import Upkeep
from twofold.versions import StreamView

_WAIT_S = 600.0
"""How long a union may take before maintenance gives up on what the union writes."""


@dataclass
class TableReport:
    """What was done to one table."""

    before: DataFiles
    after: DataFiles | None = None
    """None in a dry run."""
    rewritten: Rewritten = field(default_factory=Rewritten)
    manifests: int = 0
    expired: Expired = field(default_factory=Expired)
    orphans: int = 0


@click.command()
@click.argument("pipeline")
@click.option("--dry-run", is_flag=True)
@click.option("--json", "as_json", is_flag=True)
@click.option("--snapshot-retention", default=upkeep.SNAPSHOT_RETENTION)
@click.option("--keep-snapshots", type=click.IntRange(min=1), default=upkeep.KEEP_SNAPSHOTS)
@click.option("--orphan-age", default=upkeep.ORPHAN_AGE)
@click.option("--min-input-files", type=click.IntRange(min=2), default=upkeep.MIN_INPUT_FILES)
@click.option("--retain-stream-log")
@outcome.option
def main(pipeline: str, as_json: bool, outcome_file: Path | None, **options: Any) -> None:  # noqa: ANN401
    """Maintain the tables of PIPELINE; `twofold maintain --help` tells the options."""

    def work() -> dict[str, Any]:
        settings = Settings()
        return run(settings, load_pipeline(settings, pipeline), upkeep.upkeep(**options))

    outcome.run(work, lambda report: "\n".join(sentences(report)), as_json, outcome_file)


def run(settings: Settings, pipeline: Pipeline, asked: Upkeep) -> dict[str, Any]:
    """Check, then do all steps, and measure the tables; returns what was done. A dry run counts for nothing."""
    if asked.dry_run:
        return _run(settings, pipeline, asked)
    lake = Lake(settings, pipeline)
    with job_metrics.measured(lake, "maintenance") as meter:
        report = _run(settings, pipeline, asked)
        job_metrics.send_tables(lake, meter)
    return report


def _run(settings: Settings, pipeline: Pipeline, asked: Upkeep) -> dict[str, Any]:
    ensure.ensure(catalog.load(settings), pipeline)
    spark = session.build(settings, f"twofold-{pipeline.name}-maintain")
    try:
        return Maintenance(spark, settings, pipeline, asked, datetime.now(UTC)).run()
    finally:
        spark.stop()


@dataclass
class Maintenance:
    """One run over the tables of a pipeline, as of `now`."""

    spark: SparkSession
    settings: Settings
    pipeline: Pipeline
    asked: Upkeep
    now: datetime
    tables: dict[str, TableReport] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """All steps in order."""
        started = time.monotonic()
        layouts = upkeep_plan.layouts(self.settings, self.pipeline)
        self.tables = {layout.table: TableReport(self._files(layout)) for layout in layouts}
        retained = self._retain()
        for layout in (one for one in layouts if one.append_only):
            self._compact(layout)
        with locks.hold(self.spark, self.settings, self.pipeline.name, "union", wait_s=_WAIT_S):
            for layout in (one for one in layouts if not one.append_only):
                self._compact(layout)
            for layout in layouts:
                self._expire(layout)
        for layout in layouts:
            self._clean(layout)
        return {
            "pipeline": self.pipeline.name,
            "dry_run": self.asked.dry_run,
            "tables": {name: asdict(report) for name, report in self.tables.items()},
            "retained": asdict(retained),
            "inbox_leftovers": orphans.of_inbox(self.settings, self.pipeline.name, self.asked, self.now),
            "ids_beyond_horizon": asdict(horizon.ids_beyond(self.spark, self.pipeline)),
            "seconds": round(time.monotonic() - started, 1),
        }

    def _retain(self) -> Retained:
        keep = self.asked.retain_stream_log
        if keep is None:
            return Retained()
        return log_retention.apply(self.spark, self.settings, self.pipeline, keep, self.now, self.asked.dry_run)

    def _compact(self, layout: Layout) -> None:
        report = self.tables[layout.table]
        if self.asked.dry_run:
            return
        if report.before.count >= self.asked.min_input_files:
            report.rewritten = self._rewritten(layout)
        report.manifests = rewriting.manifests(self.spark, self.settings, self.pipeline.name, layout.table)
        report.after = self._files(layout)

    def _rewritten(self, layout: Layout) -> Rewritten:
        least = self.asked.min_input_files
        if layout.versions_of is None:
            return rewriting.data_files(self.spark, self.pipeline.name, layout.table, least, layout.order)
        folded = StreamView(Lake(self.settings, self.pipeline), layout.versions_of).fold(least)
        return Rewritten(conflict=True) if folded is None else Rewritten(*folded)

    def _expire(self, layout: Layout) -> None:
        self.tables[layout.table].expired = snapshots.expire(
            self.spark, self.settings, self.pipeline, layout.table, self.asked, self.now
        )

    def _clean(self, layout: Layout) -> None:
        self.tables[layout.table].orphans = orphans.of_table(
            catalog.load(self.settings), self.pipeline.name, layout.table, self.asked, self.now
        )

    def _files(self, layout: Layout) -> DataFiles:
        return job_metrics.data_files(catalog.load(self.settings).load_table((self.pipeline.name, layout.table)))


if __name__ == "__main__":
    main()
