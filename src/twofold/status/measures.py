"""What the tables' histories and the services' own words come to. Pure: all comes in as data.

batch layer   |#########################|              what `live_<view>` shows up to `sealed_through`,
speed layer             |---------------|#########|    and past it; the rows up to `boundary` are in `events` as well
                                  sealed ↑    ↑ boundary
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from twofold import table_state
from twofold.services import verdict
from twofold.services.controller import RUNBOOKS, State, as_look
from twofold.status.facts import SILENT, Extent, Layers, Log, ServiceStatus
from twofold.table_state import Boundary, History, Landed

BIN = timedelta(seconds=15)
WINDOW = timedelta(minutes=15)
_LAST = timedelta(minutes=1)


def layers(
    pipeline: str, logs: Mapping[str, Log], histories: Mapping[str, History], views: Iterable[History]
) -> Layers:
    """What both layers cover. `logs` and `histories` by table; `views`: the batch layer's.

    Raises BoundaryError where a table carries another pipeline's state.
    """
    edge = table_state.boundary(histories["events"], pipeline)
    stream = table_state.landed(histories["stream_log"], pipeline)
    batch = table_state.landed(histories["batch_log"], pipeline)
    covered = {**stream.start, **edge.offsets}
    united = histories["events"].nearest(Boundary.KEY)
    return Layers(
        batch_log=logs["batch_log"],
        stream_log=logs["stream_log"],
        events=logs["events"],
        boundary=edge.max_event_time,
        sealed_through=sealed_through(views),
        stream_past_boundary=sum(max(0, end - covered.get(at, 0)) for at, end in stream.offsets.items()),
        landings_past_boundary=max(0, batch.landing - edge.landing),
        united_at=united.at if united else None,
        lost=stream.lost_offsets,
    )


def sealed_through(views: Iterable[History]) -> datetime | None:
    """Up to here the windows of every view are final; None where some view has none."""
    folded = [table_state.folded(history) for history in views]
    sealed = [state.sealed_through for state in folded if state and state.sealed_through]
    return min(sealed) if folded and len(sealed) == len(folded) else None


def joined(extents: Iterable[Extent | None]) -> Extent | None:
    """From the first of all to the last of all; None where there is none."""
    found = [extent for extent in extents if extent]
    return Extent(min(one.first for one in found), max(one.last for one in found)) if found else None


def landed(log: History, now: datetime) -> tuple[tuple[datetime, int], ...]:
    """Rows landed per BIN over the last WINDOW, oldest first; every bin is included, also empty ones."""
    first = _floor(now - WINDOW) + BIN
    rows: Counter[datetime] = Counter()
    for at, added in _commits_since(log, first):
        rows[_floor(at)] += added
    bins = (_floor(now) - first) // BIN + 1
    return tuple((first + i * BIN, rows[first + i * BIN]) for i in range(bins))


def rows_per_second(log: History, now: datetime) -> float:
    """Rows ingested over the last minute, per second."""
    return round(sum(added for _, added in _commits_since(log, now - _LAST)) / _LAST.total_seconds(), 1)


def _commits_since(log: History, first: datetime) -> Iterator[tuple[datetime, int]]:
    """Commits that ingested rows, newest first; those of compaction, reland and erase replace what was there."""
    for snapshot in log.ancestors():
        if snapshot.at < first:
            return
        if Landed.KEY in snapshot.summary:
            added, deleted = (int(snapshot.summary.get(f"{what}-records", 0)) for what in ("added", "deleted"))
            yield snapshot.at, max(0, added - deleted)


def _floor(at: datetime) -> datetime:
    seconds = int(at.timestamp())
    return datetime.fromtimestamp(seconds - seconds % int(BIN.total_seconds()), UTC)


def unsupervised(name: str, health: Mapping[str, Any]) -> ServiceStatus:
    """A service without supervisor, by what it reports; empty: it does not answer."""
    if not health:
        return ServiceStatus(name, "not running")
    text = str(health.get("problem") or "")
    return ServiceStatus(name, health["state"], running=True, healthy=health.get("healthy", True), text=text)


def supervised(name: str, state: State, health: Mapping[str, Any], limits: verdict.HealthLimits) -> ServiceStatus:
    """A service under a supervisor; one that was never asked for is not running, and nothing is wrong."""
    look = as_look(state, health)
    found = verdict.judge(name, [look], limits)
    at_work = found.kind in ("not yet", "healthy") and state.runs
    told = health.get("state", SILENT if at_work and look.silent else "starting")
    # "running" but unhealthy is a pause that the verdict judges better: a first batch takes longer than others.
    in_trouble = state.runs and health.get("healthy") is False and health["state"] != "running"
    return ServiceStatus(
        name,
        told if at_work else "not running" if found.kind == "not yet" else found.kind,
        running=state.runs,
        healthy=found.kind not in ("stuck", "left down") and not in_trouble and told != SILENT,
        text=found.reason,
        runbook=RUNBOOKS.get(found.kind, ""),
        restarts=state.spent,
        budget=state.per_hour,
        changes=state.changes,
    )
