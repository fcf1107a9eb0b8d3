"""The batch layer's landing: new files of the landing folder into `batch_log`, each exactly once.

    landing folder ─► new files ─► staged (judged, counted) ─► still the same files? ─► batch_log ─► landed_files
         ▲                                                        │ no
         └────────────────────────────────────────────────────────┘

By hand: `python -m spark_jobs.batch_job flights`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from spark_jobs import landings, locks, session
from spark_jobs.inspection import Inspector
from spark_jobs.lander import Lander, Landing, root_cause
from spark_jobs.selection import Selection
from twofold import catalog as catalogs
from twofold import ensure, landing
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.settings import Settings

_SHORT_BYTES = 256 << 20
"""Up to this much is landed in well under a minute."""


@click.command()
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
@click.option("--wait", default=0.0, help="Seconds to wait for another batch run to end.")
def main(pipeline: str, as_json: bool, wait: float) -> None:
    """Take the new files of PIPELINE's landing folder."""
    settings = Settings()
    try:
        selection, landed = run(settings, load_pipeline(settings, pipeline), wait)
    except TwofoldError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except (Py4JJavaError, PySparkException) as error:
        remedy = "what it had committed stays, nothing is half-written: mend the cause and run it again"
        click.echo(f"error: the batch run failed: {root_cause(error)}\n  remedy: {remedy}", err=True)
        sys.exit(1)
    click.echo(_as_json(landed) if as_json else _as_text(landed))
    warnings = list(_warnings(selection, landed))
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    sys.exit(1 if warnings else 0)


def run(settings: Settings, pipeline: Pipeline, wait_s: float = 0.0) -> tuple[Selection, list[Landing]]:
    """Land all that is new; starts no JVM where nothing is."""
    catalog = catalogs.load(settings)
    ensure.ensure(catalog, pipeline)
    selection = Selection(Inspector(landing.folder(settings, pipeline.name), pipeline))
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


def _as_text(landed: list[Landing]) -> str:
    lines = [line for one in landed for line in _landing_lines(one)]
    return "\n".join(lines) if lines else "nothing new"


def _landing_lines(one: Landing) -> Iterator[str]:
    width = max(len(file.name) for file in one.files)
    yield f"landing {one.number}: {len(one.files)} file{'s' if len(one.files) != 1 else ''}"
    for file in one.files:
        counts = f"set aside: {file.reason}" if file.reason else _said(*file.counts)
        yield f"  {file.name:<{width}}  {counts}"
    if len(one.files) > 1:
        yield f"  {'total':<{width}}  {_said(*one.total)}"


def _said(accepted: int, filtered: int, rejected: int) -> str:
    return f"{accepted:>9,} accepted {filtered:>9,} filtered {rejected:>9,} rejected"


def _as_json(landed: list[Landing]) -> str:
    files = [
        {"landing": one.number, "file": file.name, **file.counts._asdict(), "reason": file.reason or None}
        for one in landed
        for file in one.files
    ]
    totals = {
        name: sum(getattr(one.total, name) for one in landed) for name in ("accepted", "filtered", "rejected", "rows")
    }
    return json.dumps({"landings": [one.number for one in landed], **totals, "files": files})


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
