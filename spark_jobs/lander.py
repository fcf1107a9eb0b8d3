"""The protocol of a batch run, under the pipeline's lock: exact whenever it is killed.

    heal ─► new files ─► stage ─► unchanged? ─► commit 1: rows and marker ─► commit 2: landed_files ─► again, until none

A file that Spark cannot read is found by halving the set, and set aside; one that changed meanwhile is listed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyiceberg.catalog import Catalog
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession

from spark_jobs import files, landings, staging
from spark_jobs.inspection import Inspection
from spark_jobs.outcome import root_cause
from spark_jobs.selection import Selection, first_landing
from spark_jobs.staging import Counts, Staged
from twofold import inbox
from twofold.boundary import Landed
from twofold.definition.model import Pipeline

_READ_FAULTS = (Py4JJavaError, PySparkException)


class LandedFile(NamedTuple):
    """What became of one file: counts of its records, or the reason why it was set aside."""

    name: str
    counts: Counts
    reason: str = ""


class Landing(NamedTuple):
    """One commit of `batch_log`."""

    number: int
    files: tuple[LandedFile, ...]

    @property
    def total(self) -> Counts:
        """Counts of all its files."""
        return Counts(*map(sum, zip(*(file.counts for file in self.files), strict=True)))


@dataclass
class Lander:
    """Lands what is new. `still_locked` raises where the lock was lost."""

    spark: SparkSession
    catalog: Catalog
    pipeline: Pipeline
    selection: Selection
    still_locked: Callable[[], None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        # Its own settings, as others may share the JVM.
        self.spark = self.spark.newSession()
        for key, value in files.SESSION.items():
            self.spark.conf.set(key, value)

    def land_all(self) -> list[Landing]:
        """Heal, then land until nothing new is there."""
        landings.heal(self.spark, self.catalog, self.pipeline)
        done: list[Landing] = []
        while True:
            book = landings.read_book(self.catalog, self.pipeline)
            chosen = first_landing(self.selection.new_files(book.files))
            if not chosen:
                return done
            landed = self._land(chosen, book.landing + 1)
            done += [landed] if landed else []

    def _land(self, chosen: Sequence[Inspection], number: int) -> Landing | None:
        """One landing; None where the choice did not hold and must be made anew."""
        landed_at = self.now()
        readable = [one for one in chosen if one.layout is not None]
        try:
            staged = self._stage(readable, landed_at) if readable else None
        except _READ_FAULTS as error:
            self._sort_out(readable, landed_at, error)
            return None
        try:
            if self._moved(chosen):
                return None
            return self._commit(staged, chosen, number, landed_at)
        finally:
            if staged:
                staged.release()

    def _stage(self, readable: Sequence[Inspection], landed_at: datetime) -> Staged:
        return staging.stage(self.spark, self.pipeline, self.selection.inspector.folder.uri, readable, landed_at)

    def _moved(self, chosen: Sequence[Inspection]) -> bool:
        moved = inbox.changed(self.selection.inspector.folder, (one.file for one in chosen))
        self.selection.moved(moved)
        return bool(moved)

    def _commit(self, staged: Staged | None, chosen: Sequence[Inspection], number: int, landed_at: datetime) -> Landing:
        counts = staged.counts() if staged else {}
        landed = tuple(LandedFile(one.file.name, counts.get(one.file.name, Counts()), one.reason) for one in chosen)
        rows = tuple(_row(one, file, number, landed_at) for one, file in zip(chosen, landed, strict=True))
        frame = staged.rows() if staged and counts else landings.no_rows(self.spark, self.pipeline)
        self.still_locked()
        landings.append_rows(self.pipeline, frame, Landed(self.pipeline.name, number, files=rows), landed_at)
        landings.append_files(self.spark, self.pipeline, rows)
        return Landing(number, landed)

    def _sort_out(self, readable: Sequence[Inspection], landed_at: datetime, error: Exception) -> None:
        """Set aside the files that make Spark fail; raises `error` where it is not about a file."""
        if self._moved(readable):
            return
        if not is_about_a_file(error):
            raise error
        if len(readable) == 1:
            self.selection.inspector.set_aside(readable[0].file, root_cause(error))
            return
        for half in (readable[: len(readable) // 2], readable[len(readable) // 2 :]):
            try:
                self._stage(half, landed_at).release()
            except _READ_FAULTS as again:
                self._sort_out(half, landed_at, again)


def _row(one: Inspection, landed: LandedFile, number: int, landed_at: datetime) -> dict[str, object]:
    file = one.file
    return landings.file_row(
        number, file.name, file.size_bytes, file.version, one.sha256, landed.counts.rows, landed.reason, landed_at
    )


def is_about_a_file(error: Exception) -> bool:
    """Whether Spark failed at the content of a file: then the file is set aside.

    Not so where the store or the machine failed: a file set aside then would never be tried again.
    """
    text = str(error)
    elsewhere = ("OutOfMemory", "No space left", "software.amazon.awssdk", "java.net.", "AccessDenied")
    return (isinstance(error, AnalysisException) or "[FAILED_READ_FILE" in text) and not any(
        sign in text for sign in elsewhere
    )
