"""The text of a file, as UTF-8 without a byte order mark, in blocks: unpacked, and decoded where it is UTF-16.

    gzip ─► bytes ─► byte order mark, or the first four bytes ─► UTF-8 or UTF-16 ─► blocks of UTF-8

Nothing here ends a file for a single character: what is no UTF-8, or half a surrogate pair, is passed on as bytes that
are no UTF-8, so that only its own record is rejected.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import IO, TypeVar

RECORDS_A_PIECE = 65_536
PIECE_BYTES = 16 << 20
"""About how many bytes of a file a piece holds, unless one record is larger."""
BLOCK_BYTES = 2 << 20
"""How much is read at a time: small enough that what is worked out about it stays in the processor's caches."""
MAX_RECORD_BYTES = 64 << 20
"""Of UTF-8, without the end of the line or row, or with the blanks around the element; a longer record is no record.
The contract refuses far smaller ones, each for itself."""
_UTF8_MARK = codecs.BOM_UTF8
_HEAD_BYTES = 4
_Answer = TypeVar("_Answer")
REMEDY = "save it as UTF-8"


class SetAside(Exception):
    """The file cannot be read as what its name declares; the message is one sentence that says what to do.

    It may come in the middle of a file: what was read of it before is to be discarded.
    """


class WatchedStream(io.RawIOBase):
    """The stream of a file, which remembers its own failure.

    A store that is away must not be taken for a broken file by whoever reads through a library, as libraries turn
    what a stream raises into errors of their own.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self.failure: BaseException | None = None

    def readable(self) -> bool:
        """It is for reading only."""
        return True

    def seekable(self) -> bool:
        """Whether the stream behind it is."""
        return self._stream.seekable()

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, as the stream gives them."""
        return self._noting_failure(self._stream.read, size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place in the file."""
        return self._noting_failure(self._stream.seek, offset, whence)

    def tell(self) -> int:
        """The place in the file."""
        return self._noting_failure(self._stream.tell)

    def _noting_failure(self, call: Callable[..., _Answer], *arguments: int) -> _Answer:
        try:
            return call(*arguments)
        except BaseException as failure:
            self.failure = failure
            raise


def blocks(
    source: WatchedStream, kind: str, *, gzipped: bool = False, block_bytes: int = BLOCK_BYTES
) -> Iterator[bytes]:
    """The text in blocks of about `block_bytes`, none of them empty; SetAside where it is no text, or no gzip."""
    found = _unpacked(source, block_bytes) if gzipped else iter(partial(source.read, block_bytes), b"")
    head = b""
    for block in found:
        head += block
        if len(head) >= _HEAD_BYTES:
            break
    encoding, mark_bytes = encoding_of(head, kind)
    text = filter(None, chain([head[mark_bytes:]], found))
    yield from text if encoding == "utf-8" else _decoded(text, encoding)


def encoding_of(head: bytes, kind: str) -> tuple[str, int]:
    """The encoding that the first bytes indicate, and how many of them are a byte order mark.

    Both formats begin with ASCII: a header or a brace. So two characters show UTF-16 that bears no mark.

    >>> encoding_of(codecs.BOM_UTF16_LE + b"i\\0d\\0", "csv"), encoding_of(b"\\0i\\0d", "csv")
    (('utf-16-le', 2), ('utf-16-be', 0))
    """
    if head.startswith(_UTF8_MARK):
        return "utf-8", len(_UTF8_MARK)
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise SetAside(f"the file is UTF-32, which is not read: {REMEDY}")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ("utf-16-le" if head.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"), 2
    zeros = tuple(byte == 0 for byte in head[:_HEAD_BYTES])
    first = head[:_HEAD_BYTES].strip(b"\0")[:1]
    if kind == "json" and first not in (b"{", b"[", b" ", b"\t", b"\r", b"\n"):
        return "utf-8", 0  # zeros in a first line that is junk are that line's own fault
    if zeros in ((False, True, True, True), (True, True, True, False)):
        raise SetAside(f"the file looks like UTF-32, which is not read: {REMEDY}")
    if zeros == (False, True, False, True):
        return "utf-16-le", 0
    return ("utf-16-be" if zeros == (True, False, True, False) else "utf-8"), 0


def _unpacked(source: WatchedStream, block_bytes: int) -> Iterator[bytes]:
    """Members one after the other, zeros after them skipped, as `gzip` itself does."""
    try:
        with gzip.GzipFile(fileobj=source, mode="rb") as unpacking:
            while block := unpacking.read(block_bytes):
                yield block
            if unpacking.mtime is None:  # it met no member
                raise SetAside("broken gzip: the file is empty; put it there whole")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        if source.failure is not None:
            raise
        raise SetAside(f"broken gzip: {error or 'it ends too early'}; compress it again") from error


def _decoded(text: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    try:
        for decoded in codecs.iterdecode(text, encoding, "surrogatepass"):
            yield decoded.encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise SetAside(f"broken UTF-16: the file ends within a character; put it there whole, or {REMEDY}") from None


def lines_in(data: bytes) -> int:
    """How many lines end in these bytes, by LF, CRLF or CR.

    >>> lines_in(b"a\\r\\nb\\rc\\nd")
    3
    """
    return data.count(b"\n") + (data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else 0)


class Text:
    """What was read of a text and not yet made into records."""

    def __init__(self, blocks: Iterator[bytes], max_record_bytes: int) -> None:
        self._blocks = blocks
        self.max_record_bytes = max_record_bytes
        self.data = b""
        self.final = False
        """Whether nothing follows `data`."""
        self.lines_before = 0
        """How many lines ended in what was dropped."""

    def more(self) -> None:
        """Read on, by as much again as there is: so a long record is not looked through once for each block."""
        parts = [self.data]
        size = len(self.data)
        wanted = max(size + 1, min(2 * size + 1, self.max_record_bytes + 1))
        while size < wanted:
            block = next(self._blocks, b"")
            if not block:
                self.final = True
                break
            parts.append(block)
            size += len(block)
        self.data = b"".join(parts)

    def view(self) -> bytes:
        """The bytes to look at for lines: without a last CR whose LF may be still to come."""
        return self.data if self.final else self.data.removesuffix(b"\r")

    def drop(self, count: int) -> None:
        """Forget the first bytes, as their records are made."""
        self.lines_before += lines_in(self.data[:count])
        self.data = self.data[count:]
