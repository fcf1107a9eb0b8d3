"""What both logs rejected and why, and its bytes, to be fixed; files that were set aside unread."""

from __future__ import annotations

import codecs
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from twofold import tables
from twofold.definition.model import Pipeline
from twofold.definition.names import ELEMENT
from twofold.errors import TwofoldError
from twofold.reader import engine, sendable
from twofold.reader.session import Reader

_SAMPLE_BYTES = 160
_BATCH_ROWS = 500
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LAYERS = (tables.STREAM_LAYER, tables.BATCH_LAYER)


@dataclass(frozen=True)
class RejectedRecord:
    """One rejected record: where it is (topic[partition]@offset, or file:row), its whole reason, how it begins."""

    place: str
    at: str
    reason: str
    payload: str | None


@dataclass(frozen=True)
class Rejections:
    """Rejected records of one layer, of one kind: a word of `twofold.contract.reasons`."""

    layer: str
    kind: str
    count: int
    samples: tuple[RejectedRecord, ...]


@dataclass(frozen=True)
class Rejects:
    """The rejected records of a pipeline, of these layers, received since a moment (None: all)."""

    reader: Reader
    pipeline: Pipeline
    layers: tuple[str, ...] = LAYERS
    since: datetime | None = None
    after: Mapping[str, int] = field(default_factory=dict)
    """Layer → only records of later landings; a layer not named: all of them."""

    def kinds(self, samples: int) -> list[Rejections]:
        """Kinds by falling count, each with its latest records."""
        found: dict[tuple[str, str], list[RejectedRecord]] = {}
        shown = f"payload[1:{_SAMPLE_BYTES + 1}]"
        latest = "row_number() OVER (PARTITION BY layer, _tw_kind ORDER BY _tw_received_at DESC, _tw_place) AS _tw_nth"
        numbered = f"SELECT *, {latest} FROM ({self._rejected()})"
        columns = f"layer, _tw_kind, _tw_place, {engine.iso('_tw_received_at')}, reason, {shown}"
        query = f"SELECT {columns} FROM ({numbered}) WHERE _tw_nth <= {samples} ORDER BY _tw_nth"
        for layer, kind, place, at, reason, payload in self._rows(query):
            found.setdefault((layer, kind), []).append(RejectedRecord(place, at, reason, _shortened(payload)))
        counts = self.counts().items()
        return [Rejections(layer, kind, count, tuple(found.get((layer, kind), ()))) for (layer, kind), count in counts]

    def counts(self) -> dict[tuple[str, str], int]:
        """(layer, kind) → how many, by falling count."""
        grouped = f"SELECT layer, _tw_kind, count(*) FROM ({self._rejected()}) GROUP BY ALL ORDER BY 3 DESC, 1, 2"
        return {(layer, kind): count for layer, kind, count in self._rows(grouped)}

    def set_aside(self) -> list[dict[str, Any]]:
        """Files that were not read at all, the latest first."""
        if tables.BATCH_LAYER not in self.layers:
            return []
        names = ("file", "reason", "landing", "size_bytes", "landed_at")
        moment = "strftime(landed_at, '%Y-%m-%dT%H:%M:%SZ')"
        query = f"""SELECT file, reason, landing, size_bytes, {moment} FROM {tables.LANDED_FILES}
            WHERE reason IS NOT NULL AND {self._since("landed_at")} ORDER BY landed_at DESC, file"""
        return [dict(zip(names, row, strict=True)) for row in self._rows(query)]

    def write(self, lines: BinaryIO, apart: Path) -> Counter[str]:
        """Write what is to be fixed: a record per line; one that would be no such line becomes a file in `apart`.

        Returns how many went to `lines`, how many are `apart`, and how many are `empty`: without a byte.
        """
        written: Counter[str] = Counter()
        with tempfile.TemporaryDirectory(dir=apart.parent, prefix=f".{apart.name}.") as folder:
            for payload in self._payloads():
                if not payload:
                    written["empty"] += 1
                elif not _is_line(payload):
                    written["apart"] += 1
                    (Path(folder) / f"{written['apart']:06}").write_bytes(payload)
                else:
                    written["lines"] += 1
                    lines.write(payload + b"\n")
            if written["apart"]:
                _move(Path(folder), apart)
        return written

    def _payloads(self) -> Iterator[bytes | None]:
        """What goes through again of each record: rows of one record, which its elements are, lie together."""
        query = f"""SELECT layer, _tw_a, _tw_b, _tw_c, _tw_element, payload FROM ({self._rejected()})
            ORDER BY layer DESC, _tw_received_at, _tw_a, _tw_b, _tw_c, _tw_element"""
        with engine.errors():
            batches = self.reader.query(query, self.pipeline.name).to_arrow_reader(_BATCH_ROWS)
            rows = (row for batch in batches for row in zip(*(one.to_pylist() for one in batch.columns), strict=True))
            for (_, _, file, _), record in groupby(rows, lambda row: row[:4]):
                numbers, payload = [], None
                for *_, number, payload in record:  # noqa: B007 - each keeps the same
                    numbers.append(number)
                yield sendable.text_of(self.pipeline, payload, numbers, file)

    def _rejected(self) -> str:
        """Rows of both logs in one shape: layer, reason, payload, and what is made of the rest."""
        element = ELEMENT if self.pipeline.event.each else 0
        kind = f"{tables.REASON_KIND} AS _tw_kind, {element} AS _tw_element"
        arrival = tables.arrival(self.pipeline)
        stream = f"""SELECT 'stream' AS layer, {kind}, reason, payload, {arrival} AS _tw_received_at,
            '{self.pipeline.topic.name}[' || kafka_partition || ']@' || kafka_offset AS _tw_place,
            kafka_partition AS _tw_a, '' AS _tw_b, kafka_offset AS _tw_c
            FROM {tables.STREAM_LOG} WHERE {self._of(tables.STREAM_LAYER, arrival)}"""
        batch = f"""SELECT 'batch' AS layer, {kind}, reason, payload, landed_at AS _tw_received_at,
            file || ':' || "row" AS _tw_place, landing AS _tw_a, file AS _tw_b, "row" AS _tw_c
            FROM {tables.BATCH_LOG} WHERE {self._of(tables.BATCH_LAYER, "landed_at")}"""
        logs = {tables.STREAM_LAYER: stream, tables.BATCH_LAYER: batch}
        return " UNION ALL ".join(logs[layer] for layer in self.layers)

    def _of(self, layer: str, received: str) -> str:
        later = f" AND landing > {self.after[layer]}" if layer in self.after else ""
        return f"outcome = '{tables.REJECTED}' AND {self._since(received)}{later}"

    def _since(self, column: str) -> str:
        return "TRUE" if self.since is None else f"{column} >= TIMESTAMPTZ '{self.since.isoformat()}'"

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with engine.errors():
            return self.reader.query(query, self.pipeline.name).fetchall()


def _is_line(payload: bytes) -> bool:
    """Whether it is one record to what reads lines, and no reason for that to take the file for UTF-16.

    >>> [_is_line(one) for one in (b"{}", b"{}\\r", b"{\\r}", b"{\\n}", b"{\\0}\\0", codecs.BOM_UTF8 + b"{}")]
    [True, True, False, False, False, False]
    """
    return not (b"\n" in payload or b"\r" in payload[:-1] or b"\0" in payload or payload.startswith(_MARKS))


def _move(folder: Path, target: Path) -> None:
    try:
        target.mkdir()
    except FileExistsError:
        raise TwofoldError(f"{target} exists already", "move it away, or name another file with --to") from None
    for path in folder.iterdir():
        shutil.move(path, target)


def _shortened(payload: bytes | None) -> str | None:
    """How the payload begins, as text; what is no UTF-8 as escapes.

    >>> _shortened(b'{"a": "\\xff"}')
    '{"a": "\\\\xff"}'
    """
    if payload is None:
        return None
    text = payload[:_SAMPLE_BYTES].decode(errors="backslashreplace")
    return text if len(payload) <= _SAMPLE_BYTES else f"{text}…"
