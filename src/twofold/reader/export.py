"""The unified events as plain Parquet, for those who read files and not tables."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from duckdb import DuckDBPyRelation

from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.reader import engine, names
from twofold.reader.rendering import quoted
from twofold.reader.session import Reader

_POLL_S = 0.2


class Progress(Protocol):
    """Told now and then how far the export is, in percent."""

    def __call__(self, percent: float) -> None:
        """Show it."""


def day_column(pipeline: Pipeline) -> str:
    """Name of the folders' column, the day of the event time in UTC: `<time>_day`, or `<time>_day_` beside such."""
    name = f"{pipeline.event.time}_day"
    while name in pipeline.event.fields:
        name += "_"
    return name


def export(reader: Reader, pipeline: Pipeline, folder: Path, *, single: bool, progress: Progress) -> int:
    """Write all unified events below `folder`, by day, or sorted as one file; returns the number of rows."""
    time, key = quoted(pipeline.event.time), quoted(pipeline.event.id)
    order = f" ORDER BY {time}, {key}" if single else ""
    day = "" if single else f", CAST({time} AS DATE) AS {quoted(day_column(pipeline))}"
    rows = reader.query(f"SELECT *{day} FROM {names.UNIFIED_EVENTS}{order}", pipeline.name)
    with engine.errors():
        unified = names.qualified(pipeline, names.UNIFIED_EVENTS)
        counted = reader.connection.sql(f"SELECT count(*) FROM {unified}").fetchall()
        count = int(counted[0][0])
        with ThreadPoolExecutor(1) as writer:
            # No event, no day, no folder: an empty file at least tells the columns.
            by_day = not single and count > 0
            written = writer.submit(_write, rows, folder, day_column(pipeline) if by_day else None)
            while not wait([written], _POLL_S).done:
                progress(max(0.0, reader.connection.query_progress()))
            written.result()
    return count


def _write(rows: DuckDBPyRelation, folder: Path, day: str | None) -> None:
    if day is None:
        rows.write_parquet(str(folder / "events.parquet"), compression="zstd")
    else:
        rows.write_parquet(str(folder), compression="zstd", partition_by=[day], overwrite=True)


@contextmanager
def whole_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder beside `target` to write to; it takes the name `target` at the end, unless something fails."""
    if target.exists() and not target.is_dir():
        raise TwofoldError(f"{target} is a file", "name a folder")
    if target.exists() and any(target.iterdir()) and not overwrite:
        raise TwofoldError(f"{target} is not empty", "name another folder, or replace its contents with --overwrite")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        part = Path(scratch) / "new"
        part.mkdir()
        yield part
        if target.exists():
            target.rename(Path(scratch) / "old")
        part.rename(target)


def size_bytes(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
