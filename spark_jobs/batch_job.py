"""Ingests the new files of the inbox into `batch_log`, each exactly once (`spark_jobs.batch` has the protocol).

    inbox ─► new files ─► Batch ─► batch_log, landed_files

By hand: `python -m spark_jobs.batch_job flights`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from spark_jobs import batch, locks, outcome, session, tasks
from spark_jobs.batch import Batch, Landing
from twofold import catalog as catalogs
from twofold import ensure, inbox, job_metrics, metrics
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.metrics import Meter
from twofold.settings import Settings

_SHORT_BYTES = 256 << 20
"""Up to this much is landed in well under a minute."""


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
@click.option("--wait", default=0.0, help="Seconds to wait for another batch run to end.")
@outcome.option
def main(pipeline: str, as_json: bool, wait: float, outcome_file: Path | None) -> None:
    """Ingest the new files of PIPELINE's inbox."""

    def work() -> dict[str, Any]:
        settings = Settings()
        declared = load_pipeline(settings, pipeline)
        return _report(settings, declared, run(settings, declared, wait))

    outcome.run(work, _as_text, as_json, outcome_file)


def run(settings: Settings, pipeline: Pipeline, wait_s: float = 0.0) -> Batch | None:
    """Ingest all that is new, and measure it; None where nothing was."""
    with job_metrics.measured(Lake(settings, pipeline), "batch") as meter:
        done = _ingest(settings, pipeline, wait_s)
        for one in done.landings if done else ():
            _measure(meter, one)
    return done


def _ingest(settings: Settings, pipeline: Pipeline, wait_s: float) -> Batch | None:
    """Starts no JVM where nothing is new."""
    catalog = catalogs.load(settings)
    ensure.ensure(catalog, pipeline)
    book = batch.read_book(catalog, pipeline)
    new = batch.new_files(inbox.folder(settings, pipeline.name), book.files)
    if not new and not book.unrecorded():
        return None
    short = sum(one.file.size_bytes for one in new) < _SHORT_BYTES
    spark = session.build(settings, f"twofold-{pipeline.name}-batch", short_lived=short)
    try:
        with locks.hold(spark, settings, pipeline.name, "batch", wait_s=wait_s) as lock:
            done = Batch(spark, settings, catalog, pipeline, lock.check)
            done.run()
            return done
    finally:
        spark.stop()


def _measure(meter: Meter, landed: Landing) -> None:
    for outcome_ in tasks.OUTCOMES:
        meter.count(metrics.BATCH_OUTCOMES, landed.total[outcome_], outcome=outcome_)
    aside = sum(bool(file.reason) for file in landed.files)
    meter.count(metrics.BATCH_FILES, len(landed.files) - aside, fate="taken")
    meter.count(metrics.BATCH_FILES, aside, fate="set_aside")


def _report(settings: Settings, pipeline: Pipeline, done: Batch | None) -> dict[str, Any]:
    landings = done.landings if done else []
    files = [
        {
            "landing": one.number,
            "file": file.file.name,
            **{outcome_: file.counts[outcome_] for outcome_ in tasks.OUTCOMES},
            "reason": file.reason or None,
        }
        for one in landings
        for file in one.files
    ]
    totals = {name: sum(one.total[name] for one in landings) for name in tasks.OUTCOMES}
    rows = sum(file.rows for one in landings for file in one.files)
    warnings = list(_warnings(settings, pipeline, done))
    numbers = [one.number for one in landings]
    return {"landings": numbers, **totals, "rows": rows, "files": files, outcome.WARNINGS: warnings}


def _as_text(report: Mapping[str, Any]) -> str:
    lines = [line for landing in report["landings"] for line in _landing_lines(landing, report["files"])]
    return "\n".join(lines) if lines else "nothing new"


def _landing_lines(landing: int, files: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    taken = [file for file in files if file["landing"] == landing]
    names = [inbox.shown(file["file"]) for file in taken]
    width = max(map(len, names))
    yield f"landing {landing}: {len(taken)} file{'s' if len(taken) != 1 else ''}"
    for name, file in zip(names, taken, strict=True):
        said = f"set aside: {file['reason']}" if file["reason"] else _said([file])
        yield f"  {name:<{width}}  {said}"
    if len(taken) > 1:
        yield f"  {'total':<{width}}  {_said(taken)}"


def _said(files: Sequence[Mapping[str, Any]]) -> str:
    accepted, filtered, rejected = (sum(file[name] for file in files) for name in ("accepted", "filtered", "rejected"))
    return f"{accepted:>9,} accepted {filtered:>9,} filtered {rejected:>9,} rejected"


def _warnings(settings: Settings, pipeline: Pipeline, done: Batch | None) -> Iterator[str]:
    for one in done.landings if done else ():
        for file in one.files:
            if file.reason:
                yield f"{inbox.shown(file.file.name)} was set aside: {file.reason}; mend it and put it there again"
    for name, why in sorted(done.later.items()) if done else ():
        yield f"{inbox.shown(name)} could not be read now: {why}; the next run tries again"
    for name in done.left_for_later() if done else ():
        yield f"{inbox.shown(name)} changed each time it was read; the next run takes it, once it keeps still"
    for name in batch.unnameable(inbox.folder(settings, pipeline.name)):
        yield f"{name} was passed over: its name is not UTF-8; rename it"


if __name__ == "__main__":
    main()
