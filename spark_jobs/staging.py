"""One landing, before its commit: records judged, kept, counted and numbered, each file parsed once.

    files of one layout ─► records ─► judged ─┐
    files of another    ─► records ─► judged ─┴─► kept (memory, then disk) ─► counts per file and block
                                                   └─► with row numbers ─► batch_log, one append

The rows are kept so that what is counted is what is written, even if a file is replaced in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import NamedTuple
from urllib.parse import unquote

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import contract, files
from spark_jobs.inspection import Inspection, Layout
from twofold import tables
from twofold.definition.model import Pipeline

_NUMBERING = "`@path` string, `@block` bigint, `@shift` bigint, `file` string"


class Counts(NamedTuple):
    """Records of one file by outcome."""

    accepted: int = 0
    filtered: int = 0
    rejected: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(self)


class Block(NamedTuple):
    """One block of one file, as it was read. `lines` include the blank ones; `first` is its lowest SEQUENCE."""

    path: str
    start: int
    first: int
    lines: int
    counts: Counts


@dataclass(frozen=True)
class Staged:
    """Judged records of some files, kept by Spark until `release`."""

    frame: DataFrame
    blocks: tuple[Block, ...]
    names: dict[str, str]
    """The file's name by its plain path."""

    def counts(self) -> dict[str, Counts]:
        """Records of each file that has any, by name."""
        totals: dict[str, Counts] = defaultdict(Counts)
        for block in self.blocks:
            name = self.names[plain(block.path)]
            totals[name] = Counts(*map(sum, zip(totals[name], block.counts, strict=True)))
        return dict(totals)

    def rows(self) -> DataFrame:
        """The records with `file` and `row`, their number within the file from 1."""
        spark = self.frame.sparkSession
        numbering = [(b.path, b.start, shift, self.names[plain(b.path)]) for b, shift in shifts(self.blocks)]
        joined = self.frame.join(F.broadcast(spark.createDataFrame(numbering, _NUMBERING)), [files.PATH, files.BLOCK])
        row = F.col(files.SEQUENCE) + F.col("@shift")
        helpers = (files.PATH, files.BLOCK, files.SEQUENCE, files.BLANK, "@shift")
        return joined.where(~F.col(files.BLANK)).withColumn("row", row).drop(*helpers)

    def release(self) -> None:
        """Let Spark drop what it keeps."""
        self.frame.unpersist()


def stage(
    spark: SparkSession, pipeline: Pipeline, root: str, inspected: Sequence[Inspection], landed_at: datetime
) -> Staged:
    """Read and judge the files below `root`; raises Spark's error where it cannot read one."""
    names = {plain(f"{root}/{one.file.name}", escaped=False): one.file.name for one in inspected}
    groups: dict[Layout, list[str]] = defaultdict(list)
    for one in inspected:
        assert one.layout is not None
        groups[one.layout].append(f"{root}/{one.file.name}")
    judged = [_judged(spark, pipeline, layout, paths, landed_at) for layout, paths in groups.items()]
    frame = reduce(DataFrame.unionByName, judged).persist(StorageLevel.MEMORY_AND_DISK)
    return Staged(frame, tuple(_blocks(frame)), names)


def _judged(
    spark: SparkSession, pipeline: Pipeline, layout: Layout, paths: Sequence[str], landed_at: datetime
) -> DataFrame:
    records = files.read(spark, pipeline, layout, paths)
    judged = contract.judge(records.frame, pipeline, F.lit(landed_at), records.payload)
    located = (files.PATH, files.BLOCK, files.SEQUENCE, files.BLANK)
    return judged.select(*located, *pipeline.columns, "outcome", "reason", "payload")


def _blocks(frame: DataFrame) -> Iterable[Block]:
    outcomes = [
        F.count_if(~F.col(files.BLANK) & (F.col("outcome") == outcome)).alias(outcome)
        for outcome in (tables.ACCEPTED, tables.FILTERED, tables.REJECTED)
    ]
    grouped = frame.groupBy(files.PATH, files.BLOCK)
    for row in grouped.agg(F.min(files.SEQUENCE), F.count(F.lit(1)), *outcomes).collect():
        path, start, first, lines, *outcome_counts = row
        yield Block(path, start, first, lines, Counts(*outcome_counts))


def shifts(blocks: Iterable[Block]) -> list[tuple[Block, int]]:
    """What to add to SEQUENCE in each block, so that a file's lines are numbered from 1 through all its blocks.

    >>> a, b = Block("f", 0, 7, 10, Counts()), Block("f", 4096, 0, 5, Counts())
    >>> [shift for _, shift in shifts([b, a])]
    [-6, 11]
    """
    found, before = [], dict[str, int]()
    for block in sorted(blocks):
        lines = before.get(block.path, 0)
        found.append((block, lines - block.first + 1))
        before[block.path] = lines + block.lines
    return found


def plain(path: str, escaped: bool = True) -> str:
    """A path without scheme, as one text however Spark wrote it.

    >>> plain("file:///a%20b/c.csv") == plain("file:/a b/c.csv", escaped=False)
    True
    """
    return (unquote(path) if escaped else path).split(":", 1)[1].lstrip("/")
