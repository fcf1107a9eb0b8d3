"""Judges records again by today's definition, replaces their rows in both logs; then `events` and the views follow.

what Kafka and the inbox still hold ─► `spark_jobs.reland` ─► what would change ─┬─ dry run ─► reported, that is all
                                                                                 └─ --yes ───► stream_log, batch_log
`events` ─► rebuilt from the logs ─► batch_<view>        stream_<view>: filled again by its query

Killed midway a log is as it was or replaced, and all that reads it is right at every moment: `events` that were made of
other rows do not count, until this job or the next union has made them again.

Manually: `python -m spark_jobs.reland_job flights --since '2 hours'`
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from spark_jobs import outcome, union, union_job
from spark_jobs.days import scratch
from spark_jobs.reland import Asked, Rejudged, Relander
from spark_jobs.spark_session import LONG_S, started_job
from twofold import inbox, schemas, tables
from twofold.commands import jobs
from twofold.definition.types import parse_since
from twofold.errors import UsageError
from twofold.lake import Lake

_OFFSETS = re.compile(r"(\d+)(?::(\d*))?")
_END = (1 << 63) - 1


def asked(since: str | None, partition: int | None, offsets: str | None, now: datetime) -> Asked:
    """The options as they are typed; UsageError says which one is refused and why.

    >>> asked(None, 1, "5:9", datetime.now(UTC)).offsets, asked(None, 1, "5", datetime.now(UTC)).offsets
    ((5, 9), (5, 6))
    """
    try:
        moment = parse_since(since, now) if since else None
    except ValueError as error:
        raise UsageError(f"--since: {since!r} is {error}", "for example --since 2013-05-01T12:00Z") from None
    if not offsets:
        return Asked(moment, partition)
    match = _OFFSETS.fullmatch(offsets)
    if match is None or partition is None:
        raise UsageError(
            f"--offsets: {offsets!r} is no range of offsets" if match is None else "--offsets wants a --partition",
            "for example --partition 0 --offsets 100:200, the last one not included, or 100: for all since",
        )
    low = int(match[1])
    return Asked(moment, partition, (low, low + 1 if match[2] is None else int(match[2] or _END)))


def run(lake: Lake, wanted: Asked, go: bool) -> dict[str, Any]:
    """Judge again; with `go` replace the rows, and let `events` and the views follow."""
    started = time.monotonic()
    if go:
        lake.ensure()
    else:
        schemas.require_fit(lake.catalog(), lake.pipeline)
    found: dict[str, Rejudged] = {}
    try:
        with scratch(lake.settings) as duck:
            relander = Relander(lake, duck, wanted)
            found[tables.STREAM_LOG] = relander.stream_log()
            if wanted.partition is None:
                found[tables.BATCH_LOG] = relander.batch_log()
        for log in found.values() if go else ():
            log.commit(lake, wanted == Asked())
    finally:
        for log in found.values():
            log.discard()
    # Also what an earlier run that was killed has left undone.
    united = None
    if go and union.read(lake).is_outdated:
        with started_job(lake, "reland", short_lived=True) as job, job.lock("union", wait_s=LONG_S):
            united = union_job.union(job)
    return {
        "pipeline": lake.name,
        "done": go,
        "logs": {
            name: {
                "judged": log.judged,
                "not_judged": dict(sorted(log.kept.items())),
                "changes": dict(sorted(log.changes.items())),
                "files_replaced": len(log.old),
            }
            for name, log in found.items()
        },
        "union": united,
        "seconds": round(time.monotonic() - started, 1),
    }


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    done, changed = report["done"], 0
    yield f"{report['pipeline']}: judged again by today's definition, in {report['seconds']} s"
    for name, log in report["logs"].items():
        changed += sum(log["changes"].values())
        yield f"  {name}: {log['judged']:,} records judged again"
        for what, count in log["changes"].items():
            yield f"    {count:>9,}  {what}"
        if not log["changes"]:
            yield f"    {0:>9,}  changes"
        for why, count in log["not_judged"].items():
            yield f"    {count:>9,}  kept as they are: {inbox.shown(why)}"
    if report["union"]:
        yield f"  {tables.EVENTS} and the views of the batch layer were rebuilt"
    if not done:
        yield "nothing was changed: --yes does it" if changed else "nothing would change"


def _work(lake: Lake, go: bool, **what: Any) -> dict[str, Any]:  # noqa: ANN401
    return run(lake, asked(**what, now=datetime.now(UTC)), go)


main = outcome.program(jobs.reland, _work, _lines)


if __name__ == "__main__":
    main()
