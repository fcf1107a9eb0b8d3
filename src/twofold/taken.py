"""What the landings took, where its files are, and what lies in the inbox that no landing took.

landed_files, batch_log ─► Book: the last version of each file ──┐
inbox ─► files as they lie now ──────────────────────────────────┴─┬─► new files
                                      `files.taken` of the pipeline └─► taken ones: kept, archived, or deleted
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import IO, Any

from pyiceberg.table import Table

from twofold import inbox, table_state, tables
from twofold.definition.model import ARCHIVE, DELETE, KEEP
from twofold.errors import BoundaryError
from twofold.lake import Lake
from twofold.table_state import Landed

Version = tuple[str, str]
"""A file's name and its version."""


@dataclass(frozen=True)
class Last:
    """The last version of a file that was ingested or set aside."""

    landing: int
    version: str
    sha256: str
    is_aside: bool = False
    """It could not be read: it stays where it is."""
    before: Last | None = None
    """Where it could not be read: the version that was ingested last."""


@dataclass(frozen=True)
class Book:
    """What both tables say: the last landing in each, and the last version of each file."""

    log: Table
    record: Table
    landed: Landed
    recorded: int
    files: Mapping[str, Last]

    @property
    def landing(self) -> int:
        """The last landing that batch_log has."""
        return self.landed.landing

    def unrecorded(self) -> list[dict[str, Any]]:
        """Rows that `landed_files` lacks, oldest first, out of the markers; BoundaryError where one is gone."""
        if self.recorded == self.landing:
            return []
        history = table_state.history_of(self.log)
        states = (json.loads(s.summary[Landed.KEY]) for s in history.ancestors() if Landed.KEY in s.summary)
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
    rows = record.scan(selected_fields=("landing", "file", "version", "sha256", "reason")).to_arrow().sort_by("landing")
    landings = rows["landing"].to_pylist()
    columns = (rows[name].to_pylist() for name in ("version", "sha256"))
    versions = map(Last, landings, *columns, rows["reason"].is_valid().to_pylist())
    files: dict[str, Last] = {}
    for name, one in zip(rows["file"].to_pylist(), versions, strict=True):
        files[name] = replace(one, before=ingested(files.get(name))) if one.is_aside else one
    landed = table_state.landed(table_state.history_of(log), lake.name)
    return Book(log, record, landed, landings[-1] if landings else 0, files)


def ingested(last: Last | None) -> Last | None:
    """The version of a file that was ingested last, if one was."""
    return last.before if last and last.is_aside else last


def _known(last: Last | None) -> list[Last]:
    return [one for one in (last, ingested(last)) if one]


@dataclass(frozen=True)
class Chosen:
    """One file of the inbox to ingest, unless it has one of the `known` contents: the last one, and the last ingested.

    A content that was set aside since changes nothing in what was ingested.
    """

    file: inbox.File
    known: tuple[str, ...] = ()


def new_files(lying: Iterable[inbox.File], last: Mapping[str, Last]) -> list[Chosen]:
    """Files whose version is not one recorded, in their order."""
    return [
        Chosen(file, tuple(one.sha256 for one in known))
        for file in lying
        if is_text(file.name)
        for known in [_known(last.get(file.name))]
        if file.version not in [one.version for one in known]
    ]


def passed_over(lying: Iterable[inbox.File]) -> list[str]:
    """A warning for each file whose name no table can hold."""
    names = (file.name.encode("utf-8", "backslashreplace").decode() for file in lying if not is_text(file.name))
    return [f"{name} was passed over: its name is not UTF-8; rename it" for name in names]


def is_text(name: str) -> bool:
    """Whether the name is UTF-8; names on a disk may be any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def put_away(
    lake: Lake, lying: Iterable[inbox.File], last: Mapping[str, Last], same: Mapping[Version, str] | None = None
) -> None:
    """Archive or delete files of the inbox that landings took, as the pipeline declares; safe to repeat and to kill.

    `same` are versions that were not taken, as their content was known, with its SHA-256.
    """
    keep = lake.pipeline.files.taken == ARCHIVE
    if lake.pipeline.files.taken == KEEP:
        return
    folder, archive = lake.inbox(), lake.archive()
    for file in lying:
        known, digest = ingested(last.get(file.name)), (same or {}).get((file.name, file.version))
        if known and (known.version == file.version or known.sha256 == digest):
            with suppress(FileNotFoundError):  # it was changed, or another run was first
                name = inbox.archived(known.landing, file.name)
                folder.take_out(file, archive, name, known.sha256, keep=keep)  # type: ignore[arg-type]  # both are of one store


def settle(lake: Lake) -> None:
    """End what a kill has left of `put_away`."""
    folder, archive = lake.inbox(), lake.archive()
    for name in archive.unsettled():
        landing, _, file = name.partition("/")
        taken = [row for row in lake.landed_files(f"landing = {int(landing)}") if row["file"] == file]
        keep = lake.pipeline.files.taken != DELETE
        assert isinstance(folder, inbox.LocalFolder) and isinstance(archive, inbox.LocalFolder)
        with suppress(FileNotFoundError):
            folder.settle(archive, name, taken[0]["sha256"] if taken else "", keep=keep)


@dataclass(frozen=True)
class LandingFiles:
    """Opens the files that one landing took by the names that they had in the inbox."""

    folder: inbox.Folder
    archive: inbox.Folder
    landing: int

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one of them; FileNotFoundError where it is gone, or was replaced: see `TakenFiles.absence`."""
        kept = inbox.archived(self.landing, name)
        way = ((self.folder, name), (self.archive, f"{inbox.MOVING}/{kept}"), (self.archive, kept))
        # Backwards first, as other content may lie in the inbox by now; then the way that it may go meanwhile.
        for folder, path in (*reversed(way), *way):
            with suppress(FileNotFoundError):
                return folder.open(path)
        raise FileNotFoundError(f"{inbox.shown(name)} is neither in the inbox nor in its archive any more")


@dataclass(frozen=True)
class TakenFiles:
    """The files that landings took, as far as they can still be read. Both folders are listed once."""

    lake: Lake
    _digests: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _listed(self) -> tuple[dict[str, str], set[str]]:
        """The inbox, then the way into the archive, and then that: a file that goes meanwhile is in one of them."""
        lying, archive = {file.name: file.version for file in self.lake.inbox().files()}, self.lake.archive()
        return lying, {*archive.unsettled(), *(file.name for file in archive.files())}

    def of(self, landing: int) -> LandingFiles:
        """Those of one landing."""
        return LandingFiles(self.lake.inbox(), self.lake.archive(), landing)

    def absence(self, landing: int, name: str, version: str, sha256: str) -> str:
        """Why the content that a landing took cannot be read any more; empty: it can."""
        (lying, archived), place = self._listed, name
        if (kept := inbox.archived(landing, name)) in archived:
            place = kept
        else:
            if name not in lying:
                deleted = self.lake.pipeline.files.taken == DELETE
                return "it was deleted once it was taken" if deleted else "it is not in the inbox any more"
            if lying[name] == version:
                return ""
        try:
            digest = self._digests.get(place) or inbox.digest(self.of(landing), name)
        except FileNotFoundError as error:
            return str(error)
        self._digests[place] = digest
        # A file restored from a backup has another version, and the same content.
        return "" if digest == sha256 else "it was changed since: other content is under its name"
