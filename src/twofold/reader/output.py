"""A query's rows in the form that was asked for, and the unified events as files: whole or not at all.

table    for reading; the first rows only, a note says that there are more
json     an array of objects, one a line
csv      with a header
parquet  types as they are

As text nothing is lost: moments in ISO 8601, decimals digit by digit, bytes as UTF-8 or else escaped.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

from duckdb import DuckDBPyRelation
from duckdb.sqltypes import DuckDBPyType
from rich import box
from rich.console import Console
from rich.table import Table

from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError, writing_to
from twofold.reader import engine, statements
from twofold.reader.session import Reader
from twofold.text import printable, quoted

SHOWN_ROWS = 1000
_BATCH_ROWS = 10_000
_PROGRESS_POLL_S = 0.2
_NO_JSON = re.compile(r'"(?:[^"\\]|\\.)*"|-?(?:nan|inf(?:inity)?)|(?<!\d)\.(?=\d)', re.IGNORECASE)
"""A text of JSON; or what DuckDB writes for NaN and infinities; or the point of a decimal without a digit before it."""
_NUMBERS = ("tinyint", "smallint", "integer", "bigint", "hugeint", "decimal", "double", "float")


def write_table(relation: DuckDBPyRelation, path: Path) -> int:
    """Write the first rows for a person; returns how many rows of the result are left out (at least: 1 for more)."""
    kinds = relation.types
    with engine.errors():
        texts = rendered(relation).limit(SHOWN_ROWS + 1)
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


def write_json(relation: DuckDBPyRelation, path: Path) -> None:
    """An array of objects: decimals as exact numbers, moments ISO with Z, NaN and infinities null."""
    safe = rendered(relation, finite=True)
    packed = ", ".join(f"{quoted(name)} := {quoted(name)}" for name in safe.columns)
    with path.open("w") as file, engine.errors():
        before = "["
        lines = safe.project(f"CAST(to_json(struct_pack({packed})) AS VARCHAR) AS _tw_line")
        for row in chain.from_iterable(batch.column(0).to_pylist() for batch in lines.to_arrow_reader(_BATCH_ROWS)):
            file.write(f"{before}\n{_strict(row)}")
            before = ","
        file.write("[]\n" if before == "[" else "\n]\n")


def _strict(text: str) -> str:
    """JSON of DuckDB as JSON: of whatever type a value is, and however deep it lies.

    >>> _strict('{"NaN": [NaN, -Infinity, 1e5, -.5]}')
    '{"NaN": [null, null, 1e5, -0.5]}'
    """
    lower = text.lower()
    if not any(sign in lower for sign in ("nan", "inf", ":.", ",.", "[.", "-.")):
        return text  # as nearly every row, which is not looked at by character
    return _NO_JSON.sub(lambda one: one[0] if one[0][0] == '"' else "0." if one[0] == "." else "null", text)


def write_csv(relation: DuckDBPyRelation, path: Path) -> None:
    """Comma-separated with a header; a null is empty, an empty text quoted."""
    with engine.errors():
        rendered(relation).write_csv(str(path), header=True)


def write_parquet(relation: DuckDBPyRelation, path: Path) -> None:
    """One Parquet file."""
    with engine.errors():
        relation.write_parquet(str(path), compression="zstd")


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it takes the name `target` at the end, unless something fails."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    with writing_to(target):
        if not target.parent.is_dir():
            raise TwofoldError(f"no folder {target.parent}", "create it, or name another file")
        if target.is_dir():
            raise TwofoldError(f"{target} is a folder", "name a file")
        part.touch()
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def spooled(write: Callable[[Path], int | None], stream: BinaryIO) -> int | None:
    """Write to a temporary file first: a query that fails midway puts nothing on the stream."""
    with tempfile.TemporaryDirectory(prefix="twofold-") as folder:
        part = Path(folder) / "result"
        left_out = write(part)
        with part.open("rb") as file:
            shutil.copyfileobj(file, stream)
        stream.flush()
    return left_out


def _names(relation: DuckDBPyRelation) -> list[str]:
    """The columns' names, made unique where SQL allows duplicates: a JSON object has each key once.

    `SELECT 1 AS a, 2 AS a, 3 AS A` gives a, a_2, A_3.
    """
    given: set[str] = set()
    result = []
    for name in relation.columns:
        forms = chain((name,), (f"{name}_{number}" for number in count(2)))
        # DuckDB takes two names that differ in case for one.
        result.append(next(form for form in forms if form.lower() not in given))
        given.add(result[-1].lower())
    return result


def rendered(relation: DuckDBPyRelation, *, finite: bool = False) -> DuckDBPyRelation:
    """The same rows and columns; moments and bytes as text, and with `finite` dates and moments at infinity as null."""
    columns = list(enumerate(zip(_names(relation), relation.types, strict=True), 1))
    # By place first, since names may repeat; then by a name, as a place takes no field access.
    placed = relation.project(", ".join(f"#{place} AS _tw_c{place}" for place, _ in columns))
    texts = (
        f"{_expression(f'_tw_c{place}', kind, finite=finite)} AS {quoted(name)}" for place, (name, kind) in columns
    )
    return placed.project(", ".join(texts))


def _expression(value: str, kind: DuckDBPyType, *, finite: bool) -> str:
    """SQL that renders `value`, an expression of this type."""
    match kind.id:
        case "timestamp with time zone":
            return _moment(value, engine.iso(value), finite=finite)
        case "timestamp" | "timestamp_s" | "timestamp_ms":
            text = f"strftime(CAST({value} AS TIMESTAMP), {engine.ISO})"
            return _moment(value, f"regexp_replace({text}, '\\.000000$', '')", finite=finite)
        case "timestamp_ns" | "timestamptz_ns":
            plain, zone = f"CAST({value} AS TIMESTAMP_NS)", " || 'Z'" if "tz" in kind.id else ""
            return _moment(plain, f"replace(CAST({plain} AS VARCHAR), ' ', 'T'){zone}", finite=finite)
        case "date" if finite:
            return f"CASE WHEN isfinite({value}) THEN {value} END"
        case "blob":
            return f"coalesce(TRY(decode({value})), CAST({value} AS VARCHAR))"
        case "list" | "array":
            return _list(value, kind, finite=finite)
        case "map":
            return _map(value, kind, finite=finite)
        case "struct" | "tuple":
            return _struct(value, kind, finite=finite)
        case "union":
            return _union(value, kind, finite=finite)
    return value


def _moment(value: str, text: str, *, finite: bool) -> str:
    return f"CASE WHEN isfinite({value}) THEN {text} {'' if finite else f'ELSE CAST({value} AS VARCHAR) '}END"


def _list(value: str, kind: DuckDBPyType, *, finite: bool) -> str:
    inner = _expression("_tw_x", dict(_fields(kind))["child"], finite=finite)
    return value if inner == "_tw_x" else f"list_transform({value}, lambda _tw_x: {inner})"


def _map(value: str, kind: DuckDBPyType, *, finite: bool) -> str:
    (_, keys), (_, values) = _fields(kind)
    # A key may be neither null nor there twice, so only moments, which stay different, are written in another way.
    key = _expression("_tw_x.key", keys, finite=False) if keys.id.startswith("timestamp") else "_tw_x.key"
    inner = _expression("_tw_x.value", values, finite=finite)
    entry = f"struct_pack(key := {key}, value := {inner})"
    return f"map_from_entries(list_transform(map_entries({value}), lambda _tw_x: {entry}))"


def _struct(value: str, kind: DuckDBPyType, *, finite: bool) -> str:
    named, packed = kind.id == "struct", []
    for number, (name, child) in enumerate(_fields(kind), 1):
        inner = _expression(f"{value}.{quoted(name)}" if named else f"{value}[{number}]", child, finite=finite)
        packed.append(f"{quoted(name)} := {inner}" if named else inner)
    return f"CASE WHEN {value} IS NOT NULL THEN {'struct_pack' if named else 'row'}({', '.join(packed)}) END"


def _union(value: str, kind: DuckDBPyType, *, finite: bool) -> str:
    """As DuckDB writes one: in JSON an object of the member that is there, else its value."""
    branches = []
    for name, child in _fields(kind)[1:]:  # before them is the tag
        inner, literal = _expression(f"{value}.{quoted(name)}", child, finite=finite), name.replace("'", "''")
        shown = f"json_object('{literal}', {inner})" if finite else f"CAST({inner} AS VARCHAR)"
        branches.append(f"WHEN '{literal}' THEN {shown}")
    return f"CASE union_tag({value}) {' '.join(branches)} END"


def _fields(kind: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    return [(name, child) for name, child in kind.children if isinstance(child, DuckDBPyType)]


def day_column(pipeline: Pipeline) -> str:
    """Name of the folders' column, the day of the event time in UTC: `<time>_day`, or `<time>_day_` beside such."""
    name = f"{pipeline.event.time}_day"
    while name in pipeline.event.fields:
        name += "_"
    return name


def export(reader: Reader, pipeline: Pipeline, folder: Path, *, single: bool, progress: Callable[[float], None]) -> int:
    """Write all unified events below `folder`, by day, or sorted as one file; returns the number of rows.

    `progress` is given the percentage now and then.
    """
    time, key = quoted(pipeline.event.time), quoted(pipeline.event.key)
    order = f" ORDER BY {time}, {key}" if single else ""
    day = "" if single else f", CAST({time} AS DATE) AS {quoted(day_column(pipeline))}"
    rows = reader.query(f"SELECT *{day} FROM {statements.UNIFIED_EVENTS}{order}", pipeline.name)
    with engine.errors():
        unified = statements.qualified(pipeline, statements.UNIFIED_EVENTS)
        counted = reader.connection.sql(f"SELECT count(*) FROM {unified}").fetchall()
        count = int(counted[0][0])
        with ThreadPoolExecutor(1) as writer:
            # No event, no day, no folder: an empty file has the columns at least.
            by_day = not single and count > 0
            written = writer.submit(_write, rows, folder, day_column(pipeline) if by_day else None)
            while not wait([written], _PROGRESS_POLL_S).done:
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
    with writing_to(target):
        if target.exists() and not target.is_dir():
            raise TwofoldError(f"{target} is a file", "name a folder")
        if target.exists() and any(target.iterdir()) and not overwrite:
            raise TwofoldError(f"{target} is not empty", "name another, or replace its contents with --overwrite")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    with folder as scratch:
        part = Path(scratch) / "new"
        part.mkdir()
        yield part
        if target.exists():
            target.rename(Path(scratch) / "old")
        part.rename(target)
