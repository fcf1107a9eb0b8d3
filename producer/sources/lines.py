"""Replay of a file of JSON lines as it is: bytes untouched, malformed lines stay malformed.

file | file.gz | stdin ──blocks──► split on "\\n" ──► Chunk (key: the id, where a line parses)
"""

from __future__ import annotations

import gzip
import os
import select
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from producer.sources.chunk import Chunk, key_finder
from twofold.errors import TwofoldError, UsageError

BLOCK_BYTES = 256 * 1024
COUNT_BELOW_BYTES = 1 << 30
"""Lines are counted beforehand, for the progress bar, in files below this size."""
STDIN_POLL_S = 0.2


class Lines:
    """The lines of a file."""

    memory: Mapping[str, Any] = {}

    def __init__(self, path: Path, id_field: str, parse_below_bytes: int) -> None:
        self._path, self._id_field, self._parse_below_bytes = path, id_field, parse_below_bytes
        self._zipped = path.name.endswith((".gz", ".gzip"))
        stat = _stat(path)
        self._size = stat.st_size
        self.identity: Mapping[str, Any] = {"kind": "lines", "path": str(path)}
        self.version: Mapping[str, Any] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """A file needs no memory."""

    def total(self) -> int | None:
        """Number of lines of a plain file below COUNT_BELOW_BYTES."""
        if self._zipped or self._size > COUNT_BELOW_BYTES:
            return None
        with self._path.open("rb") as file:
            blocks = iter(lambda: file.read(BLOCK_BYTES), b"")
            count, last = 0, b"\n"
            for last in blocks:
                count += last.count(b"\n")
        return count + (not last.endswith(b"\n"))

    def chunks(self, start: int) -> Iterator[Chunk]:
        """All lines from line `start` on; the last one need not end with a newline."""
        with self._open() as file:
            yield from chunked(split(self._blocks(file)), start, self._id_field, self._parse_below_bytes)

    def _open(self) -> IO[bytes]:
        return gzip.open(self._path, "rb") if self._zipped else self._path.open("rb")  # type: ignore[return-value]

    def _blocks(self, file: IO[bytes]) -> Iterator[bytes]:
        try:
            yield from iter(lambda: file.read(BLOCK_BYTES), b"")
        except (OSError, EOFError, zlib.error) as error:
            raise TwofoldError(
                f"{self._path} cannot be read to its end: {error}",
                "all lines up to there are sent; mend the file and run again with --restart",
            ) from error


class Stdin:
    """Lines from standard input; they cannot be had again, so there is nothing to go on with after a stop."""

    memory: Mapping[str, Any] = {}

    def __init__(self, id_field: str, parse_below_bytes: int, stopped: Callable[[], bool]) -> None:
        self._id_field, self._parse_below_bytes, self._stopped = id_field, parse_below_bytes, stopped
        self.identity: Mapping[str, Any] = {"kind": "stdin"}
        self.version: Mapping[str, Any] = {"pid": os.getpid()}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Standard input has no memory."""

    def total(self) -> int | None:
        """Never known."""
        return None

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Lines as they come, as soon as they come."""
        yield from chunked(split(self._blocks()), start, self._id_field, self._parse_below_bytes)

    def _blocks(self) -> Iterator[bytes]:
        descriptor = sys.stdin.fileno()
        while not self._stopped():
            if not select.select([descriptor], [], [], STDIN_POLL_S)[0]:
                continue
            if not (block := os.read(descriptor, BLOCK_BYTES)):
                return
            yield block


def split(blocks: Iterator[bytes]) -> Iterator[list[bytes]]:
    r"""Cut blocks into whole lines, on newlines only; a line may span any number of blocks.

    >>> list(split(iter([b"a\nb", b"c", b"\r\n\nd"])))
    [[b'a'], [b'bc\r', b''], [b'd']]
    """
    pieces: list[bytes] = []
    for block in blocks:
        lines = block.split(b"\n")
        pieces.append(lines[0])
        if len(lines) > 1:
            lines[0] = b"".join(pieces)
            pieces = [lines.pop()]
            yield lines
    if any(pieces):
        yield [b"".join(pieces)]


def chunked(groups: Iterator[list[bytes]], start: int, id_field: str, parse_below_bytes: int) -> Iterator[Chunk]:
    """Number the lines, leave out those before `start`, and find their keys; a huge line is not parsed for one."""
    first, find = 0, key_finder(id_field)
    for lines in groups:
        skip = max(0, min(start - first, len(lines)))
        values = lines[skip:]
        if values:
            keys = [find(value) if len(value) <= parse_below_bytes else None for value in values]
            yield Chunk(first + skip, values, keys)
        first += len(lines)


def _stat(path: Path) -> os.stat_result:
    if not path.is_file():
        raise UsageError(f"no file {path}", "name a file of JSON lines, plain or gzipped, or - for standard input")
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            raise UsageError(f"{path} is Parquet, not JSON lines", "name it as `replay.source` in the pipeline file")
    return path.stat()
