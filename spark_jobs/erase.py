"""Ids erased for good from the tables of a pipeline: their rows, their old files, and what metadata tells of them.

ids ─► rows of both logs ─► blank: only the place of a record stays     rows of `events` ─► gone, boundary as it was
old snapshots ─► expired, but for the head ─► files that only they named, and files of nobody that hold an id ─► removed

Replaced rows count in the logs as those judged again do: by that number readers and unions know whether `events` is of
them. Everything is found by what the files hold: so a run that was killed is finished by the next with the same ids.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import duckdb
import fastavro
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from spark_jobs import union
from spark_jobs.days import Scratch
from spark_jobs.rejected_ids import RejectedIds, no_registry
from twofold import commits, ledger, table_files, table_state, tables
from twofold.contract.event_keys import of_values
from twofold.contract.kafka_records import Schemas
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.errors import UsageError
from twofold.lake import Lake
from twofold.reader import pruning
from twofold.reader.pinned import Pinned, day_of, pin
from twofold.table_files import Place, Writer, path_of
from twofold.table_state import Folded, History
from twofold.tables import TableShape
from twofold.text import quoted

_KAFKA = ("kafka_partition", "kafka_offset", "kafka_timestamp")
_ATTEMPTS = 10
_T = TypeVar("_T")
_ROWS = 256
"""Read at once: each may hold a whole record, of which DuckDB gives Arrow no more than 2 GiB."""
_WORD = rb"(?<![0-9A-Za-z_])(?:%s)(?![0-9A-Za-z_])"


@dataclass(frozen=True)
class Wanted:
    """The ids to be erased, each as the tables' key column shows it."""

    pipeline: Pipeline
    ids: frozenset[str]
    schemas: Schemas = no_registry
    """Of Avro's values."""

    def __post_init__(self) -> None:
        if not self.ids or "" in self.ids:
            # An empty text is in every payload.
            raise UsageError("no id is named", "name some by --id, or --ids with a file that has one a line")
        for one in sorted(self.ids) if self._is_number else ():
            if not re.fullmatch(r"-?[1-9][0-9]*|0", one):
                raise UsageError(
                    f"{one!r} is no id: {self.pipeline.event.key} is a whole number",
                    "write it as `twofold query` shows it, without a sign + and zeros before it",
                )
        assert self._words is not None  # made here, as an id of several fields may not be one

    @property
    def _is_number(self) -> bool:
        key = self.pipeline.event.fields.get(self.pipeline.event.key)
        return key is not None and key.type.name != "string"

    def may_be_in(self, pinned: Pinned, files: Iterable[DataFile]) -> tuple[DataFile, ...]:
        """Files whose statistics do not rule out such a row."""
        key = self.pipeline.event.key
        where = [pruning.compared(key, "in", [int(one) if self._is_number else one for one in sorted(self.ids)])]
        if tables.OUTCOME in {column.name for column in pinned.columns}:
            where.append(pruning.compared(tables.OUTCOME, "=", tables.REJECTED))
        return pinned.narrowed(files, pruning.any_of(where))

    def those(self, rows: pa.RecordBatch) -> pa.BooleanArray:
        """Which rows are of these ids: by their key, or by what was rejected, as far as that tells."""
        return self.told(rows)[0]

    def told(self, rows: pa.RecordBatch) -> tuple[pa.BooleanArray, int]:
        """As `those`; and how many of the other rows hold a record whose id cannot be read."""
        found = pc.is_in(rows[self.pipeline.event.key].cast(pa.string()), pa.array(sorted(self.ids), pa.string()))
        if tables.OUTCOME not in rows.schema.names:
            return found, 0
        held, untold = set(), 0
        for index, ids in self._rejected.of_rows(rows, partial(self._rejected.of_payloads, rows)).items():
            payload = rows[tables.PAYLOAD][index].as_py() if None in ids else None
            if not self.ids.isdisjoint(ids) or (payload and self.are_named(payload)):
                held.add(index)
            elif payload:
                untold += 1
        return pc.or_(found, pa.array([index in held for index in range(len(rows))])) if held else found, untold

    @cached_property
    def _rejected(self) -> RejectedIds:
        return RejectedIds(self.pipeline, self.schemas)

    def are_named(self, text: bytes) -> bool:
        """Whether one of these ids stands in a text as a word of its own, or, of several fields, each of its values."""
        return any(all(word.search(text) for word in words) for words in self._words)

    @cached_property
    def _words(self) -> list[list[re.Pattern[bytes]]]:
        """Of which in one of the lists all are found in a payload that holds an id."""
        if not self.pipeline.event.id:
            return []
        if len(self.pipeline.event.id) == 1:
            return [[_any_of(self.ids)]]
        # An empty text would be in every payload.
        return [[_any_of([str(part) or '""']) for part in self._parts(one)] for one in sorted(self.ids)]

    def _parts(self, composite: str) -> list[str | int]:
        """The values of an id of several fields, which must be written as the key of a row is: else it finds none."""
        try:
            found = msgspec.convert(json.loads(composite, strict=False), list[str | int])
        except ValueError:
            found = []
        arrays = [pa.array([one]) for one in found]
        if len(found) != len(self.pipeline.event.id) or of_values(arrays)[0].as_py() != composite:
            fields = ", ".join(self.pipeline.event.id)
            raise UsageError(
                f"{composite!r} is no id of the fields {fields}",
                """write it as `_tw_id` has it, without blanks, such as --id '["acme",7]'""",
            )
        return found


def _any_of(texts: Iterable[str]) -> re.Pattern[bytes]:
    """One of the texts, as it is or as JSON may write it, as a word of its own."""
    escaped = ((text, *(json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (True, False))) for text in texts)
    forms = sorted({form for three in escaped for form in three})
    return re.compile(_WORD % b"|".join(re.escape(form.encode()) for form in forms))


@dataclass
class Held:
    """Where one table has rows of the ids."""

    pinned: Pinned
    files: list[DataFile] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    """By outcome; of `events` all are `events`."""
    names: set[str] = field(default_factory=set)
    """batch_log: the files of the inbox that they came from."""
    places: set[tuple[int, int, int]] = field(default_factory=set)
    """stream_log: partition, offset and time stamp of their records in Kafka, in microseconds since 1970: a sender may
    have chosen one that no datetime can hold."""
    untold: int = 0
    """Other rejected rows, with records whose ids cannot be read."""


@dataclass
class Eraser:
    """Erases ids from the tables of a pipeline; the caller holds its locks."""

    lake: Lake
    duck: Scratch
    wanted: Wanted
    _clean: dict[str, int] = field(default_factory=dict, init=False)
    """Table → its first snapshot that tells nothing of the ids, by sequence number."""

    @property
    def shapes(self) -> tuple[TableShape, ...]:
        """The tables that have ids, in the order in which they are rewritten."""
        pipeline = self.lake.pipeline
        return tables.batch_log(pipeline), tables.stream_log(pipeline), tables.events(pipeline)

    def look(self, shape: TableShape) -> Held:
        """Where a table has rows of the ids now."""
        held = Held(pin(self.lake.catalog(), self.lake.name, shape.name, shape))
        names = self._telling(held.pinned)
        for file in self.wanted.may_be_in(held.pinned, held.pinned.all_files):
            for rows in self._rows(held.pinned, file, names):
                those, untold = self.wanted.told(rows)
                held.untold += untold
                found = rows.filter(those)
                if not len(found):
                    continue
                held.files += [] if file in held.files else [file]
                outcomes = found[tables.OUTCOME].to_pylist() if tables.OUTCOME in names else [shape.name] * len(found)
                held.rows.update(outcomes)
                held.names.update(found["file"].to_pylist() if shape.name == tables.BATCH_LOG else ())
                if shape.name == tables.STREAM_LOG:
                    places = (found[name].cast(pa.int64()).to_pylist() for name in _KAFKA)
                    held.places.update(zip(*places, strict=True))
        return held

    def _telling(self, pinned: Pinned) -> list[str]:
        """The columns by which rows are known, and where they come from."""
        wanted = [self.lake.pipeline.event.key, tables.OUTCOME, tables.REASON_KIND, tables.PAYLOAD, *ledger.PLACE]
        return [column.name for column in pinned.columns if column.name in wanted]

    def _rows(self, pinned: Pinned, file: DataFile, names: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        columns = ", ".join(map(quoted, names)) or "*"
        found = self.duck.connection.sql(f"SELECT {columns} FROM {self.duck.read(pinned, (file,))}")
        yield from table_files.grouped(found.to_arrow_reader(_ROWS))

    def erase(self, shape: TableShape, before: tuple[int, int]) -> None:
        """Rewrite the files of one table that hold the ids.

        `events` goes after the logs: if it is of the rows that these had `before`, it is of those that they have now.
        """

        def attempt() -> None:
            held = self.look(shape)
            if held.pinned.history.head is None:
                return
            new: list[DataFile] = []
            try:
                for file in held.files:
                    new += self._rewritten(held.pinned, file)
                self._replace(held, new, before)
            except CommitFailedException:
                commits.discard(held.pinned.made, new)
                raise

        self._retried(shape.name, attempt)

    def _replace(self, held: Held, new: Sequence[DataFile], before: tuple[int, int]) -> None:
        """Commit, also on top of what a stream appended since: by the ledger that is blank where it has to be."""
        table = held.pinned.made
        for _ in range(_ATTEMPTS):
            head, state = table.metadata.current_snapshot_id, self._state(held, table, before)
            with suppress(CommitFailedException):
                self._committed(commits.replace(table, head, held.files, new, state, forget=True))
                return
            table = self.lake.table(table.name()[-1])
        raise CommitFailedException(held.pinned.name)

    def _committed(self, table: Table) -> None:
        self._clean[table.name()[-1]] = _sequence(table)

    def _rewritten(self, pinned: Pinned, file: DataFile) -> list[DataFile]:
        is_log = tables.OUTCOME in {column.name for column in pinned.columns}
        with Writer(Place.of(pinned.made)) as writer:
            for rows in self._rows(pinned, file):
                those = self.wanted.those(rows)
                writer.write(ledger.blank(rows, those) if is_log else rows.filter(pc.invert(those)))
            return writer.close()

    def _state(self, held: Held, table: Table, before: tuple[int, int]) -> dict[str, str]:
        """Of a log: that rows were replaced. Of `events`: which days were touched, and that it is of such logs."""
        history, name = table_state.history_of(table), self.lake.name
        if table.name()[-1] != tables.EVENTS:
            landed = table_state.landed(history, name)
            # Also where none was, as by that a view's query begins again, which may keep the ids.
            return table_state.encode(replace(landed, relanded=landed.relanded + 1))
        edge = table_state.boundary(history, name)
        if before == edge.relanded:
            edge = replace(edge, relanded=union.read(self.lake).next.relanded)
        return table_state.encode(
            replace(edge, touched_days=tuple(sorted({day_of(file) for file in held.files})), rebuilt=False)
        )

    def erase_all(self) -> None:
        """Erase from all three; what `events` was of before, it is of after."""
        before = union.read(self.lake).next.relanded
        for shape in self.shapes:
            self.erase(shape, before)

    # ---- what else holds them: files of old snapshots, files of nobody ----

    def left_behind(self, shape: TableShape) -> list[str]:
        """Data files that are not of the table any more, or never were, and hold an id: their paths."""
        pinned = pin(self.lake.catalog(), self.lake.name, shape.name, shape)
        if pinned.table is None:
            return []
        known = {path_of(file.file_path) for file in pinned.all_files}
        there = (path for path in table_files.present(pinned.table) if path.endswith(".parquet") and path not in known)
        return [path for path in sorted(table_files.own(pinned.table, there)) if self._is_in(pinned, path)]

    def _is_in(self, pinned: Pinned, path: str) -> bool:
        location = pinned.made.location().rstrip("/")
        location += path.removeprefix(path_of(location))
        try:
            file = DataFile.from_args(
                content=DataFileContent.DATA,
                file_path=location,
                file_format=FileFormat.PARQUET,
                partition=Record(),
                record_count=1,
                file_size_in_bytes=len(pinned.made.io.new_input(location)),
            )
            found = self._rows(pinned, file, self._telling(pinned))
            return any(pc.any(self.wanted.those(rows)).as_py() for rows in found)
        except (duckdb.Error, OSError, pa.ArrowException):
            return False  # without its end, so it is not read by anybody

    def purge(self, name: str, left: Sequence[str] = ()) -> int:
        """Expire the snapshots that may show an id, and remove the files that only they named, and those `left`.

        Manifests go first: they tell the least and highest ids of the files that they name.
        """
        table = self.lake.find(name)
        if table is None or table.current_snapshot() is None:
            return 0
        with ThreadPoolExecutor(table_files.THREADS) as pool:
            before = table_files.referenced(pool, table).locations.keys()
            table = self._retried(name, partial(self._without_past, name))
            gone = before - table_files.referenced(pool, table).locations.keys()
            gone |= set(left) | self._naming(table, before, set(left))
        table_files.remove(table, sorted(table_files.own(table, gone), key=lambda path: path.endswith(".parquet")))
        return len(gone)

    def _without_past(self, name: str) -> Table:
        table = self.lake.table(name)
        first = self._clean.get(name, _sequence(table))
        past = [one.snapshot_id for one in table.metadata.snapshots if (one.sequence_number or 0) < first]
        return commits.tidy(table, past)

    def _naming(self, table: Table, known: Iterable[str], left: set[str]) -> set[str]:
        """Manifests of nobody that name one of the files: of a commit that was lost, or a purge that was killed."""
        others = table_files.present(table).keys() - set(known)
        found = set()
        for path in table_files.own(table, others) if left else ():
            name = path.rsplit("/", 1)[1]
            if not name.endswith(".avro") or name.startswith("snap-"):
                continue
            location = table.location().rstrip("/")
            # One that is still being written, or was cut short, names nothing that is gone.
            with (
                suppress(OSError, ValueError, EOFError),
                table.io.new_input(location + path.removeprefix(path_of(location))).open() as stream,
            ):
                entries: Any = fastavro.reader(stream)  # type: ignore[arg-type]
                if any(path_of(entry["data_file"]["file_path"]) in left for entry in entries):
                    found.add(path)
        return found

    def forget_views(self, streaming: bool = False) -> None:
        """See that the newest commits of views tell nothing of what is gone; those of the stream are filled again.

        While it is `streaming` it fills them by itself.
        """
        for view in self.lake.pipeline.views.values():
            stream, batch = tables.stream_view_name(view), tables.batch_view_name(view)
            if not streaming:
                nothing = Folded(None, fingerprint.view(self.lake.pipeline, view))
                self._retried(stream, partial(self._forget, stream, nothing))
            self._retried(batch, partial(self._forget, batch, None))

    def is_filled_again(self, view: View) -> bool:
        """Whether the running stream has filled a view from rows that are left; its table is then clean."""
        table, log = self.lake.table(tables.stream_view_name(view)), self.lake.history(tables.STREAM_LOG)
        folded = table_state.folded(table_state.history_of(table))
        if folded is None or folded.snapshot not in log.snapshots:
            return False
        read, now = (
            table_state.landed(History(log.snapshots, head), self.lake.name) for head in (folded.snapshot, log.head)
        )
        if read.relanded == now.relanded:
            self._committed(table)
        return read.relanded == now.relanded

    def _forget(self, name: str, emptied: Folded | None) -> None:
        found = pin(self.lake.catalog(), self.lake.name, name)
        state = emptied or table_state.folded(found.history)
        if found.table is None or found.history.head is None or state is None:
            return
        old, encoded = found.all_files if emptied else (), table_state.encode(state)
        self._committed(commits.replace(found.table, found.history.head, old, (), encoded, forget=True))

    def _retried(self, name: str, attempt: Callable[[], _T]) -> _T:
        remedy = "see that no maintenance runs, then run it again: what it had done stays done"
        return commits.retried(f"{self.lake.name}.{name}", attempt, remedy, _ATTEMPTS)


def _sequence(table: Table) -> int:
    head = table.current_snapshot()
    return (head.sequence_number or 0) if head else 0
