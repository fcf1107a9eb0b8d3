"""The record of landings: `batch_log` with its marker, and `landed_files`, two commits that a crash may part.

    append to batch_log, whose snapshot names the landing and its files ─► append these files to landed_files
                              a crash here ─► `heal` in the next run ──────┘

Both are committed by the JVM, which holds the pipeline's lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from twofold import boundary, tables
from twofold import catalog as catalogs
from twofold.boundary import History, Landed
from twofold.definition.model import Pipeline
from twofold.errors import BoundaryError

_COLUMNS = tables.landed_files().column_names
_SCHEMA = ", ".join(f"`{name}` {kind}" for name, kind in tables.landed_files().columns)


@dataclass(frozen=True)
class Last:
    """The last version of a file that was taken or set aside."""

    landing: int
    version: str
    sha256: str


@dataclass(frozen=True)
class Book:
    """What both tables say: the last landing in each, and the last version of each file."""

    landing: int
    recorded: int
    files: dict[str, Last]
    history: History

    def unrecorded(self) -> list[dict[str, Any]]:
        """Rows that `landed_files` lacks, oldest first, out of the markers; BoundaryError where one is gone."""
        states = (json.loads(s.summary[Landed.KEY]) for s in self.history.ancestors() if Landed.KEY in s.summary)
        missing = {state["landing"]: state["files"] for state in states if state["landing"] > self.recorded}
        wanted = list(range(self.recorded + 1, self.landing + 1))
        if self.recorded > self.landing or sorted(missing) != wanted:
            raise BoundaryError(
                f"batch_log has {self.landing} landings and landed_files {self.recorded}: one of them was replaced",
                "restore the lost table; until then nothing is landed, as files would be taken twice",
            )
        return [row for number in sorted(missing) for row in missing[number]]


def read_book(catalog: Catalog, pipeline: Pipeline) -> Book:
    """Read both tables as they are now, without a JVM."""
    history = catalogs.history(catalogs.find(catalog, pipeline.name, tables.BATCH_LOG))
    files: dict[str, Last] = {}
    for row in _landed_rows(catalog, pipeline):
        if row["file"] not in files or row["landing"] > files[row["file"]].landing:
            files[row["file"]] = Last(row["landing"], row["version"], row["sha256"])
    recorded = max((last.landing for last in files.values()), default=0)
    return Book(boundary.landed(history, pipeline.name).landing, recorded, files, history)


def _landed_rows(catalog: Catalog, pipeline: Pipeline) -> list[dict[str, Any]]:
    table = catalogs.find(catalog, pipeline.name, tables.LANDED_FILES)
    if table is None:
        return []
    rows = table.scan(selected_fields=("landing", "file", "version", "sha256")).to_arrow()
    return rows.take(pc.sort_indices(rows["landing"])).to_pylist()  # type: ignore[no-any-return]


def file_row(
    landing: int, file: str, size_bytes: int, version: str, sha256: str, rows: int, reason: str, landed_at: datetime
) -> dict[str, Any]:
    """A row of `landed_files`, plain enough for a marker; no reason means that the file was taken."""
    values = (landing, file, size_bytes, version, sha256, rows, reason or None, landed_at.isoformat())
    return dict(zip(_COLUMNS, values, strict=True))


def append_rows(pipeline: Pipeline, rows: DataFrame, landed: Landed, landed_at: datetime) -> None:
    """The first commit: all rows of one landing, with their marker."""
    table = tables.batch_log(pipeline)
    numbered = rows.withColumns({"landing": F.lit(landed.landing).cast("bigint"), "landed_at": F.lit(landed_at)})
    writer = numbered.select(*table.column_names).writeTo(tables.qualified(pipeline, table.name))
    for key, value in boundary.encode(landed).items():
        writer = writer.option(f"snapshot-property.{key}", value)
    writer.append()


def no_rows(spark: SparkSession, pipeline: Pipeline) -> DataFrame:
    """What a landing appends whose files were all set aside, or empty."""
    columns = tables.batch_log(pipeline).columns
    schema = ", ".join(f"`{name}` {kind}" for name, kind in columns if name not in ("landing", "landed_at"))
    return spark.createDataFrame([], schema)


def append_files(spark: SparkSession, pipeline: Pipeline, rows: Iterable[dict[str, Any]]) -> None:
    """The second commit: which files these landings took or set aside."""
    typed = [
        tuple({**row, "landed_at": datetime.fromisoformat(row["landed_at"])}[name] for name in _COLUMNS) for row in rows
    ]
    frame = spark.createDataFrame(typed, _SCHEMA).coalesce(1)
    frame.writeTo(tables.qualified(pipeline, tables.LANDED_FILES)).append()


def heal(spark: SparkSession, catalog: Catalog, pipeline: Pipeline) -> int:
    """Record the landings that a crash kept from `landed_files`; the number of files recorded."""
    rows = read_book(catalog, pipeline).unrecorded()
    if rows:
        append_files(spark, pipeline, rows)
    return len(rows)
