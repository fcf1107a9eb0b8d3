"""A query's rows in the form that was asked for, whole or not at all.

table    for reading; the first rows only, a note tells of the rest
json     an array of objects, one a line
csv      with a header
parquet  types as they are
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from duckdb import DuckDBPyRelation
from rich import box
from rich.console import Console
from rich.table import Table

from twofold.errors import TwofoldError
from twofold.reader import engine, rendering

SHOWN_ROWS = 1000
_BATCH_ROWS = 10_000
_NUMBERS = ("tinyint", "smallint", "integer", "bigint", "hugeint", "decimal", "double", "float")


def write_table(relation: DuckDBPyRelation, path: Path) -> int:
    """Write the first rows for a person; returns how many rows of the result are left out (at least: 1 for more)."""
    kinds = relation.types
    with engine.errors():
        texts = rendering.rendered(relation).limit(SHOWN_ROWS + 1)
        rows = texts.project(", ".join(f"CAST(#{place} AS VARCHAR)" for place in range(1, len(kinds) + 1))).fetchall()
    if texts.columns == ["explain_key", "explain_value"]:
        path.write_text("".join(f"{text}\n" for _, text in rows))
        return 0
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, kind in zip(texts.columns, kinds, strict=True):
        table.add_column(printable(name), justify="right" if kind.id in _NUMBERS else "left", no_wrap=True)
    for row in rows[:SHOWN_ROWS]:
        table.add_row(*("null" if value is None else printable(value) for value in row))
    with path.open("w") as file:
        Console(file=file, width=100_000, color_system=None, markup=False, emoji=False).print(table)
    lines = (line.rstrip() for line in path.read_text().splitlines())
    path.write_text("".join(f"{line}\n" for line in lines if line))
    return max(0, len(rows) - SHOWN_ROWS)


def printable(text: str) -> str:
    """Control characters as escapes: a value cannot move the cursor, nor break a row."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def write_json(relation: DuckDBPyRelation, path: Path) -> None:
    """An array of objects: decimals as exact numbers, moments ISO with Z, NaN and infinities null."""
    safe = rendering.rendered(relation, finite=True)
    packed = ", ".join(f"{rendering.quoted(name)} := {rendering.quoted(name)}" for name in safe.columns)
    with path.open("w") as file, engine.errors():
        before = "["
        for row in _stream(safe.project(f"CAST(to_json(struct_pack({packed})) AS VARCHAR) AS _tw_line")):
            file.write(f"{before}\n{row}")
            before = ","
        file.write("[]\n" if before == "[" else "\n]\n")


def _stream(relation: DuckDBPyRelation) -> Iterator[str]:
    for batch in relation.to_arrow_reader(_BATCH_ROWS):
        yield from batch.column(0).to_pylist()


def write_csv(relation: DuckDBPyRelation, path: Path) -> None:
    """Comma-separated with a header; a null is empty, an empty text quoted."""
    with engine.errors():
        rendering.rendered(relation).write_csv(str(path), header=True)


def write_parquet(relation: DuckDBPyRelation, path: Path) -> None:
    """One Parquet file."""
    with engine.errors():
        relation.write_parquet(str(path), compression="zstd")


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it takes the name `target` at the end, unless something fails."""
    if not target.parent.is_dir():
        raise TwofoldError(f"no folder {target.parent}", "create it, or name another file")
    if target.is_dir():
        raise TwofoldError(f"{target} is a folder", "name a file")
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def spooled(write: Callable[[Path], int | None], stream: BinaryIO) -> int | None:
    """Write to a temporary file first: a query that fails midway puts nothing on the stream."""
    with tempfile.TemporaryDirectory(prefix="twofold-") as folder:
        part = Path(folder) / "result"
        left_out = write(part)
        with part.open("rb") as file:
            shutil.copyfileobj(file, stream)
        stream.flush()
    return left_out
