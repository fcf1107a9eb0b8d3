"""What a stream costs while it runs, and how soon its events are visible: no drain, no batch job that fills a view.

    a minute of a trickle ─► EVENTS at 25,000/s, until caught up: CPU-seconds ─► a trickle for three minutes: cores

Each way has a topic of its own with the same records in the same order, and the whole process tree of its job counts
(driver, JVM, Python workers); the producer, the broker and PostgreSQL do not. Caught up means committed: for Twofold
the offsets in stream_log's own snapshot, and in a view's the snapshot it has read; for Flink the offsets of its group,
which it commits with a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import click

from benchmarks import data
from benchmarks.measure import TWOFOLD, BenchFailure, Figure, Serving, measured, serving, until
from twofold import health, kafka, table_state, tables
from twofold.definition.load import load_pipeline
from twofold.lake import Lake
from twofold.reader import Reader
from twofold.services.record import STREAM
from twofold.settings import Settings
from twofold.table_state import History, Landed

LOAD_PER_S = 25_000
TRICKLE_PER_S = 10
WARM_UP_S, IDLE_S, IDLE_SKIPPED_S = 60, 180, 60
"""Of the quiet minutes the first does not count: what the load left is still being tidied up."""
DAY_S = 86_400
LANDING_CPU_S, TRICKLE_CORES, FILES_A_DAY = 9, 0.10, 17_280
"""What a stream that only ingests may cost: per million events, at a trickle, and a day at a trigger of 5 s."""
LATENCY_PER_S, LATENCY_SKIPPED_S, LATENCY_S = 20_000, 10, 30
"""For its latency: events a second, for how long; the seconds before do not count, as Spark warms up."""
_GIVE_UP_S = 300.0

_LATENCIES = """
WITH commits(landing, visible_at) AS (SELECT unnest($landings), make_timestamp_ms(unnest($times))),
  first AS (SELECT min(kafka_timestamp) AS at FROM {table}),
  latencies AS (
    SELECT kafka_timestamp AS sent_at, epoch_ms(visible_at) - epoch_ms(kafka_timestamp) AS latency_ms
    FROM {table} JOIN commits USING (landing), first
    WHERE kafka_timestamp >= first.at + to_seconds({warm_up}))
SELECT count(*), count(*) / greatest(epoch(max(sent_at) - min(sent_at)), 1e-3),
  quantile_cont(latency_ms, 0.5), quantile_cont(latency_ms, 0.99), max(latency_ms)
FROM latencies
"""


@dataclass(frozen=True)
class Cost:
    """What one way used."""

    cpu_s: float
    """From the first record of the load until it had caught up with the last."""
    quiet_since: datetime
    quiet_s: float
    """When the quiet minutes began and how long they were, with next to nothing to do; what follows is theirs."""
    cores: float


class Way(Protocol):
    """One job that streams a topic."""

    name: str
    """Of its topic, and of its pipeline."""
    title: str

    def running(self) -> Iterator[Serving]:
        """The job, from its start to its end; a context manager."""

    def caught_up(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before these offsets is committed."""

    def check(self, sent: Sequence[Path]) -> str:
        """After the end: whether it did its work; a word on it, or a BenchFailure."""


def prepare(folder: Path, events: int) -> dict[str, Path]:
    """Write the records of all three phases, in the order of sending: one run of event time, as if of one source."""
    counts = {"warm_up": WARM_UP_S * TRICKLE_PER_S, "load": events, "quiet": IDLE_S * TRICKLE_PER_S}
    step_us, first = data.TWO_DAYS_US // sum(counts.values()), 0
    parts: dict[str, Path] = {}
    for name, count in counts.items():
        parts[name] = folder / f"live_{name}.jsonl"
        data.write(parts[name], count, first, step_us)
        first += count
    return parts


def measure(settings: Settings, way: Way, phases: Mapping[str, Path], events: int) -> tuple[Cost, list[Figure]]:
    """One way through all phases; `events` is how many the load has."""
    kafka.ensure(settings, load_pipeline(settings, way.name))
    with contextmanager(way.running)() as job:
        _say(way, f"runs; {WARM_UP_S} s of {TRICKLE_PER_S} events/s")
        measured(_produce(way, phases["warm_up"], TRICKLE_PER_S), settings.environment())
        _catch_up(settings, way, job)
        _say(way, f"{events:,} events at {LOAD_PER_S:,}/s")
        began, before = time.monotonic(), job.cpu_s()
        measured(_produce(way, phases["load"], LOAD_PER_S), settings.environment())
        _catch_up(settings, way, job)
        wall_s, cpu_s = time.monotonic() - began, job.cpu_s() - before
        _say(way, f"{cpu_s:.1f} CPU-seconds in {wall_s:.0f} s; {IDLE_S} s of a trickle")
        cost = Cost(cpu_s, *_quiet(settings, way, job, phases["quiet"]))
    per_million = f"{cpu_s / events * 1e6:.1f} CPU-s per million"
    note = f"{per_million}; {way.check(list(phases.values()))}"
    trickle = f"{way.title}, {TRICKLE_PER_S} events/s"
    return cost, [
        Figure.of(way.title, events, wall_s, cpu_s, note=note),
        Figure(trickle, cost.quiet_s, cost.cores * cost.quiet_s, ratio=cost.cores, note="cores used"),
    ]


def bounds(cost: Cost, events: int, lake: Lake) -> Iterator[Figure]:
    """What ingest alone has to keep."""
    yield Figure("ingest alone, CPU-s per million", ratio=cost.cpu_s / events * 1e6, bound=f"<= {LANDING_CPU_S}")
    yield Figure("ingest alone, cores at a trickle", ratio=cost.cores, bound=f"<= {TRICKLE_CORES}")
    ended = cost.quiet_since + timedelta(seconds=cost.quiet_s)
    commits = [one for one in lake.history(tables.STREAM_LOG).ancestors() if cost.quiet_since <= one.at <= ended]
    files = sum(int(one.summary.get("added-data-files", 0)) for one in commits)
    note = f"{files} in {len(commits)} commits"
    yield Figure("data files a day", ratio=files * DAY_S / cost.quiet_s, bound=f"<= {FILES_A_DAY}", note=note)


def _quiet(settings: Settings, way: Way, job: Serving, records: Path) -> tuple[datetime, float, float]:
    """The last fields of `Cost`."""
    already, said = _ends(settings, way), settings.home / f"{way.name}-trickle.log"
    with serving(_produce(way, records, TRICKLE_PER_S), said, settings.environment()) as producer:
        until(lambda: _ends(settings, way) != already, f"{way.title}: the trickle", _GIVE_UP_S)
        time.sleep(IDLE_SKIPPED_S)
        at, since, before = datetime.now(UTC), time.monotonic(), job.cpu_s()
        time.sleep(IDLE_S - IDLE_SKIPPED_S)
        seconds = time.monotonic() - since
        cores = (job.cpu_s() - before) / seconds
        # Its clock is not quite ours.
        until(lambda: producer.ended, f"{way.title}: the end of the trickle", _GIVE_UP_S)
    _catch_up(settings, way, job)
    _say(way, f"{cores:.3f} cores")
    return at, seconds, cores


def _catch_up(settings: Settings, way: Way, job: Serving) -> None:
    """Wait until everything that is in the topic now is committed."""
    ends = _ends(settings, way)
    job.until(lambda: way.caught_up(ends), f"{way.title}: the end of its topic", _GIVE_UP_S)


def _ends(settings: Settings, way: Way) -> dict[int, int]:
    state = kafka.describe(settings, way.name)
    assert state is not None
    return state.ends


def _produce(way: Way, records: Path, rate: int) -> list[str]:
    return [*TWOFOLD, "produce", way.name, "--from", str(records), "--rate", str(rate)]


def _say(way: Way, what: str) -> None:
    click.echo(f"live: {way.title}: {what}", err=True)


class Twofold:
    """`twofold stream` of a pipeline."""

    def __init__(self, settings: Settings, name: str, title: str) -> None:
        self.name, self.title, self._settings = name, title, settings
        self.lake = Lake(settings, load_pipeline(settings, name))
        self._views = [tables.stream_view_name(view) for view in self.lake.pipeline.views.values()]

    def running(self) -> Iterator[Serving]:
        """Up and running once it has announced itself."""
        home = self._settings.home
        place, said = health.place_of(home, self.name, STREAM), home / f"{self.name}.log"
        with serving([*TWOFOLD, "stream", self.name], said, self._settings.environment()) as job:
            job.until(place.exists, f"{self.title}: the streaming job", _GIVE_UP_S)
            yield job

    def caught_up(self, ends: Mapping[int, int]) -> bool:
        """The log first; only then each view, which has read it up to a snapshot."""
        log = self.lake.history(tables.STREAM_LOG)
        return self._holds(log, ends) and all(self._holds(self._read_by(view, log), ends) for view in self._views)

    def _holds(self, log: History, ends: Mapping[int, int]) -> bool:
        held = table_state.landed(log, self.name).offsets
        return all(held.get(partition, 0) >= end for partition, end in ends.items())

    def _read_by(self, view: str, log: History) -> History:
        folded = table_state.folded(self.lake.history(view))
        return History(log.snapshots, folded.snapshot if folded else None)

    def check(self, sent: Sequence[Path]) -> str:
        """Every record once, by the log's own count."""
        rows = sum(1 for path in sent for _ in path.open("rb"))
        history = self.lake.history(tables.STREAM_LOG)
        held = history.snapshots[history.head].rows if history.head is not None else 0
        if held != rows:
            raise BenchFailure(f"{self.title}: {held:,} of {rows:,} records in stream_log")
        return f"{held:,} records in stream_log"


def latency(settings: Settings, name: str) -> list[Figure]:
    """From Kafka to the unified events, without polling: a record is visible from the commit of its landing on.

    So its latency is that snapshot's time less Kafka's time stamp.
    """
    way = Twofold(settings, name, "latency")
    with contextmanager(way.running)() as job:
        count = str(LATENCY_PER_S * (LATENCY_SKIPPED_S + LATENCY_S))
        made = [*TWOFOLD, "produce", name, "--generate", count, "--rate", str(LATENCY_PER_S)]
        measured(made, settings.environment())
        _catch_up(settings, way, job)
    pipeline, history = way.lake.pipeline, way.lake.history(tables.STREAM_LOG)
    visible_at = {
        table_state.landed(History(history.snapshots, one.id), name).landing: one.timestamp_ms
        for one in history.ancestors()
        if Landed.KEY in one.summary
    }
    parameters = {"landings": list(visible_at), "times": list(visible_at.values())}
    with Reader(settings, {name: pipeline}) as reader:
        pinned = reader.pinned(pipeline, tables.STREAM_LOG)
        query = _LATENCIES.format(table=reader.read(pinned, pinned.all_files), warm_up=LATENCY_SKIPPED_S)
        [(events, per_s, p50, p99, longest)] = reader.connection.execute(query, parameters).fetchall()
    note = f"p50 {p50:,.0f} ms, p99 {p99:,.0f} ms, longest {longest:,.0f} ms; asked {LATENCY_PER_S:,}/s"
    return [Figure(f"{events:,} events", events_per_s=per_s, note=note)]
