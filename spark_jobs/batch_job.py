"""The batch layer's landing: new files of the landing folder into `batch_log`, each exactly once.

    landing folder ─► new files ─► staged (judged, counted) ─► still the same files? ─► batch_log ─► landed_files
         ▲                                                        │ no
         └────────────────────────────────────────────────────────┘

By hand: `python -m spark_jobs.batch_job flights`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from spark_jobs import landings, locks, outcome, session
from spark_jobs.inspection import Inspector
from spark_jobs.lander import Lander, Landing
from spark_jobs.selection import Selection
from twofold import catalog as catalogs
from twofold import ensure, inbox, metrics, runs, tables
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.meter import Meter
from twofold.settings import Settings

_SHORT_BYTES = 256 << 20
"""Up to this much is landed in well under a minute."""


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
@click.option("--wait", default=0.0, help="Seconds to wait for another batch run to end.")
@outcome.option
def main(pipeline: str, as_json: bool, wait: float, outcome_file: Path | None) -> None:
    """Take the new files of PIPELINE's landing folder."""

    def work() -> dict[str, Any]:
        settings = Settings()
        return _report(*run(settings, load_pipeline(settings, pipeline), wait))

    outcome.run(work, _as_text, as_json, outcome_file)


def run(settings: Settings, pipeline: Pipeline, wait_s: float = 0.0) -> tuple[Selection, list[Landing]]:
    """Land all that is new, and measure it."""
    with runs.measured(settings, pipeline, "batch") as meter:
        selection, landed = _land(settings, pipeline, wait_s)
        for one in landed:
            _measure(meter, one)
    return selection, landed


def _land(settings: Settings, pipeline: Pipeline, wait_s: float) -> tuple[Selection, list[Landing]]:
    """Starts no JVM where nothing is new."""
    catalog = catalogs.load(settings)
    ensure.ensure(catalog, pipeline)
    selection = Selection(Inspector(inbox.folder(settings, pipeline.name), pipeline))
    book = landings.read_book(catalog, pipeline)
    new = selection.new_files(book.files)
    if not new and not book.unrecorded():
        return selection, []
    short = sum(one.file.size_bytes for one in new) < _SHORT_BYTES
    spark = session.build(settings, f"twofold-{pipeline.name}-batch", short_lived=short)
    try:
        with locks.hold(spark, settings, pipeline.name, "batch", wait_s=wait_s) as lock:
            return selection, Lander(spark, catalog, pipeline, selection, lock.check).land_all()
    finally:
        spark.stop()


def _measure(meter: Meter, landed: Landing) -> None:
    total = landed.total
    for name, count in (
        (tables.ACCEPTED, total.accepted),
        (tables.FILTERED, total.filtered),
        (tables.REJECTED, total.rejected),
    ):
        meter.count(metrics.BATCH_OUTCOMES, count, outcome=name)
    aside = sum(bool(file.reason) for file in landed.files)
    meter.count(metrics.BATCH_FILES, len(landed.files) - aside, fate="taken")
    meter.count(metrics.BATCH_FILES, aside, fate="set_aside")


def _report(selection: Selection, landed: list[Landing]) -> dict[str, Any]:
    files = [
        {"landing": one.number, "file": file.name, **file.counts._asdict(), "reason": file.reason or None}
        for one in landed
        for file in one.files
    ]
    totals = {
        name: sum(getattr(one.total, name) for one in landed) for name in ("accepted", "filtered", "rejected", "rows")
    }
    warnings = list(_warnings(selection, landed))
    return {"landings": [one.number for one in landed], **totals, "files": files, outcome.WARNINGS: warnings}


def _as_text(report: Mapping[str, Any]) -> str:
    lines = [line for landing in report["landings"] for line in _landing_lines(landing, report["files"])]
    return "\n".join(lines) if lines else "nothing new"


def _landing_lines(landing: int, files: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    taken = [file for file in files if file["landing"] == landing]
    width = max(len(file["file"]) for file in taken)
    yield f"landing {landing}: {len(taken)} file{'s' if len(taken) != 1 else ''}"
    for file in taken:
        said = f"set aside: {file['reason']}" if file["reason"] else _said([file])
        yield f"  {file['file']:<{width}}  {said}"
    if len(taken) > 1:
        yield f"  {'total':<{width}}  {_said(taken)}"


def _said(files: Sequence[Mapping[str, Any]]) -> str:
    accepted, filtered, rejected = (sum(file[name] for file in files) for name in ("accepted", "filtered", "rejected"))
    return f"{accepted:>9,} accepted {filtered:>9,} filtered {rejected:>9,} rejected"


def _warnings(selection: Selection, landed: list[Landing]) -> Iterator[str]:
    for one in landed:
        for file in one.files:
            if file.reason:
                yield f"{file.name} was set aside: {file.reason}; mend it and land it again"
    for name in selection.left_for_later():
        yield f"{name} changed each time it was read; the next run takes it, once it keeps still"
    for name in selection.unnameable():
        yield f"{name} was passed over: its name is not UTF-8; rename it"


if __name__ == "__main__":
    main()
