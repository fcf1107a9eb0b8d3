"""Seeded events from the definition alone, with set shares of what goes wrong in real streams.

    (seed, block of 1000 numbers, time base) ─► records, always the same ─► Chunk

Every block has a random generator of its own, so a restarted run goes on without making what came before.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import orjson

from producer.request import Request, Shares
from producer.sources.chunk import Chunk, key_bytes
from producer.sources.values import Maker, identifier, iso, maker, within
from twofold.definition.model import Event, Pipeline

BLOCK = 1000
DEFAULT_INTERVAL_MS = 10.0
ABSENT_SHARE = 0.1
"""So often an optional field is left out."""
REACH_BACK = 500
"""A duplicate repeats one of so many records before it."""
Record = tuple[bytes, bytes | None]
NOT_MADE: list[Record] = [(b"", None)] * BLOCK
"""Keeps the place of another worker's block."""


class Generated:
    """Events made from the contract, `interval_ms` of event time apart."""

    def __init__(self, pipeline: Pipeline, request: Request, now: datetime, worker: int = 0) -> None:
        self._recipe = Recipe(pipeline, request.seed, request.shares)
        self._worker, self._workers = worker, request.workers
        self._count = request.generate or None
        self._interval = timedelta(milliseconds=interval_ms(request))
        # At full speed the events lie in the past and end now; at a set rate they go on from now.
        span = timedelta() if request.rate or self._count is None else self._interval * self._count
        self.identity: Mapping[str, Any] = {
            "kind": "generate",
            "seed": request.seed,
            "interval_ms": interval_ms(request),
            **vars(request.shares),
        }
        event = pipeline.event
        # All of the contract that a record depends on, and no more: what else changes does not start a run over.
        decides = repr((event.id, event.time, event.fields, event.max_future, pipeline.lateness))
        self.version: Mapping[str, Any] = {"contract": hashlib.sha256(decides.encode()).hexdigest()}
        self.memory: Mapping[str, Any] = {"made_at": now.isoformat(), "base": (now - span).isoformat()}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on with the time base of the run before, so that every record is made again alike."""
        self.memory = memory or self.memory

    def total(self) -> int | None:
        """As asked for."""
        return self._count

    def chunks(self, start: int) -> Iterator[Chunk]:
        """All records from number `start` on. Workers take blocks in turn: a duplicate never leaves its block."""
        base, made_at = (datetime.fromisoformat(self.memory[name]) for name in ("base", "made_at"))
        first = start - start % BLOCK
        while self._count is None or first < self._count:
            mine = first // BLOCK % self._workers == self._worker
            records = self._recipe.block(first, base, self._interval, made_at) if mine else NOT_MADE
            records = records[max(0, start - first) : None if self._count is None else self._count - first]
            yield Chunk(max(start, first), [value for value, _ in records], [key for _, key in records], mine=mine)
            first += BLOCK


class Recipe:
    """How to make one record of a pipeline."""

    def __init__(self, pipeline: Pipeline, seed: int, shares: Shares) -> None:
        self._seed, self._event, self._lateness = seed, pipeline.event, pipeline.lateness
        self._makers = _makers(pipeline.event, seed)
        self._id = pipeline.event.fields[pipeline.event.id]
        self._time = pipeline.event.fields[pipeline.event.time]
        self._kinds = _thresholds(shares)

    def block(self, first: int, base: datetime, interval: timedelta, made_at: datetime) -> list[Record]:
        """Records `first` to `first + BLOCK - 1`, a pure function of these, the seed and the definition."""
        random = Random(f"{self._seed}:{first}")
        records: list[Record] = []
        for number in range(first, first + BLOCK):
            kind = self._kind(random.random())
            if kind == "duplicates" and records:
                records.append(records[-1 - int(random.random() * min(REACH_BACK, len(records)))])
            else:
                at = self._moved(kind, random, base + interval * number, made_at)
                records.append(self._record(kind, random, number, at))
        return records

    def _kind(self, roll: float) -> str:
        return next((kind for kind, below in self._kinds if roll < below), "")

    def _moved(self, kind: str, random: Random, at: datetime, made_at: datetime) -> datetime:
        """The event time of a record of this kind."""
        if kind == "late":
            return (
                at - self._lateness - timedelta(seconds=1) - random.random() * max(self._lateness, timedelta(hours=1))
            )
        if kind == "out_of_order":
            return at - random.random() * self._lateness
        if kind == "future":
            return max(at, made_at) + self._event.max_future + timedelta(days=1)
        return at

    def _record(self, kind: str, random: Random, number: int, at: datetime) -> Record:
        event = {self._id.name: iso(identifier(self._id, self._seed, number, at))}
        event[self._time.name] = iso(at if kind == "future" else within(self._time, at))
        for name, make, required in self._makers:
            if required or random.random() >= ABSENT_SHARE:
                event[name] = iso(make(random, at))
        if kind == "malformed":
            return spoiled(event, self._id.name, self._time.name, int(random.random() * 6)), None
        return _dumps(event), key_bytes(event[self._id.name])


def interval_ms(request: Request) -> float:
    """Event time between two records: real time at a set rate, else 10 ms."""
    if request.interval_ms is not None:
        return request.interval_ms
    return 1000 / request.rate if request.rate else DEFAULT_INTERVAL_MS


def spoiled(event: Mapping[str, object], id_name: str, time_name: str, way: int) -> bytes:
    """A record that breaks the contract, in one of six ways, whatever the contract."""
    whole = _dumps(event)
    if way == 0:
        return whole[: max(1, math.floor(len(whole) * 0.6))]
    if way == 1:
        return b"no JSON at all"
    if way == 2:
        return b"[" + whole + b"]"
    if way == 3:
        return _dumps({name: value for name, value in event.items() if name != id_name})
    if way == 4:
        return _dumps({**event, time_name: "no time"})
    return whole[:-1] + b',"\xff\xfe":"not UTF-8"}'


def _makers(event: Event, seed: int) -> list[tuple[str, Maker, bool]]:
    special = (event.id, event.time)
    return [(f.name, maker(f, seed), f.required) for f in event.fields.values() if f.name not in special]


def _thresholds(shares: Shares) -> list[tuple[str, float]]:
    total, kinds = 0.0, []
    for kind, share in vars(shares).items():
        total += share
        kinds.append((kind, total))
    return kinds


def _dumps(event: Mapping[str, object]) -> bytes:
    return orjson.dumps(event, default=_exact)


def _exact(value: object) -> Any:  # noqa: ANN401
    return orjson.Fragment(str(value)) if isinstance(value, Decimal) else str(value)


def now_utc() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
