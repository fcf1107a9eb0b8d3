"""A day of small commits in a few minutes: does a commit, or the opening of the table, get slower as the table ages?

    17,280 × (a file of 50 rows ─► commit)      after every 40th: the streaming job's tidying, before the next commit
         the first thousand ... the last thousand: time of a commit; ten times in each: a session opened and asked

An hour of commits is kept, as in a day at a trigger of 5 s: by their number, as the clock is not a day's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlparse

import click
import pyarrow as pa
from pyiceberg.table import Table

from benchmarks.measure import BenchFailure, Figure
from twofold import catalog, commits, schemas, table_state, tables
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.table_files import Place, Writer
from twofold.table_state import Landed

A_DAY = 17_280
CEILING = 1.3
"""What a table may get slower in a day."""
METADATA_GB = 2
"""What a table may write in a day, at a commit every 5 s."""
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
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def measure(settings: Settings, name: str, count: int) -> Iterator[Figure]:
    """Commit `count` times to a stream_log of its own."""
    pipeline = load_pipeline(settings, name)
    day = _Day(pipeline, schemas.ensure_tables(catalog.load(settings), pipeline)[tables.STREAM_LOG])
    compared = min(_COMPARED, count // 2)
    times, began = [], time.monotonic()
    opened: dict[bool, list[float]] = {True: [], False: []}
    looks = max(1, compared // _OPENED)
    for number in range(count):
        times.append(day.commit(number))
        day.tidy(number)
        in_the_first, in_the_last = number < compared, number >= count - compared
        if (in_the_first or in_the_last) and number % looks == looks - 1:
            opened[in_the_first].append(_open_s(settings, pipeline))
        if number % _SAY_EVERY == _SAY_EVERY - 1:
            click.echo(f"commits: {number + 1:,} of {count:,}; {times[-1] * 1000:.0f} ms each", err=True)
        if time.monotonic() - began > _GIVE_UP_S:
            raise BenchFailure(f"only {number + 1:,} of {count:,} commits were made in {_GIVE_UP_S:.0f} s")
    day.look()
    yield Figure(f"{count:,} commits", time.monotonic() - began)
    for what, first, last in (
        ("a commit", times[:compared], times[-compared:]),
        ("opening for a query", opened[True], opened[False]),
    ):
        before, after = statistics.median(first), statistics.median(last)
        note = f"{after * 1000:.1f} ms over {before * 1000:.1f} ms: the last thousand over the first"
        yield Figure(what, after, ratio=after / before, bound=f"<= {CEILING}", note=note)
    # As if the rest of a day were like what was measured.
    size = sum(day.metadata.values()) / count * A_DAY / 1e9
    yield Figure("GB of metadata a day", ratio=size, bound=f"< {METADATA_GB}", note="as written, one table")


class _Day:
    """The job that commits and tidies, as `spark_jobs.stream_log` does, without Spark."""

    def __init__(self, pipeline: Pipeline, table: Table) -> None:
        self._pipeline, self._table = pipeline, table
        self._place = Place.of(table)
        self._folder = Path(urlparse(table.location()).path) / "metadata"
        self.metadata: dict[str, int] = {}
        """Bytes of each file that was ever seen there: most are removed soon."""

    def commit(self, number: int) -> float:
        """One commit; returns its seconds, without the data file's."""
        writer = Writer(self._place)
        writer.write(_rows(number, self._place.arrow))
        files = writer.close()
        state = Landed(self._pipeline.name, number + 1, offsets=_ends(number), topic_id="bench")
        began = time.perf_counter()
        self._table = commits.append(self._table, files, table_state.encode(state))
        took = time.perf_counter() - began
        if number % _LOOK_EVERY == 0:
            self.look()
        return took

    def tidy(self, number: int) -> None:
        """What is due after this commit."""
        if (number + 1) % commits.MERGED_AT_ONCE == 0:
            chain = [snapshot.id for snapshot in table_state.history_of(self._table).ancestors()]
            self._table = commits.tidy(self._table, chain[KEPT:])

    def look(self) -> None:
        """Note the files of metadata; called more often than one lives."""
        self.metadata |= {path.name: path.stat().st_size for path in self._folder.iterdir()}


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
