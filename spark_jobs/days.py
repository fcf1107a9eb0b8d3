"""Rows by day, in DuckDB: each part of some days is one query over data files, written sorted; nothing is committed.

parts (a query, the files it reads) ─► few rows: one after the other, in this process ─┐
                                    └► many: a task of Spark each ─────────────────────┴─► data files
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from typing import NamedTuple

from duckdb import DuckDBPyConnection
from pyiceberg.manifest import DataFile
from pyiceberg.types import NestedField

from spark_jobs.spark_session import Job
from spark_jobs.tasks import RESULT, Batches, result, results
from twofold.reader import engine
from twofold.reader.pinned import Pinned, columns_of, duckdb_type
from twofold.settings import Settings
from twofold.table_files import Place, Writer

PART_ROWS = 2_000_000
"""Days of fewer rows are read together."""
SPREAD_ROWS = 8_000_000
"""Up to this many rows no task of Spark is started: its workers' start alone takes as long as a million of them."""
_MEMORY = "512MiB"
_FETCHED = 16_384


@dataclass(frozen=True)
class Scratch:
    """A DuckDB connection for some queries over data files."""

    connection: DuckDBPyConnection
    _numbers: count[int] = field(default_factory=count)

    def read(self, pinned: Pinned, files: tuple[DataFile, ...]) -> str:
        """A relation of some files of a pinned table."""
        name = f"_tw_s{next(self._numbers)}"
        self.show(name, pinned.columns, dict(pinned.table.io.properties) if pinned.table else {}, files)
        return name

    def show(self, name: str, fields: Sequence[NestedField], io: Mapping[str, str], files: Sequence[DataFile]) -> None:
        """Make a relation of some files."""
        query = engine.query_of(self.connection, f"{name}_remote", fields, io, files)
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")

    def number(self, query: str) -> int:
        """The one number that a query gives."""
        return int(self.connection.execute(query).fetchall()[0][0])

    def write(self, place: Place, query: str, order: str) -> list[DataFile]:
        """The rows of a query, sorted so that they come day by day, with the types of the table that they are for."""
        typed = ", ".join(
            f'CAST("{one.name}" AS {duckdb_type(one)}) AS "{one.name}"' for one in columns_of(place.schema, None)
        )
        rows = self.connection.sql(f"SELECT {typed} FROM ({query}) AS _tw_rows ORDER BY {order}")
        with Writer(place) as writer:
            writer.write_sorted(rows.to_arrow_reader(_FETCHED))
            return writer.close()


@contextmanager
def scratch(settings: Settings, threads: int | None = None) -> Iterator[Scratch]:
    """A connection that spills beside the stack's home."""
    with engine.scratch(settings) as folder, engine.plain(folder, _MEMORY, threads) as connection:
        yield Scratch(connection)


class DaysQuery(NamedTuple):
    """Some days of a table: the query of their rows, in DuckDB's dialect, and the files of the relations it names."""

    query: str
    sources: Mapping[str, Sequence[DataFile]]


def is_spread(parts: int, rows: int) -> bool:
    """Whether tasks of Spark are worth their start for that many parts and rows."""
    return parts > 1 and rows > SPREAD_ROWS


def write(
    job: Job, duck: Scratch, place: Place, order: str, columns: tuple[NestedField, ...], parts: Sequence[DaysQuery]
) -> list[DataFile]:
    """Write all parts, in this process or in tasks; `columns` are those of the relations."""
    rows = sum(file.record_count for part in parts for files in part.sources.values() for file in files)
    task = WriteDays(place, order, columns, parts, job.settings)
    if not is_spread(len(parts), rows):
        return [file for part in parts for file in task.written(duck, part)]
    frame = job.spark.range(0, len(parts), 1, len(parts)).mapInArrow(task, RESULT)
    return [file for files in results(frame) for file in files]


@dataclass(frozen=True)
class WriteDays:
    """Writes parts, here or in tasks."""

    place: Place
    order: str
    columns: tuple[NestedField, ...]
    parts: Sequence[DaysQuery]
    settings: Settings

    def __call__(self, batches: Batches) -> Iterator[object]:
        """One task: the numbers of its parts come in."""
        files: list[DataFile] = []
        with scratch(self.settings, threads=1) as duck:
            for batch in batches:
                for number in batch["id"].to_pylist():
                    files += self.written(duck, self.parts[number])
        yield result(files)

    def written(self, duck: Scratch, part: DaysQuery) -> list[DataFile]:
        """The new files of a part."""
        for name, files in part.sources.items():
            duck.show(name, self.columns, self.place.io_properties, files)
        return duck.write(self.place, part.query, self.order)


def grouped(rows: Mapping[date, int], near: Iterable[tuple[date, Collection[date]]] | None = None) -> list[list[date]]:
    """Days in order, those of few rows together.

    With `near`, in order: each with the days whose rows it reads. Then a row counts once for all days of a group, those
    that read mostly the same rows are together, and those that have none to read are left out.

    >>> a, b, c = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
    >>> grouped({b: PART_ROWS, a: 1, c: 1}) == [[a], [b], [c]]
    True
    >>> grouped({c: 9 * PART_ROWS}, [(a, [a, b]), (b, [b, c]), (c, [c])]) == [[b, c]]
    True
    """
    groups: list[list[date]] = []
    read: set[date] = set()
    size = 0
    for day, its in near if near is not None else ((day, (day,)) for day in sorted(rows)):
        there = rows.keys() & its
        alone, fresh = (sum(rows[one] for one in some) for some in (there, there - read))
        if near is not None and not there:
            continue
        most = max(PART_ROWS, 2 * alone) if 2 * fresh <= alone else PART_ROWS
        if not groups or size + fresh > most:
            groups.append([])
            read, size, fresh = set(), 0, alone
        read |= there
        size += fresh
        groups[-1].append(day)
    return groups
