"""Does a job still run under the definition that its file declares? Asked before every commit.

    file's bytes ─► as at the last look: the answer stands
                 └► others: loaded ─► sound ─► fingerprint of its event against the running one
                                   └► at fault, half-written, gone: reported once; the running definition stays

Bytes and not time stamps, since a file is read in microseconds, and two writes may share a time stamp and a length.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from twofold.definition import fingerprint
from twofold.definition.load import check_file, definition_bytes, definition_files, shown_path
from twofold.definition.model import Pipeline
from twofold.errors import DefinitionChanged, UsageError


def warn(text: str) -> None:
    """Say it where a job's log is."""
    sys.stderr.write(f"warning: {text}\n")


class DefinitionWatch:
    """Compares a loaded pipeline with its file, for as long as a job runs."""

    def __init__(self, pipeline: Pipeline, say: Callable[[str], None] = warn) -> None:
        self._pipeline = pipeline
        self._facts = fingerprint.event_facts(pipeline)
        self._file = Path(pipeline.source_file)
        # None: not looked yet. The first look always loads, as the file may have changed while the job started.
        self._seen: bytes | None = None
        self._searched: list[Path] = []
        self._differences: list[str] = []
        self._say, self._said = say, ""

    def check(self) -> None:
        """Raise DefinitionChanged where the event is now declared otherwise."""
        if self.changed():
            raise DefinitionChanged(self._pipeline.name, self._differences)

    def changed(self) -> bool:
        """Whether the file now declares another event: its fields, rules, limits or filter, not its views."""
        content = self._content()
        if content is not None and content != self._seen:
            self._seen = content
            self._differences = self._compare()
        return bool(self._differences)

    def _content(self) -> bytes | None:
        """The bytes of the file, wherever it was moved in its folder; None: there is none to read."""
        try:
            if not self._file.exists():
                self._find_again()
            return definition_bytes(self._file)
        except FileNotFoundError:
            self._goes_on("is gone")
        except OSError as error:
            self._goes_on(f"cannot be read ({error.strerror or error})")
        # What comes back is compared again, even if it is the same.
        self._seen = None
        return None

    def _find_again(self) -> None:
        """Follow the pipeline to the file of the folder that now declares it; searched once for each list of files."""
        with suppress(UsageError):
            files = definition_files(self._file.parent)
            if files != self._searched:
                self._searched = files
                found = ((file, check_file(file)[0]) for file in files)
                ours = (file for file, pipeline in found if pipeline and pipeline.name == self._pipeline.name)
                self._file = next(ours, self._file)

    def _compare(self) -> list[str]:
        found, faults = check_file(self._file)
        if found is None:
            self._goes_on(f"has faults ({faults[0]}{', and others' if len(faults) > 1 else ''})")
            return []
        if found.name != self._pipeline.name:
            self._goes_on(f"now declares the pipeline {found.name}")
            return []
        self._said = ""
        return fingerprint.differences(self._facts, fingerprint.event_facts(found))

    def _goes_on(self, why: str) -> None:
        """The file cannot be used: the running definition stays in force, which is reported once."""
        self._differences = []
        text = f"{shown_path(self._file)} {why}: {self._pipeline.name} continues with the definition of its start"
        if text != self._said:
            self._said = text
            self._say(f"{text}; `twofold check` lists all faults")


class FolderWatch:
    """Says when to read a folder of definitions again: at some moments after each change of its files."""

    def __init__(self, folder: Path, after_s: Sequence[float]) -> None:
        """`after_s`: the moments, in seconds after a change, in order."""
        self._folder, self._after_s = folder, after_s
        self._seen: dict[str, bytes] | None = None
        self._due: list[float] = []

    def is_due(self, now: float) -> bool:
        """Whether to read it, at a moment in seconds of a clock that only goes forward; so until `done` is told."""
        found = self._digests()
        if self._seen not in (None, found):
            self._due = [now + after for after in self._after_s]
        self._seen = found
        return bool(self._due) and self._due[0] <= now

    def done(self, now: float) -> None:
        """It was read as it was at a moment, or will be soon."""
        self._due = [moment for moment in self._due if moment > now]

    def _digests(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with suppress(UsageError):
            for file in definition_files(self._folder):
                with suppress(OSError):
                    found[file.name] = sha256(definition_bytes(file)).digest()
        return found
