"""What the tables' histories and the services' own words come to, and what is wrong. Pure: all comes in as data.

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
from twofold.evolution import Difference
from twofold.services import verdict
from twofold.services.controller import RUNBOOKS, State, as_look
from twofold.services.record import STREAM
from twofold.status.facts import SILENT, Extent, Layers, Log, Outcomes, Problem, Proved, ServiceStatus, Speed
from twofold.table_state import Boundary, History, Landed
from twofold.text import counted

BIN = timedelta(seconds=15)
WINDOW = timedelta(minutes=15)
_LAST = timedelta(minutes=1)
PROOF_IS_OLD = timedelta(days=2)
"""The limit of the alert NotProved, too."""
UNION_IS_OLD = timedelta(hours=26)
"""A daily union, and two hours for it to run."""


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


def find_problems(
    pipeline: str,
    now: datetime,
    layers: Layers,
    speed: Speed,
    outcomes: Outcomes,
    proved: Proved | None,
    services: Iterable[ServiceStatus],
    ignored: Iterable[Difference] = (),
) -> tuple[Problem, ...]:
    """All that is wrong, with the commands that page and runbook give; `ignored` has no effect on the tables there."""
    command = f"twofold check --against-tables {pipeline}"
    return (
        *_of_services(pipeline, services, speed),
        *_of_proof(pipeline, proved, layers, now),
        *_of_union(pipeline, layers, now),
        *_of_loss(pipeline, layers),
        *_of_outcomes(pipeline, outcomes),
        *(Problem("warning", str(one), command) for one in ignored),
    )


def worst_first(found: Iterable[Problem]) -> list[Problem]:
    """Errors, then warnings, then notes; each as they came."""
    return sorted(found, key=lambda problem: ("error", "warning", "note").index(problem.severity))


def _of_services(pipeline: str, services: Iterable[ServiceStatus], speed: Speed) -> Iterator[Problem]:
    """A service that is not healthy; one that stands still while records wait for it."""
    behind = speed.offsets_behind
    for service in services:
        title = "the streaming job" if service.name == STREAM else f"the {service.name}"
        command = f"twofold services {pipeline} {service.name}"
        if not service.healthy:
            text = f"{title} is {service.state}" + (f": {service.text}" if service.text else "")
            if service.state == SILENT:  # one look: a machine may only be too slow
                yield Problem("warning", text, command, "service-not-healthy")
            else:
                yield Problem("error", text, f"{command} --restart", service.runbook or "service-not-healthy")
        elif service.name == STREAM and not service.running and behind:
            text = f"{title} does not run, and {counted(behind, 'record')} in Kafka wait for it"
            yield Problem("warning", text, f"{command} --start", service.runbook)
    if behind is None:
        text = "Kafka does not answer, so nobody knows how far behind the stream is"
        yield Problem("warning", text, "twofold status")


def _of_union(pipeline: str, layers: Layers, now: datetime) -> Iterator[Problem]:
    """Rows that no union has taken for too long."""
    command, waiting = f"twofold union {pipeline}", counted(layers.stream_past_boundary, "record")
    if not layers.stream_past_boundary and not layers.landings_past_boundary:
        return
    if layers.united_at is None:
        yield Problem("note", f"no union has run yet; {waiting} of the stream wait for it", command, "union-failed")
    elif now - layers.united_at > UNION_IS_OLD:
        text = f"the last union was at {layers.united_at:%Y-%m-%d %H:%M} UTC; {waiting} of the stream wait for it"
        yield Problem("warning", text, command, "union-failed")


def _of_loss(pipeline: str, layers: Layers) -> Iterator[Problem]:
    """What Kafka deleted before it landed: said for good."""
    if layers.lost:
        text = f"{counted(layers.lost, 'offset')} of Kafka never landed and were accepted as lost"
        yield Problem("note", text, f"twofold accept-loss {pipeline}")


def _of_outcomes(pipeline: str, outcomes: Outcomes) -> Iterator[Problem]:
    """Files that could not be read, and records that were rejected."""
    command = f"twofold rejects {pipeline}"
    if outcomes.set_aside:
        text = f"{counted(outcomes.set_aside, 'file')} could not be read and were set aside"
        yield Problem("warning", text, f"{command} --layer batch", "files-set-aside")
    if rejected := sum(kind.count for kind in outcomes.rejected):
        yield Problem(
            "note", f"{counted(rejected, 'record')} broke the contract since {outcomes.since:%Y-%m-%d}", command
        )


def _of_proof(pipeline: str, proved: Proved | None, layers: Layers, now: datetime) -> Iterator[Problem]:
    """A violated invariant; a proof that was never made, or long ago."""
    command = f"twofold prove {pipeline}"
    violated = ", ".join(check.id for check in proved.checks if check.state == "violated") if proved else ""
    unproved = ", ".join(check.id for check in proved.checks if check.state == "not proved") if proved else ""
    if violated:
        yield Problem("error", f"the last proof found {violated} violated", command, "invariant-violated")
    elif unproved:
        yield Problem("note", f"the last proof could not check all of {unproved}, and says why", command)
    elif proved and now - proved.at > PROOF_IS_OLD:
        yield Problem("warning", f"the last proof is of {proved.at:%Y-%m-%d}", command, "not-proved")
    elif proved is None and layers.events.rows:
        yield Problem("note", "the invariants were never checked on these tables", command)
