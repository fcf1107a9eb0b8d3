"""The producer's journal: how much of each source Kafka has acknowledged, and at which offsets.

    <home>/journal/<pipeline>/<source>.json            one file per source, replaced in one step
    <home>/journal/<pipeline>/<source>.too_large.jsonl records the broker would not take, byte for byte

The producer alone writes it; everyone else reads it with `entries` and `acknowledged`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from twofold.errors import TwofoldError
from twofold.settings import Settings


@dataclass(frozen=True)
class Delivered:
    """What one partition has acknowledged to this source."""

    acked: int = 0
    """Number of records."""
    highest: int = -1
    """Highest acknowledged offset; -1: none, or the broker did not report it."""

    def plus(self, other: Delivered) -> Delivered:
        """Both together."""
        return Delivered(self.acked + other.acked, max(self.highest, other.highest))


@dataclass(frozen=True)
class Entry:
    """The journal of one source."""

    pipeline: str
    topic: str
    topic_id: str
    """Kafka's own id; the offsets mean nothing for another topic of the same name."""
    source: Mapping[str, Any]
    version: Mapping[str, Any]
    memory: Mapping[str, Any] = field(default_factory=dict)
    positions: tuple[int, ...] = ()
    """Every record before the lowest is acknowledged, or set aside."""
    exhausted: bool = False
    """Whether the source was sent to its end."""
    partitions: Mapping[int, Delivered] = field(default_factory=dict)
    too_large: int = 0
    updated: str = ""

    @property
    def position(self) -> int:
        """Every record of the source before this position is acknowledged, or set aside as too large."""
        return min(self.positions, default=0)

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; raises ValueError, TypeError or KeyError for anything else."""
        data = json.loads(text)
        partitions = {int(number): Delivered(**delivered) for number, delivered in data["partitions"].items()}
        return cls(**{**data, "positions": tuple(data["positions"]), "partitions": partitions})


def folder(settings: Settings, pipeline: str) -> Path:
    """Where a pipeline's journals are."""
    return settings.home / "journal" / pipeline


def read(path: Path) -> Entry | None:
    """One journal, None if there is none; raise TwofoldError if it cannot be understood."""
    try:
        return Entry.from_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise TwofoldError(
            f"the journal {path} cannot be understood: {error}",
            "move it away; its source will be sent again from the start (duplicates are removed by id)",
        ) from error


def entries(settings: Settings, pipeline: str) -> list[Entry]:
    """All journals of a pipeline."""
    found = [read(path) for path in sorted(folder(settings, pipeline).glob("*.json"))]
    return [entry for entry in found if entry is not None]


def acknowledged(entries: Iterable[Entry], topic_id: str) -> dict[int, int]:
    """Partition → highest offset that any producer run was acknowledged for THIS topic; older topics are left out."""
    highest: dict[int, int] = {}
    for entry in entries:
        if entry.topic_id == topic_id:
            for partition, delivered in entry.partitions.items():
                highest[partition] = max(delivered.highest, highest.get(partition, -1))
    return {partition: offset for partition, offset in highest.items() if offset >= 0}
