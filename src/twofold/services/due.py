"""When a job is due next: sent at the end of its run, and again every minute, as its schedule may change in between.

schedule, end of the last good run ─► next_run ─► twofold_run_due ─► "missed its schedule"; 0 ─► it has no schedule
"""

from __future__ import annotations

from datetime import UTC, datetime

from croniter import croniter

from twofold import database
from twofold.definition.model import Pipeline, Schedule
from twofold.metrics import RUN_DUE, Meter
from twofold.settings import Settings

RUN = "run of "
"""Kinds of results in `twofold.database`: how a job's last run ended, by the job."""


def next_run(schedule: Schedule, kind: str, now: datetime) -> datetime | None:
    """When the schedule starts the next run after `now`; None for what has no schedule.

    >>> next_run(Schedule(batch="15 * * * *"), "batch", datetime(2026, 1, 1, 7, 15, tzinfo=UTC))
    datetime.datetime(2026, 1, 1, 8, 15, tzinfo=datetime.timezone.utc)
    >>> [next_run(Schedule(proof="none"), kind, datetime(2026, 1, 1, tzinfo=UTC)) for kind in ("batch", "prove")]
    [None, None]
    """
    cron = _crons(schedule).get(kind)
    found: datetime | None = croniter(cron, now.astimezone(UTC)).get_next(datetime) if cron else None
    return found


def _crons(schedule: Schedule) -> dict[str, str | None]:
    scheduled = {"batch": schedule.batch, "union": schedule.union, "maintenance": schedule.maintenance}
    return {**scheduled, "prove": schedule.proof_cron}


def send(meter: Meter, kind: str, due: datetime | None) -> None:
    """Send when the next run is due; 0 where there is no schedule, as the exporter keeps what it was told once."""
    meter.gauge(RUN_DUE, due.timestamp() if due else 0, kind=kind)


def resend(settings: Settings, pipeline: Pipeline) -> None:
    """Send it again for all jobs, by the schedule as it is now; one that has failed since stays due as it was.

    So does one that has been due already: a stack that was off for days would be told at once that it is late.
    """
    meter, now, crons = Meter(settings, pipeline.name), datetime.now(UTC), _crons(pipeline.schedule)
    kept = database.latest_results(settings, pipeline.name, [f"{RUN}{kind}" for kind in crons])
    for kind, cron in crons.items():
        last = kept.get(f"{RUN}{kind}")
        due = next_run(pipeline.schedule, kind, last.at) if last and not last.body["error"] else None
        if cron is None or (due and due > now):
            send(meter, kind, due)
