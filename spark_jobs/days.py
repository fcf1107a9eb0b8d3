"""Rows by day, in DuckDB: each part of some days is one query over data files, written sorted; nothing is committed.

parts (a query, the files it reads) ─► few rows: one after the other, in this process ─┐
                                    └► many: a task of Spark each ─────────────────────┴─► data files
"""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from duckdb import DuckDBPyConnection
from pyiceberg.manifest import DataFile
from pyspark.sql import SparkSession

from spark_jobs.tasks import RESULT, Batches, result, results
from twofold.data_files import Place, Writer
from twofold.reader import engine
from twofold.reader.pinned import Column, Pinned, columns_of
from twofold.settings import Settings

PART_ROWS = 2_000_000
"""Days of fewer rows are read together."""
SPREAD_ROWS = 8_000_000
"""Up to so many rows no task of Spark is started: its workers' start alone takes as long as a million of them."""
_MEMORY = "512MiB"
_FETCHED = 16_384
_LEFT_S = 86_400.0
"""What a killed job spilled is removed after so long."""


class Scratch:
    """A DuckDB connection that spills beside the stack's home, not into memory that /tmp may be.

    A cluster's worker has no such home, but a folder for each executor, in which it runs.
    """

    def __init__(self, settings: Settings, threads: int | None = None) -> None:
        root = (settings.home if os.access(settings.home, os.W_OK) else Path.cwd()) / "scratch"
        root.mkdir(exist_ok=True)
        for left in root.iterdir():
            if time.time() - left.stat().st_mtime > _LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
        self._folder = Path(tempfile.mkdtemp(dir=root))
        self.connection: DuckDBPyConnection = engine.plain(self._folder, _MEMORY, threads)
        self._relations = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def read(self, pinned: Pinned, files: tuple[DataFile, ...]) -> str:
        """A relation of some files of a pinned table."""
        self._relations += 1
        name = f"_tw_s{self._relations}"
        self.show(name, pinned.columns, dict(pinned.table.io.properties) if pinned.table else {}, files)
        return name

    def show(self, name: str, fields: Sequence[Column], io: Mapping[str, str], files: Sequence[DataFile]) -> None:
        """Make a relation of some files."""
        query = engine.query_of(self.connection, f"{name}_remote", fields, io, files)
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")

    def number(self, query: str) -> int:
        """The one number that a query gives."""
        return int(self.connection.execute(query).fetchall()[0][0])

    def write(self, place: Place, query: str, order: str) -> list[DataFile]:
        """The rows of a query, sorted so that they come day by day, with the types of the table that they are for."""
        typed = ", ".join(
            f'CAST("{one.name}" AS {one.duckdb}) AS "{one.name}"' for one in columns_of(place.schema, None)
        )
        rows = self.connection.sql(f"SELECT {typed} FROM ({query}) AS _tw_rows ORDER BY {order}")
        with Writer(place) as writer:
            writer.write_sorted(rows.to_arrow_reader(_FETCHED))
            return writer.close()


class From(NamedTuple):
    """A relation of a part's query."""

    columns: tuple[Column, ...]
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class Part:
    """Some days of a table: the query of their rows, in DuckDB's dialect, and the relations that it names."""

    query: str
    sources: Mapping[str, From]

    @property
    def rows(self) -> int:
        """How many rows it reads."""
        return sum(file.record_count for one in self.sources.values() for file in one.files)


@dataclass(frozen=True)
class ByDay:
    """The tasks that write parts."""

    kit: bytes
    settings: Settings

    @classmethod
    def of(cls, settings: Settings, place: Place, order: str, parts: Sequence[Part]) -> Self:
        """What does not change from task to task is sent once."""
        return cls(pickle.dumps((place, order, parts)), settings)

    def run(self, spark: SparkSession, tasks: int) -> list[DataFile]:
        """Run a task per part."""
        frame = spark.range(0, tasks, 1, tasks).mapInArrow(self, RESULT)
        return [file for files in results(frame) for file in files]

    def __call__(self, batches: Batches) -> Iterator[object]:
        """One task: the numbers of its parts come in."""
        place, order, parts = pickle.loads(self.kit)
        files: list[DataFile] = []
        with Scratch(self.settings, threads=1) as duck:
            for batch in batches:
                for number in batch["id"].to_pylist():
                    files += _written(duck, place, order, parts[number])
        yield result(files)


def write(
    spark: SparkSession, settings: Settings, duck: Scratch, place: Place, order: str, parts: Sequence[Part]
) -> list[DataFile]:
    """Write all parts, in this process or in tasks."""
    if len(parts) > 1 and sum(part.rows for part in parts) > SPREAD_ROWS:
        return ByDay.of(settings, place, order, parts).run(spark, len(parts))
    return [file for part in parts for file in _written(duck, place, order, part)]


def _written(duck: Scratch, place: Place, order: str, part: Part) -> list[DataFile]:
    for name, one in part.sources.items():
        duck.show(name, one.columns, place.io_properties, one.files)
    return duck.write(place, part.query, order)


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
