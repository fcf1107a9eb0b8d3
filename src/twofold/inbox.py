"""The inbox of a pipeline: which files lie there, in which version, and how to put one there whole.

    local store   a folder;            version = size, mtime and ctime;  put = hidden copy, fsync, rename
    S3 store      keys under a prefix; version = size and ETag;          put = one upload that completes or is aborted

A file's name is its path below the folder. Names with a part that starts with `.` or `_` are hidden and never taken.
Folders can be pickled, so that Spark's tasks open the files that the driver listed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from twofold.errors import UsageError
from twofold.places import TableInInbox, is_table_file
from twofold.settings import Settings

_KINDS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
ACCEPTED_NAMES = ".csv, .json, .jsonl, .ndjson (each also with .gz) and .parquet"
_COPY_BYTES = 1 << 20
_PART_STEM_BYTES = 200
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")
"""Exactly what `LocalFolder.put` calls an unfinished copy: other tools have hidden files, too, and `.part` files."""
_REFUSED = {"Cc": "a control character", "Zl": "a line break", "Zp": "a line break", "Cs": "bytes that are not UTF-8"}

Progress = Callable[[int], None]
"""Called with the number of bytes just copied."""


def sha256(stream: IO[bytes], to: IO[bytes] | None = None) -> str:
    """SHA-256 of what is left to read; its bytes also go `to` a file."""
    digest = hashlib.sha256()
    while block := stream.read(_COPY_BYTES):
        digest.update(block)
        if to is not None:
            to.write(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Format:
    """How a file is read: `csv`, `json` (one object a line) or `parquet`; texts may be gzipped."""

    kind: str
    gzipped: bool = False


def format_of(name: str) -> Format | None:
    """The format a file's name declares; None where it declares none of those accepted.

    >>> format_of("2013/jan.csv.gz")
    Format(kind='csv', gzipped=True)
    """
    gzipped = name.endswith(".gz")
    kind = _KINDS.get(PurePosixPath(name.removesuffix(".gz")).suffix)
    return None if kind is None or (gzipped and kind == "parquet") else Format(kind, gzipped)


@dataclass(frozen=True, order=True)
class File:
    """One file as it lay there when it was listed: the same version means the same content."""

    name: str
    version: str
    size_bytes: int


class Folder(Protocol):
    """Where the files for one pipeline are put."""

    def files(self) -> list[File]:
        """All files that users put there and that are not hidden, by name."""

    def version(self, name: str) -> str | None:
        """The file's version now; None where it is gone."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one file to read its bytes."""

    def put(self, source: Path, name: str, progress: Progress) -> None:
        """Put a copy of `source` there, whole or not at all, in place of any file of that name."""


def folder(settings: Settings, pipeline: str) -> Folder:
    """The inbox of a pipeline, in whichever store the settings name."""
    table = TableInInbox(settings, pipeline)
    if settings.store == "local":
        return LocalFolder(Path(settings.inbox(pipeline).removeprefix("file://")), table)
    # Imported here, as the S3 client takes most of a second that a local folder has no use for.
    from twofold.inbox_bucket import BucketFolder

    return BucketFolder(settings, settings.inbox(pipeline), table)


def is_hidden(name: str) -> bool:
    """Whether the batch job passes this name over.

    >>> is_hidden("2013/.jan.csv.3f2a.part"), is_hidden("_tmp/a.csv"), is_hidden("2013/jan_1.csv")
    (True, True, False)
    """
    return any(part.startswith((".", "_")) for part in name.split("/"))


def name_fault(name: str) -> str:
    """Why no file of this name can be taken, or nothing: a name is any text in one line that stays in the folder.

    >>> name_fault("2013/jan 1.csv"), name_fault("C:\\\\мартъ ۱۴۰۴.csv"), name_fault("../jan.csv")
    ('', '', 'it leaves the folder')
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it leaves the folder"
    refused = (_REFUSED[kind] for kind in map(unicodedata.category, name) if kind in _REFUSED)
    return f"it has {fault}" if (fault := next(refused, "")) else ""


def shown(name: str) -> str:
    r"""A name as it can be printed: whatever others put there moves no cursor, and breaks no line.

    >>> print(shown("new\nline, \x1b[2J, März 中文.csv"))
    new\nline, \x1b[2J, März 中文.csv
    """
    return "".join(ascii(letter)[1:-1] if unicodedata.category(letter) in _REFUSED else letter for letter in name)


def checked_name(name: str) -> str:
    """A name to put a file under; UsageError says what is wrong with it."""
    if fault := name_fault(name):
        raise UsageError(f"{name!r} is no name in the inbox: {fault}", "choose a name such as sub/jan.csv by --as")
    if is_hidden(name):
        raise UsageError(
            f"{name!r} would be hidden: names that start with . or _ are never taken",
            "choose another name with --as",
        )
    if format_of(name) is None:
        raise UsageError(f"{name!r} has an unknown ending", f"accepted are {ACCEPTED_NAMES}; choose a name with --as")
    return name


@dataclass(frozen=True)
class LocalFolder:
    """An inbox on the local disk."""

    path: Path
    table: TableInInbox | None = None

    def files(self) -> list[File]:
        """All regular files; links to files count, links to folders do not."""
        named = ((path.relative_to(self.path).as_posix(), path) for path in self._walk())
        listed = ((name, _stat(path)) for name, path in named if not is_hidden(name))
        found = (File(name, _local_version(stat), stat.st_size) for name, stat in listed if stat is not None)
        return put_by_users(found, self.table)

    def leftovers(self, before: datetime) -> list[Path]:
        """Copies that a `put` was killed in, and that nothing was added to since `before`."""
        parts = ((path, _stat(path)) for path in self._walk() if _PART.fullmatch(path.name))
        return sorted(path for path, stat in parts if stat is not None and stat.st_mtime < before.timestamp())

    def _walk(self) -> Iterator[Path]:
        return (Path(parent, name) for parent, _, names in os.walk(self.path) for name in names)

    def version(self, name: str) -> str | None:
        """The file's version now; None where it is gone."""
        stat = _stat(self.path / name)
        return _local_version(stat) if stat else None

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one file to read its bytes."""
        return (self.path / name).open("rb")

    def put(self, source: Path, name: str, progress: Progress) -> None:
        """Copy beside the target under a hidden name, make it durable, then rename."""
        if self.table:
            self.table.refuse(name)
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(_part_name(target.name))
        try:
            _copy_durably(source, part, progress)
            part.replace(target)
            _sync(target.parent)
        finally:
            part.unlink(missing_ok=True)


def put_by_users(files: Iterable[File], table: TableInInbox | None) -> list[File]:
    """The files by name, without those of a table that an earlier release made in the same folder."""
    listed = sorted(files)
    shaped = any(is_table_file(file.name) for file in listed)
    in_table = shaped and table is not None and table.is_there()
    return [file for file in listed if not (in_table and is_table_file(file.name))]


def _part_name(name: str) -> str:
    """A hidden name for an unfinished copy: no longer in bytes than a file's name may be."""
    stem = os.fsencode(name)[:_PART_STEM_BYTES].decode(errors="ignore")
    return f".{stem}.{secrets.token_hex(4)}.part"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat() if path.is_file() else None
    except OSError:
        return None  # it went away since it was listed


def _local_version(stat: os.stat_result) -> str:
    # A copy may carry its mtime along (cp -p, rsync -t); the ctime it cannot.
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"


def _copy_durably(source: Path, part: Path, progress: Progress) -> None:
    with source.open("rb") as reading, part.open("xb") as writing:
        while block := reading.read(_COPY_BYTES):
            writing.write(block)
            progress(len(block))
        writing.flush()
        os.fsync(writing.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def changed(folder: Folder, files: Iterable[File]) -> set[str]:
    """Names of those files whose content is no longer the one listed."""
    return {file.name for file in files if folder.version(file.name) != file.version}
