"""Files of the inbox into `batch_log`, each content exactly once, whenever a run is killed.

    inbox ─► versions, contents last taken ─► what is new ─► tasks: read, judge, write data files
    ─► still the same files? ─► commit 1: batch_log, its marker with the files ─► commit 2: landed_files ─► again
                                            a crash here ─► `heal` in the next run ──────┘

Each commit holds only on top of the state it was decided on: of two runs that would ingest the same file, even if the
lock between them failed, one is refused, and decides again. A file that ends the process which reads it is found by
reading the files one by one, and set aside.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import click
import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from spark_jobs.outcome import root_cause
from spark_jobs.spark_session import Job
from spark_jobs.tasks import Chosen, FromInbox, Ingested, StoreFailed, TakenFile, crashed, packed
from twofold import commits, inbox, schemas, table_state, tables
from twofold.errors import BoundaryError, TwofoldError
from twofold.lake import Lake
from twofold.table_files import Place, Writer
from twofold.table_state import History, Landed

MAX_FILES = 500
MAX_BYTES = 4 << 30
"""Limits of a commit of at least one file: its marker stays small, and a killed run repeats no more than this."""
_GROUP_FILES = 64
_GROUP_BYTES = 64 << 20
"""Small files that one task reads, one after the other, into one data file; a large one it reads alone."""
_TRIES = 3
_ATTEMPTS = 5
_COLUMNS = tables.landed_files().column_names


@dataclass(frozen=True)
class Last:
    """The last version of a file that was ingested or set aside."""

    landing: int
    version: str
    sha256: str


@dataclass(frozen=True)
class Book:
    """What both tables say: the last landing in each, and the last version of each file."""

    log: Table
    record: Table
    landed: Landed
    recorded: int
    files: dict[str, Last]

    @property
    def landing(self) -> int:
        """The last landing that batch_log has."""
        return self.landed.landing

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


def read_book(lake: Lake) -> Book:
    """Read both tables as they are now: the record first, so that it is never ahead of the log."""
    record, log = (lake.table(name) for name in (tables.LANDED_FILES, tables.BATCH_LOG))
    files: dict[str, Last] = {}
    rows = record.scan(selected_fields=("landing", "file", "version", "sha256")).to_arrow()
    for row in rows.sort_by("landing").to_pylist():
        files[row["file"]] = Last(row["landing"], row["version"], row["sha256"])
    recorded = max((last.landing for last in files.values()), default=0)
    return Book(log, record, table_state.landed(table_state.history_of(log), lake.name), recorded, files)


def _file_row(landing: int, one: TakenFile, landed_at: datetime) -> dict[str, Any]:
    """A row of `landed_files`, plain enough for a marker; no reason means that the file was ingested."""
    file, reason = one.file, one.reason or None
    values = (landing, file.name, file.size_bytes, file.version, one.sha256, one.rows, reason, landed_at.isoformat())
    return dict(zip(_COLUMNS, values, strict=True))


def append_files(record: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """The second commit: which files these landings ingested or set aside."""
    typed = [{**row, "landed_at": datetime.fromisoformat(row["landed_at"])} for row in rows]
    place = Place.of(record)
    writer = Writer(place)
    writer.write(pa.RecordBatch.from_pylist(typed, place.arrow))
    commits.append(record, writer.close(), {})


def heal(lake: Lake) -> None:
    """Record in `landed_files` what a crash left out."""
    for _ in range(_ATTEMPTS):
        book = read_book(lake)
        rows = book.unrecorded()
        if not rows:
            return
        # Refused where another run was first: read what that run left.
        with suppress(CommitFailedException):
            append_files(book.record, rows)
            return
    raise TwofoldError(
        f"{lake.name}.{tables.LANDED_FILES} was changed by others during each of {_ATTEMPTS} attempts",
        "see that only one batch run is active at a time, then run it again",
    )


@dataclass
class Landing:
    """One commit of `batch_log`: the files that it ingested or set aside."""

    number: int
    files: list[TakenFile]

    @property
    def total(self) -> Counter[str]:
        """Rows of all its files by outcome."""
        return sum((file.counts for file in self.files), Counter[str]())


@dataclass
class BatchRun:
    """One run. `still_locked` raises where the lock was lost."""

    job: Job
    still_locked: Callable[[], None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    landings: list[Landing] = field(default_factory=list)
    later: dict[str, str] = field(default_factory=dict)
    """Files that could not be read now, and why; the next run tries them again."""
    _moved: Counter[str] = field(default_factory=Counter)
    _same: set[tuple[str, str]] = field(default_factory=set)
    """Versions whose content is the one last taken: looked at once a run."""

    @property
    def _folder(self) -> inbox.Folder:
        return self.job.lake.inbox()

    def run(self) -> None:
        """Heal, then ingest until nothing is new."""
        heal(self.job.lake)
        while True:
            book = read_book(self.job.lake)
            schemas.refuse_other_definition(book.log, self.job.pipeline)
            new = _grouped(self._new(book.files), MAX_BYTES, MAX_FILES)
            if not new:
                return
            self._ingest(book, new[0])

    def warnings(self) -> Iterator[str]:
        """Files that were set aside, or are left for the next run."""
        for file in (file for one in self.landings for file in one.files if file.reason):
            yield f"{inbox.shown(file.file.name)} was set aside: {file.reason}; fix it and put it there again"
        for name, why in sorted(self.later.items()):
            yield f"{inbox.shown(name)} could not be read now: {why}; the next run tries again"
        for name in sorted(name for name, times in self._moved.items() if times >= _TRIES):
            yield f"{inbox.shown(name)} changed each time it was read; the next run takes it, once it keeps still"

    def _new(self, last: Mapping[str, Last]) -> list[Chosen]:
        return [
            one
            for one in new_files(self._folder, last)
            if self._moved[one.file.name] < _TRIES
            and one.file.name not in self.later
            and (one.file.name, one.file.version) not in self._same
        ]

    def _ingest(self, book: Book, chosen: Sequence[Chosen]) -> None:
        """One commit's files; nothing is committed where the choice did not hold and must be made again."""
        number, landed_at = book.landing + 1, self.now()
        kit = packed(self.job.pipeline, Place.of(book.log))
        groups = _grouped(chosen, _GROUP_BYTES, _GROUP_FILES)
        task = FromInbox(kit, self.job.lake, number, landed_at, groups)
        done = run_tasks(self.job.spark, task)
        taken = [one for part in done for one in part.taken]
        files = [file for part in done for file in part.files]
        try:
            committed = self._settled(taken) and self._commit(book, number, landed_at, taken, files)
        except CommitFailedException:
            committed = False
        if not committed:
            commits.discard(book.log, files)

    def _settled(self, taken: Sequence[TakenFile]) -> bool:
        """Note files not to be committed; False where a file changed meanwhile, as its rows are among the others."""
        self.later.update((one.file.name, one.later) for one in taken if one.later)
        self._same.update((one.file.name, one.file.version) for one in taken if one.unchanged)
        read = [one.file for one in taken if not one.later]
        moved = inbox.changed(self._folder, read)
        self._moved.update(moved)
        return not moved

    def _commit(
        self, book: Book, number: int, landed_at: datetime, taken: Sequence[TakenFile], files: Sequence[DataFile]
    ) -> bool:
        new = sorted((one for one in taken if not one.later and not one.unchanged), key=lambda one: one.file.name)
        if not new:
            return True
        rows = tuple(_file_row(number, one, landed_at) for one in new)
        if warning := commits.clock_warning(book.log):
            click.echo(f"warning: {warning}", err=True)
        self.still_locked()
        state = table_state.encode(replace(book.landed, landing=number, files=rows))
        commits.append(book.log, files, state, [schemas.same_definition(book.log)])
        self.landings.append(Landing(number, new))
        try:
            append_files(book.record, rows)
        except CommitFailedException:
            heal(self.job.lake)
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
    with task.lake.inbox().open(chosen.file.name) as stream:
        digest = inbox.sha256(stream)
    return [Ingested(taken=[TakenFile(chosen.file, digest, reason="the process that read it crashed, twice")])]


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


def _grouped(chosen: Iterable[Chosen], limit_bytes: int, limit_files: int) -> list[list[Chosen]]:
    """In order, as many together as the limits let; a file that is larger is alone."""
    groups: list[list[Chosen]] = []
    size = 0
    for one in chosen:
        size += one.file.size_bytes
        if not groups or len(groups[-1]) == limit_files or size > limit_bytes:
            groups.append([])
            size = one.file.size_bytes
        groups[-1].append(one)
    return groups


def is_text(name: str) -> bool:
    """Whether the name is UTF-8; names on a disk may be any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
