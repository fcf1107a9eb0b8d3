"""One run, from the topic to the final report.

source ─► slices when due ─► partition by hash of the id ─► client ─► Ledger ─► report (4 a second) ─► Reporter
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TypeVar
from zlib import crc32

from confluent_kafka import KafkaException

from producer import reporting
from producer.delivery import Client, Confluent, Ledger, Record
from producer.generator import Generated
from producer.query_source import Table
from producer.reporting import Journal, Progress, Reporter, Screen
from producer.sources import Chunk, Lines, RecordSource, Request, Stdin
from producer.wire import Register, writer
from twofold import health, kafka
from twofold.definition.model import Pipeline
from twofold.errors import NotRunning, TwofoldError, UsageError
from twofold.metrics import Meter
from twofold.schema_registry import Registry
from twofold.services.record import PRODUCER
from twofold.settings import Settings
from twofold.topic import TopicState, require_exact, require_managed

T = TypeVar("T")
CONNECT_S = 3.0
"""Duration of one attempt to reach the broker; attempts continue until it answers."""
REPORT_EVERY_S = 0.25
WATCH_EVERY_S = 1.0
GONE_AFTER_S = 30.0
"""A broker that has just started does not know its topics yet; one that answers so for this long has none."""
PAUSE_S = 1.0
"""Between two attempts to reach a server."""
POLL_S = 0.1
DRAIN_S = 8.0
"""How long a stopped run waits for what is in flight, less than a supervisor waits before it kills."""
IN_FLIGHT_BYTES = 32 << 20
"""Above this much the sender waits, so a missing broker never fills the memory."""
KEYLESS_RUN = 512
"""Records without an id go to partitions in turn, this many to each."""
SLICE_RECORDS = 2000
"""At most this many records are handed over at once."""
CATCH_UP_S = 1.0
"""After a longer stop (a broker away), the plan is moved rather than caught up with in one burst."""
MIN_WAIT_S = 0.005
DEFAULT_MESSAGE_BYTES = 1_048_588
"""Kafka's own `max.message.bytes`."""


def run(settings: Settings, pipeline: Pipeline, request: Request, stop: Event) -> int:
    """Send what is asked for; the exit code: 0 if every record is acknowledged or journaled for later, else 1."""
    require_managed(pipeline.topic, "nothing is sent to it")
    screen, registry = Screen(settings.kafka_bootstrap), Registry.of(settings)

    def register(subject: str, kind: str, text: str) -> int:
        return patiently(lambda: registry.register(subject, kind, text), stop, screen.say)

    source = open_source(pipeline, request, stop.is_set, register)
    with reporting.held(settings, pipeline.name, source) as path:
        try:
            topic = patiently(lambda: kafka.ensure(settings, pipeline, CONNECT_S), stop, screen.say)
        except NotRunning:
            return 0
        require_exact(pipeline, topic)
        book = reporting.start(path, pipeline.name, topic, source, request.restart)
        refuse_doubles(book, pipeline)
        for name, (declared, actual) in topic.drift.items():
            kept = f"topic {topic.name} has {name} {actual}, not {declared} as declared; it is left as it is"
            screen.say(f"warning: {kept}")
        if finished(book, request):
            again = "--restart sends them again" + ("" if request.generate is None else ", another --seed others")
            screen.say(f"finished before: {book.entry.position:,} records were sent; {again}")
            if book.entry.too_large:
                screen.say(f"{book.entry.too_large:,} of them were too large for the broker, and are in {book.aside}")
            return 0
        if book.note:
            screen.say(f"{book.note}: sending it from its start")
        elif book.entry.position:
            screen.say(f"going on after record {book.entry.position:,}")
        goals = [goal for goal in (request.limit, source.total()) if goal is not None]
        # A run beside the pipeline's own producer must not report for that one: its end would silence the alert.
        own = request.own or pipeline.replay is None
        reporter = Reporter(book, Meter(settings, pipeline.name), screen, reports_liveness=own)
        began = monotonic()
        # The live line last: while it is there the cursor is hidden.
        with (
            health.HealthServer(reporter.snapshot, request.health_port, settings.health_host) as server,
            screen.live(topic.name, book.entry.position, min(goals, default=None)),
        ):
            announce(server, health.place_of(settings.home, pipeline.name, PRODUCER), request)
            Sending(settings, topic, request, source, book, stop, reporter.take).run()
        return _last_word(reporter.progress, book, screen.say, monotonic() - began)


def patiently(ask: Callable[[], T], stop: Event, say: Callable[[str], None]) -> T:
    """The answer of a server, waited for as long as it takes; NotRunning once stopped."""
    said = False
    while True:
        try:
            return ask()
        except NotRunning as error:
            if not said:
                say(f"{error}\n  waiting for it; Ctrl-C ends")
                said = True
            if stop.wait(PAUSE_S):
                raise


def open_source(
    pipeline: Pipeline, request: Request, stopped: Callable[[], bool], register: Register | None = None
) -> RecordSource:
    """The source that a request names; raise UsageError if it is not there."""
    write = writer(pipeline, register)
    if request.generate is not None:
        return Generated(request, datetime.now(UTC), write)
    if request.from_file == "-":
        return Stdin(write, stopped)
    if request.from_file is not None:
        return Lines(Path(request.from_file).absolute(), write)
    return Table(pipeline, request, write)


def refuse_doubles(book: Journal, pipeline: Pipeline) -> None:
    """Where events have no id, what is sent twice is there twice."""
    if book.note and not pipeline.event.id:
        raise UsageError(
            f"{book.note}: from its start, all its records would be sent again, and without an id be there twice",
            "send what is new as a file of its own; or all of it again, with --restart",
        )


def finished(book: Journal, request: Request) -> bool:
    """Whether an earlier run has sent all that is asked for."""
    goals = [goal for goal in (request.limit, request.generate or None) if goal is not None]
    if goals:
        return book.entry.position >= min(goals) or (request.generate is None and book.entry.exhausted)
    # What has no end goes on after a run that had one.
    return book.entry.exhausted and request.generate is None


def announce(server: health.HealthServer, place: Path, request: Request) -> None:
    """Publish this run's health address, unless the pipeline's own producer is running: it would look stuck.

    One that does not answer in time runs: it would not publish its own address again.
    """
    if request.own or not health.ask(health.address(place), silent={"state": "silent"}):
        server.announce(place)


class Sending:
    """Sends a source from where its journal ends until it ends or `stop` is set, and reports how far it is."""

    def __init__(
        self,
        settings: Settings,
        topic: TopicState,
        request: Request,
        source: RecordSource,
        book: Journal,
        stop: Event,
        report: Callable[[Progress], None],
    ) -> None:
        self._settings, self._topic, self._request, self._source = settings, topic, request, source
        self._start, self._stop, self._report = book.entry.position, stop, report
        limit = int(topic.settings.get("max.message.bytes") or DEFAULT_MESSAGE_BYTES)
        self._ledger = Ledger(self._start, len(topic.partitions), book.aside, limit)
        self._topic_seen_at = monotonic()
        self._client = self._new_client()
        self._ended = Event()

    def run(self) -> None:
        """Send everything; the last progress is reported, too. Errors of the source are raised at the end."""
        reporting, watching = (Thread(target=work, daemon=True) for work in (self._keep_reporting, self._watch_topic))
        reporting.start()
        watching.start()
        exhausted = drained = False
        try:
            exhausted = self._send_all()
        finally:
            try:
                drained = self._drain()
            finally:
                self._ended.set()
                watching.join(CONNECT_S if drained else REPORT_EVERY_S)
                # However long the disk takes: the last report must be the last one in the journal.
                reporting.join()
                self._client.close()
                last = self._ledger.progress()
                self._report(replace(last, exhausted=exhausted and drained and not last.failure, done=True))

    def _new_client(self) -> Client:
        if self._settings.producer_client == "confluent":
            return Confluent(self._settings, self._topic.name, self._ledger, lambda: self._topic_seen_at)
        # Only here: it takes a tenth of a second to import.
        from producer.kafka_python_client import KafkaPython

        return KafkaPython(self._settings, self._topic.name, self._ledger, self._stopped)

    def _send_all(self) -> bool:
        """Whether the source was sent to its end; not where it is cut short by a limit."""
        pace, limit = Pace(self._request.rate, self._request.speed_up, self._wait), self._request.limit
        for chunk in self._source.chunks(self._start):
            wanted = within(chunk, limit)
            for low, high in pace.slices(wanted):
                if not self._wait_until(lambda: self._ledger.held_bytes <= IN_FLIGHT_BYTES):
                    return False
                self._hand_over(wanted, low, high)
            if self._stopped() or (limit is not None and chunk.first + len(chunk) >= limit):
                return False
        return not self._stopped()

    def _hand_over(self, chunk: Chunk, low: int, high: int) -> None:
        """Send one slice; a record that may be too large goes when nothing else is in flight."""
        for partition, records in enumerate(split(chunk, low, high, len(self._topic.partitions))):
            for group, alone in self._ledger.parted(records):
                if alone and not self._wait_until(lambda: not self._ledger.held_bytes):
                    return
                self._ledger.hand_over(partition, group)
                self._client.send(partition, group)
                if alone and not self._wait_until(lambda: not self._ledger.held_bytes):
                    return
        self._ledger.submitted(chunk.first + high)
        self._client.poll(0)

    def _stopped(self) -> bool:
        return self._stop.is_set() or self._ledger.failure is not None

    def _wait_until(self, true: Callable[[], bool], seconds: float = inf) -> bool:
        """Let reports in until something is true; False if stopped or failed first, or after so many seconds."""
        until = monotonic() + seconds
        while not (done := true()) and not self._stopped() and (left := until - monotonic()) > 0:
            self._client.poll(min(left, POLL_S))
        return done and not self._stopped()

    def _wait(self, seconds: float) -> bool:
        """Let reports in for this long; whether the run was stopped meanwhile."""
        self._wait_until(lambda: False, seconds)
        return self._stopped()

    def _drain(self) -> bool:
        """Wait for what is in flight, for as long as it takes; once stopped, for DRAIN_S at most."""
        until = inf
        while self._ledger.held_bytes and self._ledger.failure is None and monotonic() < until:
            if self._stop.is_set():
                until = min(until, monotonic() + DRAIN_S)
            self._client.poll(POLL_S)
        return not self._ledger.held_bytes

    def _keep_reporting(self) -> None:
        while not self._ended.wait(REPORT_EVERY_S):
            # A source that keeps the sending thread waiting keeps it from taking reports in.
            self._client.poll(0)
            try:
                self._report(self._ledger.progress())
            except TwofoldError as error:
                self._ledger.failed(error.message)
                return

    def _watch_topic(self) -> None:
        """Offsets of a topic that was deleted and recreated mean nothing: end rather than mix them."""
        last = False
        gone_from = inf
        with kafka.admin(self._settings) as client:
            while not last:
                last = self._ended.wait(WATCH_EVERY_S)
                began = monotonic()
                try:
                    found = kafka.topic_id(client, self._topic.name, WATCH_EVERY_S)
                except KafkaException:  # the broker is away
                    gone_from = inf
                    continue
                if found is None:
                    gone_from = min(gone_from, began + GONE_AFTER_S)
                    if began >= gone_from:
                        self._ledger.failed(f"topic {self._topic.name} is gone from Kafka")
                        return
                elif found != self._topic.topic_id:
                    self._ledger.failed("the topic was deleted and created again while sending")
                    return
                else:
                    self._topic_seen_at, gone_from = began, inf


class Pace:
    """Cuts chunks into slices, each given out when it is due: at once, at a rate, or as it was sent, only faster."""

    def __init__(
        self,
        rate: float | None,
        speed_up: float | None,
        wait: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wait(seconds)` sleeps and returns whether the run was stopped meanwhile."""
        self._rate, self._speed_up, self._wait, self._clock = rate, speed_up, wait, clock
        self._origin: float | None = None
        self._anchor: float | None = None

    def slices(self, chunk: Chunk) -> Iterator[tuple[int, int]]:
        """Index ranges [low, high) of the chunk, in order, each when it is due; ends early if stopped."""
        due = self._due(chunk)
        low = 0
        while low < len(chunk):
            high = min(low + SLICE_RECORDS, len(chunk))
            if due is not None:
                if not self._wait_until(due[low]):
                    return
                high = min(high, bisect_right(due, self._now(), low + 1))
            yield low, high
            low = high

    def _due(self, chunk: Chunk) -> list[float] | None:
        """Seconds after the origin at which each record is due; None: at once."""
        if self._rate is not None:
            self._anchor = chunk.first if self._anchor is None else self._anchor
            return [(chunk.first + index - self._anchor) / self._rate for index in range(len(chunk))]
        if self._speed_up is not None and chunk.send_at:
            self._anchor = chunk.send_at[0] if self._anchor is None else self._anchor
            return [(moment - self._anchor) / self._speed_up for moment in chunk.send_at]
        return None

    def _now(self) -> float:
        if self._origin is None:
            self._origin = self._clock()
        return self._clock() - self._origin

    def _wait_until(self, due: float) -> bool:
        """Wait for a due time; False if stopped. Far behind, move the origin, so that the pace is kept from here."""
        behind = self._now() - due
        if behind > CATCH_UP_S and self._origin is not None:
            self._origin += behind - CATCH_UP_S
        while (left := due - self._now()) > 0:
            if self._wait(max(left, MIN_WAIT_S)):
                return False
        return True


def split(chunk: Chunk, low: int, high: int, partitions: int) -> list[list[Record]]:
    """The records of the slice [low, high) by partition, in order; all of one id are one partition's."""
    groups: list[list[Record]] = [[] for _ in range(partitions)]
    position = chunk.first + low
    for key, value in zip(chunk.keys[low:high], chunk.values[low:high], strict=True):
        # CRC-32 of the key is librdkafka's consistent partitioner, and costs a tenth of Java's murmur2 here.
        number = crc32(key) if key is not None else position // KEYLESS_RUN
        groups[number % partitions].append((position, key, value))
        position += 1
    return groups


def within(chunk: Chunk, limit: int | None) -> Chunk:
    """The chunk without records at or past `limit`."""
    keep = len(chunk) if limit is None else max(0, min(len(chunk), limit - chunk.first))
    if keep == len(chunk):
        return chunk
    send_at = chunk.send_at and chunk.send_at[:keep]
    return replace(chunk, values=chunk.values[:keep], keys=chunk.keys[:keep], send_at=send_at)


def _last_word(total: Progress, book: Journal, say: Callable[[str], None], seconds: float) -> int:
    """Report how the run ended; the exit code."""
    if total.failure is not None:
        raise TwofoldError(
            f"sending has stopped: {total.failure}",
            "what was acknowledged is journaled; fix the cause and run the same command to resume",
        )
    rate = total.acked / max(seconds, 1e-3)
    say(f"{total.acked:,} records acknowledged in {seconds:.1f} s ({rate:,.0f}/s)")
    if total.in_flight:
        say(f"{total.in_flight:,} records were not acknowledged in time; the next run sends them again")
    for position, size in total.refused:
        say(f"record {position + 1:,} is too large for the broker: {size:,} bytes")
    if total.too_large:
        say(f"{total.too_large:,} records too large for the broker are kept in {book.aside}")
    return 1 if total.too_large or total.in_flight else 0
