"""A day of small commits in a few minutes: does a commit, or the opening of the table, get slower as the table ages?

    17,280 × (a file of 50 rows ─► commit)      every 360th: housekeeping, in a thread beside, as in a streaming job
         the first thousand ... the last thousand: time of a commit; ten times in each: a session opened and asked

An hour of commits is kept, as in a day at a trigger of 5 s: by their number, as the clock is not a day's.
"""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from benchmarks.failures import NotThere
from benchmarks.written import Written, metadata_folder
from twofold import boundary, catalog, commits, ensure, tables
from twofold.boundary import Landed
from twofold.data_files import Place, Writer
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.reader import Reader
from twofold.settings import Settings

A_DAY = 17_280
TIDIED_EVERY = 360
"""Half an hour of commits, as `spark_jobs.housekeeping` waits."""
KEPT = 720
"""An hour of them."""
_COMPARED = 1000
_ROWS = 50
_LOOK_EVERY = 10
"""Iceberg keeps the last 20 metadata files."""
_OPENED = 10
_PARTITIONS = 4
_SAY_EVERY = 1000
_GIVE_UP_S = 3600.0
_ATTEMPTS = 20
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Aged:
    """Seconds, in the first part of the day and in its last."""

    commits: int
    wall_s: float
    first_commit_s: float
    last_commit_s: float
    first_open_s: float
    last_open_s: float
    metadata_bytes: int
    tidied: int
    """How often housekeeping was done."""

    @property
    def metadata_a_day(self) -> float:
        """As if the rest of a day were like what was measured."""
        return self.metadata_bytes / self.commits * A_DAY


def measure(settings: Settings, name: str, count: int = A_DAY) -> Aged:
    """Commit `count` times to a stream_log of its own."""
    pipeline = load_pipeline(settings, name)
    day = _Day(settings, pipeline, ensure.ensure(catalog.load(settings), pipeline)[tables.STREAM_LOG])
    compared = min(_COMPARED, count // 2)
    times, opened, began = [], [], time.monotonic()
    looks = max(1, compared // _OPENED)
    for number in range(count):
        times.append(day.commit(number))
        in_the_first, in_the_last = number < compared, number >= count - compared
        if (in_the_first or in_the_last) and number % looks == looks - 1:
            opened.append((in_the_first, _open_s(settings, pipeline)))
        if number % _SAY_EVERY == _SAY_EVERY - 1:
            click.echo(f"commits: {number + 1:,} of {count:,}; {times[-1] * 1000:.0f} ms each", err=True)
        if time.monotonic() - began > _GIVE_UP_S:
            raise NotThere(f"only {number + 1:,} of {count:,} commits were made in {_GIVE_UP_S:.0f} s")
    day.end()
    return Aged(
        count,
        time.monotonic() - began,
        statistics.median(times[:compared]),
        statistics.median(times[-compared:]),
        statistics.median(seconds for first, seconds in opened if first),
        statistics.median(seconds for first, seconds in opened if not first),
        day.metadata.bytes,
        day.tidied,
    )


class _Day:
    """The job that commits, and its housekeeping."""

    def __init__(self, settings: Settings, pipeline: Pipeline, table: Table) -> None:
        self._settings, self._pipeline, self._table = settings, pipeline, table
        self._place = Place.of(table)
        self._beside = threading.Thread()
        self.metadata = Written(metadata_folder(table.location()))
        self.tidied = 0

    def commit(self, number: int) -> float:
        """One commit; returns its seconds, without the data file's. Where housekeeping was first, it is done again."""
        writer = Writer(self._place)
        writer.write(_rows(number, self._place.arrow))
        files = writer.close()
        state = Landed(self._pipeline.name, number + 1, offsets=_ends(number), topic_id="bench")
        began = time.perf_counter()
        for _ in range(_ATTEMPTS):
            try:
                self._table = commits.append(self._table, files, boundary.encode(state))
                break
            except CommitFailedException:
                self._table = self._table.catalog.load_table(self._table.name())
        else:
            raise NotThere(f"commit {number + 1:,} was refused {_ATTEMPTS} times")
        took = time.perf_counter() - began
        if number % _LOOK_EVERY == 0:
            self.metadata.look()
        if number % TIDIED_EVERY == TIDIED_EVERY - 1 and not self._beside.is_alive():
            self._beside = threading.Thread(target=self._tidy, name="housekeeping")
            self._beside.start()
        return took

    def end(self) -> None:
        """Wait for the housekeeping."""
        if self._beside.ident:
            self._beside.join()
        self.metadata.look()

    def _tidy(self) -> None:
        """What the streaming job's housekeeping does to stream_log, with the retention as a number of snapshots."""
        for _ in range(_ATTEMPTS):
            table = catalog.load(self._settings).load_table(self._table.name())
            chain = [snapshot.id for snapshot in catalog.history(table).ancestors()]
            with suppress(CommitFailedException):
                commits.tidy(table, chain[KEPT:])
                self.tidied += 1
                return


def _rows(number: int, schema: pa.Schema) -> pa.RecordBatch:
    """What 50 accepted events leave in stream_log; its other columns are null."""
    ids = range(number * _ROWS, (number + 1) * _ROWS)
    at = _BEGIN + timedelta(seconds=5 * number)
    held = {
        "event_id": [f"event-{n:012d}" for n in ids],
        "origin": ["EWR"] * _ROWS,
        "scheduled_at": [at] * _ROWS,
        "outcome": [tables.ACCEPTED] * _ROWS,
        "kafka_partition": [n % _PARTITIONS for n in ids],
        "kafka_offset": [n // _PARTITIONS for n in ids],
        "kafka_timestamp": [at] * _ROWS,
        "landing": [number + 1] * _ROWS,
    }
    return pa.RecordBatch.from_pydict(held, schema=pa.schema(field for field in schema if field.name in held))


def _ends(number: int) -> dict[int, int]:
    sent = (number + 1) * _ROWS
    return {partition: -(-(sent - partition) // _PARTITIONS) for partition in range(_PARTITIONS)}


def _open_s(settings: Settings, pipeline: Pipeline) -> float:
    """A session of its own: the catalog asked, the snapshots read, the files planned, one row of the log's end."""
    began = time.perf_counter()
    with Reader(settings, {pipeline.name: pipeline}) as reader:
        reader.query("SELECT count(*) FROM stream_log WHERE false", pipeline.name).fetchall()
    return time.perf_counter() - began
