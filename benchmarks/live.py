"""What a stream costs while it runs: no drain, no batch job that fills a view.

    a minute of a trickle ─► EVENTS at 25,000/s, until caught up: CPU-seconds ─► a trickle for three minutes: cores

Each way has a topic of its own with the same records in the same order, and the whole process tree of its job counts
(driver, JVM, Python workers); the producer, the broker and PostgreSQL do not. Caught up means committed: for Twofold
the offsets in stream_log's own snapshot, and in a view's the snapshot it has read; for Flink the offsets of its group,
which it commits with a checkpoint.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import click

from benchmarks import data
from benchmarks.failures import NotThere, until
from benchmarks.measure import Serving, measured, serving
from benchmarks.written import Written, metadata_folder
from twofold import health, kafka, table_state, tables
from twofold.definition.load import load_pipeline
from twofold.lake import Lake
from twofold.services.record import STREAM
from twofold.settings import Settings
from twofold.table_state import History

LOAD_PER_S = 25_000
TRICKLE_PER_S = 10
WARM_UP_S, IDLE_S, IDLE_SKIPPED_S = 60, 180, 60
"""Of the quiet minutes the first does not count: what the load left is still being tidied up."""
DAY_S = 86_400
_GIVE_UP_S = 300.0
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Phases:
    """The records of a run, in the order in which they are sent."""

    warm_up: Path
    load: Path
    idle: Path
    events: int
    """How many the load has."""

    @property
    def all(self) -> tuple[Path, Path, Path]:
        """In order."""
        return self.warm_up, self.load, self.idle


@dataclass(frozen=True)
class Quiet:
    """The minutes with next to nothing to do."""

    cores: float
    seconds: float
    commits: int = 0
    """Of stream_log; rivals have none."""
    data_files: int = 0
    metadata_bytes: int = 0

    def a_day(self, number: float) -> float:
        """Extrapolated from these minutes."""
        return number / self.seconds * DAY_S


@dataclass(frozen=True)
class Live:
    """What one way used."""

    wall_s: float
    cpu_s: float
    """From the first record of the load until it had caught up with the last."""
    quiet: Quiet | None


class Way(Protocol):
    """One job that streams a topic."""

    name: str
    """Of its topic, and of its pipeline."""
    title: str

    def running(self) -> Iterator[Serving]:
        """The job, from its start to its end; a context manager."""

    def caught_up(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before these offsets is committed."""

    def written(self) -> Log | None:
        """What the job writes, where that is counted."""

    def check(self, phases: Phases) -> str:
        """After the end: whether it did its work; a word on it, or a BenchFailure."""


def prepare(folder: Path, events: int) -> Phases:
    """Write the records of all three phases: one run of event time, as if sent by one source."""
    counts = {"warm_up": WARM_UP_S * TRICKLE_PER_S, "load": events, "idle": IDLE_S * TRICKLE_PER_S}
    whole = folder / "live.jsonl"
    data.write(whole, sum(counts.values()))
    parts = {name: folder / f"live_{name}.jsonl" for name in counts}
    data.split(whole, {parts[name]: count for name, count in counts.items()})
    return Phases(parts["warm_up"], parts["load"], parts["idle"], events)


def measure(settings: Settings, way: Way, phases: Phases, *, quiet: bool = True) -> tuple[Live, str]:
    """One way through all phases, and what was found out about its output."""
    kafka.ensure(settings, load_pipeline(settings, way.name))
    with contextmanager(way.running)() as job:
        _say(way, f"runs; {WARM_UP_S} s of {TRICKLE_PER_S} events/s")
        _send(settings, way, phases.warm_up, TRICKLE_PER_S)
        _caught_up(settings, way, job)
        _say(way, f"{phases.events:,} events at {LOAD_PER_S:,}/s")
        began, before = time.monotonic(), job.cpu_s()
        _send(settings, way, phases.load, LOAD_PER_S)
        _caught_up(settings, way, job)
        wall_s, cpu_s = time.monotonic() - began, job.cpu_s() - before
        _say(way, f"{cpu_s:.1f} CPU-seconds in {wall_s:.0f} s" + (f"; {IDLE_S} s of a trickle" if quiet else ""))
        found = Live(wall_s, cpu_s, _quiet(settings, way, job, phases.idle) if quiet else None)
    return found, way.check(phases)


def _quiet(settings: Settings, way: Way, job: Serving, records: Path) -> Quiet:
    already = _sent(settings, way)
    producer = subprocess.Popen(
        _produce(way, records, TRICKLE_PER_S),
        env={**os.environ, **settings.environment()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _sent(settings, way) > already, f"{way.title}: the trickle", _GIVE_UP_S)
        began = time.monotonic()
        _pass(began + IDLE_SKIPPED_S, None, job)
        since, before, log = time.monotonic(), job.cpu_s(), way.written()
        _pass(began + IDLE_S, log, job)
        seconds, cores = time.monotonic() - since, (job.cpu_s() - before) / (time.monotonic() - since)
        counts = log.counts() if log else (0, 0, 0)
        # Its clock is not quite ours.
        until(lambda: producer.poll() is not None, f"{way.title}: the end of the trickle", _GIVE_UP_S)
    finally:
        producer.kill()
        producer.wait()
    _caught_up(settings, way, job)
    _say(way, f"{cores:.3f} cores")
    return Quiet(cores, seconds, *counts)


def _pass(until_s: float, log: Log | None, job: Serving) -> None:
    while (left := until_s - time.monotonic()) > 0:
        job.check()
        if log:
            log.metadata.look()
        time.sleep(min(_LOOK_EVERY_S, left))


def _caught_up(settings: Settings, way: Way, job: Serving) -> None:
    sent = kafka.describe(settings, way.name)
    assert sent is not None

    def there() -> bool:
        job.check()
        return way.caught_up(sent.ends)

    until(there, f"{way.title}: the end of its topic", _GIVE_UP_S)


def _sent(settings: Settings, way: Way) -> int:
    state = kafka.describe(settings, way.name)
    return sum(state.ends.values()) if state else 0


def _send(settings: Settings, way: Way, records: Path, rate: int) -> None:
    measured(_produce(way, records, rate), settings.environment())


def _produce(way: Way, records: Path, rate: int) -> list[str]:
    return [sys.executable, "-m", "twofold.cli", "produce", way.name, "--from", str(records), "--rate", str(rate)]


def _say(way: Way, what: str) -> None:
    click.echo(f"live: {way.title}: {what}", err=True)


@dataclass
class Log:
    """What stream_log gets from now on."""

    lake: Lake
    metadata: Written
    before: set[int]

    @classmethod
    def watched(cls, lake: Lake) -> Log:
        """From now on."""
        table = lake.table(tables.STREAM_LOG)
        seen = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
        return cls(lake, Written(metadata_folder(table.location())), seen)

    def counts(self) -> tuple[int, int, int]:
        """Commits, data files and bytes of metadata."""
        self.metadata.look()
        history = self.lake.history(tables.STREAM_LOG)
        new = [one for one in history.ancestors() if one.id not in self.before]
        return len(new), sum(int(one.summary.get("added-data-files", 0)) for one in new), self.metadata.bytes


@dataclass
class Twofold:
    """`twofold stream` of a pipeline."""

    settings: Settings
    name: str
    title: str
    _lake: Lake = field(init=False)
    _views: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._lake = Lake(self.settings, load_pipeline(self.settings, self.name))
        self._views = tuple(tables.stream_view_name(view) for view in self._lake.pipeline.views.values())

    def running(self) -> Iterator[Serving]:
        """Up and running once it has announced itself."""
        place, said = health.place_of(self.settings.home, self.name, STREAM), self.settings.home / f"{self.name}.log"
        command = [sys.executable, "-m", "twofold.cli", "stream", self.name]
        with serving(command, said, self.settings.environment()) as job:
            until(lambda: _announced(job, place), f"{self.title}: the streaming job", _GIVE_UP_S)
            yield job

    def caught_up(self, ends: Mapping[int, int]) -> bool:
        """The log first; only then each view, which has read it up to a snapshot."""
        log = self._lake.history(tables.STREAM_LOG)
        return _holds(log, self.name, ends) and all(
            _holds(self._read_by(view, log), self.name, ends) for view in self._views
        )

    def _read_by(self, view: str, log: History) -> History:
        folded = table_state.folded(self._lake.history(view))
        return History(log.snapshots, folded.snapshot if folded else None)

    def written(self) -> Log:
        """From now on."""
        return Log.watched(self._lake)

    def check(self, phases: Phases) -> str:
        """Every record once, by the log's own count."""
        rows = sum(1 for path in phases.all for _ in path.open("rb"))
        history = self._lake.history(tables.STREAM_LOG)
        held = history.snapshots[history.head].rows if history.head is not None else 0
        if held != rows:
            raise NotThere(f"{self.title}: {held:,} of {rows:,} records in stream_log")
        return f"{held:,} records in stream_log"


def _announced(job: Serving, place: Path) -> bool:
    job.check()
    return place.exists()


def _holds(log: History, pipeline: str, ends: Mapping[int, int]) -> bool:
    held = table_state.landed(log, pipeline).offsets
    return all(held.get(partition, 0) >= end for partition, end in ends.items())
