"""What runs in Spark's Python workers: records through the contract into data files; nothing is committed here.

    Kafka records of a micro-batch ─► judge ─► Parquet files of stream_log ─┐
    files of the inbox ─► readers ─► judge ─► Parquet files of batch_log ───┴─► one row back: the files, the counts

Decoder, filter and access to the store are made once a worker and kept between its tasks.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyspark.sql import DataFrame, SparkSession

from spark_jobs.rejected_ids import Ids, RejectedIds
from twofold import inbox, tables
from twofold.contract import kafka_records
from twofold.contract.event_keys import with_key
from twofold.contract.judge import Judge, Judged
from twofold.contract.records import CellRecords, JsonRecords
from twofold.lake import Lake
from twofold.ledger import Erased
from twofold.readers import SetAside, read
from twofold.schema_registry import Registry
from twofold.table_files import Place, Writer
from twofold.taken import Chosen

RESULT = "result binary"
"""The columns of what a task gives back: see `result`."""
_CRASHED = ("Python worker exited unexpectedly", "Python worker failed to connect back")
_KEPT_BYTES = 32 << 20
"""Rows of a file up to this much wait in memory for its end, so that small files share a data file."""
_ROWS_PER_FILE = 4_000_000

Batches = Iterable[pa.RecordBatch]


def packed(*parts: object) -> bytes:
    """The part that is the same for all tasks, as it is sent to the workers."""
    return pickle.dumps(parts)


@lru_cache(maxsize=4)
def _unpacked(kit: bytes) -> tuple[Judge, Place, Erased]:
    pipeline, place, erased = pickle.loads(kit)
    return Judge(pipeline), place, erased


@dataclass
class WrittenBatch:
    """What a task wrote: data files to commit, rows by outcome and by kind of reason."""

    files: list[DataFile] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    newest: dict[int, float] = field(default_factory=dict)
    """Kafka only: the newest time stamp of each partition, in Unix seconds; none where a sender may choose it."""


@dataclass(frozen=True)
class FromKafka:
    """Judges the records of one micro-batch, but for those whose offsets are held already."""

    kit: bytes
    landing: int
    registry: Registry
    held: Mapping[int, int] = field(default_factory=dict)
    """Partition → records before this offset are in the table."""
    apart: bool = False
    """Judge in a process of its own, as a record ended the worker that judged it."""
    landed_at: datetime | None = None
    """The moment of landing, which counts as the arrival of all records; None: Kafka's time stamps do."""

    def run(self, records: DataFrame, tasks: int) -> list[WrittenBatch]:
        """Run the tasks; `records` has Kafka's value, partition, offset and timestamp."""
        return results(records.coalesce(tasks).mapInArrow(self, RESULT))

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """One task."""
        judge, place, erased = _unpacked(self.kit)
        done = WrittenBatch()
        with Writer(place) as writer:
            for batch in map(self._new, batches):
                if batch.num_rows:
                    self._land(judge, erased, batch, writer, done)
            done.files = writer.close()
        yield result(done)

    def _new(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for partition, offset in self.held.items():
            held = pc.and_(pc.equal(batch["partition"], partition), pc.less(batch["offset"], offset))
            if pc.any(held).as_py():
                batch = batch.filter(pc.invert(held))
        return batch

    def _land(self, judge: Judge, erased: Erased, batch: pa.RecordBatch, writer: Writer, done: WrittenBatch) -> None:
        count = batch.num_rows
        if self.landed_at:
            moment = pa.repeat(pa.scalar(self.landed_at, pa.timestamp("us", "UTC")), count)
            batch = batch.append_column(tables.LANDED_AT, moment)
        landing = pa.repeat(pa.scalar(self.landing, pa.int64()), count)
        for judged, rows in of_kafka(judge, erased, batch, landing, self.registry.schema, apart=self.apart):
            writer.write(rows)
            done.counts.update(judged.counts())
        if self.landed_at:
            # Such time stamps need not grow with the offsets, and so do not say what has been landed.
            return
        # As numbers: those of a topic that was another one once may lie beyond any calendar.
        stamps = pa.table([batch["partition"], batch["timestamp"].cast(pa.int64())], ["partition", "us"])
        newest = stamps.group_by("partition").aggregate([("us", "max")]).to_pydict()
        for partition, micros in zip(*newest.values(), strict=True):
            done.newest[partition] = max(done.newest.get(partition, 0.0), micros / 1_000_000)


def of_kafka(
    judge: Judge,
    erased: Erased,
    batch: pa.RecordBatch,
    landing: pa.Array,
    schema: kafka_records.Schemas,
    *,
    apart: bool = False,
) -> Iterator[tuple[Judged, pa.RecordBatch]]:
    """What the contract says of Kafka's records, and the rows of stream_log that they become; none of an erased id.

    In parts, as `Judge.parts` makes them. With a topic of somebody else the batch has the records' `landed_at`, too.
    """
    managed = judge.pipeline.topic.managed
    arrived = batch["timestamp" if managed else tables.LANDED_AT]
    known = {
        "kafka_partition": batch["partition"],
        "kafka_offset": batch["offset"],
        "kafka_timestamp": batch["timestamp"],
        "landing": landing,
        **({} if managed else {tables.LANDED_AT: arrived}),
    }
    for part in judge.parts(kafka_records.of(judge.pipeline, batch, schema), arrived, apart=apart):
        place = {name: part.of_records(array) for name, array in known.items()}
        rows = with_key(judge.pipeline, _with(part.rows, place))
        ids = RejectedIds(judge.pipeline, schema)
        yield _blanked(erased, part, rows, ids, partial(ids.of_kafka, batch))


@dataclass
class TakenFile:
    """The result of one file: its rows by outcome; or why it was set aside; or why it is left for later."""

    file: inbox.File
    sha256: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    """Rows of batch_log by outcome; with `event.each` a record has several."""
    rows: int = 0
    """Records that it has."""
    reason: str = ""
    unchanged: bool = False
    """Its content is the one last ingested."""
    later: str = ""
    """It could not be read now, which says nothing about the file."""


@dataclass
class Ingested:
    """What a task made of its files."""

    files: list[DataFile] = field(default_factory=list)
    taken: list[TakenFile] = field(default_factory=list)


@dataclass(frozen=True)
class FromInbox:
    """Reads files whole, judges their rows and numbers them; a file that cannot be read leaves no row."""

    kit: bytes
    lake: Lake
    landing: int
    landed_at: datetime
    groups: Sequence[Sequence[Chosen]]
    """The files of each task."""
    apart: bool = False

    def run(self, spark: SparkSession) -> list[Ingested]:
        """Run a task per group."""
        count = len(self.groups)
        return results(spark.range(0, count, 1, count).mapInArrow(self, RESULT)) if count else []

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """One task: the numbers of its groups come in."""
        done = Ingested()
        with Writer(_unpacked(self.kit)[1]) as shared:
            for batch in batches:
                for number in batch["id"].to_pylist():
                    for chosen in self.groups[number]:
                        self._take(chosen, shared, done)
            done.files += shared.close()
        yield result(done)

    @cached_property
    def _folder(self) -> inbox.Folder:
        return self.lake.inbox()

    def _take(self, chosen: Chosen, shared: Writer, done: Ingested) -> None:
        taken, rows = TakenFile(chosen.file), Waiting(shared.place)
        done.taken.append(taken)
        try:
            if fault := inbox.name_fault(chosen.file.name):
                raise SetAside(f"its name cannot be taken: {fault}")
            taken.sha256 = inbox.digest(self._folder, chosen.file.name)
            taken.unchanged = taken.sha256 in chosen.known
            if not taken.unchanged:
                self._read(taken, rows)
        except SetAside as error:
            rows.drop()
            taken.reason, taken.counts, taken.rows = str(error), Counter(), 0
        except (OSError, EOFError) as error:
            rows.drop()
            taken.later, taken.counts, taken.rows = f"{type(error).__name__}: {error}", Counter(), 0
        else:
            done.files += rows.keep(shared)

    def _read(self, taken: TakenFile, rows: Waiting) -> None:
        name, landed = taken.file.name, (self.landing, taken.file.name, self.landed_at)
        judge, _, erased = _unpacked(self.kit)
        with self._folder.open(name) as stream:
            for records in read(stream, name, judge.pipeline):
                if not len(records):
                    continue
                taken.rows += len(records)
                for judged, made in of_file(judge, erased, records, landed, apart=self.apart):
                    taken.counts.update(judged.counts())
                    rows.add(made)


def of_file(
    judge: Judge,
    erased: Erased,
    records: JsonRecords | CellRecords,
    landed: tuple[int, str, datetime],
    *,
    apart: bool = False,
) -> Iterator[tuple[Judged, pa.RecordBatch]]:
    """What the contract says of a file's records, and the rows of batch_log that they become; none of an erased id.

    In parts, as `Judge.parts` makes them. `landed` is the number of the landing, the file's name, and when it was.
    """
    landing, name, at = landed
    for part in judge.parts(records, at, apart=apart):
        number = part.of_records(pa.array(records.numbers, pa.int64()))
        place = {
            "landing": pa.repeat(pa.scalar(landing, pa.int64()), len(number)),
            "file": pa.repeat(pa.scalar(name, pa.string()), len(number)),
            "row": number,
            "landed_at": pa.repeat(pa.scalar(at, pa.timestamp("us", "UTC")), len(number)),
        }
        rows = with_key(judge.pipeline, _with(part.rows, place))
        ids = RejectedIds(judge.pipeline)
        yield _blanked(erased, part, rows, ids, partial(ids.of_records, records))


def _blanked(
    erased: Erased, part: Judged, rows: pa.RecordBatch, ids: RejectedIds, read: Callable[[pa.Array], Iterator[Ids]]
) -> tuple[Judged, pa.RecordBatch]:
    """A part with its rows of a log, those of erased ids blank; `read` gives the ids of some of its records."""
    made = erased.blanked(rows, partial(ids.of_rows, read=read, parents=part.parents))
    return replace(part, rows=made), made


class Waiting:
    """The rows of one file, of which none counts before its end: in memory, or past some size in data files of theirs.

    An error of the store while they are written is not the file's fault: it ends the task.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kept: list[pa.RecordBatch] = []
        self._bytes = self._rows = 0
        self._own: Writer | None = None
        self._files: list[DataFile] = []

    def add(self, rows: pa.RecordBatch) -> None:
        """The next rows of the file."""
        self._kept.append(rows)
        self._bytes += rows.nbytes
        if self._bytes > _KEPT_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._own = self._own or Writer(self._place)
        for rows in self._kept:
            _writing(self._own.write, rows)
            self._rows += rows.num_rows
        self._kept, self._bytes = [], 0
        if self._rows >= _ROWS_PER_FILE:
            self._files += _writing(self._own.close)
            self._own, self._rows = None, 0

    def keep(self, shared: Writer) -> list[DataFile]:
        """All of them stay; returns the data files that are theirs alone."""
        if self._own or self._files:
            self._flush()
            return self._files + (_writing(self._own.close) if self._own else [])
        for rows in self._kept:
            _writing(shared.write, rows)
        return []

    def drop(self) -> None:
        """None of them stays."""
        if self._own:
            self._own.abort()
        for file in self._files:
            self._place.io.delete(file.file_path)


def crashed(error: Exception) -> bool:
    """Whether a job failed as the process of one of its tasks ended, and not by an error that the task raised."""
    return any(sign in str(error) for sign in _CRASHED)


class StoreFailed(Exception):
    """Data files cannot be written; not an OSError, which would be one of reading."""


def _writing(write: Callable[..., Any], *rows: pa.RecordBatch) -> Any:  # noqa: ANN401
    try:
        return write(*rows)
    except OSError as error:
        raise StoreFailed(f"data files cannot be written: {error}") from error


def _with(rows: pa.RecordBatch, more: Mapping[str, pa.Array]) -> pa.RecordBatch:
    names = [*rows.schema.names, *more]
    return pa.RecordBatch.from_arrays([*rows.columns, *more.values()], names)


def result(done: object) -> pa.RecordBatch:
    """What a task gives back, as its one row."""
    return pa.RecordBatch.from_pydict({"result": pa.array([pickle.dumps(done)], pa.binary())})


def results(frame: DataFrame) -> list[Any]:
    """What the tasks of a frame give back."""
    return [pickle.loads(row[0]) for row in frame.collect()]
