"""What a view's query does in Spark's Python workers: the user's expressions, in DuckDB, before and after Spark's.

    stream_log ─► arguments of the parts ─► watermark, one per id, windows, count sum min max (Spark) ─► measures, files

Spark sees only plain columns; where each argument is one as it is, nothing is computed before it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import duckdb
import pyarrow as pa
import sqlglot
from pyiceberg.manifest import DataFile
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from sqlglot import exp

from spark_jobs.tasks import RESULT, Batches, result, results
from twofold import tables
from twofold.definition.model import Part, Pipeline, View
from twofold.reader import engine
from twofold.table_files import Place, Writer
from twofold.versions import in_schema

_ROWS = "_tw_rows"
_WHOLE = ("int", "long")


@lru_cache(maxsize=1)
def _database() -> duckdb.DuckDBPyConnection:
    """One a worker, kept between its tasks."""
    return engine.plain(None, threads=1)


def _computed(query: str, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    connection = _database()
    connection.register(_ROWS, pa.Table.from_batches([batch]))
    try:
        reader: pa.RecordBatchReader = connection.sql(query).to_arrow_reader()
        yield from reader
    finally:
        connection.unregister(_ROWS)


def needed(pipeline: Pipeline, view: View) -> list[str]:
    """Event columns that the view is computed from."""
    arguments = [sqlglot.parse_one(part.argument, read="duckdb") for part in view.parts]
    used = {column.name for argument in arguments for column in argument.find_all(exp.Column)}
    return [name for name in pipeline.columns if name in {pipeline.event.id, pipeline.event.time, *view.by} | used]


@dataclass(frozen=True)
class Arguments:
    """Computes what the parts are taken of, for each event; `kept` columns stay as they are."""

    kept: tuple[str, ...]
    parts: tuple[Part, ...]

    def run(self, rows: DataFrame) -> DataFrame:
        """A column for each part, named like it, beside the kept ones."""
        kept = [
            f"`{field.name}` {field.dataType.simpleString()}" for field in rows.select(*map(_named, self.kept)).schema
        ]
        computed = [f"`{part.name}` {part.type.spark}" for part in self.parts]
        return rows.mapInArrow(self, ", ".join([*kept, *computed]))

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """One task."""
        kept = [f'"{name}"' for name in self.kept]
        computed = [f'CAST({part.argument} AS {part.type.duckdb}) AS "{part.name}"' for part in self.parts]
        for batch in batches:
            yield from _computed(f"SELECT {', '.join([*kept, *computed])} FROM {_ROWS}", batch)


class Kit(NamedTuple):
    """What does not change from task to task."""

    view: View
    place: Place

    def packed(self) -> bytes:
        """As it is sent to the workers."""
        return pickle.dumps(self)


@lru_cache(maxsize=16)
def _unpacked(kit: bytes) -> Kit:
    found: Kit = pickle.loads(kit)
    return found


@dataclass(frozen=True)
class Measures:
    """Computes the measures from the parts, and writes the rows of stream_<view>; nothing is committed here."""

    kit: bytes
    version: int

    def run(self, folded: DataFrame) -> list[DataFile]:
        """Run the tasks; `folded` has the view's keys and parts."""
        return [file for files in results(folded.mapInArrow(self, RESULT)) for file in files]

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """One task."""
        view, place = _unpacked(self.kit)
        keys = [f'"{key}"' for key in tables.view_keys(view)]
        measures = [f'{measure.after} AS "{name}"' for name, measure in view.measures.items()]
        version = f"CAST({self.version} AS BIGINT) AS {tables.VERSION}"
        query = f"SELECT {', '.join([*keys, *measures, version])} FROM {_ROWS}"
        with Writer(place) as writer:
            for batch in batches:
                for rows in _computed(query, batch):
                    writer.write(in_schema(place.arrow, rows))
            files = writer.close()
        if files:
            yield result(files)


def plain(pipeline: Pipeline, parts: Sequence[Part]) -> dict[str, Column] | None:
    """Each part's argument as Spark's own column; None where one has to be computed."""
    found = {}
    for part in parts:
        if (column := _plain(pipeline, part)) is None:
            return None
        found[part.name] = column
    return found


def _plain(pipeline: Pipeline, part: Part) -> Column | None:
    argument = sqlglot.parse_one(part.argument, read="duckdb")
    if isinstance(argument, exp.Literal):
        return F.lit(1)
    if part.function == "count" and (counted := _not_null(argument)):
        return _named(counted)
    if isinstance(argument, exp.Cast):
        argument = argument.this
    if not isinstance(argument, exp.Column):
        return None
    kind = pipeline.event.fields[argument.name].type
    if part.type == kind or kind.name in _WHOLE:
        return _named(argument.name).cast(part.type.spark)
    wider = part.type.name == kind.name == "decimal" and part.type.scale == kind.scale
    return _named(argument.name).cast(part.type.spark) if wider else None


def _not_null(argument: exp.Expr) -> str | None:
    """The column of `CASE WHEN column IS NOT NULL THEN 1 END`."""
    found = list(argument.find_all(exp.Column))
    same = len(found) == 1 and f"CASE WHEN ({found[0].sql('duckdb')} IS NOT NULL) THEN 1 END"
    return found[0].name if same and argument == sqlglot.parse_one(same, read="duckdb") else None


def aggregate(part: Part, argument: Column) -> Column:
    """Spark's aggregate of a part; sums are as wide as a decimal can be, so none overflows."""
    match part.function:
        case "count":
            return F.count(argument).alias(part.name)
        case "sum":
            return F.sum(argument).alias(part.name)
        case "min":
            return F.min(argument).alias(part.name)
        case "max":
            return F.max(argument).alias(part.name)


def _named(name: str) -> Column:
    return F.col(f"`{name}`")
