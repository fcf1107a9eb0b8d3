"""A view's aggregation in Spark, the same for its query and for the batch that fills it.

    accepted rows of stream_log ─► arguments of the parts ─► one row per id ─► window × group × count sum min max
    ─► measures ─► data files

The user's expressions run in DuckDB, in Spark's Python workers, before and after Spark's own part: Spark sees only
plain columns. Where each argument is one as it is, nothing is computed before it.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import duckdb
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.tasks import RESULT, Batches, packed, result, results
from twofold import tables
from twofold.definition.model import Part, Pipeline, View
from twofold.reader import engine
from twofold.table_files import Place, Writer
from twofold.versions import in_schema

_ROWS = "_tw_rows"
_WHOLE = ("int", "long")
# Arguments of parts, as `twofold.definition.expressions` writes those of a column alone.
_COLUMN = re.compile(r'CAST\("([^"]+)" AS \w+(?:\(\d+,\d+\))?\)')
_NOT_NULL = re.compile(r'CASE WHEN \("([^"]+)" IS NOT NULL\) THEN 1 END')
SEEN = "_tw_seen"
"""When an event is known to have happened by: the earlier of its own time and Kafka's time stamp."""
_TIME = "_tw_time"
"""The event's time as a group: Spark takes no second column that carries the watermark."""
_AGGREGATES = {"count": F.count, "sum": F.sum, "min": F.min, "max": F.max}
"""Spark's sums are as wide as a decimal can be, so none overflows."""


@dataclass(frozen=True)
class Aggregation:
    """Spark's part of one view."""

    pipeline: Pipeline
    view: View

    @property
    def delay(self) -> timedelta:
        """How far the watermark is behind: so far that no row is dropped while one of its windows is open."""
        return self.pipeline.lateness + self.view.window

    @property
    def time(self) -> Column:
        """The event's own time."""
        return _named(self.pipeline.event.time)

    @property
    def seen(self) -> Column:
        """`SEEN` of each row."""
        return F.least(self.time, F.col(tables.arrival(self.pipeline))).alias(SEEN)

    def accepted(self, log: DataFrame) -> DataFrame:
        """The rows of stream_log that take part."""
        return log.where(F.col(tables.OUTCOME) == tables.ACCEPTED)

    def rows(self, accepted: DataFrame) -> DataFrame:
        """Accepted rows with only what the view needs: id, time, groups, `SEEN`, and a column for each part."""
        event = self.pipeline.event
        kept = tuple(dict.fromkeys([event.key, event.time, *self.view.by]))
        found = ((part.name, _plain(self.pipeline, part)) for part in self.view.parts)
        plain = [column.alias(name) for name, column in found if column is not None]
        if len(plain) == len(self.view.parts):
            return accepted.select(*map(_named, kept), self.seen, *plain)
        needed = (name for name in self.pipeline.columns if name in (event.key, event.time) or self.view.reads(name))
        used = accepted.select(*map(_named, needed), self.seen)
        return Arguments((*kept, SEEN), self.view.parts).run(used)

    def on_time(self, rows: DataFrame) -> DataFrame:
        """Hand the watermark on, from arrival to the event's own time, whose windows are closed by it.

        Spark takes a single watermark; on the event's own time it would be ahead wherever a clock is.
        """
        time, behind_ms = self.pipeline.event.time, self.delay // timedelta(milliseconds=1)
        marked = self.time.alias(time, metadata={"spark.watermarkDelayMs": behind_ms})
        plain = [self.time.alias(_TIME)] if time in self.view.by else []
        others = (_named(name) for name in rows.columns if name not in (SEEN, time))
        return rows.select(marked, *plain, *others)

    def fold(self, distinct: DataFrame) -> DataFrame:
        """One row per window and group: window_start, window_end, groups, parts."""
        window = F.window(self.time, _interval(self.view.window), _interval(self.view.every))
        parts = [_AGGREGATES[part.function](F.col(part.name)).alias(part.name) for part in self.view.parts]
        time = _TIME if _TIME in distinct.columns else self.pipeline.event.time
        groups = [_named(time if name == self.pipeline.event.time else name) for name in self.view.by]
        return (
            distinct.groupBy(window.alias("_tw_window"), *groups)
            .agg(*parts)
            .select(
                F.col("_tw_window.start").alias("window_start"),
                F.col("_tw_window.end").alias("window_end"),
                *(group.alias(name) for name, group in zip(self.view.by, groups, strict=True)),
                *(part.name for part in self.view.parts),
            )
        )


def _interval(length: timedelta) -> str:
    return f"{length // timedelta(microseconds=1)} microseconds"


def _plain(pipeline: Pipeline, part: Part) -> Column | None:
    """The part's argument as Spark's own column; None where it has to be computed."""
    if part.argument == "1":
        return F.lit(1)
    if part.function == "count" and (counted := _NOT_NULL.fullmatch(part.argument)):
        return _named(counted[1])
    column = _COLUMN.fullmatch(part.argument)
    if column is None:
        return None
    name = column[1]
    kind = pipeline.event.fields[name].type
    wider = part.type.name == kind.name == "decimal" and part.type.scale == kind.scale
    is_kept = part.type == kind or kind.name in _WHOLE or wider
    return _named(name).cast(part.type.spark) if is_kept else None


def _named(name: str) -> Column:
    return F.col(f"`{name}`")


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


@lru_cache(maxsize=16)
def _unpacked(kit: bytes) -> tuple[View, Place]:
    view, place = pickle.loads(kit)
    return view, place


@dataclass(frozen=True)
class Measures:
    """Computes the measures from the parts, and writes the rows of stream_<view>; nothing is committed here."""

    kit: bytes
    version: int

    @classmethod
    def of(cls, view: View, table: Table, version: int | None) -> Measures:
        """Those of a view, for its table."""
        assert version is not None
        return cls(packed(view, Place.of(table)), version)

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
