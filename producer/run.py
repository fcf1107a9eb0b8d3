"""One run, from the topic to the last word: everything is put together here."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event

from rich.console import Console

from producer import journal, topic, workers
from producer.desk import Desk
from producer.journal import Journal
from producer.progress import Progress
from producer.request import Request
from producer.screen import Screen
from producer.shard import Task, failure_of
from producer.sources import Source, open_source
from twofold import health
from twofold.definition.model import Pipeline
from twofold.errors import NotRunning
from twofold.metrics import Meter
from twofold.services.record import PRODUCER
from twofold.settings import Settings
from twofold.topic import TopicState, require_exact

CONNECT_S = 3.0


def run(settings: Settings, pipeline: Pipeline, request: Request, stop: Event) -> int:
    """Send what is asked for; the exit code: 0 if every record is acknowledged or journaled for later, else 1."""
    console = Console(stderr=True)
    source = open_source(pipeline, request, stop.is_set)
    path = journal.path_of(settings, pipeline.name, source.identity)
    journal.lock(path)
    state = wait_for_topic(settings, pipeline, stop, console)
    if state is None:
        return 0
    require_exact(pipeline.name, state)
    book = journal.start(path, pipeline.name, state, source, request.restart)
    _warn_of_drift(console, state)
    if finished(book, request):
        _say(console, f"finished before: {book.entry.position:,} records were sent; --restart sends them again")
        if book.entry.too_large:
            _say(console, f"{book.entry.too_large:,} of them were too large for the broker, and are in {book.aside}")
        return 0
    if book.note:
        _say(console, f"{book.note}: sending it from its start")
    elif book.entry.position:
        _say(console, f"going on after record {book.entry.position:,}")
    return _send(settings, pipeline, request, source, book, stop, console)


def wait_for_topic(settings: Settings, pipeline: Pipeline, stop: Event, console: Console) -> TopicState | None:
    """Make sure of the topic, waiting for the broker for as long as it takes; None if stopped first."""
    began = time.monotonic()
    said = False
    while not stop.is_set():
        try:
            return topic.ensure(topic.admin(settings, CONNECT_S), pipeline.topic)
        except NotRunning as error:
            if not said:
                _say(console, f"{error}\n  waiting for it; Ctrl-C ends")
                said = True
            stop.wait(min(1.0, time.monotonic() - began))
    return None


def finished(book: Journal, request: Request) -> bool:
    """Whether an earlier run has sent all that is asked for."""
    goals = [goal for goal in (request.limit, request.generate or None) if goal is not None]
    if goals:
        return book.entry.position >= min(goals) or (request.generate is None and book.entry.exhausted)
    return book.entry.exhausted


def _send(
    settings: Settings,
    pipeline: Pipeline,
    request: Request,
    source: Source,
    book: Journal,
    stop: Event,
    console: Console,
) -> int:
    starts = book.starts(request.workers)
    goals = [goal for goal in (request.limit, source.total()) if goal is not None]
    screen = Screen(console, pipeline.topic.name, settings.kafka_bootstrap, min(starts), min(goals, default=None))
    # A run by hand beside the pipeline's own producer must not speak for that one: its end would silence the alert.
    lives = request.own or pipeline.replay is None
    desk = Desk(book, starts, Meter(settings, pipeline.name), screen, lives)
    tasks = [
        Task(
            settings=settings,
            topic=pipeline.topic.name,
            start=start,
            limit=request.limit,
            rate=request.rate,
            speed_up=request.speed_up,
            worker=worker,
            workers=request.workers,
            aside=book.aside,
        )
        for worker, start in enumerate(starts)
    ]
    began = time.monotonic()
    with health.serve(desk.snapshot, request.health_port, settings.health_host) as server:
        announce(server, health.place_of(settings.home, pipeline.name, PRODUCER), request)
        try:
            workers.run(tasks, pipeline, request, source, stop, desk.take)
        finally:
            screen.close()
    return _last_word(desk.total(), book, console, time.monotonic() - began)


def announce(server: health.HealthServer, place: Path, request: Request) -> None:
    """Be the one that is asked. Another source does not hide the pipeline's own producer, which would seem stuck."""
    if request.own or not health.ask(health.address(place)):
        server.announce(place)


def _last_word(total: Progress, book: Journal, console: Console, seconds: float) -> int:
    """Say how it ended; the exit code."""
    error = failure_of(total)
    if error is not None:
        raise error
    _say(
        console, f"{total.acked:,} records acknowledged in {seconds:.1f} s ({total.acked / max(seconds, 1e-3):,.0f}/s)"
    )
    if total.in_flight:
        _say(console, f"{total.in_flight:,} records were not acknowledged in time; the next run sends them again")
    for position, size in total.refused:
        _say(console, f"record {position + 1:,} is too large for the broker: {size:,} bytes")
    if total.too_large:
        _say(console, f"{total.too_large:,} records too large for the broker are kept in {book.aside}")
    return 1 if total.too_large or total.in_flight else 0


def _warn_of_drift(console: Console, state: TopicState) -> None:
    for name, (declared, actual) in state.drift.items():
        _say(
            console, f"warning: topic {state.name} has {name} {actual}, not {declared} as declared; it is left as it is"
        )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
