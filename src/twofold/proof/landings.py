"""I4 for the batch layer: batch_log holds each landed file's records, each once, and nothing else."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from twofold import boundary, inbox, tables
from twofold.proof.report import MOST_OFFENDERS, Findings, counted
from twofold.proof.world import World

Bytes = IO[bytes] | gzip.GzipFile


@dataclass(frozen=True)
class Taken:
    """One version of a file that a landing took, and its rows in batch_log."""

    landing: int
    file: str
    rows: int
    version: str
    sha256: str
    logged: int
    distinct: int
    first: int | None

    @property
    def whole(self) -> bool:
        """Whether batch_log has as many rows as were landed, each by a number of its own, counted from 1."""
        return self.rows == self.logged == self.distinct and (self.first or 1) >= 1

    def __str__(self) -> str:
        return f"{self.file} (landing {self.landing})"


class Irregular(Exception):
    """A file whose records different readers count differently."""


def compare(world: World, found: Findings) -> None:
    """Landed files against batch_log, and against the files that still lie there unchanged."""
    _register_landed(world)
    taken = _taken(world)
    wrong = [file for file in taken if not file.whole]
    if wrong:
        named = [f"{file}: {file.rows:,} landed, {file.logged:,} logged, {file.distinct:,} different" for file in wrong]
        found.violated(f"{counted(len(wrong), 'file')} not whole in batch_log", named[:MOST_OFFENDERS])
    _strangers(world, found)
    _twice(world, found)
    rows = sum(file.rows for file in taken)
    found.numbers |= {"files": len(taken), "file_rows": rows, "batch_log": _logged(world)}
    found.say(f"{counted(len(taken), 'landed file')}, {counted(rows, 'row')} = {_logged(world):,} in batch_log")
    _recount(world, taken, found)


def _logged(world: World) -> int:
    return world.number(f"SELECT count(*) FROM {tables.BATCH_LOG}")


def _register_landed(world: World) -> None:
    """`landed`: landed_files up to the pinned batch_log's last landing; and that landing's files, if not yet there."""
    state = boundary.landed(world.pins[tables.BATCH_LOG].history, world.pipeline.name)
    world.connection.execute(
        f"""CREATE TEMP TABLE landed AS SELECT landing, file, "rows", version, sha256, reason
            FROM {tables.LANDED_FILES} WHERE landing <= {state.landing}"""
    )
    for file in state.files:
        values = {name: file.get(name) for name in ("landing", "file", "rows", "version", "sha256", "reason")}
        world.connection.execute(
            """INSERT INTO landed SELECT $landing, $file, $rows, $version, $sha256, $reason
               WHERE NOT EXISTS (SELECT 1 FROM landed WHERE landing = $landing AND file = $file)""",
            values,
        )


def _taken(world: World) -> list[Taken]:
    rows = world.rows(
        f"""WITH logged AS (SELECT landing, file, count(*) AS logged, count(DISTINCT "row") AS different,
                              min("row") AS first FROM {tables.BATCH_LOG} GROUP BY landing, file)
            SELECT t.landing, t.file, t."rows", t.version, t.sha256, coalesce(logged, 0), coalesce(different, 0), first
            FROM landed AS t LEFT JOIN logged AS l ON l.landing = t.landing AND l.file = t.file
            WHERE t.reason IS NULL ORDER BY t.landing, t.file"""
    )
    return [Taken(*row) for row in rows]


def _strangers(world: World, found: Findings) -> None:
    """Rows of batch_log that no landing speaks of."""
    rows = world.rows(
        f"""SELECT landing, file, min("row"), count(*) FROM {tables.BATCH_LOG}
            ANTI JOIN (FROM landed WHERE reason IS NULL) USING (landing, file)
            GROUP BY ALL ORDER BY ALL LIMIT {MOST_OFFENDERS}"""
    )
    if rows:
        found.violated(
            "batch_log has rows that no landing took",
            [f"{file}:{first} (landing {number}): {counted(count, 'row')}" for number, file, first, count in rows],
        )


def _twice(world: World, found: Findings) -> None:
    """The same content of a file in two landings, one right after the other: it did not change in between."""
    rows = world.rows(
        f"""SELECT file, landing, before FROM (
              SELECT file, landing, sha256, lag(landing) OVER w AS before, lag(sha256) OVER w AS sha256_before
              FROM landed WINDOW w AS (PARTITION BY file ORDER BY landing))
            WHERE sha256 = sha256_before AND sha256 <> '' ORDER BY ALL LIMIT {MOST_OFFENDERS}"""
    )
    if rows:
        named = [f"{file}: landings {before} and {number}" for file, number, before in rows]
        found.violated("files were landed twice", named)


def _recount(world: World, taken: list[Taken], found: Findings) -> None:
    """Count the records of files that still lie there as they were landed, without Spark."""
    folder = inbox.folder(world.settings, world.pipeline.name)
    newest = {file.file: file for file in taken}
    present = {file.name: file for file in folder.files()}
    counts = dict.fromkeys(("recounted", "changed_or_gone", "irregular"), 0)
    for name, file in newest.items():
        if name not in present or not _unchanged(folder, file, present[name]):
            counts["changed_or_gone"] += 1
            continue
        try:
            number = records(folder, name)
        except Irregular:
            counts["irregular"] += 1
            continue
        counts["recounted"] += 1
        if number != file.rows:
            found.violated("a landed file has another number of records", [f"{file}: {file.rows:,}, it has {number:,}"])
    found.numbers |= {f"files_{name}": number for name, number in counts.items()}
    found.say(f"{counted(counts['recounted'], 'file')} recounted")


def _unchanged(folder: inbox.Folder, file: Taken, present: inbox.File) -> bool:
    if file.version == present.version:
        return True
    with folder.open(file.file) as stream:
        return inbox.sha256(stream) == file.sha256


def records(folder: inbox.Folder, name: str) -> int:
    """The number of records in a file; Irregular where that depends on who reads it."""
    declared = inbox.format_of(name)
    with folder.open(name) as stream:
        if declared is None:
            raise Irregular(name)
        if declared.kind == "parquet":
            with pq.ParquetFile(pa.PythonFile(stream, mode="r")) as parquet:
                return int(parquet.metadata.num_rows)
        count = json_lines if declared.kind == "json" else csv_rows
        if not declared.gzipped:
            return count(stream)
        with gzip.GzipFile(fileobj=stream) as plain:
            return count(plain)


def json_lines(stream: Bytes) -> int:
    r"""Lines that are not blank.

    >>> json_lines(io.BytesIO(b'{"a": 1}\r\n\r\n  \n{"a": 2}'))
    2
    """
    return sum(1 for line in stream if line.strip(b" \t\r\n"))


def csv_rows(stream: Bytes) -> int:
    r"""Records below the header; a quoted cell may hold line ends.

    >>> csv_rows(io.BytesIO(b'a,b\r\n1,"x\r\ny"\r\n\r\n2,z'))
    2
    """
    try:
        return max(0, sum(1 for row in csv.reader(_unended(stream), strict=True) if row) - 1)
    except csv.Error as error:
        raise Irregular(str(error)) from None


def _unended(stream: Bytes) -> Iterator[str]:
    """Lines without their end; a carriage return elsewhere ends a line for some readers and not for others."""
    for line in io.TextIOWrapper(cast(IO[bytes], stream), encoding="latin-1", newline="\n"):
        text = line.removesuffix("\n").removesuffix("\r")
        if "\r" in text:
            raise Irregular("a carriage return within a line")
        yield text
