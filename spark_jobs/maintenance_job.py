"""Maintenance: small files, old snapshots, orphans, and ids too far apart. Safe to repeat, to kill, and to run
beside a streaming job.

    retention of stream_log (if asked) ─► logs compacted ─► under the union's lock: events and views compacted,
    snapshots expired as far as the guards let ─► orphans removed ─► ids further apart than id_horizon reported

Manually: `python -m spark_jobs.maintenance_job flights --dry-run`
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from spark_jobs import maintenance, outcome
from spark_jobs.maintenance import Expired, Retained, Rewritten
from spark_jobs.spark_session import LONG_S, Job, started_job
from twofold import job_metrics, retention, tables
from twofold.commands import jobs
from twofold.definition.model import Pipeline, View
from twofold.job_metrics import SMALL_BYTES, DataFiles
from twofold.lake import Lake
from twofold.retention import Upkeep
from twofold.versions import StreamView


def run(lake: Lake, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Check, then do all steps, and measure the tables; returns what was done. A dry run sends no metrics.

    The options are those of `retention.upkeep`, as they are typed.
    """
    asked = retention.upkeep(**options)
    with nullcontext() if asked.dry_run else job_metrics.measured(lake, "maintenance") as meter:
        lake.ensure()
        with started_job(lake, "maintain") as job:
            report = Maintenance(job, asked, datetime.now(UTC)).run()
        if meter:
            job_metrics.send_tables(lake, meter)
    return report


@dataclass(frozen=True)
class Layout:
    """How one table's files are rewritten."""

    table: str
    order: str | None
    """Sort order of rewritten files: "" is the table's own, None leaves the rows as they lie."""
    append_only: bool = False
    """Its writer only appends, so a rewrite conflicts with nothing."""
    versions_of: View | None = None
    """The view of whose rows only the newest versions are left."""


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


@dataclass
class Maintenance:
    """One run over the tables of a pipeline, as of `now`."""

    job: Job
    asked: Upkeep
    now: datetime
    reports: dict[str, TableReport] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """All steps in order."""
        started = time.monotonic()
        job, asked, now = self.job, self.asked, self.now
        lake, pipeline = job.lake, job.pipeline
        layouts = [one for one in _layouts(pipeline) if lake.find(one.table) is not None]
        self.reports = {layout.table: TableReport(self._files(layout)) for layout in layouts}
        keep = asked.retain_stream_log
        retained = Retained() if keep is None else maintenance.retain(job, keep, now, asked.dry_run)
        for layout in (one for one in layouts if one.append_only):
            self._compact(layout)
        with job.lock("union", wait_s=LONG_S) as lock:
            for layout in (one for one in layouts if not one.append_only):
                # Spark's own commits ask nobody.
                lock.check()
                self._compact(layout)
            for table, report in self.reports.items():
                lock.check()
                report.expired = maintenance.expire(job, table, asked, now)
        for table, report in self.reports.items():
            report.orphans = maintenance.remove_orphans(lake.catalog(), lake.name, table, asked, now)
        return {
            "pipeline": pipeline.name,
            "dry_run": asked.dry_run,
            "tables": {name: asdict(report) for name, report in self.reports.items()},
            "retained": asdict(retained),
            "inbox_leftovers": maintenance.remove_leftovers(lake, asked, now),
            "ids_beyond_horizon": asdict(maintenance.search_beyond(lake, keep=not asked.dry_run)),
            "seconds": round(time.monotonic() - started, 1),
        }

    def _compact(self, layout: Layout) -> None:
        if self.asked.dry_run:
            return
        report = self.reports[layout.table]
        if report.before.count >= self.asked.min_input_files:
            report.rewritten = self._rewritten(layout)
        report.manifests = maintenance.rewrite_manifests(self.job, layout.table)
        report.after = self._files(layout)

    def _rewritten(self, layout: Layout) -> Rewritten:
        least = self.asked.min_input_files
        if layout.versions_of is None:
            return maintenance.rewrite_files(self.job, layout.table, least, layout.order)
        folded = StreamView(self.job.lake, layout.versions_of).fold(least)
        return Rewritten(conflict=True) if folded is None else Rewritten(*folded)

    def _files(self, layout: Layout) -> DataFiles:
        return job_metrics.data_files(self.job.lake.table(layout.table))


def _layouts(pipeline: Pipeline) -> Iterator[Layout]:
    """All tables of the pipeline; view tables only of declared views."""
    yield Layout(tables.STREAM_LOG, "kafka_partition, kafka_offset", append_only=True)
    yield Layout(tables.BATCH_LOG, "landing, file, row", append_only=True)
    yield Layout(tables.LANDED_FILES, None, append_only=True)
    yield Layout(tables.EVENTS, "")
    for view in pipeline.views.values():
        yield Layout(tables.batch_view_name(view), None)
        yield Layout(tables.stream_view_name(view), None, append_only=True, versions_of=view)


def _sentences(report: Mapping[str, Any]) -> Iterator[str]:
    """A line for the run, one per table, and one for each exception."""
    tense = "would be done (dry run)" if report["dry_run"] else "done"
    yield f"{report['pipeline']}: {tense} in {report['seconds']} s"
    for name, table in report["tables"].items():
        yield f"  {name:<24} {_table_line(table)}"
    if report["retained"]["first_day"] is not None:
        rows, day = report["retained"]["deleted_rows"], report["retained"]["first_day"]
        yield f"  stream_log: {rows:,} records before {day} deleted by retention"
    if report["inbox_leftovers"]:
        yield f"  {report['inbox_leftovers']:,} unfinished copies removed from the inbox"
    beyond = report["ids_beyond_horizon"]
    if beyond["ids"]:
        yield (
            f"  warning: {beyond['ids']:,} ids have rows further apart than event.id_horizon, so their duplicates are "
            f"not found: {', '.join(beyond['shown'])}; raise id_horizon and `twofold rebuild {report['pipeline']}`"
        )


def _table_line(table: Mapping[str, Any]) -> str:
    expired, rewritten = table["expired"], table["rewritten"]
    before, after = table["before"], table["after"] or table["before"]
    change = f"{before['count']:,} → " if table["after"] else ""
    parts = [f"{change}{after['count']:,} files, {after['small']:,} of them below {SMALL_BYTES >> 20} MiB"]
    if rewritten["files"]:
        parts.append(f"{rewritten['size_bytes']:,} bytes rewritten")
    if rewritten["conflict"]:
        parts.append("not rewritten: another job changed it meanwhile")
    if table["manifests"]:
        parts.append(f"{table['manifests']:,} manifests rewritten")
    parts.append(f"{expired['snapshots']:,} snapshots expired, {expired['kept']:,} kept{_because(expired)}")
    if expired["files"]:
        parts.append(f"{expired['files']:,} files of theirs deleted")
    if table["orphans"]:
        parts.append(f"{table['orphans']:,} orphans removed")
    return "; ".join(parts)


def _because(expired: Mapping[str, Any]) -> str:
    """The guard that keeps the most, where it is not simply the number to keep."""
    if not expired["guards"] or not expired["kept"]:
        return ""
    name, kept = max(expired["guards"].items(), key=lambda guard: guard[1])
    return f" ({name})" if kept == expired["kept"] else ""


main = outcome.program(jobs.maintain, run, _sentences)


if __name__ == "__main__":
    main()
