"""What is wrong with a pipeline, and what to do: the commands that the page and the runbook give. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from twofold.evolution import Difference
from twofold.services.record import STREAM
from twofold.status.facts import SILENT, Layers, Outcomes, Problem, Proved, ServiceStatus, Speed
from twofold.text import counted

PROOF_IS_OLD = timedelta(days=2)
"""The limit of the alert NotProved, too."""
UNION_IS_OLD = timedelta(hours=26)
"""A daily union, and two hours for it to run."""


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
    """All that is wrong; `ignored` is declared, and has no effect on the tables that are there."""
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
