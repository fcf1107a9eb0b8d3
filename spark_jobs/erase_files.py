"""Ids erased for good from the files of the inbox: each file that holds one is rewritten without these records.

files that batch_log names, also archived ones, and files not ingested as they lie ─► read, judged ─► records of the ids
─► the file without them, its hash in `landed_files` ─► put in its place ─► its version in `landed_files`

The hash comes first: a batch run that meets the new content knows it as ingested, wherever this was killed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException

from spark_jobs import rewriting
from spark_jobs.days import Scratch
from spark_jobs.erase import Wanted
from spark_jobs.tasks import of_file
from twofold import commits, inbox, table_files, tables
from twofold.contract.judge import Judge
from twofold.contract.records import CellRecords, JsonRecords
from twofold.definition.field_source import FieldSource
from twofold.definition.names import ELEMENT
from twofold.errors import TwofoldError, first_line
from twofold.lake import Lake
from twofold.ledger import Erased
from twofold.reader import pruning
from twofold.reader.pinned import pin
from twofold.readers import SetAside, read

_ATTEMPTS = 10


@dataclass
class HoldingFile:
    """A file that holds some of the ids."""

    folder: inbox.Folder
    file: inbox.File
    gone: dict[int, list[int]]
    """Number of a record → the numbers of its elements that go, from 1; none: all of it goes."""
    taken: Mapping[str, Any] | None
    """The row of `landed_files` of the last landing that took its content; None: it was not ingested yet."""


@dataclass
class InboxEraser:
    """Erases ids from the inbox of a pipeline."""

    lake: Lake
    duck: Scratch
    wanted: Wanted
    unread: dict[str, str] = field(default_factory=dict)
    """Files that nobody can read, or rewrite, which may hold the ids, too: name → why."""

    def look(self, named: Collection[str]) -> Iterator[HoldingFile]:
        """The files that hold them now. `named` are those that rows of the ids came from."""
        landed = self.lake.landed_files()
        last = {row["file"]: row for row in landed}
        named = {*named, *self._erased_before()}
        folder = self.lake.inbox()
        for file in folder.files():
            row = last.get(file.name)
            lies = row if row is not None and row["version"] == file.version else None
            if lies is not None and lies["reason"] is not None:
                self.unread[file.name] = lies["reason"]
            elif (lies is None or file.name in named) and (found := self._read(folder, file, file.name, landed)):
                yield found
        kept, archive = {inbox.archived(row["landing"], row["file"]): row for row in landed}, self.lake.archive()
        # Before the archive is listed, as they go there.
        moving = [inbox.File(f"{inbox.MOVING}/{name}", "", 0) for name in archive.unsettled()]
        for file in (*moving, *archive.files()):
            row = kept.get(file.name.removeprefix(f"{inbox.MOVING}/"))
            name, rows = (row["file"], [row]) if row else (file.name, [])
            if (row is None or name in named) and (found := self._read(archive, file, name, rows)):
                yield found

    def _erased_before(self) -> set[str]:
        """Files with records that were blank from the first, as their ids had been erased before they came."""
        log = pin(self.lake.catalog(), self.lake.name, tables.BATCH_LOG, tables.batch_log(self.lake.pipeline))
        files = log.narrowed(log.all_files, pruning.compared(tables.OUTCOME, "=", tables.ERASED))
        query = f"SELECT DISTINCT file FROM {self.duck.read(log, files)} WHERE outcome = '{tables.ERASED}'"
        return {name for (name,) in self.duck.connection.execute(query).fetchall()}

    def _read(
        self, folder: inbox.Folder, file: inbox.File, name: str, rows: Sequence[Mapping[str, Any]]
    ) -> HoldingFile | None:
        """What it holds; `name` it had in the inbox, and `rows` are those of the landings that may have taken it."""
        judge = Judge(self.lake.pipeline)
        gone: dict[int, list[int]] = {}
        try:
            digest = inbox.digest(folder, file.name)
            with folder.open(file.name) as stream:
                for records in read(stream, file.name, self.lake.pipeline):
                    for number, element in self._held(judge, records, name):
                        gone.setdefault(number, []).extend([element] if element else [])
        except SetAside as error:
            self.unread[file.name] = str(error)
            return None
        except FileNotFoundError:  # it went on, to where it is looked for next, or away
            return None
        # By its content: other content under its name may have been set aside since.
        took = (row for row in reversed(rows) if (row["file"], row["sha256"], row["reason"]) == (name, digest, None))
        return HoldingFile(folder, file, gone, next(took, None)) if gone else None

    def _held(self, judge: Judge, records: JsonRecords | CellRecords, name: str) -> Iterator[tuple[int, int]]:
        """The numbers of records that hold an id, each with that of the element that does; 0: all of it does."""
        for _, rows in of_file(judge, Erased(), records, (0, name, datetime.now(UTC))):
            numbers = rows["row"].to_pylist()
            elements = rows[ELEMENT].to_pylist() if judge.pipeline.event.each is not None else [0] * len(numbers)
            for number, element, held in zip(numbers, elements, self.wanted.those(rows).to_pylist(), strict=True):
                if held:
                    yield number, element

    def erase(self, held: HoldingFile) -> bool:
        """Rewrite the file; False where that cannot be done, TwofoldError where somebody changed it meanwhile."""
        folder, name = held.folder, held.file.name
        changed = TwofoldError(f"{inbox.shown(name)} was changed meanwhile", "run it again: nothing of it was lost")
        with tempfile.NamedTemporaryFile(dir=self.lake.settings.home, prefix="erase-") as made:
            path = Path(made.name)
            try:
                rewriting.without(folder, name, self.lake.pipeline, held.gone, made)
                made.flush()
                other = self._other_than_before(path, held)
                why = (
                    "" if other is None else f"it would be another one in its record {other:,}: report it with the file"
                )
            except FileNotFoundError:
                raise changed from None
            except MemoryError:
                raise
            except (pa.ArrowException, SetAside, ValueError, RecursionError) as error:
                why = f"what would be left of it fails: {first_line(error)}"
            with path.open("rb") as stream:
                digest = inbox.sha256(stream)
            if folder.version(name) != held.file.version:
                raise changed
            if why:
                # The tables must lose the ids nevertheless, and every further run would meet it again.
                self.unread[name] = why
                return False
            if held.taken:
                self._account(held.taken, {"sha256": digest, "size_bytes": path.stat().st_size})
            folder.put(path, name)
        if held.taken and held.taken["file"] == name:
            self._account(held.taken, {"version": folder.version(name)})
        return True

    def _other_than_before(self, path: Path, held: HoldingFile) -> int | None:
        """The first record of the new file that differs in more than what had to go; one too many or few, too."""
        name, each = held.file.name, self.lake.pipeline.event.each
        with held.folder.open(name) as source, path.open("rb") as made:
            for old, new in zip_longest(self._payloads(source, name), self._payloads(made, name)):
                if old is None or new is None or old[0] != new[0]:
                    return (old or new or (0,))[0]
                number, elements = old[0], held.gone.get(old[0])
                if elements is None and old != new:
                    return number
                if elements and each and _tree(old[1], each, elements) != _tree(new[1]):
                    return number
        return None

    def _payloads(self, stream: IO[bytes], name: str) -> Iterator[tuple[int, bytes | None]]:
        """The number of each record and the record, but for Parquet, whose rows are taken over as they are."""
        form = inbox.format_of(name)
        for records in read(stream, name, self.lake.pipeline):
            for index, number in enumerate(records.numbers):
                yield number, None if form is not None and form.kind == "parquet" else records.payload(index)

    def _account(self, taken: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
        """Change what `landed_files` says of the file."""

        def made(row: dict[str, Any]) -> dict[str, Any]:
            is_it = (row["file"], row["landing"]) == (taken["file"], taken["landing"])
            return {**row, **changed} if is_it else row

        def attempt() -> None:
            found = pin(self.lake.catalog(), self.lake.name, tables.LANDED_FILES, tables.landed_files())
            old = found.narrowed(found.all_files, pruning.compared("file", "=", taken["file"]))
            rows = self.duck.connection.sql(f"SELECT * FROM {self.duck.read(found, old)}").to_arrow_table().to_pylist()
            new = table_files.of_rows(found.made, map(made, rows))
            try:
                commits.replace(found.made, found.history.head, old, new, {})
            except CommitFailedException:
                commits.discard(found.made, new)
                raise

        remedy = "see that no maintenance runs, then run it again"
        commits.retried(f"{self.lake.name}.{tables.LANDED_FILES}", attempt, remedy, _ATTEMPTS)


def _tree(record: bytes | None, each: FieldSource | None = None, elements: Collection[int] = ()) -> Any:  # noqa: ANN401
    """All that a JSON text says, keys that are repeated and numbers as they are written, with nulls for elements.

    By another parser than what rewrites it.
    """
    as_written: Any = str.encode
    text = (record or b"").decode()
    tree = json.loads(text, object_pairs_hook=tuple, parse_int=as_written, parse_float=as_written, strict=False)
    array = tree
    for step in each.steps if each else ():
        array = dict(array)[step] if isinstance(step, str) else array[step]
    for number in elements:
        array[number - 1] = None
    return tree
