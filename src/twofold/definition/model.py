"""A pipeline, as declared. Frozen; made only by `twofold.definition.load`, which checks it whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from twofold.definition.names import GENERATED
from twofold.definition.types import FieldType

PART = f"{GENERATED}p"
"""How the names of parts begin; their number follows."""


@dataclass(frozen=True)
class Expression:
    """An expression in DuckDB's SQL, for sessions in UTC. It is total: overflow and division by zero give NULL.

    `declared` is the user's own text, in Spark SQL: compare and show this one. `type` is the value's.
    """

    duckdb: str
    declared: str
    type: FieldType


@dataclass(frozen=True)
class Part:
    """A plain aggregate that a measure rests on: one that a stream keeps up to date.

    `argument` is a DuckDB expression over the columns of one event, with values of `type`; null where the event does
    not count. Equal parts of a view's measures are one, with one name.
    """

    name: str
    function: Literal["count", "sum", "min", "max"]
    argument: str
    type: FieldType


@dataclass(frozen=True)
class Measure(Expression):
    """An aggregate over the events of a window and group: whole, and as `after` over the values of its `parts`.

    `after` is a DuckDB expression over the names of the parts and of the groups. It gives what `duckdb` gives over the
    same events, up to the order in which doubles are added. No sum of a part overflows.
    """

    parts: tuple[Part, ...]
    after: str


@dataclass(frozen=True)
class Field:
    """One event column and its rules. Bounds are Python values of the field's type."""

    name: str
    type: FieldType
    required: bool = False
    min: Any = None
    max: Any = None
    one_of: tuple[Any, ...] = ()
    pattern: str | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Topic:
    """The Kafka topic and its settings (Kafka's own names, for example `retention.ms`)."""

    name: str
    partitions: int = 1
    replication: int = 1
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """The contract of a record."""

    id: str
    time: str
    fields: dict[str, Field]
    max_future: timedelta = timedelta(minutes=5)
    id_horizon: timedelta = timedelta(days=7)
    max_bytes: int = 1 << 20
    """A record's value above this many bytes is rejected unparsed."""


@dataclass(frozen=True)
class View:
    """One windowed aggregation; windows start at multiples of `every` since the epoch.

    `every` equals `window` for tumbling windows.
    """

    name: str
    window: timedelta
    every: timedelta
    by: tuple[str, ...]
    measures: dict[str, Measure]

    @property
    def parts(self) -> tuple[Part, ...]:
        """What a stream keeps for each window and group, each part once, in the order of their numbers."""
        parts = {part for measure in self.measures.values() for part in measure.parts}
        return tuple(sorted(parts, key=lambda part: int(part.name.removeprefix(PART))))


@dataclass(frozen=True)
class Stream:
    """How the speed layer runs."""

    trigger: timedelta = timedelta(seconds=5)
    """Every batch is a snapshot, and every commit writes the list of all snapshots kept: a short trigger wants a short
    snapshot retention."""
    max_offsets_per_trigger: int = 200_000
    views_trigger: timedelta = timedelta(seconds=30)
    """The views have a trigger of their own: what they cost is by the batch, and the exact views do not wait for it."""
    state_memory: int = 256
    """MiB of the ids that a view remembers, up to which its state is in the JVM's memory; past it, it is in RocksDB."""


@dataclass(frozen=True)
class Replay:
    """What the producer sends when the command names nothing else, and what its service sends.

    Either rows of `source` mapped by a DuckDB `query`, whose columns are the event's fields, plus optionally `send_at`,
    the moment the event was really sent (in the query, the name `source` stands for the rows of the file or packaged
    data set); or `generate`d events.
    """

    source: str = ""
    query: str = ""
    generate: int | None = None
    """How many events to make from the definition; 0 = without end, None = `source` and `query` are declared."""
    since: datetime | None = None
    until: datetime | None = None
    """Only rows with `send_at` in [since, until)."""
    rate: float | None = None
    """Records per second; None = as fast as possible, or as `speed_up` says."""
    speed_up: float | None = None
    """Keep the gaps between `send_at`, divided by this."""


@dataclass(frozen=True)
class Schedule:
    """Cron presets or expressions; a union also runs whenever a batch landed something."""

    batch: str | None = None
    union: str = "@hourly"
    maintenance: str = "@daily"


@dataclass(frozen=True)
class Limits:
    """What a union may change before the check after it fails."""

    difference: float = 0.25
    """Mean difference of the layers over the windows compared, 0 to 1."""
    min_new_events: int = 0
    max_new_events: int | None = None


@dataclass(frozen=True)
class Pipeline:
    """One declared event stream. Its Iceberg namespace has the same name."""

    name: str
    topic: Topic
    event: Event
    lateness: timedelta
    views: dict[str, View]
    filter: Expression | None = None
    stream: Stream = Stream()
    replay: Replay | None = None
    schedule: Schedule = Schedule()
    limits: Limits = Limits()
    source_file: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the event columns, in declared order."""
        return tuple(self.event.fields)
