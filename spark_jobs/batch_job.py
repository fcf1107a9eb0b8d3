"""Ingests the new files of the inbox into `batch_log`, each exactly once (`spark_jobs.batch_log` has the protocol).

    inbox ─► new files ─► BatchRun ─► batch_log, landed_files

Manually: `python -m spark_jobs.batch_job flights`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spark_jobs import outcome
from spark_jobs.batch_log import BatchRun, Landing
from spark_jobs.spark_session import started_job
from twofold import inbox, job_metrics, looks, metrics, tables, taken
from twofold.commands import jobs
from twofold.lake import Lake
from twofold.metrics import Meter


def run(lake: Lake, wait: float = 0.0) -> dict[str, Any]:
    """Ingest all new files, and send the metrics; no JVM is started where nothing is new."""
    if (report := looks.idle(lake, looks.BATCH)) is not None:
        return report
    with job_metrics.measured(lake, looks.BATCH) as meter:
        # The files are read in Python's workers: its JVM has little to do, however many they are.
        with started_job(lake, "batch", short_lived=True) as job, job.lock("batch", wait_s=wait):
            done = BatchRun(job)
            done.run()
        for one in done.landings:
            _measure(meter, one)
    return _report(done.landings, [*done.warnings(), *taken.passed_over(lake.inbox().files())])


def _measure(meter: Meter, landed: Landing) -> None:
    for outcome_ in tables.OUTCOMES:
        meter.count(metrics.BATCH_OUTCOMES, landed.total[outcome_], outcome=outcome_)
    aside = sum(bool(file.reason) for file in landed.files)
    meter.count(metrics.BATCH_FILES, len(landed.files) - aside, fate="taken")
    meter.count(metrics.BATCH_FILES, aside, fate="set_aside")


def _report(landings: Sequence[Landing], warnings: Sequence[str]) -> dict[str, Any]:
    files = [
        {
            "landing": one.number,
            "file": file.file.name,
            **{name: file.counts[name] for name in tables.OUTCOMES},
            "reason": file.reason or None,
        }
        for one in landings
        for file in one.files
    ]
    totals = {name: sum(one.total[name] for one in landings) for name in tables.OUTCOMES}
    numbers, rows = [one.number for one in landings], sum(file.rows for one in landings for file in one.files)
    return looks.batch_report(landings=numbers, **totals, rows=rows, files=files, warnings=warnings)


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["landings"]:
        yield "nothing new"
    for landing in report["landings"]:
        files = [file for file in report["files"] if file["landing"] == landing]
        names = [inbox.shown(file["file"]) for file in files]
        width = max(map(len, names))
        yield f"landing {landing}: {len(files)} file{'s' if len(files) != 1 else ''}"
        for name, file in zip(names, files, strict=True):
            said = f"set aside: {file['reason']}" if file["reason"] else _said([file])
            yield f"  {name:<{width}}  {said}"
        if len(files) > 1:
            yield f"  {'total':<{width}}  {_said(files)}"


def _said(files: Sequence[Mapping[str, Any]]) -> str:
    accepted, filtered, rejected = (sum(file[name] for file in files) for name in ("accepted", "filtered", "rejected"))
    return f"{accepted:>9,} accepted {filtered:>9,} filtered {rejected:>9,} rejected"


main = outcome.program(jobs.batch, run, _lines)


if __name__ == "__main__":
    main()
