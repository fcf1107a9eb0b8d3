"""Records judged again, from what Kafka and the inbox still hold, in place of the rows that a log has of them.

rows of a day ─► their records ─┬─ still there ─► judged by today's definition ─┐
                                └─ gone ────────► as they are ──────────────────┴─► new files of the day
old files, new files ─► differences ─► none: the day stays │ else: one commit puts the new files in place of the old

A commit holds only while the table still has each of the old files, and while it is written under today's definition;
what the log says that it holds (offsets, landings) stays, but for a number that says how often rows were replaced. By
that number readers and unions know that `events` is of other rows, and make it again from the logs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.table.update import SetPropertiesUpdate

from spark_jobs.days import Scratch
from spark_jobs.tasks import Waiting, of_file, of_kafka
from twofold import commits, inbox, kafka, ledger, schemas, table_state, tables
from twofold.contract.judge import Judge
from twofold.definition.model import Pipeline
from twofold.definition.names import ELEMENT
from twofold.lake import Lake
from twofold.ledger import Erased
from twofold.reader import pruning
from twofold.reader.pinned import Pinned, columns_of, day_of, pin
from twofold.readers import SetAside, read
from twofold.schema_registry import Registry
from twofold.table_files import Place, Writer
from twofold.tables import TableShape
from twofold.taken import TakenFiles
from twofold.text import quoted
from twofold.topic import Range, TopicState, joined

_PIECE_ROWS = 50_000
_PIECE_BYTES = 32 << 20
"""Records that are judged at once."""
_ATTEMPTS = 10
"""The streaming job commits every few seconds; each of its commits makes one of ours be refused."""
_COPIED_ROWS = 256
"""Each may hold a whole record, of which DuckDB gives Arrow no more than 2 GiB at once."""
_HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))

Write = Callable[["Rejudged", str, Writer], tuple[str, list[DataFile]]]
"""Writes what of a relation is judged again; gives the query of the other rows, and data files of its own."""


@dataclass(frozen=True)
class Asked:
    """Which records are to be judged again: those that arrived `since`; or of one partition those at `offsets`."""

    since: datetime | None = None
    partition: int | None = None
    offsets: Range | None = None

    def bounds(self, arrival: str) -> list[tuple[str, str, Any]]:
        """Conditions on a log's rows: column, operator, value."""
        found: list[tuple[str, str, Any]] = []
        if self.since is not None:
            found.append((arrival, ">=", self.since.isoformat()))
        if self.partition is not None:
            found.append(("kafka_partition", "=", self.partition))
        if self.offsets is not None:
            found += [("kafka_offset", ">=", self.offsets[0]), ("kafka_offset", "<", self.offsets[1])]
        return found

    def where(self, arrival: str) -> str:
        """The same in DuckDB's SQL.

        >>> Asked(partition=1, offsets=(5, 9)).where("kafka_timestamp")
        'kafka_partition = 1 AND kafka_offset >= 5 AND kafka_offset < 9'
        """
        parts = (f"{column} {operator} {_literal(value)}" for column, operator, value in self.bounds(arrival))
        return " AND ".join(parts) or "true"

    def predicate(self, arrival: str) -> BooleanExpression:
        """The same as Iceberg has it."""
        return pruning.all_of(pruning.compared(*bound) for bound in self.bounds(arrival))


def _literal(value: object) -> str:
    return f"TIMESTAMPTZ '{value}'" if isinstance(value, str) else str(value)


@dataclass
class Rejudged:
    """What one log would become. Its new files are not committed."""

    log: Pinned
    old: list[DataFile] = field(default_factory=list)
    new: list[DataFile] = field(default_factory=list)
    judged: int = 0
    """Records judged again."""
    kept: Counter[str] = field(default_factory=Counter)
    """Why records could not be judged again → how many."""
    changes: Counter[str] = field(default_factory=Counter)
    """What changed of a row → how many rows."""
    erased: Erased = field(default_factory=Erased)
    """What rows were compared with."""

    def commit(self, lake: Lake, whole: bool) -> None:
        """Put the new files in place of the old ones; TwofoldError where others took one away, and then none stays.

        `whole`: all records of the log were asked for.
        """
        # If none had to be kept, then all its rows are by the definition of today.
        known = {table_state.DEFINED_SINCE: "1"} if whole and not self.kept else {}
        if not self.changes and known.items() <= self.log.made.properties.items():
            return

        def attempt() -> None:
            table = lake.table(self.log.made.name()[-1])
            schemas.refuse_other_definition(table, lake.pipeline)
            landed = table_state.landed(table_state.history_of(table), lake.name)
            state = table_state.encode(replace(landed, relanded=landed.relanded + 1))
            same = [schemas.same_definition(table), self.erased.unchanged]
            if self.changes:
                head = table.metadata.current_snapshot_id
                updates = [SetPropertiesUpdate(updates=known)] if known else []
                # Unless it is refused they may be the table's from here on, as where no answer comes.
                new, self.new = self.new, []
                try:
                    commits.replace(table, head, self.old, new, state, updates, same)
                except CommitFailedException:
                    self.new = new
                    raise
            else:
                commits.set_properties(table, known, same)

        remedy = "see that no maintenance, reland or erase runs, then run it again: nothing of this table was changed"
        try:
            commits.retried(".".join(self.log.made.name()), attempt, remedy, _ATTEMPTS)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the new files, unless they are, or may be, in the table."""
        if self.new:
            commits.discard(self.log.made, self.new)


@dataclass
class Relander:
    """Judges records of one pipeline again."""

    lake: Lake
    duck: Scratch
    asked: Asked
    judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        self.judge = Judge(self.pipeline)

    @property
    def pipeline(self) -> Pipeline:
        """As it is declared today."""
        return self.lake.pipeline

    def stream_log(self) -> Rejudged:
        """The rows of Kafka's records."""
        rejudged = self._pinned(tables.stream_log(self.pipeline))
        # Of another topic of this name nothing may be taken.
        table_state.landed(rejudged.log.history, self.lake.name, self._topic.topic_id if self._topic else None)
        for files in self._days(rejudged.log, tables.arrival(self.pipeline)):
            self._day(rejudged, files, ("kafka_partition", "kafka_offset"), self._from_kafka)
        return rejudged

    def batch_log(self) -> Rejudged:
        """The rows of files."""
        rejudged = self._pinned(tables.batch_log(self.pipeline))
        for files in self._days(rejudged.log, "landed_at"):
            self._day(rejudged, files, ("landing", "file", "row"), self._from_files)
        return rejudged

    @cached_property
    def _topic(self) -> TopicState | None:
        """None where it is gone, and with it all its records."""
        return kafka.describe(self.lake.settings, self.pipeline.topic.name)

    def _pinned(self, shape: TableShape) -> Rejudged:
        pinned = pin(self.lake.catalog(), self.lake.name, shape.name, shape)
        if pinned.table is None:
            return Rejudged(pinned)
        # In a dry run no job may have brought the table to today's definition yet.
        table = schemas.followed(pinned.table, shape)
        followed = replace(pinned, table=table, columns=columns_of(table.schema(), shape))
        return Rejudged(followed, erased=ledger.read(self.lake, table))

    def _days(self, log: Pinned, arrival: str) -> Iterator[tuple[DataFile, ...]]:
        """All files of the days on which rows asked for arrived: the rows of one record may lie in two of them."""
        asked = log.narrowed(log.all_files, self.asked.predicate(arrival))
        for day in sorted({day_of(file) for file in asked}):
            yield log.on_days([day])

    def _day(self, rejudged: Rejudged, files: tuple[DataFile, ...], key: tuple[str, ...], write: Write) -> None:
        """Write a day again; where that changes anything, its files are to be replaced."""
        rows = self.duck.read(rejudged.log, files)
        with Writer(Place.of(rejudged.log.made)) as writer:
            others, new = write(rejudged, rows, writer)
            writer.write_sorted(self.duck.connection.sql(others).to_arrow_reader(_COPIED_ROWS))
            new += writer.close()
        found = self._changes(rejudged.log, rows, self.duck.read(rejudged.log, tuple(new)), key)
        if found:
            rejudged.old += files
            rejudged.new += new
            rejudged.changes += found
        else:
            commits.discard(rejudged.log.made, new)

    def _changes(self, log: Pinned, before: str, after: str, key: tuple[str, ...]) -> Counter[str]:
        """What differs between the rows of two relations."""
        said = (tables.REASON_KIND, tables.REASON, tables.PAYLOAD)
        # Columns of fields that are not declared any more, too: what they have of these records goes.
        others = [column.name for column in log.columns if column.name not in (tables.OUTCOME, *said)]
        same = [*key, *([ELEMENT] if self.pipeline.event.each else [])]
        on = " AND ".join(f"_tw_b.{quoted(name)} = _tw_a.{quoted(name)}" for name in same)
        values, reasons = (
            " OR ".join(f"_tw_b.{quoted(name)} IS DISTINCT FROM _tw_a.{quoted(name)}" for name in names)
            for names in (others, said)
        )
        rows = self.duck.connection.execute(f"""
SELECT was, now, others, count(*) FROM (
  SELECT _tw_b.outcome AS was, _tw_a.outcome AS now, ({values}) AS others, ({reasons}) AS reasons
  FROM {before} AS _tw_b FULL JOIN {after} AS _tw_a ON {on})
WHERE was IS DISTINCT FROM now OR others OR reasons GROUP BY ALL""").fetchall()
        found: Counter[str] = Counter()
        for was, now, others, count in rows:
            found[change(was, now, others)] += count
        return found

    # ---- records of Kafka ----

    def _from_kafka(self, rejudged: Rejudged, rows: str, writer: Writer) -> tuple[str, list[DataFile]]:
        arrival = tables.arrival(self.pipeline)
        more = "" if self.pipeline.topic.managed else f", {tables.LANDED_AT}"
        asked = self.duck.connection.sql(f"""
SELECT DISTINCT kafka_partition, kafka_offset, kafka_timestamp, landing{more}
FROM {rows} ANTI JOIN ({_erased(rows, "kafka_partition, kafka_offset")}) USING (kafka_partition, kafka_offset)
WHERE {self.asked.where(arrival)} ORDER BY kafka_partition, kafka_offset""")
        found: list[tuple[int, int, int]] = []
        for chunk in asked.to_arrow_reader(_PIECE_ROWS):
            before = rejudged.judged
            for places in self._judged(chunk, rejudged.erased, writer):
                rejudged.judged += len(places)
                found += _spans(places)
            if gone := chunk.num_rows - (rejudged.judged - before):
                rejudged.kept["no longer in Kafka"] += gone
        spans = pa.table(list(map(pa.array, zip(*found, strict=True))) or [pa.array([], pa.int64())] * 3, list("pab"))
        self.duck.connection.register("_tw_anew", spans)
        # The last span that begins at or before a row: the row is in it, or in none.
        return (
            f"""SELECT _tw_r.* FROM {rows} AS _tw_r
ASOF LEFT JOIN _tw_anew ON _tw_anew.p = _tw_r.kafka_partition AND _tw_r.kafka_offset >= _tw_anew.a
WHERE _tw_anew.b IS NULL OR _tw_r.kafka_offset >= _tw_anew.b""",
            [],
        )

    def _judged(self, chunk: pa.RecordBatch, erased: Erased, writer: Writer) -> Iterator[list[tuple[int, int]]]:
        """Judge what Kafka still has of the records of a chunk; gives their places, piece by piece."""
        if self._topic is None:
            return
        places = list(zip(chunk["kafka_partition"].to_pylist(), chunk["kafka_offset"].to_pylist(), strict=True))
        index = {place: number for number, place in enumerate(places)}
        ranges: dict[int, list[int]] = {}
        for partition, offset in places:
            ranges.setdefault(partition, []).append(offset)
        wanted = {partition: joined(offsets) for partition, offsets in ranges.items()}
        sent = kafka.read(self.lake.settings, self.pipeline.topic.name, wanted)
        for piece in _pieces(record for record in sent if (record.partition, record.offset) in index):
            row = pa.array([index[one.partition, one.offset] for one in piece], pa.int64())
            batch = pa.RecordBatch.from_pydict(
                {
                    "value": pa.array([one.value for one in piece], pa.binary()),
                    "key": pa.array([one.key for one in piece], pa.binary()),
                    "headers": pa.array([[{"key": k, "value": v} for k, v in one.headers] for one in piece], _HEADERS),
                    "partition": chunk["kafka_partition"].take(row),
                    "offset": chunk["kafka_offset"].take(row),
                    "timestamp": chunk["kafka_timestamp"].take(row),
                }
            )
            if not self.pipeline.topic.managed:
                batch = batch.append_column(tables.LANDED_AT, chunk[tables.LANDED_AT].take(row))
            schema = Registry.of(self.lake.settings).schema
            for _, made in of_kafka(self.judge, erased, batch, chunk["landing"].take(row), schema):
                writer.write(made)
            yield [(one.partition, one.offset) for one in piece]

    # ---- rows of files ----

    def _from_files(self, rejudged: Rejudged, rows: str, writer: Writer) -> tuple[str, list[DataFile]]:
        asked = self.duck.connection.execute(f"""
SELECT landing, file, any_value(landed_at), count(DISTINCT "row") FROM {rows}
WHERE {self.asked.where("landed_at")} GROUP BY landing, file ORDER BY landing, file""").fetchall()
        done, new = [], list[DataFile]()
        gone = f"({_erased(rows, 'landing, file, row')}) AS _tw_e"
        for landing, file, landed_at, count in asked:
            waiting = Waiting(Place.of(rejudged.log.made))
            blank = self.duck.connection.execute(
                f"""SELECT "row" FROM {gone} WHERE landing = ? AND file = ?""", [landing, file]
            ).fetchall()
            gone_rows = pa.array([row for (row,) in blank], pa.int64())
            if why := self._read((landing, file, landed_at, count), gone_rows, rejudged.erased, waiting):
                waiting.drop()
                rejudged.kept[f"{inbox.shown(file)} (landing {landing}): {why}"] += count
            else:
                new += waiting.keep(writer)
                done.append((landing, file))
                rejudged.judged += count
        landings, names = zip(*done, strict=True) if done else ((), ())
        files = pa.table([pa.array(landings, pa.int64()), pa.array(names, pa.string())], ["landing", "file"])
        self.duck.connection.register("_tw_anew", files)
        return (
            f"""SELECT * FROM {rows} AS _tw_r ANTI JOIN _tw_anew USING (landing, file) UNION ALL
SELECT * FROM {rows} AS _tw_r SEMI JOIN _tw_anew USING (landing, file) SEMI JOIN {gone} USING (landing, file, row)""",
            new,
        )

    def _read(self, taken: tuple[int, str, datetime, int], gone: pa.Array, erased: Erased, waiting: Waiting) -> str:
        """Judge the rows of a file that is as it was taken, but for those `gone`; else why it cannot be."""
        landing, name, landed_at, count = taken
        row = self._taken.get((landing, name), {"version": "", "sha256": ""})
        if why := self._files.absence(landing, name, row["version"], row["sha256"]):
            return why
        read_rows = 0
        try:
            with self._files.of(landing).open(name) as stream:
                for records in read(stream, name, self.pipeline):
                    read_rows += len(records)
                    for _, made in of_file(self.judge, erased, records, (landing, name, landed_at)):
                        waiting.add(made.filter(pc.invert(pc.is_in(made["row"], gone))))
        except (SetAside, FileNotFoundError) as error:  # the latter: it was deleted meanwhile
            return str(error)
        if why := TakenFiles(self.lake).absence(landing, name, row["version"], row["sha256"]):
            return why
        if read_rows != count:
            return f"it has {read_rows:,} rows today: `twofold replay {self.lake.name} --landings {landing}`"
        return ""

    @cached_property
    def _files(self) -> TakenFiles:
        return TakenFiles(self.lake)

    @cached_property
    def _taken(self) -> dict[tuple[int, str], dict[str, Any]]:
        """Landing and file → the row of landed_files."""
        return {(row["landing"], row["file"]): row for row in self.lake.landed_files()}


def _erased(rows: str, columns: str) -> str:
    """Where erased records lie: they stay as they are."""
    return f"SELECT DISTINCT {columns} FROM {rows} WHERE outcome = '{tables.ERASED}'"


def change(was: str | None, now: str | None, others: bool) -> str:
    """What changed of a row, in words.

    >>> change("accepted", "rejected", True), change("accepted", "accepted", True), change(None, "accepted", True)
    ('accepted, now rejected', 'accepted, other values', 'new, accepted')
    """
    if was is None:
        return f"new, {now}"
    if now is None:
        return f"{was}, now gone"
    if was != now:
        return f"{was}, now {now}"
    return f"{was}, other values" if others else f"{was}, another reason"


def _spans(places: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Places in order as partition, first offset and end."""
    for partition, group in groupby(places, lambda place: place[0]):
        for low, high in joined(offset for _, offset in group):
            yield partition, low, high


def _pieces(records: Iterator[kafka.KafkaRecord]) -> Iterator[list[kafka.KafkaRecord]]:
    """As many together as are judged at once."""
    piece: list[kafka.KafkaRecord] = []
    size = 0
    for record in records:
        piece.append(record)
        size += len(record.value or b"")
        if len(piece) == _PIECE_ROWS or size > _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
