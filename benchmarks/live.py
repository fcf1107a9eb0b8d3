"""What a stream costs while it runs: no drain, no batch job that fills a view.

    a minute of a trickle ─► EVENTS at 25,000/s, until caught up: CPU-seconds ─► a trickle for three minutes: cores

Each way has a topic of its own with the same records in the same order, and the whole process tree of its job counts
(driver, JVM, Python workers); the producer, the broker and PostgreSQL do not. Caught up means committed: for Twofold
the offsets in stream_log's own snapshot, and in a view's the snapshot it has read; for Flink the offsets of its group,
which it commits with a checkpoint.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click

from benchmarks import data
from benchmarks.aging import METADATA_GB
from benchmarks.figures import BenchFailure, Figure, until
from benchmarks.measure import Serving, Written, measured, serving
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
LANDING_CPU_S, TRICKLE_CORES, FILES_A_DAY = 9, 0.10, 17_280
"""What a stream that only ingests may cost: per million events, at a trickle, and a day at a trigger of 5 s."""
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


@dataclass(frozen=True)
class Cost:
    """What one way used."""

    wall_s: float
    cpu_s: float
    """From the first record of the load until it had caught up with the last."""
    idle_s: float
    """How long the quiet minutes were, with next to nothing to do; what follows is theirs."""
    cores: float
    commits: int
    """Of stream_log; rivals have none."""
    data_files: int
    metadata_bytes: int


class Way(Protocol):
    """One job that streams a topic."""

    name: str
    """Of its topic, and of its pipeline."""
    title: str

    def running(self) -> Iterator[Serving]:
        """The job, from its start to its end; a context manager."""

    def caught_up(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before these offsets is committed."""

    def written(self) -> LogWritten | None:
        """What the job writes, where that is counted."""

    def check(self, sent: Sequence[Path]) -> str:
        """After the end: whether it did its work; a word on it, or a BenchFailure."""


def prepare(folder: Path, events: int) -> Phases:
    """Write the records of all three phases: one run of event time, as if sent by one source."""
    counts = {"warm_up": WARM_UP_S * TRICKLE_PER_S, "load": events, "idle": IDLE_S * TRICKLE_PER_S}
    whole = folder / "live.jsonl"
    data.write(whole, sum(counts.values()))
    parts = {name: folder / f"live_{name}.jsonl" for name in counts}
    data.split(whole, {parts[name]: count for name, count in counts.items()})
    return Phases(**parts, events=events)


def measure(settings: Settings, way: Way, phases: Phases) -> tuple[Cost, list[Figure]]:
    """One way through all phases."""
    kafka.ensure(settings, load_pipeline(settings, way.name))
    with contextmanager(way.running)() as job:
        _say(way, f"runs; {WARM_UP_S} s of {TRICKLE_PER_S} events/s")
        measured(_produce(way, phases.warm_up, TRICKLE_PER_S), settings.environment())
        catch_up(settings, way, job)
        _say(way, f"{phases.events:,} events at {LOAD_PER_S:,}/s")
        began, before = time.monotonic(), job.cpu_s()
        measured(_produce(way, phases.load, LOAD_PER_S), settings.environment())
        catch_up(settings, way, job)
        wall_s, cpu_s = time.monotonic() - began, job.cpu_s() - before
        _say(way, f"{cpu_s:.1f} CPU-seconds in {wall_s:.0f} s; {IDLE_S} s of a trickle")
        cost = Cost(wall_s, cpu_s, *_quiet(settings, way, job, phases.idle))
    per_million = f"{cpu_s / phases.events * 1e6:.1f} CPU-s per million"
    note = f"{per_million}; {way.check((phases.warm_up, phases.load, phases.idle))}"
    trickle, idle_cpu_s = f"{way.title}, {TRICKLE_PER_S} events/s", cost.cores * cost.idle_s
    return cost, [
        Figure.of(way.title, phases.events, wall_s, cpu_s, note=note),
        Figure(trickle, cost.idle_s, idle_cpu_s, ratio=cost.cores, note="cores used"),
    ]


def bounds(cost: Cost, events: int) -> Iterator[Figure]:
    """What ingest alone has to keep."""
    yield Figure("ingest alone, CPU-s per million", ratio=cost.cpu_s / events * 1e6, bound=f"<= {LANDING_CPU_S}")
    yield Figure("ingest alone, cores at a trickle", ratio=cost.cores, bound=f"<= {TRICKLE_CORES}")
    days, commits = cost.idle_s / DAY_S, cost.commits
    note = f"{cost.data_files / max(1, commits):.2f} a commit, {commits} commits"
    yield Figure("data files a day", ratio=cost.data_files / days, bound=f"<= {FILES_A_DAY}", note=note)
    note, ratio = "extrapolated: see `commits` for how it grows", cost.metadata_bytes / days / 1e9
    yield Figure("GB of metadata a day", ratio=ratio, bound=f"< {METADATA_GB}", note=note)


def _quiet(settings: Settings, way: Way, job: Serving, records: Path) -> tuple[float, float, int, int, int]:
    """The last fields of `Cost`."""
    already, said = _sent(settings, way), settings.home / f"{way.name}-trickle.log"
    with serving(_produce(way, records, TRICKLE_PER_S), said, settings.environment()) as producer:
        until(lambda: _sent(settings, way) > already, f"{way.title}: the trickle", _GIVE_UP_S)
        began = time.monotonic()
        _pass(began + IDLE_SKIPPED_S, None, job)
        since, before, log = time.monotonic(), job.cpu_s(), way.written()
        _pass(began + IDLE_S, log, job)
        seconds, cores = time.monotonic() - since, (job.cpu_s() - before) / (time.monotonic() - since)
        counts = log.counts() if log else (0, 0, 0)
        # Its clock is not quite ours.
        until(lambda: producer.ended, f"{way.title}: the end of the trickle", _GIVE_UP_S)
    catch_up(settings, way, job)
    _say(way, f"{cores:.3f} cores")
    return seconds, cores, *counts


def _pass(until_s: float, log: LogWritten | None, job: Serving) -> None:
    while (left := until_s - time.monotonic()) > 0:
        job.check()
        if log:
            log.metadata.look()
        time.sleep(min(_LOOK_EVERY_S, left))


def catch_up(settings: Settings, way: Way, job: Serving) -> None:
    """Wait until everything that is in the topic now is committed."""
    sent = kafka.describe(settings, way.name)
    assert sent is not None

    def there() -> bool:
        job.check()
        return way.caught_up(sent.ends)

    until(there, f"{way.title}: the end of its topic", _GIVE_UP_S)


def _sent(settings: Settings, way: Way) -> int:
    state = kafka.describe(settings, way.name)
    return sum(state.ends.values()) if state else 0


def _produce(way: Way, records: Path, rate: int) -> list[str]:
    return [sys.executable, "-m", "twofold.cli", "produce", way.name, "--from", str(records), "--rate", str(rate)]


def _say(way: Way, what: str) -> None:
    click.echo(f"live: {way.title}: {what}", err=True)


class LogWritten:
    """What stream_log gets from now on."""

    def __init__(self, lake: Lake) -> None:
        table = lake.table(tables.STREAM_LOG)
        self.metadata = Written.to_metadata(table)
        self._lake, self._before = lake, {snapshot.snapshot_id for snapshot in table.metadata.snapshots}

    def counts(self) -> tuple[int, int, int]:
        """Commits, data files and bytes of metadata."""
        self.metadata.look()
        new = [one for one in self._lake.history(tables.STREAM_LOG).ancestors() if one.id not in self._before]
        return len(new), sum(int(one.summary.get("added-data-files", 0)) for one in new), self.metadata.bytes


class Twofold:
    """`twofold stream` of a pipeline."""

    def __init__(self, settings: Settings, name: str, title: str) -> None:
        self.name, self.title, self._settings = name, title, settings
        self._lake = Lake(settings, load_pipeline(settings, name))
        self._views = [tables.stream_view_name(view) for view in self._lake.pipeline.views.values()]

    def running(self) -> Iterator[Serving]:
        """Up and running once it has announced itself."""
        home = self._settings.home
        place, said = health.place_of(home, self.name, STREAM), home / f"{self.name}.log"
        command = [sys.executable, "-m", "twofold.cli", "stream", self.name]
        with serving(command, said, self._settings.environment()) as job:
            job.wait_for(place, f"{self.title}: the streaming job", _GIVE_UP_S)
            yield job

    def caught_up(self, ends: Mapping[int, int]) -> bool:
        """The log first; only then each view, which has read it up to a snapshot."""
        log = self._lake.history(tables.STREAM_LOG)
        return self._holds(log, ends) and all(self._holds(self._read_by(view, log), ends) for view in self._views)

    def _holds(self, log: History, ends: Mapping[int, int]) -> bool:
        held = table_state.landed(log, self.name).offsets
        return all(held.get(partition, 0) >= end for partition, end in ends.items())

    def _read_by(self, view: str, log: History) -> History:
        folded = table_state.folded(self._lake.history(view))
        return History(log.snapshots, folded.snapshot if folded else None)

    def written(self) -> LogWritten:
        """From now on."""
        return LogWritten(self._lake)

    def check(self, sent: Sequence[Path]) -> str:
        """Every record once, by the log's own count."""
        rows = sum(1 for path in sent for _ in path.open("rb"))
        history = self._lake.history(tables.STREAM_LOG)
        held = history.snapshots[history.head].rows if history.head is not None else 0
        if held != rows:
            raise BenchFailure(f"{self.title}: {held:,} of {rows:,} records in stream_log")
        return f"{held:,} records in stream_log"
