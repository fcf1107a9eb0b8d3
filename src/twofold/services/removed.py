"""Pipelines whose file was removed, or `replay` in it: services are ended, and metrics say that they are no more.

results in PostgreSQL: pipelines that ever ran ─► not declared for `_GRACE` ─► services stopped, metrics say so
                                         `twofold services <p> --stop` ─► at once ─┘

An editor may take a file away for a moment, and a file at fault may be anybody's: so nothing is done at once, nor while
any file has faults. Tables, topic and inbox stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from twofold import database
from twofold.definition.load import load_sound
from twofold.definition.model import Pipeline
from twofold.definition.names import SERVICES
from twofold.errors import NotRunning
from twofold.metrics import PIPELINE_REMOVED, Meter
from twofold.services.controller import Controller, services_of, told_stopped
from twofold.services.record import PRODUCER
from twofold.settings import Settings

_GRACE = timedelta(minutes=10)
_DECLARED, _MISSING, _UNDECLARED = "declared", "missing", "producer undeclared"
"""Kinds of results: a pipeline was seen declared; and since when it has not been any more."""


def retire(settings: Settings, own: str, now: datetime | None = None) -> list[str]:
    """End what is left of removed pipelines, and what `own` declares no more; a sentence for each service stopped.

    Each pipeline that there is, `own`, asks for it every minute. Raises NotRunning where PostgreSQL or a supervisor
    does not answer.
    """
    sound, faults = load_sound(settings.pipelines)
    if faults:
        return []
    missing = database.kept_since(settings, _MISSING)
    for name in sound:
        if name not in missing:
            database.save_result(settings, name, _DECLARED, {})
        elif missing[name]:
            database.forget_result(settings, name, _MISSING)
        if name == own or missing.get(name):
            Meter(settings, name).gauge(PIPELINE_REMOVED, 0)
    done = list(undeclared(settings, sound[own], now)) if own in sound else []
    for name, since in missing.items():
        if name in sound:
            continue
        if since is None:
            database.save_result(settings, name, _MISSING, {})
        elif (now or datetime.now(UTC)) - since > _GRACE:
            done += [f"{service} was stopped: the file of its pipeline was removed" for service in end(settings, name)]
    return done


def gone(settings: Settings, names: Iterable[str]) -> set[str]:
    """Which of these pipelines no file declares; none while any file has faults."""
    sound, faults = load_sound(settings.pipelines)
    return set() if faults else set(names) - set(sound)


def end(settings: Settings, pipeline: str) -> list[str]:
    """Stop what runs of a removed pipeline, and end its alerts; the names of the programs stopped."""
    stopped = list(stop(settings, pipeline))
    Meter(settings, pipeline).gauge(PIPELINE_REMOVED, 1)
    for service in SERVICES:
        told_stopped(settings, pipeline, service)
    return stopped


def stop(settings: Settings, pipeline: str, services: Sequence[str] = SERVICES) -> Iterator[str]:
    """Stop those of a pipeline's services that run, and name them; no file needs to declare it."""
    controller = Controller(settings)
    for service in services:
        if controller.runs(pipeline, service):
            yield controller.stop(pipeline, service).name


def undeclared(settings: Settings, pipeline: Pipeline, now: datetime | None = None) -> Iterator[str]:
    """Stop a producer that has run for `_GRACE` though the pipeline's file does not declare it; a sentence for it."""
    since = database.kept_since(settings, _UNDECLARED).get(pipeline.name)
    if PRODUCER in services_of(pipeline):
        if since:
            database.forget_result(settings, pipeline.name, _UNDECLARED)
    elif since is None:
        database.save_result(settings, pipeline.name, _UNDECLARED, {})
    elif (now or datetime.now(UTC)) - since > _GRACE:
        with suppress(NotRunning):  # where its supervisor is away, it does not run either
            for name in stop(settings, pipeline.name, [PRODUCER]):
                yield f"{name} was stopped: its pipeline does not declare it any more"
        told_stopped(settings, pipeline.name, PRODUCER)
