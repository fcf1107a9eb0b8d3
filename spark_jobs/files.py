"""Landed files of one layout ─► one row a record, as the contract wants them: `p` and `_fault`.

    JSON lines ─► read as bytes ─► contract.read_json ─────────────┐
    CSV        ─► read as Latin-1, so that no byte is lost ─► texts ┼─► Records(frame, payload)
    Parquet    ─► read typed ─► texts, without loss ────────────────┘

Besides `p` and `_fault` the frame has the columns PATH, BLOCK, SEQUENCE and BLANK, by which rows are numbered later.
Names of helper columns start with @, which no field's name may.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from spark_jobs import contract
from spark_jobs.inspection import Layout
from twofold.definition.model import Pipeline

PATH = "@path"
"""The file's path, as Spark writes it."""
BLOCK = "@block"
"""Where in its file the block of bytes starts that the row was read from."""
SEQUENCE = "@sequence"
"""Counts the rows of one block without a gap, from any number on."""
BLANK = "@blank"
"""Whether the row is an empty line, which counts as a line but is no record."""

SESSION = {
    # Columns of a file that differ only by case are different columns.
    "spark.sql.caseSensitive": "true",
    # Without it a column of nanosecond timestamps makes the whole file unreadable.
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    # What is kept is read once more and let go: compressing it costs more than it saves.
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
}
"""Settings of the session that reads files."""

_RAW = "@raw"
_TEXTS = "@texts"
_LATIN = "ISO-8859-1"
_NO_VALUE = "\0"
_INSTANT = "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'"


@dataclass(frozen=True)
class Records:
    """Rows to judge, and what to keep of those that are rejected."""

    frame: DataFrame
    payload: Column


def read(spark: SparkSession, pipeline: Pipeline, layout: Layout, paths: Sequence[str]) -> Records:
    """The records of `paths`, which all have this layout."""
    readers = {"json": _json, "csv": _csv, "parquet": _parquet}
    return readers[layout.kind](spark.read, pipeline, layout, [literal(path) for path in paths])


def literal(path: str) -> str:
    r"""A path that Spark takes as a name, not as a pattern. (Its option not to look for patterns reads files twice.)

    >>> literal("file:/a [1]/b*.csv")
    'file:/a \\[1\\]/b\\*.csv'
    """
    return re.sub(r"([{}\[\]*?\\])", r"\\\1", path)


def _json(reader: DataFrameReader, pipeline: Pipeline, layout: Layout, paths: list[str]) -> Records:
    lines = reader.text(paths, lineSep="\n")
    value = F.col("value")
    raw = _located(lines, [value.cast("binary").alias(_RAW)], value.rlike(r"^[ \t\r]*$"))
    record = F.col(_RAW)
    return Records(contract.read_json(raw, pipeline, _without_bom(record) if layout.bom else record), record)


def _without_bom(value: Column) -> Column:
    text = value.cast("string")
    return F.when(text.startswith("\ufeff"), F.substr(text, F.lit(2)).cast("binary")).otherwise(value)


def _csv(reader: DataFrameReader, pipeline: Pipeline, layout: Layout, paths: list[str]) -> Records:
    names = [f"@{index}" for index in range(len(layout.columns))]
    schema = T.StructType([T.StructField(name, T.StringType()) for name in [*names, contract.CORRUPT]])
    rows = reader.schema(schema).options(**_csv_options(layout)).csv(paths)
    last = F.col(names[-1])
    unended = F.when(last.endswith("\r"), F.nullif(F.left(last, F.length(last) - 1), F.lit(""))).otherwise(last)
    empty = reduce(Column.__and__, (F.col(name).isNull() for name in names[:-1]), last == "\r")
    only_return = reduce(Column.__and__, (F.col(name).isNull() for name in names[1:]), F.col(names[0]) == "\r")
    blank = only_return if len(names) > 1 else empty
    located = _located(rows, [*names[:-1], unended.alias(names[-1]), contract.CORRUPT], F.coalesce(blank, F.lit(False)))
    return _csv_records(located, pipeline, layout, names)


def _csv_options(layout: Layout) -> dict[str, str]:
    return {
        "header": "true",
        "enforceSchema": "true",
        "multiLine": "true",
        "encoding": _LATIN,
        "lineSep": layout.separator,
        "quote": '"',
        "escape": '"',
        # An empty cell is null, and "" an empty text, as long as no cell is a NUL.
        "nullValue": _NO_VALUE,
        "emptyValue": "",
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": contract.CORRUPT,
    }


def _csv_records(rows: DataFrame, pipeline: Pipeline, layout: Layout, names: list[str]) -> Records:
    latin = dict(zip(layout.columns, names, strict=True))
    texts = {name: _utf8(F.col(latin[name])) for name in pipeline.columns if name in latin}
    wrong = F.col(contract.CORRUPT).isNotNull()
    fault = F.when(wrong, F.lit(f"wrong number of columns: the header has {len(names)}"))
    # Names as the values are: one character a byte.
    named = [F.col(column).alias(name.encode().decode(_LATIN)) for name, column in latin.items()]
    as_json = F.to_json(F.struct(*named))
    payload = F.encode(F.when(wrong, F.col(contract.CORRUPT)).otherwise(as_json), _LATIN)
    return Records(_parsed(rows, pipeline, texts, fault), payload)


def _utf8(latin: Column) -> Column:
    return F.encode(latin, _LATIN).cast("string")


def _parquet(reader: DataFrameReader, pipeline: Pipeline, layout: Layout, paths: list[str]) -> Records:
    rows = reader.parquet(*paths)
    kinds = {field.name: field.dataType for field in rows.schema.fields}
    columns = {name: F.col(_quoted(name)) for name in kinds}
    for name in layout.nanoseconds:
        columns[name] = F.timestamp_micros(F.floor(columns[name] / 1000).cast("bigint"))
        kinds[name] = T.TimestampType()
    latin = {name: f"@{index}" for index, name in enumerate(kinds)}
    renamed = [columns[name].alias(latin[name]) for name in kinds]
    located = _located(rows, renamed, F.lit(False), row_index=True)
    texts = {
        name: _as_text(F.col(latin[name]), kinds[name], field.type.name)
        for name, field in pipeline.event.fields.items()
        if name in kinds
    }
    whole = F.struct(*(F.col(column).alias(name) for name, column in latin.items()))
    payload = F.to_json(whole, {"timestampFormat": _INSTANT, "timestampNTZFormat": _INSTANT}).cast("binary")
    return Records(_parsed(located, pipeline, texts, F.lit(None).cast("string")), payload)


def _as_text(value: Column, kind: T.DataType, declared: str) -> Column:
    """A typed value as the text of which the declared type is made."""
    if isinstance(kind, (T.FloatType, T.DoubleType)) and declared in ("int", "long"):
        # Writers without nullable integers store them as doubles.
        whole = (value == F.floor(value)) & (F.abs(value) < 2**53)
        return F.when(whole, value.cast("bigint").cast("string")).otherwise(value.cast("string"))
    if isinstance(kind, (T.TimestampType, T.TimestampNTZType)):
        instant = F.date_format(value, _INSTANT)
        midnight = value.cast("timestamp") == F.date_trunc("day", value)
        return (
            F.when(midnight, F.date_format(value, "yyyy-MM-dd")).otherwise(instant) if declared == "date" else instant
        )
    if isinstance(kind, (T.StructType, T.ArrayType, T.MapType)):
        return F.to_json(value)
    return value.cast("string")


def _located(rows: DataFrame, columns: Sequence[Column | str], blank: Column, row_index: bool = False) -> DataFrame:
    metadata = rows.metadataColumn("_metadata")
    # A Parquet row knows its place in the file; of other rows only the order within their block is known.
    block = F.lit(0).cast("bigint") if row_index else metadata["file_block_start"]
    sequence = metadata["row_index"] if row_index else F.monotonically_increasing_id()
    return rows.select(
        metadata["file_path"].alias(PATH),
        block.alias(BLOCK),
        sequence.alias(SEQUENCE),
        blank.alias(BLANK),
        *columns,
    )


def _parsed(rows: DataFrame, pipeline: Pipeline, texts: Mapping[str, Column], fault: Column) -> DataFrame:
    """Add what `contract.judge` reads to rows that are parsed already."""
    # Two steps, so that each text is made once, however often it is looked at.
    held = rows.select("*", F.struct(*(text.alias(name) for name, text in texts.items())).alias(_TEXTS))
    fields = [_field(pipeline, name, name in texts).alias(name) for name in pipeline.columns]
    corrupt = F.lit(None).cast("string").alias(contract.CORRUPT)
    return held.select(
        "*",
        F.struct(*fields, corrupt).alias(contract.PARSED),
        _fault(pipeline, list(texts), fault).alias(contract.FAULT),
    )


def _fault(pipeline: Pipeline, names: Sequence[str], fault: Column) -> Column:
    """What the contract's own reader finds before and in parsing: too large, no UTF-8, no decimal."""
    limit = pipeline.event.max_bytes
    size = reduce(Column.__add__, (F.coalesce(F.octet_length(_text(name)), F.lit(0)) for name in names))
    valid = reduce(Column.__and__, (F.coalesce(F.is_valid_utf8(_text(name)), F.lit(True)) for name in names))
    found = (
        F.when(fault.isNotNull(), fault)
        .when(size > limit, F.concat(F.lit("too large: "), size, F.lit(f" bytes, the limit is {limit}")))
        .when(~valid, F.lit("unknown encoding: not UTF-8"))
    )
    for name in names:
        kind = pipeline.event.fields[name].type
        if kind.name == "decimal":
            said = F.concat(F.lit(f"{name} is not a {kind}: "), F.substring(_text(name), 1, 40))
            found = found.when(_text(name).isNotNull() & _field(pipeline, name, True).isNull(), said)
    return found


def _field(pipeline: Pipeline, name: str, is_there: bool) -> Column:
    kind = pipeline.event.fields[name].type
    text = _text(name) if is_there else F.lit(None).cast("string")
    return text.try_cast(contract.wide(kind)) if kind.name == "decimal" else text


def _text(name: str) -> Column:
    return F.col(_TEXTS)[name]


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"
