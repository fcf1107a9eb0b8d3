"""What a run is asked to send, and a file of JSON lines as it is: bytes untouched, malformed lines stay malformed.

file | file.gz | stdin ──blocks──► split on "\n" ──► Chunk (key: the id, where a line parses)
replay.query ──► `query_source`        the definition alone ──► `generator`
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import select
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from producer.wire import RecordWriter, identity
from twofold.commands import standard_input
from twofold.definition.field_source import Step
from twofold.definition.model import Event
from twofold.errors import TwofoldError, UsageError
from twofold.journal import Entry

BLOCK_BYTES = 256 * 1024
COUNT_BELOW_BYTES = 1 << 30
"""Lines are counted beforehand, for the progress bar, in files below this size."""
STDIN_POLL_S = 0.2
_ZIPPED = (".gz", ".gzip")
_NO_LINES = (
    (b"PAR1", "Parquet", "name it as `replay.source` in the pipeline file"),
    (b"PK\3\4", "a zip archive", "unpack it; or name it as `replay.source`, if a table is in it"),
    (b"\x1f\x8b", "gzipped", "give it a name that ends with .gz"),
)
"""How files of other kinds begin, what each is called, and what to do."""


@dataclass(frozen=True)
class Shares:
    """Shares (0 to 1) of records that a generated stream gives on purpose; together at most 1."""

    duplicates: float = 0.0
    late: float = 0.0
    out_of_order: float = 0.0
    malformed: float = 0.0
    future: float = 0.0


@dataclass(frozen=True)
class Request:
    """One run, as asked on the command line."""

    from_file: str | None = None
    generate: int | None = None
    """How many records to generate; 0 = without end."""
    seed: int = 0
    shares: Shares = field(default_factory=Shares)
    interval_ms: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None
    """Only the first records, this many, of the source, whether sent by this run or an earlier one."""
    rate: float | None = None
    """Records per second; None = as fast as possible."""
    speed_up: float | None = None
    """Keep the gaps between `send_at`, divided by this."""
    restart: bool = False
    health_port: int = 0
    own: bool = False
    """Whether it sends the definition's own replay, as the pipeline's service does."""

    def __post_init__(self) -> None:
        """Refuse options that do not go together."""
        two_sources = self.from_file is not None and self.generate is not None
        two_paces = self.rate is not None and self.speed_up is not None
        ranged = bool(self.since or self.until or self.speed_up)
        unknown_range = ranged and (self.from_file is not None or self.generate is not None)
        too_many = sum(vars(self.shares).values()) > 1
        lower = "lower --duplicates, --late, --out-of-order, --malformed or --future"
        leave_out = "leave out --from and --generate: only the definition's replay query has send_at"
        for wrong, message, remedy in (
            (two_sources, "--from and --generate name two sources", "choose one"),
            (unknown_range, "--since, --until and --speed-up need a send_at", leave_out),
            (two_paces, "--rate and --speed-up both set the pace", "choose one"),
            (too_many, "the shares of special records add up to more than 1", lower),
        ):
            if wrong:
                raise UsageError(message, remedy)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records `first`, `first + 1`, … of a source (counted from 0)."""

    first: int
    values: list[bytes]
    keys: list[bytes | None]
    """Event id of each, None where it is not known."""
    send_at: list[float] | None = None
    """When each was really sent, Unix seconds, never falling; None where the source does not say."""

    def __len__(self) -> int:
        return len(self.values)


class RecordSource(ABC):
    """Records in a fixed order: the same position always means the same record, or `version` differs."""

    identity: Mapping[str, Any]
    """What the source is: names its journal."""
    version: Mapping[str, Any]
    """Its present content, as far as it is known."""
    memory: Mapping[str, Any] = {}
    """What a later run must know to give the same records; it is handed the journal's."""
    repeats = True
    """Whether it can be read again, so that a second run at once would send every record twice."""

    def goes_on(self, before: Entry) -> int | None:
        """Where to go on after what a journal says was sent; None: its content was another, so at the start."""
        return before.position if dict(before.version) == dict(self.version) else None

    def after(self, before: Entry) -> Mapping[str, Any]:
        """What to remember after the run that a journal tells of."""
        return before.memory or self.memory

    def beside(self, others: Iterable[Entry]) -> Mapping[str, Any]:
        """What to remember, where the pipeline has other journals of this kind, and none yet of this source."""
        return self.memory

    def total(self) -> int | None:
        """How many records there are, None if that is costly or impossible to know."""
        return None

    @abstractmethod
    def chunks(self, start: int) -> Iterator[Chunk]:
        """All records from position `start` on."""


class Lines(RecordSource):
    """The lines of a file."""

    def __init__(self, path: Path, writer: RecordWriter) -> None:
        self._path, self._writer = path, writer
        self._zipped = path.name.endswith(_ZIPPED)
        stat = _stat(path)
        self._size = stat.st_size
        self.identity = {"kind": "lines", "path": str(path)}
        self._stat = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        self.version = self._stat
        self._known = 0

    def goes_on(self, before: Entry) -> int | None:
        """Where the lines end that were sent, if the file still begins with all that was read of it then."""
        read = {name: before.version[name] for name in ("read", "sha256") if name in before.version}
        position: int | None = before.position
        if any(before.version.get(name) != value for name, value in self._stat.items()):
            position = self._compared(before.position, **read) if read else None
        if position is not None:
            self._known, self.version = read.get("read", 0), {**self._stat, **read}
        return position

    def _compared(self, position: int, read: int, sha256: str) -> int | None:
        """`position`, if so many bytes have this hash; one less if its last line was only the beginning of one."""
        digest, lines, following = hashlib.sha256(), 0, b""
        for block in self._blocks():
            part = block[:read]
            digest.update(part)
            lines, read = lines + part.count(b"\n"), read - len(part)
            # Blanks change nothing of a record; a line end may be \r\n.
            following = block[len(part) :].lstrip(b" \t\r")[:1]
            if following:
                break
        if read or digest.hexdigest() != sha256 or position > lines + 1:
            return None
        return lines if position > lines and following not in (b"", b"\n") else position

    def total(self) -> int | None:
        """Number of lines of a plain file below COUNT_BELOW_BYTES."""
        if self._zipped or self._size > COUNT_BELOW_BYTES:
            return None
        count, last = 0, b"\n"
        for last in self._blocks():
            count += last.count(b"\n")
        return count + (not last.endswith(b"\n"))

    def chunks(self, start: int) -> Iterator[Chunk]:
        """All lines from line `start` on; the last one need not end with a newline."""
        yield from chunked(split(self._noted(self._blocks())), start, self._writer)

    def _noted(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Note what was read, before any line of it is sent."""
        digest, read = hashlib.sha256(), 0
        for block in blocks:
            digest.update(block)
            read += len(block)
            if read >= self._known:
                self.version = {**self._stat, "read": read, "sha256": digest.hexdigest()}
            yield block

    def _blocks(self) -> Iterator[bytes]:
        try:
            with gzip.open(self._path) if self._zipped else self._path.open("rb") as file:
                yield from iter(lambda: file.read(BLOCK_BYTES), b"")
        except (OSError, EOFError, zlib.error) as error:
            raise TwofoldError(
                f"{self._path} cannot be read to its end: {error}",
                "all lines up to there are sent; fix the file and run again",
            ) from error


class Stdin(RecordSource):
    """Lines from standard input; they cannot be read again, so there is nothing to resume after a stop."""

    repeats = False

    def __init__(self, writer: RecordWriter, stopped: Callable[[], bool]) -> None:
        self._writer, self._stopped, self._input = writer, stopped, standard_input()
        self.identity = {"kind": "stdin"}
        # Not the process id: a container gives each run the same one, and a journal must not match another run's.
        self.version = {"run": uuid4().hex}

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Lines as they come, as soon as they come."""
        yield from chunked(split(self._blocks()), start, self._writer)

    def _blocks(self) -> Iterator[bytes]:
        descriptor = self._input.fileno()
        while not self._stopped():
            if not select.select([descriptor], [], [], STDIN_POLL_S)[0]:
                continue
            try:
                block = os.read(descriptor, BLOCK_BYTES)
            except OSError as error:
                remedy = "all lines up to there are sent; give the others again"
                raise TwofoldError(f"standard input cannot be read: {error.strerror}", remedy) from error
            if not block:
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


def chunked(groups: Iterator[list[bytes]], start: int, writer: RecordWriter) -> Iterator[Chunk]:
    """Number the lines, leave out those before `start`, and find their keys; a huge line is not parsed for one."""
    event = writer.pipeline.event
    first, find, parse_below_bytes = 0, key_finder(event), event.max_bytes
    for lines in groups:
        skip = max(0, min(start - first, len(lines)))
        values = lines[skip:]
        if values:
            keys = [find(value) if len(value) <= parse_below_bytes else None for value in values]
            yield Chunk(first + skip, [writer.line(value) for value in values] if writer.prefix else values, keys)
        first += len(lines)


def _stat(path: Path) -> os.stat_result:
    """UsageError where it is no file of lines that can be read."""
    try:
        if not path.is_file():
            raise UsageError(f"no file {path}", "name a file of JSON lines, plain or gzipped, or - for standard input")
        with path.open("rb") as file:
            head, found = file.read(4), os.fstat(file.fileno())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "make it readable, or name another") from error
    # Of a file that is named so, gzip itself says it.
    for mark, kind, remedy in () if path.name.endswith(_ZIPPED) else _NO_LINES:
        if head.startswith(mark):
            raise UsageError(f"{path} is {kind}, not JSON lines", remedy)
    return found


def key_finder(event: Event) -> Callable[[bytes], bytes | None]:
    """How to find the event id in a JSON record, as key bytes; None if it does not parse or has no plain id.

    Where a field is Kafka's key, nothing else may be put there: a line has none.
    An id that comes first, as it mostly does, is read without parsing the rest: a third of the time.
    """
    paths = [event.fields[name].source.steps for name in event.id]
    keyed = any(one.source.kind == "key" for one in event.fields.values())
    if not paths or keyed or event.each or any(not event.fields[name].source.in_value for name in event.id):
        return lambda _value: None
    if len(paths) > 1 or len(paths[0]) != 1:
        return lambda value: _parsed(value, paths)
    first = re.escape(orjson.dumps(str(paths[0][0])))
    leading = re.compile(rb"\s*\{\s*" + first + rb'\s*:\s*"([^"\\]*)"').match

    def find(value: bytes) -> bytes | None:
        return found[1] if (found := leading(value)) else _parsed(value, paths)

    return find


def _parsed(value: bytes, paths: Sequence[Sequence[Step]]) -> bytes | None:
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return identity([_at(event, path) for path in paths])


def _at(value: Any, path: Sequence[Step]) -> Any:  # noqa: ANN401
    try:
        for step in path:
            value = value[step]
    except (LookupError, TypeError):
        return None
    return value
