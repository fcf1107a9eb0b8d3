"""What the landings took, and what lies in the inbox that none of them did.

landed_files, batch_log ─► Book: the last version of each file ──┐
inbox ─► files as they lie now ──────────────────────────────────┴─► new files
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pyiceberg.table import Table

from twofold import inbox, table_state, tables
from twofold.errors import BoundaryError
from twofold.lake import Lake
from twofold.table_state import Landed


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
    rows = record.scan(selected_fields=("landing", "file", "version", "sha256")).to_arrow().sort_by("landing")
    landings = rows["landing"].to_pylist()
    versions = map(Last, landings, rows["version"].to_pylist(), rows["sha256"].to_pylist())
    files = dict(zip(rows["file"].to_pylist(), versions, strict=True))
    landed = table_state.landed(table_state.history_of(log), lake.name)
    return Book(log, record, landed, landings[-1] if landings else 0, files)


@dataclass(frozen=True)
class Chosen:
    """One file of the inbox to ingest; `sha256` is that of the content last ingested under its name."""

    file: inbox.File
    sha256: str = ""


def new_files(lying: Iterable[inbox.File], last: Mapping[str, Last]) -> list[Chosen]:
    """Files whose version is not the one recorded, in their order."""
    return [
        Chosen(file, last[file.name].sha256 if file.name in last else "")
        for file in lying
        if is_text(file.name) and not (file.name in last and last[file.name].version == file.version)
    ]


def passed_over(lying: Iterable[inbox.File]) -> list[str]:
    """A warning for each file whose name no table can hold."""
    names = (file.name.encode("utf-8", "backslashreplace").decode() for file in lying if not is_text(file.name))
    return [f"{name} was passed over: its name is not UTF-8; rename it" for name in names]


def is_text(name: str) -> bool:
    """Whether the name is UTF-8; names on a disk may be any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
