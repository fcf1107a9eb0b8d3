"""`stream_<view>`: every micro-batch appends the windows that changed, and now and then the versions are folded.

    micro-batch ─► windows that changed ─► append(version, how far the log was read) ─┐
    a day with many files ─► the newest row of each window and group ─► replace ──────┴─► stream_<view>

A version is a place in stream_log: the sequence number of the last snapshot read and how many of its files. So versions
grow even if checkpoints are lost, and a repeated batch gives the same version again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from twofold import commits, retention, serving, table_state, tables
from twofold.definition.model import View
from twofold.lake import Lake
from twofold.reader import engine
from twofold.table_files import Place, Writer
from twofold.table_state import Folded

RETENTION = timedelta(hours=1)
"""How long a reader of the table may take."""
FILES_OF_A_DAY = 20
"""At least this many files of a day are folded into one."""
_MEMORY = "512MB"
_POSITIONS = 1 << 20
"""More than a snapshot adds files."""


def version(sequence_number: int, position: int) -> int:
    """The version of what is known once that many files of a snapshot of stream_log were read.

    >>> version(7, 2) < version(7, 3) < version(8, 0)
    True
    """
    return sequence_number * _POSITIONS + min(position, _POSITIONS - 1)


@dataclass
class StreamView:
    """One view's table in the speed layer, as it was last read or committed."""

    lake: Lake
    view: View
    table: Table = field(init=False)
    _let_go: list[tuple[int, list[str]]] = field(default_factory=list, init=False)
    """Sequence number of a fold, and the files that it took out of the table."""

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Read the table as it is now."""
        self.table = self.lake.table(tables.stream_view_name(self.view))

    @property
    def folded(self) -> Folded | None:
        """The state that the table carries."""
        return table_state.folded(table_state.history_of(self.table))

    def append(self, files: Sequence[DataFile], state: Folded) -> None:
        """Commit a micro-batch's windows; a batch that the table holds already leaves nothing."""

        def attempt() -> Table:
            if not self.holds(state):
                return commits.append(self.table, files, table_state.encode(state))
            commits.discard(self.table, files)
            return self.table

        self._until_committed(attempt)

    def holds(self, state: Folded) -> bool:
        """Whether the table has read the log that far."""
        known = self.folded
        return known is not None and known.version is not None and known.version >= (state.version or 0)

    def fill(self, files: Sequence[DataFile], state: Folded) -> None:
        """Put these rows in place of all others."""

        def attempt() -> Table:
            with commits.kept(self.table):
                there = [one.file for one in self.table.scan().plan_files()]
            head = self.table.metadata.current_snapshot_id
            return commits.replace(self.table, head, there, files, table_state.encode(state))

        self._until_committed(attempt)

    def _until_committed(self, attempt: Callable[[], Table]) -> None:
        """Decide and commit, again on the table as it is then where another commit was first."""

        def once() -> None:
            try:
                self.table = attempt()
            except CommitFailedException:
                self.refresh()
                raise

        remedy = "see that only one streaming job and one maintenance run; the job resumes by itself"
        commits.retried(".".join(self.table.name()), once, remedy)

    def fold(self, at_least: int = FILES_OF_A_DAY) -> tuple[int, int, int] | None:
        """Leave only the newest row of each window and group on days with at least that many files.

        Returns how many files were read and written, and the bytes read; None where another commit was first: then
        nothing was changed. So it is where others have expired what was read.
        """
        if not {*self.view.by, *self.view.measures} <= set(self.table.schema().column_names):
            return 0, 0, 0  # of another declaration: a rebuild handles it
        added: list[DataFile] = []
        try:
            with commits.kept(self.table):
                days: dict[object, list[FileScanTask]] = {}
                for task in self.table.scan().plan_files():
                    days.setdefault(task.file.partition[0], []).append(task)
                many = [tasks for tasks in days.values() if len(tasks) >= max(2, at_least)]
                if not many:
                    return 0, 0, 0
                for tasks in many:
                    added += self._newest(tasks)
            deleted = [task.file for tasks in many for task in tasks]
            self.table = commits.replace(self.table, self.table.metadata.current_snapshot_id, deleted, added, {})
        except CommitFailedException:
            commits.discard(self.table, added)
            self.refresh()
            return None
        current = self.table.current_snapshot()
        self._let_go.append(((current and current.sequence_number) or 0, [file.file_path for file in deleted]))
        return len(deleted), len(added), sum(file.file_size_in_bytes for file in deleted)

    def _newest(self, tasks: list[FileScanTask]) -> list[DataFile]:
        """The rows of these files that are in force, written."""
        scan = ArrowScan(self.table.metadata, self.table.io, self.table.schema(), AlwaysTrue())
        names = [*self.view.measures, tables.VERSION]
        query = serving.duckdb(serving.newest(self.view, names, "_tw_rows"))
        place = Place.of(self.table)
        with (
            Writer(place) as writer,
            engine.scratch(self.lake.settings) as scratch,
            engine.plain(scratch, _MEMORY) as connection,
        ):
            rows = (in_schema(place.arrow, batch) for batch in scan.to_record_batches(tasks))
            connection.register("_tw_rows", pa.RecordBatchReader.from_batches(place.arrow, rows))
            found: pa.RecordBatchReader = connection.sql(query).to_arrow_reader()
            for batch in found:
                writer.write(in_schema(place.arrow, batch))
            return writer.close()

    def tidy(self, now: datetime) -> None:
        """Merge manifests, expire snapshots that are no longer needed, and remove the files that only they named."""
        if commits.clock_behind_ms(self.table.metadata):
            return
        history = table_state.history_of(self.table)
        guards = {
            "state": retention.carries_state(history, Folded.KEY),
            "age": retention.is_young(history, now, RETENTION, retention.MOST_PER_BATCH),
        }
        try:
            self.table = commits.tidy(self.table, retention.expirable(history, guards))
        except CommitFailedException:
            self.refresh()
            return
        oldest = min((one.sequence_number or 0 for one in self.table.metadata.snapshots), default=0)
        # A kill in between leaves orphans, which maintenance removes.
        for sequence, paths in [gone for gone in self._let_go if gone[0] <= oldest]:
            self._let_go.remove((sequence, paths))
            commits.remove(self.table.io, paths)


def in_schema(schema: pa.Schema, rows: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of a table by their names, each in its type."""
    columns = [rows.column(column.name).cast(column.type) for column in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
