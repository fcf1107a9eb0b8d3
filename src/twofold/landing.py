"""The landing folder of a pipeline: which files lie there, in which version, and how to put one there whole.

    local store   a folder;            version = size, mtime and ctime;  put = hidden copy, fsync, rename
    S3 store      keys under a prefix; version = size and ETag;          put = one upload that completes or is aborted

A file's name is its path below the folder. Names with a part that starts with `.` or `_` are hidden and never taken.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from twofold.errors import UsageError
from twofold.settings import Settings

_KINDS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
ACCEPTED_NAMES = ".csv, .json, .jsonl, .ndjson (each also with .gz) and .parquet"
_COPY_BYTES = 1 << 20

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
    """Where the files of one pipeline are landed."""

    @property
    def uri(self) -> str:
        """The folder as Spark addresses it; nothing in it is escaped."""

    def files(self) -> list[File]:
        """All files that are not hidden, by name."""

    def version(self, name: str) -> str | None:
        """The file's version now; None where it is gone."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one file to read its bytes."""

    def put(self, source: Path, name: str, progress: Progress) -> None:
        """Put a copy of `source` there, whole or not at all, in place of any file of that name."""


def folder(settings: Settings, pipeline: str) -> Folder:
    """The landing folder of a pipeline, in whichever store the settings name."""
    if settings.store == "local":
        return LocalFolder(settings.home / "bucket" / "landing" / pipeline)
    # Imported here, as the S3 client takes most of a second that a local folder has no use for.
    from twofold.landing_bucket import BucketFolder

    return BucketFolder(settings, settings.landing(pipeline))


def is_hidden(name: str) -> bool:
    """Whether the batch job passes this name over.

    >>> is_hidden("2013/.jan.csv.3f2a.part"), is_hidden("_tmp/a.csv"), is_hidden("2013/jan_1.csv")
    (True, True, False)
    """
    return any(part.startswith((".", "_")) for part in name.split("/"))


def name_fault(name: str) -> str:
    """Why no file of this name can be taken, or nothing.

    >>> name_fault("2013/jan 1.csv"), name_fault("../jan.csv")
    ('', 'it leaves the folder')
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it leaves the folder"
    # Hadoop's paths take a colon for the end of a scheme, and its local file system splits names there.
    if not name.isprintable() or ":" in name or "\\" in name:
        return "it has a colon, a backslash or an unprintable character"
    return ""


def checked_name(name: str) -> str:
    """A name to land a file under; UsageError says what is wrong with it."""
    if fault := name_fault(name):
        raise UsageError(f"{name!r} is no name for a landed file: {fault}", "choose a name such as sub/jan.csv by --as")
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
    """A landing folder on the local disk."""

    path: Path

    @property
    def uri(self) -> str:
        """The folder as Spark addresses it; nothing in it is escaped."""
        return f"file:{self.path}"

    def files(self) -> list[File]:
        """All regular files; links to files count, links to folders do not."""
        found = (Path(parent, name) for parent, _, names in os.walk(self.path) for name in names)
        named = ((path.relative_to(self.path).as_posix(), path) for path in found)
        listed = ((name, _stat(path)) for name, path in named if not is_hidden(name))
        return sorted(File(name, _local_version(stat), stat.st_size) for name, stat in listed if stat is not None)

    def version(self, name: str) -> str | None:
        """The file's version now; None where it is gone."""
        stat = _stat(self.path / name)
        return _local_version(stat) if stat else None

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one file to read its bytes."""
        return (self.path / name).open("rb")

    def put(self, source: Path, name: str, progress: Progress) -> None:
        """Copy beside the target under a hidden name, make it durable, then rename."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
        try:
            _copy_durably(source, part, progress)
            part.replace(target)
            _sync(target.parent)
        finally:
            part.unlink(missing_ok=True)


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
