"""Seeded events from the definition alone, with set shares of the faults that real streams have.

    (seed, block of 1000 numbers, time base) ─► records, always the same ─► Chunk

Every block has a random generator of its own, so a restarted run continues without generating the earlier blocks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from itertools import accumulate
from random import Random
from typing import Any

from rstr import Rstr

from producer.sources import Chunk, RecordSource, Request, Shares
from producer.wire import RecordWriter
from twofold.definition.model import Field
from twofold.definition.time_formats import EPOCHS, ISO
from twofold.definition.types import EXACT
from twofold.errors import TwofoldError
from twofold.journal import Entry
from twofold.windows import EPOCH

BLOCK = 1000
DEFAULT_INTERVAL_MS = 10.0
ABSENT_SHARE = 0.1
"""How often an optional field is left out."""
REACH_BACK = 500
"""A duplicate repeats one of this many records before it."""
Record = tuple[bytes, bytes | None]


class Generated(RecordSource):
    """Events made from the contract, `interval_ms` of event time apart."""

    def __init__(self, request: Request, now: datetime, writer: RecordWriter) -> None:
        self._recipe = Recipe(writer, request.seed, request.shares)
        self._count = request.generate or None
        self._interval = timedelta(milliseconds=interval_ms(request))
        # At full speed the events lie in the past and end now; at a set rate they continue from now.
        self._ends_now = self._count is not None and not request.rate
        self._base = (now - self._interval * (self._count or 0) if self._ends_now else now).isoformat()
        self.identity = {
            "kind": "generate",
            "seed": request.seed,
            "interval_ms": interval_ms(request),
            **vars(request.shares),
        }
        self.version = {}
        self.memory = {"made_at": now.isoformat(), "base": self._base, "run": 0}
        self.memory |= {"count": self._count} if self._ends_now else {}

    def goes_on(self, before: Entry) -> int:
        """Where it stopped, whatever has changed: from the start, the ids would come again with other events."""
        return before.position

    def after(self, before: Entry) -> Mapping[str, Any]:
        """The times of what was asked for stay; where more is asked for now, at full speed, that ends now."""
        kept = before.memory
        until = kept.get("count", before.position if before.exhausted else None)
        if not self._ends_now or until is None or (self._count or 0) <= until:
            return kept
        return {**kept, "count": self._count, "later": [*kept.get("later", ()), [until, self._base]]}

    def beside(self, others: Iterable[Entry]) -> Mapping[str, Any]:
        """Number the runs of one seed at other rates or shares, so that no two of them give the same ids."""
        runs = [one.memory.get("run", 0) for one in others if one.source.get("seed") == self.identity["seed"]]
        return {**self.memory, "run": max(runs, default=-1) + 1}

    def total(self) -> int | None:
        """As asked for."""
        return self._count

    def chunks(self, start: int) -> Iterator[Chunk]:
        """All records from number `start` on; a duplicate never leaves its block."""
        made_at = datetime.fromisoformat(self.memory["made_at"])
        later = [(until, datetime.fromisoformat(base)) for until, base in self.memory.get("later", ())]
        bases: list[tuple[int, datetime]] = [(0, datetime.fromisoformat(self.memory["base"])), *later]
        self._recipe.run = self.memory.get("run", 0)

        def at(number: int) -> datetime:
            base = next(base for first, base in reversed(bases) if first <= number)
            return base + self._interval * number

        first = start - start % BLOCK
        while self._count is None or first < self._count:
            records = self._recipe.block(first, at, made_at)
            records = records[max(0, start - first) : None if self._count is None else self._count - first]
            yield Chunk(max(start, first), [value for value, _ in records], [key for _, key in records])
            first += BLOCK


class Recipe:
    """How to make one record of a pipeline."""

    run = 0
    """Runs of one seed have different ids."""

    def __init__(self, writer: RecordWriter, seed: int, shares: Shares) -> None:
        event = writer.pipeline.event
        self._writer, self._seed, self._event, self._lateness = writer, seed, event, writer.pipeline.lateness
        special = (*event.id, event.time)
        self._makers = [(one, maker(one, seed)) for one in event.fields.values() if one.name not in special]
        self._ids = [event.fields[name] for name in event.id]
        self._time = event.fields[event.time]
        self._kinds = list(zip(vars(shares), accumulate(vars(shares).values()), strict=True))

    def block(self, first: int, at: Callable[[int], datetime], made_at: datetime) -> list[Record]:
        """Records `first` to `first + BLOCK - 1`, a pure function of these, seed, run and definition.

        `at`: the event time of a number. Which record is of which kind and time does not depend on the fields: they may
        change on the way.
        """
        random, values = Random(f"{self._seed}:{first}"), Random(f"{self._seed}:{first}:values")
        records: list[Record] = []
        for number in range(first, first + BLOCK):
            kind = self._kind(random.random())
            if kind == "duplicates" and records:
                records.append(records[-1 - int(random.random() * min(REACH_BACK, len(records)))])
            else:
                records.append(self._record(kind, values, number, self._moved(kind, random, at(number), made_at)))
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
        event = {one.name: self._written(one, identifier(one, self._seed, self.run, number, at)) for one in self._ids}
        if not self._time.is_arrival:
            event[self._time.name] = self._written(self._time, at if kind == "future" else within(self._time, at))
        for one, make in self._makers:
            if one.required or random.random() >= ABSENT_SHARE:
                event[one.name] = self._written(one, make(random, at))
        if kind == "malformed":
            return self._writer.spoiled(event, int(random.random() * 6)), None
        return self._writer.write(event), self._writer.key(event)

    def _written(self, one: Field, value: Any) -> Any:  # noqa: ANN401
        """In JSON, moments have milliseconds; counts of a unit are whole."""
        if one.format in EPOCHS and isinstance(value, datetime):
            return value - (value - EPOCH) % timedelta(microseconds=int(EPOCHS[one.format]) or 1)
        return value if self._writer.is_avro or one.format != ISO else iso(value)


def interval_ms(request: Request) -> float:
    """Event time between two records: real time at a set rate, else 10 ms."""
    if request.interval_ms is not None:
        return request.interval_ms
    return 1000 / request.rate if request.rate else DEFAULT_INTERVAL_MS


Maker = Callable[[Random, datetime], Any]
"""(random generator, event time) → a value of the field."""

POOL = 64
"""Number of different values of a pattern field: a pattern is slow to satisfy."""
TRIES = 2000
MOST = {"int": 2**31 - 1, "long": 2**63 - 1}
"""The highest number of each type."""
SPREAD = 1000
"""Numbers without a declared bound lie within this much of the other bound, or of 0."""
WORDS = ("amber", "birch", "coral", "delta", "ember", "fjord", "grove", "haven", "indigo", "jasper", "karst", "lumen")


def maker(field: Field, seed: int) -> Maker:
    """How to make values of one field."""
    if field.one_of:
        return _choice(list(field.one_of))
    match field.type.name:
        case "string" if field.pattern is not None:
            random = Random(f"{seed}:{field.name}")
            return _choice([matching(field.pattern, field.max_length, random) for _ in range(POOL)])
        case "string":
            return _choice([word[: field.max_length] for word in WORDS])
        case "boolean":
            return lambda random, _at: random.random() < 0.5
        case "timestamp":
            return lambda random, at: within(field, at + timedelta(seconds=int(random.random() * 3600)))
        case "date":
            return lambda _random, at: within(field, at.date())
        case "json":
            return lambda random, _at: json.dumps({"word": WORDS[int(random.random() * len(WORDS))]})
    return _number(field)


def _number(field: Field) -> Maker:
    low, high = bounds(field.min, field.max)
    if field.type.name == "decimal":
        step = Decimal(1).scaleb(-field.type.scale)
        largest = (Decimal(10) ** field.type.precision - 1) * step
        low, high = max(Decimal(low), -largest), min(Decimal(high), largest)
        span = EXACT.subtract(high, low)

        def between(random: Random, _at: datetime) -> Decimal:
            value = EXACT.fma(span, Decimal(random.random()), low)
            return value.quantize(step, ROUND_DOWN, EXACT)

        return between
    if field.type.name == "double":
        return lambda random, _at: float(low) + random.random() * (float(high) - float(low))
    most = MOST[field.type.name]
    least = max(int(low), -most - 1)
    width = min(int(high), most) - least + 1
    return lambda random, _at: least + int(random.random() * width)


def _choice(options: list[Any]) -> Maker:
    count = len(options)
    return lambda random, _at: options[int(random.random() * count)]


def matching(pattern: str, max_length: int | None, random: Random) -> str:
    """A text that matches the whole pattern and is short enough; raise TwofoldError if none is found."""
    texts = Rstr(random)
    for _ in range(TRIES):
        text = texts.xeger(pattern)
        if len(text) <= (max_length or len(text)) and re.fullmatch(pattern, text):
            return str(text)
    raise TwofoldError(
        f"no text found that matches {pattern!r}" + (f" within {max_length} characters" if max_length else ""),
        "declare one_of for this field, or a simpler pattern",
    )


def bounds(low: Any, high: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Both bounds of a number, the missing ones made up.

    >>> bounds(None, None), bounds(5000, None), bounds(None, -1)
    ((0, 1000), (5000, 6000), (-1001, -1))
    """
    if low is None and high is None:
        return 0, SPREAD
    return (high - SPREAD if low is None else low), (low + SPREAD if high is None else high)


def within(field: Field, value: Any) -> Any:  # noqa: ANN401
    """The value, moved to the nearest declared bound if it is outside."""
    if field.min is not None and value < field.min:
        return field.min
    return field.max if field.max is not None and value > field.max else value


def identifier(field: Field, seed: int, run: int, number: int, at: datetime) -> Any:  # noqa: ANN401
    """The id of event `number`: different for each, each seed and run of it, as far as the field's rules leave room."""
    random = Random(f"{seed}.{run}:{number}" if run else f"{seed}:{number}")
    if field.one_of or field.type.name not in ("string", "int", "long"):
        return maker(field, seed)(random, at)
    if field.type.name == "string":
        if field.pattern is not None:
            return matching(field.pattern, field.max_length, random)
        text = f"{seed:x}.{run:x}-{number:x}" if run else f"{seed:x}-{number:x}"
        return text[-field.max_length :] if field.max_length else text
    most = MOST[field.type.name]
    high = most if field.max is None else int(field.max)
    low = int(field.min) if field.min is not None else 0 if high >= 0 else -most - 1
    # Each seed and run begins anywhere in this room: in all of a type that is far from the others.
    apart = Random(f"{seed}.{run}").randrange(high - low + 1) if seed or run else 0
    return low + (number + apart) % (high - low + 1)


def iso(value: object) -> object:
    """A value as JSON has it: moments in ISO 8601, UTC, milliseconds; exact decimals as they are."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value
