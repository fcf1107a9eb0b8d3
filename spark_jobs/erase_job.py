"""Erases ids for good: from all tables and their old files, from the inbox, and for ever after, by the ledger.

the ledger ─► files of the inbox ─► batch_log, stream_log ─► events ─► union, views ─► old snapshots and their files

Killed midway, the tables are right at every moment, and the next run with the same ids finishes it; until then `prove`
reports ids that the ledger has and a table, too. Kafka's records stay until Kafka deletes them: read again, they are
landed blank.

Manually: `python -m spark_jobs.erase_job flights --id F1 --yes`
"""

from __future__ import annotations

import getpass
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import click

from spark_jobs import maintenance, outcome, union_job
from spark_jobs.checkpoints import Checkpoint
from spark_jobs.days import Scratch, scratch
from spark_jobs.erase import Eraser, Held, Wanted
from spark_jobs.erase_files import InboxEraser
from spark_jobs.spark_session import LONG_S, Job, started_job
from twofold import database, inbox, kafka, ledger, tables, windows
from twofold.commands import jobs
from twofold.errors import TwofoldError, UsageError
from twofold.lake import Lake
from twofold.reader import pruning
from twofold.reader.pinned import pin
from twofold.readers.texts import REMEDY, SetAside, WatchedStream, blocks
from twofold.schema_registry import Registry
from twofold.taken import settle
from twofold.text import counted

_POLL_S = 0.5
_SHOWN = 10


def _account() -> str:
    """Who runs this; in a container a number may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def run(lake: Lake, wanted: Wanted, by: str, why: str, go: bool) -> dict[str, Any]:
    """Look, and with `go` erase; beside the streaming job, where it runs."""
    if not go:
        return look(lake, wanted)
    lake.ensure()
    streaming = database.is_held(lake.settings, lake.name, "stream")
    with (
        started_job(lake, "erase", short_lived=True) as job,
        nullcontext() if streaming else job.lock("stream"),
        job.lock("batch", wait_s=LONG_S),
        job.lock("union", wait_s=LONG_S),
    ):
        return erase(job, wanted, by, why, streaming)


def look(lake: Lake, wanted: Wanted) -> dict[str, Any]:
    """Where the ids are; nothing is changed."""
    with scratch(lake.settings) as duck:
        eraser, files = Eraser(lake, duck, wanted), InboxEraser(lake, duck, wanted)
        held = {shape.name: eraser.look(shape) for shape in eraser.shapes}
        holding = {one.file.name: len(one.gone) for one in files.look(held[tables.BATCH_LOG].names)}
        return _report(eraser, held, done=False, files=holding, files_unread=files.unread)


def erase(job: Job, wanted: Wanted, by: str, why: str, streaming: bool = False) -> dict[str, Any]:
    """Erase the ids, or finish what an earlier run has left of them; the caller holds the locks.

    `streaming`: that of the stream is held by a running one.
    """
    lake, new = job.lake, ledger.enter(job.lake, wanted.ids, by, why)
    # What a kill has left on its way into the archive goes on, as with the next batch run: there it can be rewritten.
    settle(lake)
    with scratch(lake.settings) as duck:
        eraser, files = Eraser(lake, duck, wanted), InboxEraser(lake, duck, wanted)
        held = {shape.name: eraser.look(shape) for shape in eraser.shapes}
        rewritten: dict[str, int] = {}
        for one in _shown("files of the inbox", list(files.look(held[tables.BATCH_LOG].names))):
            if files.erase(one):
                rewritten[one.file.name] = len(one.gone)
        removed = 0
        database.forget_result(lake.settings, lake.name, maintenance.BEYOND)
        if any(one.files for one in held.values()) or any(map(eraser.left_behind, eraser.shapes)):
            eraser.erase_all()
            union_job.union(job)
            eraser.forget_views(streaming)
            if streaming:
                _await_stream(eraser)
            else:
                for view in lake.pipeline.views:
                    Checkpoint.of(job, view).discard()
            removed = _purge(eraser)
        proof = database.latest_result(lake.settings, lake.name, database.PROOF)
        if proof and wanted.are_named(json.dumps(proof.body).encode()):
            database.forget_result(lake.settings, lake.name, database.PROOF)
        facts = {"files": rewritten, "files_unread": files.unread, "entered": new, "files_removed": removed}
        return _report(eraser, held, done=True, streaming=streaming, **facts)


def _report(eraser: Eraser, held: Mapping[str, Held], **facts: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "pipeline": eraser.lake.name,
        "ids": len(eraser.wanted.ids),
        "rows": {name: dict(sorted(one.rows.items())) for name, one in held.items()},
        "rejected_without_id": {name: one.untold for name, one in held.items() if one.untold},
        "in_kafka": _in_kafka(eraser.lake, eraser.duck, held[tables.STREAM_LOG].places),
        **facts,
    }


def _await_stream(eraser: Eraser) -> None:
    """Wait until the running stream, which fails on rows that were replaced, has filled its views from those left."""
    lake = eraser.lake
    while not all(map(eraser.is_filled_again, lake.pipeline.views.values())):
        if not database.is_held(lake.settings, lake.name, "stream"):
            raise TwofoldError(
                "the streaming job ended before it had filled its views again",
                "run the same command again: what it had done stays done",
            )
        time.sleep(_POLL_S)


def _purge(eraser: Eraser) -> int:
    """Views first: while files of a log or of `events` hold an id, the next run does all of it again."""
    removed = 0
    for view in eraser.lake.pipeline.views.values():
        for name in (tables.stream_view_name(view), tables.batch_view_name(view)):
            removed += eraser.purge(name)
    for shape in reversed(eraser.shapes):
        removed += eraser.purge(shape.name, eraser.left_behind(shape))
    return removed


def _shown(label: str, found: list[Any]) -> Iterator[Any]:
    with click.progressbar(found, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield from bar


def _in_kafka(lake: Lake, duck: Scratch, found: set[tuple[int, int, int]]) -> dict[str, Any]:
    """Records of erased ids that Kafka still has, and until when; read again, they are landed blank."""
    try:
        topic = kafka.describe(lake.settings, lake.pipeline.topic.name)
    except TwofoldError as error:
        return {"records": None, "why": str(error)}
    if topic is None:
        return {"records": 0, "until": None, "places": []}
    log = pin(lake.catalog(), lake.name, tables.STREAM_LOG, tables.stream_log(lake.pipeline))
    files = log.narrowed(log.all_files, pruning.compared(tables.OUTCOME, "=", tables.ERASED))
    place = "kafka_partition, kafka_offset, epoch_us(kafka_timestamp)"
    blank = f"SELECT {place} FROM {duck.read(log, files)} WHERE outcome = '{tables.ERASED}'"
    found = {*found, *duck.connection.execute(blank).fetchall()}
    there = sorted(one for one in found if topic.partitions.get(one[0], (1 << 62, 0))[0] <= one[1])
    kept_ms = int(topic.settings.get("retention.ms") or -1)
    until = None if kept_ms < 0 or not there else windows.moment(max(at for *_, at in there) + 1000 * kept_ms)
    places = [f"{topic.name}[{partition}]@{offset}" for partition, offset, _ in there[:_SHOWN]]
    return {"records": len(there), "until": until and until.isoformat(), "places": places}


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    done = report["done"]
    yield f"{report['pipeline']}: {counted(report['ids'], 'id')} {'erased' if done else 'looked for'}"
    for name, rows in report["rows"].items():
        said = ", ".join(f"{count:,} {outcome}" for outcome, count in rows.items()) or "none"
        yield f"  {name:<12} rows: {said}"
    for name, count in report["rejected_without_id"].items():
        records = counted(count, "other rejected record")
        yield f"  {name:<12} {records} may be of them: no id can be read, see `twofold rejects {report['pipeline']}`"
    yield f"  inbox        files: {len(report['files']):,}"
    for name, count in report["files"].items():
        yield f"    {inbox.shown(name)}: {counted(count, 'record')}"
    for name, why in report["files_unread"].items():
        yield f"    {inbox.shown(name)} may hold them: it stays as it is ({why}); see to it yourself"
    if done:
        yield f"  {report['entered']:,} ids entered in the ledger, {report['files_removed']:,} old files removed"
    yield f"  Kafka        {_of_kafka(report['in_kafka'])}"
    if not done:
        yield "nothing was changed: --yes does it"
    elif not report["streaming"]:
        yield f"next: `twofold stream {report['pipeline']}`, which fills the stream views again"


def _of_kafka(found: Mapping[str, Any]) -> str:
    if found["records"] is None:
        return f"was not asked: {found['why']}"
    if not found["records"]:
        return "has none of these records"
    until = f"and deletes them after {found['until']}" if found["until"] else "for ever: its retention.ms is -1"
    more = ", …" if found["records"] > len(found["places"]) else ""
    return f"has {counted(found['records'], 'record')} of erased ids, {until}: {', '.join(found['places'])}{more}"


def _lines_of(file: str) -> list[str]:
    """The lines of a file of ids: UTF-8 or UTF-16, with or without a byte order mark, as those of the inbox."""
    try:
        with click.open_file(file, "rb") as stream:
            text = b"".join(blocks(WatchedStream(stream), "csv")).decode()
    except (SetAside, UnicodeDecodeError) as error:
        raise UsageError(f"--ids: {file} is no text: {error}", f"{REMEDY}, with an id on each line") from None
    return [line.rstrip("\n") for line in io.StringIO(text, newline=None)]


def _work(
    lake: Lake, ids: Sequence[str], file: str | None, why: str | None, by: str | None, go: bool
) -> dict[str, Any]:
    listed = _lines_of(file) if file else []
    schemas = Registry.of(lake.settings).schema
    wanted = Wanted(lake.pipeline, frozenset([*ids, *filter(None, listed)]), schemas)
    return run(lake, wanted, by or _account(), why or "", go)


main = outcome.program(jobs.erase, _work, _lines)


if __name__ == "__main__":
    main()
