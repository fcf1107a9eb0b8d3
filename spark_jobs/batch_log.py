"""Files of the inbox into `batch_log`, each content exactly once, whenever a run is killed.

    inbox ─► versions, contents last taken ─► what is new, in groups ─► tasks: read, judge, write data files
    ─► still the same files? ─► commit 1: batch_log, its marker with the files ─► commit 2: landed_files ─► next group
                                            a crash here ─► `heal` in the next run ──────┘

Each commit holds only on top of the state it was decided on: of two runs that would ingest the same file, even if the
lock between them failed, one is refused, and decides again. A file that ends the process which reads it is found by
reading the files one by one, and set aside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import click
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyspark.sql import SparkSession

from spark_jobs.outcome import root_cause
from spark_jobs.spark_session import JVM_FAILED, Job
from spark_jobs.tasks import FromInbox, Ingested, StoreFailed, TakenFile, crashed, packed
from twofold import commits, inbox, ledger, schemas, table_files, table_state, tables
from twofold.errors import TwofoldError
from twofold.lake import Lake
from twofold.ledger import Erased
from twofold.table_files import Place
from twofold.taken import Book, Chosen, Last, new_files, put_away, read_book, settle

MAX_FILES = 500
MAX_BYTES = 4 << 30
"""Limits of a commit of at least one file: its marker stays small, and a killed run repeats no more than this."""
_GROUP_FILES = 64
_GROUP_BYTES = 64 << 20
"""Small files that one task reads, one after the other, into one data file; a large one it reads alone."""
_TRIES = 3
_COLUMNS = tables.landed_files().column_names


def _file_row(landing: int, one: TakenFile, landed_at: datetime) -> dict[str, Any]:
    """A row of `landed_files`, plain enough for a marker; no reason means that the file was ingested."""
    file, reason = one.file, one.reason or None
    values = (landing, file.name, file.size_bytes, file.version, one.sha256, one.rows, reason, landed_at.isoformat())
    return dict(zip(_COLUMNS, values, strict=True))


def append_files(record: Table, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The second commit: which files these landings ingested or set aside."""
    typed = ({**row, "landed_at": datetime.fromisoformat(row["landed_at"])} for row in rows)
    return commits.append(record, table_files.of_rows(record, typed), {})


def heal(lake: Lake) -> None:
    """Record in `landed_files` what a crash left out."""

    def attempt() -> None:
        book = read_book(lake)
        # Refused where another run was first: then what that run left is read.
        if rows := book.unrecorded():
            append_files(book.record, rows)

    remedy = "see that only one batch run is active at a time, then run it again"
    commits.retried(f"{lake.name}.{tables.LANDED_FILES}", attempt, remedy)


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
    """One run."""

    job: Job
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    landings: list[Landing] = field(default_factory=list)
    later: dict[str, str] = field(default_factory=dict)
    """Files that could not be read now, and why; the next run tries them again."""
    _moved: Counter[str] = field(default_factory=Counter)
    _same: dict[tuple[str, str], str] = field(default_factory=dict)
    """Versions whose content is known: looked at once a run."""

    @property
    def _folder(self) -> inbox.Folder:
        return self.job.lake.inbox()

    def run(self) -> None:
        """Heal, then ingest until nothing is new; what was taken is then archived or deleted, if that is declared."""
        heal(self.job.lake)
        settle(self.job.lake)
        while True:
            book, lying = read_book(self.job.lake), self._folder.files()
            schemas.refuse_other_definition(book.log, self.job.pipeline)
            put_away(self.job.lake, lying, book.files, self._same)
            new = _grouped(self._new(lying, book.files), MAX_BYTES, MAX_FILES)
            if not new:
                return
            # Each group in a landing of its own, on top of the last; ends where the choice must be repeated.
            left: Book | None = book
            for group in new:
                left = left and self._ingest(left, group)

    def warnings(self) -> Iterator[str]:
        """Files that were set aside, or are left for the next run."""
        for file in (file for one in self.landings for file in one.files if file.reason):
            yield f"{inbox.shown(file.file.name)} was set aside: {file.reason}; fix it and put it there again"
        for name, why in sorted(self.later.items()):
            yield f"{inbox.shown(name)} could not be read now: {why}; the next run tries again"
        for name in sorted(name for name, times in self._moved.items() if times >= _TRIES):
            yield f"{inbox.shown(name)} changed each time it was read; the next run takes it, once it keeps still"

    def _new(self, lying: Iterable[inbox.File], last: Mapping[str, Last]) -> list[Chosen]:
        return [
            one
            for one in new_files(lying, last)
            if self._moved[one.file.name] < _TRIES
            and one.file.name not in self.later
            and (one.file.name, one.file.version) not in self._same
        ]

    def _ingest(self, book: Book, chosen: Sequence[Chosen]) -> Book | None:
        """One commit's files; returns what the tables say then, None where the choice must be repeated."""
        number, landed_at = book.landing + 1, self.now()
        erased = ledger.read(self.job.lake, book.log)
        kit = packed(self.job.pipeline, Place.of(book.log), erased)
        groups = _grouped(chosen, _GROUP_BYTES, _GROUP_FILES)
        task = FromInbox(kit, self.job.lake, number, landed_at, groups)
        done = run_tasks(self.job.spark, task)
        taken = [one for part in done for one in part.taken]
        files = [file for part in done for file in part.files]
        try:
            after = self._commit(book, erased, number, landed_at, taken, files) if self._settled(taken) else None
        except CommitFailedException:
            after = None
        if after is None:
            commits.discard(book.log, files)
        return after

    def _settled(self, taken: Sequence[TakenFile]) -> bool:
        """Note files not to be committed; False where a file changed meanwhile, as its rows are among the others."""
        # A file that was taken away since it was listed is nobody's affair.
        unread = (one for one in taken if one.later and self._folder.version(one.file.name) is not None)
        self.later.update((one.file.name, one.later) for one in unread)
        self._same.update({(one.file.name, one.file.version): one.sha256 for one in taken if one.unchanged})
        read = [one.file for one in taken if not one.later]
        moved = {file.name for file in read if self._folder.version(file.name) != file.version}
        self._moved.update(moved)
        return not moved

    def _commit(
        self,
        book: Book,
        erased: Erased,
        number: int,
        landed_at: datetime,
        taken: Sequence[TakenFile],
        files: Sequence[DataFile],
    ) -> Book:
        new = sorted((one for one in taken if not one.later and not one.unchanged), key=lambda one: one.file.name)
        if not new:
            return book
        rows = tuple(_file_row(number, one, landed_at) for one in new)
        if warning := commits.clock_warning(book.log):
            click.echo(f"warning: {warning}", err=True)
        landed = replace(book.landed, landing=number, files=rows)
        same = [schemas.same_definition(book.log), erased.unchanged]
        log = commits.append(book.log, files, table_state.encode(landed), same)
        self.landings.append(Landing(number, new))
        try:
            record = append_files(book.record, rows)
        except CommitFailedException:
            heal(self.job.lake)
            return read_book(self.job.lake)
        return replace(book, log=log, record=record, landed=landed, recorded=number)


def run_tasks(spark: SparkSession, task: FromInbox) -> list[Ingested]:
    """Run all groups; where a worker crashes, its files one by one, then those that crash it record by record."""
    try:
        return task.run(spark)
    except JVM_FAILED as error:
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
        except JVM_FAILED as error:
            if not crashed(error):
                raise
    digest = inbox.digest(task.lake.inbox(), chosen.file.name)
    return [Ingested(taken=[TakenFile(chosen.file, digest, reason="the process that read it crashed, twice")])]


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
