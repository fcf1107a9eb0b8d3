"""Files of the inbox into `batch_log`, each content exactly once, whenever a run is killed.

    inbox ─► versions, contents last taken ─► what is new ─► tasks: read, judge, write data files
    ─► still the same files? ─► commit 1: batch_log, its marker with the files ─► commit 2: landed_files ─► again
                                            a crash here ─► `heal` in the next run ──────┘

Each commit holds only on top of the state it was decided on: of two runs that would take the same file, whatever became
of the lock between them, one is refused, and decides anew. A file that ends the process which reads it is found by
reading the files one by one, and set aside.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import click
import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from spark_jobs.outcome import root_cause
from spark_jobs.tasks import Chosen, FromInbox, Ingested, Kit, StoreFailed, Taken, crashed
from twofold import commits, inbox, schemas, table_state, tables
from twofold.definition.model import Pipeline
from twofold.errors import BoundaryError, TwofoldError
from twofold.settings import Settings
from twofold.table_files import Place, Writer
from twofold.table_state import History, Landed

MAX_FILES = 500
MAX_BYTES = 4 << 30
"""Limits of one landing: its marker stays small, and a run that is killed repeats no more than this."""
_GROUP_FILES = 64
_GROUP_BYTES = 64 << 20
"""Small files that one task reads, one after the other, into one data file."""
_TRIES = 3
_ATTEMPTS = 5
_COLUMNS = tables.landed_files().column_names


@dataclass(frozen=True)
class Last:
    """The last version of a file that was taken or set aside."""

    landing: int
    version: str
    sha256: str


@dataclass(frozen=True)
class Book:
    """What both tables say: the last landing in each, and the last version of each file."""

    log: Table
    record: Table
    landing: int
    recorded: int
    files: dict[str, Last]

    @property
    def history(self) -> History:
        """The commits of batch_log."""
        return table_state.history_of(self.log)

    def unrecorded(self) -> list[dict[str, Any]]:
        """Rows that `landed_files` lacks, oldest first, out of the markers; BoundaryError where one is gone."""
        states = (json.loads(s.summary[Landed.KEY]) for s in self.history.ancestors() if Landed.KEY in s.summary)
        missing = {state["landing"]: state["files"] for state in states if state["landing"] > self.recorded}
        wanted = list(range(self.recorded + 1, self.landing + 1))
        if self.recorded > self.landing or sorted(missing) != wanted:
            raise BoundaryError(
                f"batch_log has {self.landing} landings and landed_files {self.recorded}: one of them was replaced",
                "restore the lost table; until then nothing is ingested, as files would be taken twice",
            )
        return [row for number in sorted(missing) for row in missing[number]]


def read_book(catalog: Catalog, pipeline: Pipeline) -> Book:
    """Read both tables as they are now: the record first, so that it is never ahead of the log."""
    record, log = (catalog.load_table((pipeline.name, name)) for name in (tables.LANDED_FILES, tables.BATCH_LOG))
    files: dict[str, Last] = {}
    rows = record.scan(selected_fields=("landing", "file", "version", "sha256")).to_arrow()
    for row in rows.sort_by("landing").to_pylist():
        files[row["file"]] = Last(row["landing"], row["version"], row["sha256"])
    recorded = max((last.landing for last in files.values()), default=0)
    return Book(log, record, table_state.landed(table_state.history_of(log), pipeline.name).landing, recorded, files)


def file_row(
    landing: int, file: str, size_bytes: int, version: str, sha256: str, rows: int, reason: str, landed_at: datetime
) -> dict[str, Any]:
    """A row of `landed_files`, plain enough for a marker; no reason means that the file was taken."""
    values = (landing, file, size_bytes, version, sha256, rows, reason or None, landed_at.isoformat())
    return dict(zip(_COLUMNS, values, strict=True))


def append_files(record: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """The second commit: which files these landings took or set aside."""
    typed = [{**row, "landed_at": datetime.fromisoformat(row["landed_at"])} for row in rows]
    place = Place.of(record)
    writer = Writer(place)
    writer.write(pa.RecordBatch.from_pylist(typed, place.arrow))
    commits.append(record, writer.close(), {})


def heal(catalog: Catalog, pipeline: Pipeline) -> int:
    """Record the landings that a crash kept from `landed_files`; the number of files recorded."""
    for _ in range(_ATTEMPTS):
        book = read_book(catalog, pipeline)
        rows = book.unrecorded()
        if not rows:
            return 0
        try:
            append_files(book.record, rows)
        except CommitFailedException:
            continue  # another run was first: see what it left
        return len(rows)
    raise _contended(pipeline)


@dataclass
class Landing:
    """One commit of `batch_log`: the files that it took or set aside."""

    number: int
    files: list[Taken]

    @property
    def total(self) -> Counter[str]:
        """Rows of all its files by outcome."""
        return sum((file.counts for file in self.files), Counter[str]())


@dataclass
class Batch:
    """One run. `still_locked` raises where the lock was lost."""

    spark: SparkSession
    settings: Settings
    catalog: Catalog
    pipeline: Pipeline
    still_locked: Callable[[], None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    landings: list[Landing] = field(default_factory=list)
    later: dict[str, str] = field(default_factory=dict)
    """Files that could not be read now, and why; the next run tries them again."""
    _moved: Counter[str] = field(default_factory=Counter)
    _same: set[tuple[str, str]] = field(default_factory=set)
    """Versions whose content is the one last taken: looked at once a run."""

    def run(self) -> None:
        """Heal, then ingest until nothing new is there."""
        heal(self.catalog, self.pipeline)
        while True:
            book = read_book(self.catalog, self.pipeline)
            schemas.refuse_other_definition(book.log, self.pipeline)
            chosen = first_landing(self._new(book.files))
            if not chosen:
                return
            self._ingest(book, chosen)

    def left_for_later(self) -> list[str]:
        """Names of files that changed each time they were read."""
        return sorted(name for name, times in self._moved.items() if times >= _TRIES)

    def _new(self, last: Mapping[str, Last]) -> list[Chosen]:
        listed = new_files(inbox.folder(self.settings, self.pipeline.name), last)
        return [
            one
            for one in listed
            if self._moved[one.file.name] < _TRIES
            and one.file.name not in self.later
            and (one.file.name, one.file.version) not in self._same
        ]

    def _ingest(self, book: Book, chosen: Sequence[Chosen]) -> None:
        """One landing; nothing is committed where the choice did not hold and must be made anew."""
        number, landed_at = book.landing + 1, self.now()
        kit = Kit(self.pipeline, Place.of(book.log)).packed()
        task = FromInbox(kit, self.pipeline.name, self.settings, number, landed_at, grouped(chosen))
        done = run_tasks(self.spark, task)
        taken = [one for part in done for one in part.taken]
        files = [file for part in done for file in part.files]
        try:
            committed = self._settled(taken) and self._commit(book, number, landed_at, taken, files)
        except CommitFailedException:
            committed = False
        if not committed:
            for file in files:
                with suppress(OSError):
                    book.log.io.delete(file.file_path)

    def _settled(self, taken: Sequence[Taken]) -> bool:
        """Note what is not to be committed; False where a file changed meanwhile, as its rows are among the others."""
        self.later.update((one.file.name, one.later) for one in taken if one.later)
        self._same.update((one.file.name, one.file.version) for one in taken if one.unchanged)
        read = [one.file for one in taken if not one.later]
        moved = inbox.changed(inbox.folder(self.settings, self.pipeline.name), read)
        self._moved.update(moved)
        return not moved

    def _commit(
        self, book: Book, number: int, landed_at: datetime, taken: Sequence[Taken], files: Sequence[DataFile]
    ) -> bool:
        new = sorted((one for one in taken if not one.later and not one.unchanged), key=lambda one: one.file.name)
        if not new:
            return True
        rows = tuple(
            file_row(
                number,
                one.file.name,
                one.file.size_bytes,
                one.file.version,
                one.sha256,
                one.rows,
                one.reason,
                landed_at,
            )
            for one in new
        )
        if told := commits.clock_warning(book.log):
            click.echo(f"warning: {told}", err=True)
        self.still_locked()
        state = table_state.encode(Landed(self.pipeline.name, number, files=rows))
        commits.append(book.log, files, state, [schemas.same_definition(book.log)])
        self.landings.append(Landing(number, new))
        try:
            append_files(book.record, rows)
        except CommitFailedException:
            heal(self.catalog, self.pipeline)
        return True


def run_tasks(spark: SparkSession, task: FromInbox) -> list[Ingested]:
    """Run all groups; where a worker crashes, its files one by one, then those that crash it record by record."""
    try:
        return task.run(spark)
    except (PySparkException, Py4JJavaError) as error:
        if StoreFailed.__name__ in str(error):
            raise TwofoldError(root_cause(error), "see to the store, then run the same command again") from None
        if not crashed(error):
            raise
    done = []
    for chosen in (one for group in task.groups for one in group):
        done += _alone(spark, replace(task, groups=[[chosen]]), chosen)
    return done


def _alone(spark: SparkSession, task: FromInbox, chosen: Chosen) -> list[Ingested]:
    for apart in (False, True):
        try:
            return replace(task, apart=apart).run(spark)
        except (PySparkException, Py4JJavaError) as error:
            if not crashed(error):
                raise
    with inbox.folder(task.settings, task.pipeline).open(chosen.file.name) as stream:
        digest = inbox.sha256(stream)
    return [Ingested(taken=[Taken(chosen.file, digest, reason="the process that read it crashed, twice")])]


def new_files(folder: inbox.Folder, last: Mapping[str, Last]) -> list[Chosen]:
    """Files whose version is not the one recorded, by name."""
    return [
        Chosen(file, last[file.name].sha256 if file.name in last else "")
        for file in folder.files()
        if is_text(file.name) and not (file.name in last and last[file.name].version == file.version)
    ]


def unnameable(folder: inbox.Folder) -> list[str]:
    """Names no table can hold, made printable."""
    names = (file.name for file in folder.files() if not is_text(file.name))
    return [name.encode("utf-8", "backslashreplace").decode() for name in names]


def is_text(name: str) -> bool:
    """Whether the name is UTF-8; names on a disk may be any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def first_landing(new: Iterable[Chosen]) -> list[Chosen]:
    """The first files, as many as one landing takes; at least one, however large."""
    taken: list[Chosen] = []
    size = 0
    for one in new:
        size += one.file.size_bytes
        if taken and (len(taken) == MAX_FILES or size > MAX_BYTES):
            break
        taken.append(one)
    return taken


def grouped(chosen: Sequence[Chosen]) -> list[list[Chosen]]:
    """The files of each task: a large one alone, small ones together."""
    groups: list[list[Chosen]] = []
    size = 0
    for one in chosen:
        size += one.file.size_bytes
        if not groups or len(groups[-1]) == _GROUP_FILES or size > _GROUP_BYTES:
            groups.append([])
            size = one.file.size_bytes
        groups[-1].append(one)
    return groups


def _contended(pipeline: Pipeline) -> TwofoldError:
    return TwofoldError(
        f"{pipeline.name}.{tables.LANDED_FILES} was changed by others during each of {_ATTEMPTS} attempts",
        "see that only one batch run goes on at a time, then run it again",
    )
