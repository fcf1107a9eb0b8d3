"""The inbox of a pipeline: which files lie there, in which version, and how to put one there whole.

    local store   a folder;            version = size, mtime and ctime;  put = hidden copy, fsync, rename
    S3 store      keys under a prefix; version = size and ETag;          put = one upload that completes or is aborted

A file's name is its path below the folder. Names with a part that starts with `.` or `_` are hidden and never ingested.
Folders can be pickled, so that Spark's tasks open the files that the driver listed.

The bucket has three roots that meet under no name:

    <warehouse>/tables/<pipeline>/<table>/         data/ and metadata/ of an Iceberg table
    <warehouse>/landing/<pipeline>/                the inbox: files that users put there
    <warehouse>/landing/<pipeline>.taken/          the archive: what was taken, where `files.taken` is `archive`
    <warehouse>/checkpoints/<pipeline>/<query>/    of Spark's streaming queries

Whoever removes files from a table's folder asks this module whose each file is, by its name.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, TypeVar, cast

from twofold.errors import StoreAway, TwofoldError, UsageError
from twofold.settings import Settings

_KINDS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
ACCEPTED_NAMES = ".csv, .json, .jsonl, .ndjson (each also with .gz) and .parquet"
_COPY_BYTES = 1 << 20
_PART_STEM_BYTES = 200
_PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")
"""Exactly what `LocalFolder.put` calls an unfinished copy: other tools have hidden files, too, and `.part` files."""
_Answer = TypeVar("_Answer")
_REFUSED = {"Cc": "a control character", "Zl": "a line break", "Zp": "a line break", "Cs": "bytes that are not UTF-8"}

DATA = "data"
METADATA = "metadata"
"""The two folders in which all files of an Iceberg table lie."""

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PARTITIONS = "(?:[^/=]+=[^/]*/)*"
_DATA_FILE = rf"[0-9]{{5,}}-[0-9]+-{_UUID}(?:-[0-9]+)*(?:-deletes)?\.parquet"
_METADATA_FILE = "|".join((
    rf"[0-9]{{5,}}-{_UUID}(?:\.gz)?\.metadata\.json",
    rf"snap-[0-9]+-[0-9]+-{_UUID}\.avro",
    rf"{_UUID}-m[0-9]+\.avro",
    rf"optimized-m-{_UUID}\.avro",
))  # fmt: skip
_TABLE_FILE = re.compile(f"{DATA}/{_PARTITIONS}{_DATA_FILE}|{METADATA}/(?:{_METADATA_FILE})")

MOVING = ".moving"
"""Folder of the archive through which files go into it; hidden, as they may have been changed at the last moment."""

Copied = Callable[[int], None]
"""Called with the number of bytes just copied."""


def sha256(stream: IO[bytes]) -> str:
    """SHA-256 of what is left to read."""
    return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()


@dataclass(frozen=True)
class Format:
    """How a file is read: `csv`, `json` (one object a line) or `parquet`; texts may be gzipped."""

    kind: str
    gzipped: bool = False


def format_of(name: str) -> Format | None:
    """The format that a file's name declares; None where it declares no accepted one.

    >>> format_of("2013/jan.csv.gz")
    Format(kind='csv', gzipped=True)
    """
    gzipped = name.endswith(".gz")
    kind = _KINDS.get(PurePosixPath(name.removesuffix(".gz")).suffix)
    return None if kind is None or (gzipped and kind == "parquet") else Format(kind, gzipped)


def has_columns(name: str) -> bool:
    """Whether the records of a file of this name are rows of columns, by its format."""
    form = format_of(name)
    return form is not None and form.kind != "json"


@dataclass(frozen=True, order=True)
class File:
    """One file as it lay there when it was listed: the same version means the same content."""

    name: str
    version: str
    size_bytes: int


def is_table_file(name: str) -> bool:
    """Whether a path below a table's folder is named as the writers of tables (Spark, Iceberg, pyiceberg) name files.

    >>> is_table_file("data/at_day=2026-03-01/00000-7-0e4bb1f4-19b5-4a39-8a6c-6c5d0b7cf0a7-0-00001.parquet")
    True
    >>> is_table_file("data/march.parquet"), is_table_file("00000-7-0e4bb1f4-19b5-4a39-8a6c-6c5d0b7cf0a7.parquet")
    (False, False)
    """
    return _TABLE_FILE.fullmatch(name) is not None


def folder(settings: Settings, pipeline: str) -> Folder:
    """The inbox of a pipeline, in whichever store the settings name."""
    return _folder(settings, settings.inbox(pipeline))


def archive(settings: Settings, pipeline: str) -> Folder:
    """Where taken files of a pipeline may go: beside its inbox, whose listing never visits it."""
    return _folder(settings, f"{settings.inbox(pipeline)}.taken")


def _folder(settings: Settings, uri: str) -> Folder:
    return LocalFolder(Path(uri.removeprefix("file://"))) if settings.store == "local" else BucketFolder(settings, uri)


def archived(landing: int, name: str) -> str:
    """A taken file's name in the archive: each landing's content is kept.

    >>> archived(3, "2013/jan.csv")
    '000003/2013/jan.csv'
    """
    return f"{landing:06}/{name}"


def is_hidden(name: str) -> bool:
    """Whether the batch job ignores this name.

    >>> is_hidden("2013/.jan.csv.3f2a.part"), is_hidden("_tmp/a.csv"), is_hidden("2013/jan_1.csv")
    (True, True, False)
    """
    return any(part.startswith((".", "_")) for part in name.split("/"))


def name_fault(name: str) -> str:
    """Why no file of this name can be ingested, or nothing: a name is any text in one line that stays in the folder.

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

    def files(self) -> list[File]:
        """All regular files; links to files count, links to folders do not."""
        listed = ((name, _stat(path)) for name, path in _walk(str(self.path)) if not is_hidden(name))
        found = (File(name, _local_version(now), now.st_size) for name, now in listed if now is not None)
        return sorted(found, key=attrgetter("name"))

    def leftovers(self, before: datetime) -> list[Path]:
        """Copies that a `put` was killed in, and that nothing was added to since `before`."""
        paths = (Path(path) for _, path in _walk(str(self.path)))
        parts = ((path, _stat(path)) for path in paths if _PART.fullmatch(path.name))
        return sorted(path for path, now in parts if now is not None and now.st_mtime < before.timestamp())

    def version(self, name: str) -> str | None:
        """The file's version now; None where it is gone."""
        now = _stat(self.path / name)
        return _local_version(now) if now else None

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one file to read its bytes."""
        return (self.path / name).open("rb")

    def put(self, source: Path, name: str, progress: Copied = lambda _: None) -> None:
        """Copy beside the target under a hidden name, make it durable, then rename."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(_part_name(target.name))
        try:
            _copy_durably(source, part, progress)
            part.replace(target)
            _sync(target.parent)
        finally:
            part.unlink(missing_ok=True)

    def take_out(self, file: File, folder: LocalFolder, name: str, digest: str, *, keep: bool) -> None:
        """Move a file whose SHA-256 is `digest` into an archive as `name`, or delete it unless `keep`.

        It is looked at where nobody reaches it any more, and given back if it was replaced since it was listed. What a
        kill leaves undone, `settle` does. FileNotFoundError where it is gone. A link stays: what it leads to is of
        somebody else, and from another folder it may lead nowhere.
        """
        if (self.path / file.name).is_symlink():
            return
        moving = folder.path / MOVING / name
        moving.parent.mkdir(parents=True, exist_ok=True)
        (self.path / file.name).replace(moving)
        self.settle(folder, name, digest, keep=keep)

    def settle(self, folder: LocalFolder, name: str, digest: str, *, keep: bool) -> None:
        """Where a file on its way into an archive goes: on, or back to its name in this folder."""
        moving, own = folder.path / MOVING / name, self.path / name.partition("/")[2]
        with moving.open("rb") as stream:
            is_taken = sha256(stream) == digest
        if is_taken and keep:
            target = folder.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            moving.replace(target)
            _sync(target.parent)
        else:
            # What lies there by now has replaced it.
            with suppress(FileExistsError):
                if not is_taken:
                    own.parent.mkdir(parents=True, exist_ok=True)
                    own.hardlink_to(moving)
                    _sync(own.parent)
            moving.unlink()
        with suppress(OSError):
            for parent in moving.relative_to(folder.path).parents[:-1]:
                (folder.path / parent).rmdir()

    def unsettled(self) -> list[str]:
        """Of an archive: names of files that a kill has left on their way."""
        return [name for name, _ in _walk(str(self.path / MOVING))]


class BucketFolder:
    """An inbox in an S3 bucket: the keys under one prefix."""

    def __init__(self, settings: Settings, uri: str) -> None:
        # Imported here, as the S3 client takes most of a second that a local folder has no use for.
        import s3fs  # type: ignore[import-untyped]

        self._endpoint = settings.s3_endpoint
        self._root = uri.split("://", 1)[1]
        self._store = s3fs.S3FileSystem(
            key=settings.s3_access_key,
            secret=settings.s3_secret_key.get_secret_value(),
            endpoint_url=settings.s3_endpoint,
            client_kwargs={"region_name": settings.s3_region},
            config_kwargs={"s3": {"addressing_style": "path"}},
            use_listings_cache=False,
        )

    def files(self) -> list[File]:
        """All keys under the prefix; empty keys that stand for folders are skipped."""
        keys: dict[str, dict[str, Any]] = self._reach(lambda: self._store.find(self._root, detail=True))
        named = ((key.removeprefix(f"{self._root}/"), info) for key, info in keys.items() if info["type"] == "file")
        found = (File(name, _etag_version(info), info["size"]) for name, info in named if not is_hidden(name))
        return sorted(found, key=attrgetter("name"))

    def version(self, name: str) -> str | None:
        """The file's version now; None where it is gone."""
        try:
            return _etag_version(self._reach(lambda: self._store.info(f"{self._root}/{name}", refresh=True)))
        except FileNotFoundError:
            return None

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one file to read its bytes."""
        opened: AbstractContextManager[IO[bytes]] = self._reach(lambda: self._store.open(f"{self._root}/{name}", "rb"))
        return opened

    def put(self, source: Path, name: str, progress: Copied = lambda _: None) -> None:
        """Upload at once, or in parts that are aborted together."""
        from fsspec.callbacks import Callback  # type: ignore[import-untyped]

        watcher = Callback()
        watcher.relative_update = progress  # what s3fs calls, with the bytes of each request
        self._reach(lambda: self._store.put_file(str(source), f"{self._root}/{name}", callback=watcher))

    def take_out(self, file: File, folder: BucketFolder, name: str, digest: str, *, keep: bool) -> None:
        """Move a file into an archive as `name`, or delete it unless `keep`; where it was changed it stays.

        S3 cannot delete on a condition: content that is put in the moment between look and delete is deleted.
        """
        place = f"{self._root}/{file.name}"
        if keep and self.version(file.name) == file.version:
            self._reach(lambda: self._store.copy(place, f"{folder._root}/{name}"))
        if self.version(file.name) == file.version:
            self._reach(lambda: self._store.rm_file(place))

    def unsettled(self) -> list[str]:
        """None: a kill leaves the file in the inbox."""
        return []

    def _reach(self, request: Callable[[], _Answer]) -> _Answer:
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

        try:
            return request()
        except BotoCoreError as error:
            raise StoreAway(self._endpoint, error) from None
        except PermissionError as error:
            raise TwofoldError(
                f"the S3 store at {self._endpoint} refuses access to {self._root}: {error}",
                "set TWOFOLD_S3_ACCESS_KEY and TWOFOLD_S3_SECRET_KEY to keys that may read and write the bucket",
            ) from None


def _etag_version(info: dict[str, Any]) -> str:
    return f"{info['size']}-{str(info['ETag']).strip(chr(34))}"


class Source(Protocol):
    """Anything that files can be read from by their names."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one file to read its bytes."""
        ...


def digest(source: Source, name: str) -> str:
    """SHA-256 of a whole file; FileNotFoundError where it is gone."""
    with source.open(name) as stream:
        return sha256(stream)


Folder = LocalFolder | BucketFolder
"""Where the files for one pipeline are put."""


def _part_name(name: str) -> str:
    """A hidden name for an unfinished copy: no longer in bytes than a file's name may be."""
    stem = os.fsencode(name)[:_PART_STEM_BYTES].decode(errors="ignore")
    return f".{stem}.{secrets.token_hex(4)}.part"


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    """All files below a folder, by their names in it, and their paths; an inbox may have 100,000 of them."""
    for parent, _, names in os.walk(folder):
        below = "" if parent == folder else f"{os.path.relpath(parent, folder)}/"
        yield from ((below + name, f"{parent}/{name}") for name in names)


def _stat(path: str | Path) -> os.stat_result | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None  # it went away since it was listed
    return found if stat.S_ISREG(found.st_mode) else None


def _local_version(now: os.stat_result) -> str:
    # A copy may carry its mtime along (cp -p, rsync -t); the ctime it cannot.
    return f"{now.st_size}-{now.st_mtime_ns}-{now.st_ctime_ns}"


def _copy_durably(source: Path, part: Path, progress: Copied) -> None:
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
