"""Which files a landing takes: those whose content is not that of the last landing under their name.

listed now ─► version as recorded? unchanged ─► digest as recorded? unchanged ─► Pick, at most so many at once
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from spark_jobs.inspection import Inspection, Inspector
from spark_jobs.landings import Last
from twofold.inbox import File

MAX_FILES = 500
MAX_BYTES = 4 << 30
MAX_LAYOUTS = 16
"""Limits of one landing: its marker, what Spark keeps of it, and its plan stay small."""

_READERS = 4
_TRIES = 3


@dataclass
class Selection:
    """Finds new files, and remembers those that did not keep still."""

    inspector: Inspector
    _moved: Counter[str] = field(default_factory=Counter)

    def new_files(self, last: Mapping[str, Last]) -> list[Inspection]:
        """All new files, by name."""
        listed = (file for file in self.inspector.folder.files() if is_text(file.name))
        candidates = [file for file in listed if self._moved[file.name] < _TRIES and not _same_version(file, last)]
        with ThreadPoolExecutor(_READERS) as pool:
            inspected = list(pool.map(self._inspect, candidates))
        return [one for one in inspected if one is not None and not _same_content(one, last)]

    def moved(self, names: Iterable[str]) -> None:
        """Note that these files changed while they were read; they are tried again a few times."""
        self._moved.update(names)

    def left_for_later(self) -> list[str]:
        """Names of files that changed each time they were read."""
        return sorted(name for name, times in self._moved.items() if times >= _TRIES)

    def unnameable(self) -> list[str]:
        """Names no table can hold, made printable."""
        names = (file.name for file in self.inspector.folder.files() if not is_text(file.name))
        return [name.encode("utf-8", "backslashreplace").decode() for name in names]

    def _inspect(self, file: File) -> Inspection | None:
        try:
            return self.inspector.inspect(file)
        except FileNotFoundError:
            return None  # it went away since it was listed


def is_text(name: str) -> bool:
    """Whether the name is UTF-8; names on a disk may be any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _same_version(file: File, last: Mapping[str, Last]) -> bool:
    return file.name in last and last[file.name].version == file.version


def _same_content(one: Inspection, last: Mapping[str, Last]) -> bool:
    return one.file.name in last and last[one.file.name].sha256 == one.sha256 != ""


def first_landing(new: Iterable[Inspection]) -> list[Inspection]:
    """The first files, as many as one landing takes; at least one, however large."""
    taken: list[Inspection] = []
    layouts = set()
    size = 0
    for one in new:
        layouts.add(one.layout)
        size += one.file.size_bytes
        if taken and (len(taken) == MAX_FILES or size > MAX_BYTES or len(layouts) > MAX_LAYOUTS):
            break
        taken.append(one)
    return taken
