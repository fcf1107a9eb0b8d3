"""A pipeline, as declared: the classes that commands and jobs use are the sections of its file. Frozen.

`twofold.definition.load` reads them by the `Key` of each attribute, and checks them whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal

from twofold.definition import keys, names
from twofold.definition.fault import KeyPath, Report
from twofold.definition.field_source import FieldSource
from twofold.definition.time_formats import ISO
from twofold.definition.types import FieldType

Duration = Annotated[timedelta, keys.DURATION]
Count = keys.whole(0, of=" of events")

JSON, CONFLUENT_JSON, AVRO = FORMATS = ("json", "confluent-json", "avro")
"""Of Kafka's values: a JSON text; one behind a magic byte and a schema id; Avro behind the same."""

KEEPS_ALL = {"cleanup.policy": "delete"}
REQUIRED_SETTINGS = {"message.timestamp.type": "LogAppendTime", **KEEPS_ALL}
"""Of a topic, always. Outcomes are judged by the time of arrival, so that a replay judges alike; and what Kafka
compacts away before it was ingested is lost without a trace. A topic of somebody else may have any time stamps: there
the moment of landing is the time of arrival."""

KEEP, ARCHIVE, DELETE = TAKEN = ("keep", "archive", "delete")
"""What becomes of files of the inbox once they are taken."""

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


def _unchecked(kind: type[Expression], expected: str, *parts: object) -> keys.Key:
    """An expression of which only the declared text is known yet."""
    declared = keys.text(expected)

    def read(value: object, path: KeyPath, report: Report) -> Expression | None:
        text = declared.read(value, path, report)
        return None if text is None else kind("", text, FieldType("any"), *parts)

    return keys.Key(expected, read)


@dataclass(frozen=True)
class Field:
    """One event column, where its value is found, and its rules. Bounds are Python values of the field's type."""

    name: str
    type: Annotated[FieldType, keys.TYPE]
    from_: Annotated[FieldSource | None, keys.PATH] = None
    format: Annotated[str, keys.FORMAT] = ISO
    """Of timestamps and dates: how they are written."""
    required: Annotated[bool, keys.FLAG] = False
    min: Annotated[Any, keys.SCALAR] = None
    max: Annotated[Any, keys.SCALAR] = None
    one_of: Annotated[tuple[Any, ...], keys.listing(keys.SCALAR, "a list of values of the field's type", least=1)] = ()
    pattern: Annotated[str | None, keys.PATTERN] = None
    max_length: Annotated[int | None, keys.whole(1, 1_000_000, of=" of characters")] = None
    default: Annotated[Any, keys.SCALAR] = None
    """What stands for a value that is absent or null."""
    is_arrival: bool = False
    """It holds when the record arrived, and is found nowhere in it."""

    @cached_property
    def source(self) -> FieldSource:
        """Where its value is found: at the key of its name, unless it is declared."""
        return self.from_ or FieldSource((self.name,))

    @property
    def is_in_value(self) -> bool:
        """Whether it is found in the record's value: not in Kafka's key or headers, and not its arrival."""
        return self.source.in_value and not self.is_arrival

    @property
    def is_in_cells(self) -> bool:
        """Whether rows of CSV or Parquet may hold it: they are no whole record."""
        return self.is_in_value and bool(self.source.steps)

    @property
    def label(self) -> str:
        """What sentences call it.

        >>> Field("user", FieldType("string"), FieldSource(("payload", "user"))).label
        'user (payload.user)'
        """
        return self.name if self.source == FieldSource((self.name,)) else f"{self.name} ({self.source})"


@dataclass(frozen=True)
class Topic:
    """The Kafka topic and its settings (Kafka's own names, for example `retention.ms`)."""

    name: Annotated[str, keys.text("a Kafka topic name", names.topic_fault)]
    partitions: Annotated[int, keys.whole(1, 10_000)] = 1
    replication: Annotated[int, keys.whole(1, 32)] = 1
    format: Annotated[str, keys.words(FORMATS, keys.WIRE_HINTS)] = JSON
    """How the values of its records are written."""
    managed: Annotated[bool, keys.FLAG] = True
    """Whether Twofold makes it and holds it to its settings; else it belongs to somebody else, and is only read."""
    start: Annotated[str | datetime, keys.START] = "earliest"
    """Which record the first start begins with: earliest, latest, or the first one since a moment."""
    settings: Annotated[
        dict[str, str],
        keys.mapping(keys.SETTING, "a mapping of Kafka's topic settings, such as `retention.ms: 604800000`"),
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """The contract of a record."""

    id: Annotated[tuple[str, ...], keys.ID]
    """The fields that make events with equal values one event; none: every record is an event of its own."""
    time: Annotated[str, keys.text("the name of a required field of type timestamp, or `arrival`")]
    """The column of the event time: `arrived_at`, a field of its own, where the file says `arrival`."""
    fields: Annotated[dict[str, Field], keys.sections(Field, "a mapping of field names to their types and rules")]
    max_future: Duration = timedelta(minutes=5)
    id_horizon: Duration = timedelta(days=7)
    max_bytes: Annotated[int, keys.SIZE] = 1 << 20
    """A record's value above this many bytes is rejected unparsed."""
    each: Annotated[FieldSource | None, keys.EACH] = None
    """The array of which every element is an event."""

    @property
    def key(self) -> str:
        """The column that tells events apart."""
        return self.id[0] if len(self.id) == 1 else names.KEY


@dataclass(frozen=True)
class Files:
    """The files of the inbox: how CSV is written, where that cannot be seen in it, and what becomes of taken ones."""

    delimiter: Annotated[str | None, keys.DELIMITER] = None
    header: Annotated[tuple[str, ...], keys.TEXTS] = ()
    """The names of the columns, in order, for files that do not begin with them."""
    null_values: Annotated[tuple[str, ...], keys.TEXTS] = ()
    true_values: Annotated[tuple[str, ...], keys.TEXTS] = ()
    false_values: Annotated[tuple[str, ...], keys.TEXTS] = ()
    decimal: Annotated[str, keys.words((".", ","))] = "."
    taken: Annotated[str, keys.words(TAKEN)] = KEEP
    """What becomes of a file, of any format, once it is taken; it decides no outcome and no value."""


@dataclass(frozen=True)
class View:
    """One windowed aggregation; windows start at multiples of `every` since the epoch.

    `every` equals `window` for tumbling windows.
    """

    name: str
    window: Duration
    every: Annotated[timedelta, keys.DURATION._replace(optional=True)]
    by: Annotated[tuple[str, ...], keys.listing(keys.text("text"), "a list of declared fields")._replace(optional=True)]
    measures: Annotated[
        dict[str, Measure],
        keys.mapping(_unchecked(Measure, "text", (), ""), "a mapping of names to aggregates, such as `total: sum(x)`"),
    ]

    @property
    def parts(self) -> tuple[Part, ...]:
        """What a stream keeps for each window and group, each part once, in the order of their numbers."""
        parts = {part for measure in self.measures.values() for part in measure.parts}
        return tuple(sorted(parts, key=lambda part: int(part.name.removeprefix(PART))))

    def reads(self, column: str) -> bool:
        """Whether it groups by this column, or a measure is of it."""
        return column in self.by or any(f'"{column}"' in part.argument for part in self.parts)


@dataclass(frozen=True)
class Stream:
    """How the speed layer runs."""

    trigger: Duration = timedelta(seconds=5)
    """Every batch is a snapshot, and every commit writes the list of all snapshots kept: a short trigger wants a short
    snapshot retention."""
    max_offsets_per_trigger: Annotated[int, keys.whole(1, keys.HIGHEST)] = 200_000
    views_trigger: Duration = timedelta(seconds=30)
    """The views have a trigger of their own: what they cost is by the batch, and the exact views do not wait for it."""
    state_memory: Annotated[int, keys.whole(0, 1_000_000, of=" of MiB")] = 256
    """MiB of the ids that a view remembers, up to which its state is in the JVM's memory; past it, it is in RocksDB."""


@dataclass(frozen=True)
class Replay:
    """What the producer sends when the command names nothing else, and what its service sends.

    Either rows of `source` mapped by a DuckDB `query`, whose columns are the event's fields, plus optionally `send_at`,
    the moment the event was really sent (in the query, the name `source` stands for the rows of the file or packaged
    data set); or `generate`d events.
    """

    source: Annotated[str, keys.SOURCE] = ""
    query: Annotated[str, keys.QUERY] = ""
    generate: Annotated[int | None, keys.whole(0, of=" of events to make from the definition, 0 for no end")] = None
    """How many events to make from the definition; 0 = without end, None = `source` and `query` are declared."""
    since: Annotated[datetime | None, keys.MOMENT] = None
    until: Annotated[datetime | None, keys.MOMENT] = None
    """Only rows with `send_at` in [since, until)."""
    rate: Annotated[float | None, keys.RATE] = None
    """Records per second; None = as fast as possible, or as `speed_up` says."""
    speed_up: Annotated[float | None, keys.RATE] = None
    """Keep the gaps between `send_at`, divided by this."""


@dataclass(frozen=True)
class Schedule:
    """Cron presets or expressions; a union also runs whenever a batch ingested something."""

    batch: Annotated[str | None, keys.CRON] = None
    union: Annotated[str, keys.CRON] = "@hourly"
    maintenance: Annotated[str, keys.CRON] = "@daily"
    proof: Annotated[str, keys.CRON_OR_NEVER] = "0 4 * * *"

    @property
    def proof_cron(self) -> str | None:
        """When proofs are made; None: when somebody asks."""
        return None if self.proof == keys.NEVER else self.proof


@dataclass(frozen=True)
class Limits:
    """What a union may change before the check after it fails."""

    difference: Annotated[float, keys.above_zero("a share, above 0 and at most 1", 1)] = 0.25
    """Mean difference of the layers over the windows compared, 0 to 1."""
    min_new_events: Annotated[int, Count] = 0
    max_new_events: Annotated[int | None, Count] = None


@dataclass(frozen=True)
class Pipeline:
    """One declared event stream. Its Iceberg namespace has the same name."""

    name: Annotated[str, keys.text("the pipeline's name", names.pipeline_fault)]
    topic: Annotated[Topic, keys.section(Topic, "a topic name, or a mapping", short="name")]
    event: Annotated[Event, keys.section(Event, "a mapping with `id`, `time` and `fields`")]
    lateness: Duration
    views: Annotated[dict[str, View], keys.sections(View, "a mapping of view names to windowed aggregations")] = field(
        default_factory=dict
    )
    filter: Annotated[Expression | None, _unchecked(Expression, "a Spark SQL condition as text")] = None
    files: Annotated[Files, keys.section(Files)] = Files()
    stream: Annotated[Stream, keys.section(Stream)] = Stream()
    replay: Annotated[
        Replay | None, keys.section(Replay, "a mapping with `source` and `query`, or with `generate`")
    ] = None
    schedule: Annotated[Schedule, keys.section(Schedule)] = Schedule()
    limits: Annotated[Limits, keys.section(Limits)] = Limits()
    source_file: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the event columns: the fields in declared order, then what tells events apart, if no field does."""
        more = (names.KEY,) if self.event.key == names.KEY else ()
        return (*self.event.fields, *((names.ELEMENT,) if self.event.each else ()), *more)
