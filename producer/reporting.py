"""How far a run is: kept in the journal, answered on `/healthz`, measured, and shown to people.

Progress, 4 a second ─► Reporter ─► journal file
                           ├──────► snapshot() ◄── /healthz
                           ├──────► metrics, once a second
                           └──────► Screen
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from producer.sources import RecordSource
from twofold import journal, metrics
from twofold.errors import Busy, TwofoldError
from twofold.journal import Delivered, Entry
from twofold.local_files import locked
from twofold.metrics import Meter
from twofold.settings import Settings
from twofold.topic import TopicState

WAITING_AFTER_S = 2.0
"""Records in flight for this long without an acknowledgement mean that the broker is away."""
RATE_WINDOW_S = 5.0
METRICS_EVERY_S = 1.0
LINE_EVERY_S = 10.0


@dataclass(frozen=True)
class Progress:
    """The state of a run; all counts are of this run."""

    position: int = 0
    """Every record before it is acknowledged, or set aside as too large."""
    sent: int = 0
    acked: int = 0
    too_large: int = 0
    sent_bytes: int = 0
    refused: tuple[tuple[int, int], ...] = ()
    """The first records set aside as too large: (position, bytes)."""
    partitions: Mapping[int, Delivered] = field(default_factory=dict)
    last_ack_at: float | None = None
    """Unix seconds."""
    ack_s: float | None = None
    """How long the records acknowledged last had taken."""
    waiting_s: float = 0.0
    """For how long records have been in flight with no acknowledgement."""
    exhausted: bool = False
    """The source is sent to its end, all of it acknowledged."""
    failure: str | None = None
    done: bool = False

    @property
    def in_flight(self) -> int:
        """Records handed to the client and not yet acknowledged."""
        return max(0, self.sent - self.acked - self.too_large)

    @property
    def state(self) -> str:
        """starting | sending | waiting_for_broker | finished | failed."""
        if self.failure:
            return "failed"
        if self.done:
            return "finished"
        if self.waiting_s > WAITING_AFTER_S:
            return "waiting_for_broker"
        return "sending" if self.sent else "starting"


class Journal:
    """The journal of one source, locked by this process until it ends."""

    def __init__(self, path: Path, entry: Entry, source: RecordSource, note: str = "") -> None:
        self._path, self._base, self._source, self.entry, self.note = path, entry, source, entry, note
        self._saved: Entry | None = None

    @property
    def aside(self) -> Path:
        """Where records too large for the broker are kept, one per line, byte for byte."""
        return self._path.with_suffix(".too_large.jsonl")

    def save(self, progress: Progress) -> None:
        """Write down how far the run is; nothing is written if nothing has changed."""
        before = self._base.partitions
        self.entry = replace(
            self._base,
            version=self._source.version,
            positions=(progress.position,),
            exhausted=progress.exhausted,
            partitions={
                number: before.get(number, Delivered()).plus(progress.partitions.get(number, Delivered()))
                for number in sorted({*before, *progress.partitions})
            },
            too_large=self._base.too_large + progress.too_large,
        )
        if self.entry != self._saved:
            self._saved = self.entry
            _replace(self._path, replace(self.entry, updated=datetime.now(UTC).isoformat(timespec="seconds")))


def path_of(settings: Settings, pipeline: str, identity: Mapping[str, Any]) -> Path:
    """The journal of a source, whatever its present content."""
    name = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:16]
    return journal.folder(settings, pipeline) / f"{identity['kind']}-{name}.json"


def lock(path: Path) -> AbstractContextManager[None]:
    """Hold a journal's lock, which also a kill ends; raise Busy if another process has it."""
    place = path.with_suffix(".lock")

    def refuse() -> None:
        raise Busy(
            f"another producer is sending this source (it holds {place})",
            "wait for it or stop it; two at once would send every record twice",
        )

    return locked(place, refuse)


@contextmanager
def held(settings: Settings, pipeline: str, source: RecordSource) -> Iterator[Path]:
    """The source's journal, locked; of what no two runs can both send, the first that nobody holds."""
    with ExitStack() as locks:
        for number in count():
            identity = {**source.identity, "beside": number} if number else source.identity
            path = path_of(settings, pipeline, identity)
            try:
                locks.enter_context(lock(path))
            except Busy:
                if source.repeats:
                    raise
            else:
                source.identity = identity
                yield path
                return


def start(path: Path, pipeline: str, topic: TopicState, source: RecordSource, restart: bool) -> Journal:
    """Decide where to resume: where the last run stopped, or at the start; the source gets what it must remember."""
    before = journal.read(path)
    fresh = Entry(pipeline, topic.name, topic.topic_id, source.identity, source.version, source.memory)
    if before is None:
        kept = (journal.read(one) for one in sorted(path.parent.glob(f"{source.identity['kind']}-*.json")))
        source.memory = source.beside(entry for entry in kept if entry is not None)
        book = Journal(path, replace(fresh, memory=source.memory), source)
        # At once: what starts next must find it.
        book.save(Progress())
        return book
    source.memory = source.after(before)
    is_new, before = source.memory != before.memory, replace(before, memory=source.memory)
    fresh = replace(fresh, memory=source.memory)
    if before.topic_id == topic.topic_id:
        fresh = replace(fresh, partitions=before.partitions)
    if restart:
        return Journal(path, fresh, source)
    position = source.goes_on(before)
    if position is None:
        told = before.position and source.repeats
        return Journal(path, fresh, source, "the source has changed since then" if told else "")
    refuse_other_topic(before, topic)
    if dict(before.version) != dict(source.version):
        before = replace(before, version=source.version, positions=(position,), exhausted=False)
    book = Journal(path, before, source)
    if is_new:
        book.save(Progress(position=before.position))
    return book


def refuse_other_topic(before: Entry, topic: TopicState) -> None:
    """Resuming halfway would silently leave the new topic without the first half."""
    if before.topic_id != topic.topic_id:
        raise TwofoldError(
            f"topic {topic.name} was deleted and recreated (id {before.topic_id}, now {topic.topic_id})"
            f" since {before.position} records of this source were sent",
            "send the source again from its start with --restart; a streaming job that has landed of the old topic"
            " refuses the new one: then declare the stream under a new pipeline name",
        )


def _replace(path: Path, entry: Entry) -> None:
    draft = path.with_suffix(".tmp")
    try:
        with draft.open("w") as file:
            file.write(entry.to_json())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise TwofoldError(f"the journal {path} cannot be written: {error.strerror}", "make room for it") from error


class Screen:
    """What a person sees on stderr: a live line on a terminal, a plain line now and then anywhere else."""

    def __init__(self, broker: str) -> None:
        self._console, self._broker, self._waiting = Console(stderr=True), broker, False

    @contextmanager
    def live(self, topic: str, start: int, total: int | None) -> Iterator[None]:
        """The live line, until the block ends; `total`: the number of records of the source, None if unknown."""
        self._topic, self._total, self._said_at = topic, total, time.monotonic()
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,} {task.fields[note]}")
        times, quiet = (TimeElapsedColumn(), TimeRemainingColumn()), not self._console.is_terminal
        with Bar(*columns, *times, console=self._console, transient=True, disable=quiet) as self._bar:
            self._task = self._bar.add_task(topic, total=total, completed=start, note="")
            yield

    def say(self, text: str) -> None:
        """One line, above the live one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, progress: Progress, rate: float) -> None:
        """The present state; waiting for the broker is reported as soon as it begins and ends."""
        waiting = progress.state == "waiting_for_broker"
        wait = (
            f"waiting for Kafka at {self._broker} ({progress.waiting_s:.0f} s); "
            f"{progress.in_flight:,} records are kept, nothing is lost"
        )
        if waiting != self._waiting:
            self._waiting = waiting
            self.say(wait if waiting else f"Kafka at {self._broker} answers again")
        speed = f"{rate:,.0f}/s, {progress.acked:,} acknowledged"
        self._bar.update(self._task, completed=progress.position, note=speed)
        if not self._console.is_terminal and time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._said_at = time.monotonic()
            of = f" of {self._total:,}" if self._total else ""
            self.say(wait if waiting else f"{self._topic}: at record {progress.position:,}{of}, {speed}")


class Reporter:
    """Takes the progress of a run, and keeps it in the journal.

    `reports_liveness`: its metrics report the state of the pipeline's own producer.
    """

    def __init__(self, book: Journal, meter: Meter, screen: Screen, reports_liveness: bool) -> None:
        self.progress = Progress(position=book.entry.position)
        self._book, self._meter, self._screen, self._reports_liveness = book, meter, screen, reports_liveness
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._metered_at = 0.0
        self._metered = Progress()
        # A counter whose first sample is not 0 hides what came before it from rates.
        self._measure()

    def take(self, progress: Progress) -> None:
        """The present progress."""
        self.progress = progress
        self._book.save(progress)
        now = time.monotonic()
        self._recent.append((now, progress.acked))
        while now - self._recent[0][0] > RATE_WINDOW_S and len(self._recent) > 2:
            self._recent.popleft()
        self._screen.show(progress, self.rate())
        if now - self._metered_at >= METRICS_EVERY_S or progress.done:
            self._metered_at = now
            self._measure()

    def rate(self) -> float:
        """Acknowledged records per second, over the last seconds."""
        (first, before), (last, after) = self._recent[0], self._recent[-1]
        return (after - before) / (last - first) if last > first else 0.0

    def snapshot(self) -> dict[str, Any]:
        """For `/healthz`: healthy unless the broker is away or has refused."""
        now = self.progress
        return {
            "healthy": now.state not in ("waiting_for_broker", "failed"),
            "state": now.state,
            "sent": now.sent,
            "acked": now.acked,
            "in_flight": now.in_flight,
            "too_large": now.too_large,
            "position": now.position,
            "last_ack_age_s": round(time.time() - now.last_ack_at, 3) if now.last_ack_at else None,
            "waiting_s": round(now.waiting_s, 3),
            "rate_per_s": round(self.rate(), 1),
        }

    def _measure(self) -> None:
        before, self._metered = self._metered, self.progress
        now, count, gauge = self._metered, self._meter.count, self._meter.gauge
        count(metrics.PRODUCER_SENT, now.sent - before.sent)
        count(metrics.PRODUCER_ACKED, now.acked - before.acked)
        count(metrics.PRODUCER_BYTES, now.sent_bytes - before.sent_bytes)
        count(metrics.PRODUCER_TOO_LARGE, now.too_large - before.too_large)
        count(metrics.PRODUCER_FAILED, int(bool(now.failure) and not before.failure))
        if now.ack_s is not None and now.acked > before.acked:
            self._meter.observe(metrics.PRODUCER_LATENCY, now.ack_s)
        if not self._reports_liveness:
            return
        gauge(metrics.PRODUCER_QUEUE, now.in_flight)
        gauge(metrics.PRODUCER_POSITION, now.position)
        gauge(metrics.PRODUCER_WAITING, int(now.state == "waiting_for_broker"))
        gauge(metrics.PRODUCER_HEARTBEAT, time.time())
        gauge(metrics.PRODUCER_RUNNING, int(not now.done or bool(now.failure)))
        if now.last_ack_at:
            gauge(metrics.PRODUCER_LAST_ACK, now.last_ack_at)
