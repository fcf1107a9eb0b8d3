"""What every run of a job tells when it has ended well: when that was, how long it took, and when the next is due.

with measured(settings, pipeline, "union"): … ─► good, seconds, due ─► "missed its schedule" is `time() > due + grace`
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from croniter import croniter

from twofold import metrics
from twofold.definition.model import Pipeline, Schedule
from twofold.meter import Meter
from twofold.settings import Settings


@contextmanager
def measured(settings: Settings, pipeline: Pipeline, kind: str) -> Iterator[Meter]:
    """Tell of the run that the block is, unless it raises; gives the meter for what else there is to tell."""
    meter, started = Meter(settings, pipeline.name), time.monotonic()
    yield meter
    now = datetime.now(UTC)
    meter.gauge(metrics.RUN_GOOD, now.timestamp(), kind=kind)
    meter.gauge(metrics.RUN_SECONDS, time.monotonic() - started, kind=kind)
    if due := next_run(pipeline.schedule, kind, now):
        meter.gauge(metrics.RUN_DUE, due.timestamp(), kind=kind)


def next_run(schedule: Schedule, kind: str, now: datetime) -> datetime | None:
    """When the schedule starts the next run after `now`; None for what has no schedule.

    >>> next_run(Schedule(batch="15 * * * *"), "batch", datetime(2026, 1, 1, 7, 15, tzinfo=UTC))
    datetime.datetime(2026, 1, 1, 8, 15, tzinfo=datetime.timezone.utc)
    >>> [next_run(Schedule(), kind, datetime(2026, 1, 1, tzinfo=UTC)) for kind in ("batch", "prove")]
    [None, None]
    """
    cron = {"batch": schedule.batch, "union": schedule.union, "maintenance": schedule.maintenance}.get(kind)
    if cron is None:
        return None
    found: datetime = croniter(cron, now).get_next(datetime)
    return found
