"""The SQL that folds two layers into one answer, written once.

Texts are in Spark's dialect; `duckdb()` gives DuckDB's form of the same text. Declared names are quoted, and every name
that is made up here begins with `_tw_`, as no declared name may: so a field called `place` or `t` is only a field.

    stream_log past the boundary ──┐
    batch_log past the boundary ───┴─► contenders ─► tail (one winner per id) ──┐
    events ─────────────────────────────────────────────────────────────────────┴─► unified_events
    batch_<view> ─► windows that nothing new touches ─┬─► unified_<view>
    unified_events ─► the others, folded ─────────────┘
    batch_<view>, and newest of stream_<view> in windows that it does not have ─► live_<view>

`past` runs the small steps, the same for readers and for the union itself; an engine keeps their rows, and `events`
itself is only ever scanned by the final query:

    logs ─► tail (one winner per id) ─► days within the id horizon ─► hits: rows of `events` with the tail's ids
                                                                     │
      no hit: events UNION ALL tail, no join at all                  ▼
      else:   an anti-join on the days of beaten rows only ◄── decided: who wins, per id
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

import sqlglot

from twofold import tables
from twofold.definition.model import Pipeline, View
from twofold.definition.names import ELEMENT
from twofold.table_state import Boundary
from twofold.topic import joined

PRECEDENCE = (
    f"CASE layer WHEN '{tables.BATCH_LAYER}' THEN 0 ELSE 1 END",
    "landing DESC NULLS LAST",
    "`file` DESC NULLS LAST",
    "`row` DESC NULLS LAST",
    "kafka_timestamp ASC NULLS LAST",
    "kafka_partition ASC NULLS LAST",
    "kafka_offset ASC NULLS LAST",
)
"""Which row of one id wins, best first: batch over stream; the latest batch row; the earliest stream row."""

ELEMENT_PRECEDENCE = f"CASE layer WHEN '{tables.BATCH_LAYER}' THEN -{ELEMENT} ELSE {ELEMENT} END"
"""Of one record's elements, with `event.each`: the last one of a file wins, and the first one of the stream."""

PROVENANCE = ("layer", "landing", "file", "row", "kafka_timestamp", "kafka_partition", "kafka_offset")
"""Where a row came from."""


_RANGES = 50


def duckdb(sql: str) -> str:
    """DuckDB's form of a text of this module."""
    return sqlglot.transpile(sql, read="spark", write="duckdb")[0]


def columns(names: Iterable[str], prefix: str = "") -> str:
    """A select list of quoted names.

    >>> columns(["a", "row"], "e.")
    'e.`a`, e.`row`'
    """
    return ", ".join(f"{prefix}`{name}`" for name in names)


def past_offsets(offsets: Mapping[int, int]) -> str:
    """Stream rows at or past these offsets; a partition not named starts at 0.

    >>> past_offsets({0: 5})
    '((kafka_partition = 0 AND kafka_offset >= 5) OR kafka_partition NOT IN (0))'
    """
    if not offsets:
        return "TRUE"
    named = " OR ".join(f"(kafka_partition = {p} AND kafka_offset >= {o})" for p, o in sorted(offsets.items()))
    return f"({named} OR kafka_partition NOT IN ({', '.join(str(p) for p in sorted(offsets))}))"


def stream_contenders(
    pipeline: Pipeline, source: str, offsets: Mapping[int, int], dropped: Collection[str] = ()
) -> str:
    """The rows of `stream_log` past the boundary that take part, with the columns of `events`.

    `dropped` are columns of fields that are no longer declared.
    """
    return f"""SELECT {columns([*pipeline.columns, *dropped])}, '{tables.STREAM_LAYER}' AS layer, FALSE AS withdrawn,
  CAST(NULL AS BIGINT) AS landing, CAST(NULL AS STRING) AS `file`, CAST(NULL AS BIGINT) AS `row`,
  kafka_timestamp, kafka_partition, kafka_offset
FROM {source} WHERE outcome = '{tables.ACCEPTED}' AND {past_offsets(offsets)}"""


def latest_times(pipeline: Pipeline, source: str, offsets: Mapping[int, int]) -> str:
    """Of the stream's contenders: how many, the highest event time, and the highest of the earlier of time and arrival.

    The times are in microseconds since 1970.
    """
    time = f"`{pipeline.event.time}`"
    return f"""SELECT count(*), unix_micros(max({time})), unix_micros(max(least({time}, {tables.arrival(pipeline)})))
FROM {source} WHERE outcome = '{tables.ACCEPTED}' AND {past_offsets(offsets)}"""


def batch_contenders(pipeline: Pipeline, source: str, landing: int, dropped: Collection[str] = ()) -> str:
    """The rows of `batch_log` past the boundary that take part; a filtered row withdraws its event."""
    # A record without elements is filtered, and withdraws nothing: it is no event.
    is_event = f" AND {ELEMENT} > 0" if pipeline.event.each else ""
    return f"""SELECT {columns([*pipeline.columns, *dropped])}, '{tables.BATCH_LAYER}' AS layer,
  outcome = '{tables.FILTERED}' AS withdrawn, landing, `file`, `row`,
  CAST(NULL AS TIMESTAMP) AS kafka_timestamp, CAST(NULL AS INT) AS kafka_partition, CAST(NULL AS BIGINT) AS kafka_offset
FROM {source}
WHERE outcome IN ('{tables.ACCEPTED}', '{tables.FILTERED}') AND landing > {landing}{is_event}"""


def provenance(pipeline: Pipeline) -> tuple[str, ...]:
    """All that precedence looks at."""
    return (*PROVENANCE, *([ELEMENT] if pipeline.event.each else []))


def no_longer_logged(
    pipeline: Pipeline, events: str, retained_from: Mapping[int, int], dropped: Collection[str]
) -> str:
    """Rows of `events` whose record retention took from stream_log: there is nothing else to make them from."""
    named = f"NOT {past_offsets(retained_from)}" if retained_from else "FALSE"
    # In the order of the contenders, which they are united with.
    names = columns([*pipeline.columns, *dropped, "layer", "withdrawn", *PROVENANCE[1:]])
    return f"SELECT {names} FROM {events} WHERE layer = '{tables.STREAM_LAYER}' AND {named}"


def winners(pipeline: Pipeline, contenders: str, names: Iterable[str]) -> str:
    """One row per id, with the columns `names`: the best of `contenders`.

    `contenders` is a relation, or a query in parentheses.
    """
    best = [*PRECEDENCE, *([ELEMENT_PRECEDENCE] if pipeline.event.each else [])]
    return f"""SELECT {columns(names)} FROM (
  SELECT *, row_number() OVER (PARTITION BY `{pipeline.event.key}` ORDER BY {", ".join(best)}) AS _tw_place
  FROM {contenders} AS _tw_contenders) AS _tw_ranked
WHERE _tw_place = 1"""


def _hits(pipeline: Pipeline, events: str, tail: str) -> str:
    """Rows of `events` whose id is in `tail` too: id, event time, and what precedence looks at."""
    key = pipeline.event.key
    names = columns([key, pipeline.event.time, *provenance(pipeline)], "_tw_e.")
    return f"""SELECT {names} FROM {events} AS _tw_e
WHERE EXISTS (SELECT 1 FROM {tail} AS _tw_t WHERE _tw_t.`{key}` = _tw_e.`{key}`)"""


def _decided(pipeline: Pipeline, tail: str, hits: str) -> str:
    """For each id of `hits`, whether the row of `events` stays (`_tw_united`) or the one of `tail` beats it."""
    key = pipeline.event.key
    names = columns([key, *provenance(pipeline)])
    both = f"""(SELECT {names}, FALSE AS _tw_united FROM {tail} WHERE `{key}` IN (SELECT `{key}` FROM {hits})
UNION ALL SELECT {names}, TRUE AS _tw_united FROM {hits})"""
    return winners(pipeline, both, [key, "_tw_united"])


def _beaten(pipeline: Pipeline, hits: str, decided: str) -> str:
    """The rows of `hits` that the tail beats, in parentheses."""
    key = pipeline.event.key
    return f"(SELECT * FROM {hits} WHERE `{key}` IN (SELECT `{key}` FROM {decided} WHERE NOT _tw_united))"


def winning_tail(pipeline: Pipeline, tail: str, decided: str) -> str:
    """The rows of `tail` that no row of `events` beats."""
    return f"SELECT * FROM {tail} AS _tw_r WHERE {_not(pipeline, decided, '_tw_united')}"


def event_columns(pipeline: Pipeline, dropped: Iterable[str]) -> list[str]:
    """The columns of `events`, those of fields that are no longer declared last."""
    return [*tables.events(pipeline).column_names, *dropped]


def rewritten(pipeline: Pipeline, touched: str, won: str, beaten: str | None, dropped: Collection[str]) -> str:
    """All rows of some days of `events`: of those `touched`, what no row of the tail beats; and what `won`."""
    key, names = pipeline.event.key, columns(event_columns(pipeline, dropped))
    stays = f"WHERE NOT EXISTS (SELECT 1 FROM {beaten} AS _tw_b WHERE _tw_b.`{key}` = _tw_r.`{key}`)" if beaten else ""
    return f"SELECT {names} FROM {touched} AS _tw_r {stays} UNION ALL SELECT {names} FROM {won} AS _tw_w"


class Engine(Protocol):
    """What the steps need of Spark or DuckDB. Queries are texts in Spark's dialect; relations go after FROM."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """Columns of `events` whose fields are no longer declared; the logs have them, too."""

    def only_united(self) -> str | None:
        """A query of rows that take part, and that neither the logs nor `events`, as these methods give it, have."""

    def stream_log(self, edge: Boundary) -> str:
        """Relation with at least the rows of `stream_log` past the boundary."""

    def batch_log(self, edge: Boundary) -> str:
        """Relation with at least the rows of `batch_log` past the boundary."""

    def events(self, days: Collection[date], *, on: bool) -> str:
        """Relation with exactly the rows of `events` on (or not on) these days of event time."""

    def near(self, days: Collection[date], tail: str) -> str:
        """Relation with at least the rows of `events` on these days that have an id of the tail."""

    def keep(self, name: str, query: str) -> str:
        """Run a query once and keep its rows; returns the relation."""

    def days(self, query: str) -> set[date]:
        """The one date column of a query's rows."""


@dataclass(frozen=True)
class Past:
    """What the small steps found past the boundary. Relations go after FROM."""

    tail: str | None = None
    """One winner per id; None: nothing is past the boundary."""
    decided: str | None = None
    """Who wins, per id of the tail that `events` has too; None: it has none of them."""
    beaten: str | None = None
    """The rows of `events` that the tail beats."""
    beaten_days: frozenset[date] = frozenset()


def past(engine: Engine, pipeline: Pipeline, edge: Boundary) -> Past:
    """Run the small steps over what lies past the boundary."""
    stream = stream_contenders(pipeline, engine.stream_log(edge), edge.offsets, engine.dropped)
    batch = batch_contenders(pipeline, engine.batch_log(edge), edge.landing, engine.dropped)
    contenders = "\nUNION ALL\n".join(filter(None, (stream, batch, engine.only_united())))
    tail = engine.keep("tail", winners(pipeline, f"({contenders})", event_columns(pipeline, engine.dropped)))
    near = widened(_event_days(engine, pipeline, tail), pipeline.event.id_horizon)
    if not near:
        return Past()
    hits = engine.keep("hits", _hits(pipeline, engine.near(near, tail), tail))
    if not _event_days(engine, pipeline, hits):
        return Past(tail)
    decided = engine.keep("decided", _decided(pipeline, tail, hits))
    beaten = _beaten(pipeline, hits, decided)
    return Past(tail, decided, beaten, frozenset(_event_days(engine, pipeline, beaten)))


def unify(engine: Engine, pipeline: Pipeline, found: Past) -> str:
    """The query of `unified_events` over what the small steps kept."""
    days = found.beaten_days
    touched = engine.events(days, on=True) if days else None
    return unified_events(pipeline, engine.events(days, on=False), touched, found.tail, found.decided)


def unified_events(
    pipeline: Pipeline, untouched: str, touched: str | None = None, tail: str | None = None, decided: str | None = None
) -> str:
    """The exact union of both layers, a row per id: `untouched` and `touched` rows of `events`, and the tail.

    Only `touched` rows are looked up in `decided`; no `decided`: no id of the tail is in `events`.
    """
    names = columns([*pipeline.columns, *PROVENANCE])
    parts = [f"SELECT {names} FROM {untouched} WHERE NOT withdrawn"]
    if touched and decided:
        stays = _not(pipeline, decided, "NOT _tw_united")
        parts.append(f"SELECT {names} FROM {touched} AS _tw_r WHERE NOT withdrawn AND {stays}")
    if tail:
        winning = f" AND {_not(pipeline, decided, '_tw_united')}" if decided else ""
        parts.append(f"SELECT {names} FROM {tail} AS _tw_r WHERE NOT withdrawn{winning}")
    return "\nUNION ALL\n".join(parts)


def touched_times(pipeline: Pipeline, found: Past) -> list[str]:
    """Queries of event times, as `_tw_at` in microseconds: of what the tail puts in, and of what it takes out."""
    time = f"unix_micros(`{pipeline.event.time}`) AS _tw_at"
    return [f"SELECT DISTINCT {time} FROM {relation} AS _tw_r" for relation in (found.tail, found.beaten) if relation]


def _event_days(engine: Engine, pipeline: Pipeline, relation: str) -> set[date]:
    """The days of event time in a relation."""
    day = day_of(f"`{pipeline.event.time}`")
    return engine.days(f"SELECT DISTINCT {day} AS _tw_day FROM {relation} AS _tw_r")


def _not(pipeline: Pipeline, decided: str, condition: str) -> str:
    key = pipeline.event.key
    return f"NOT EXISTS (SELECT 1 FROM {decided} AS _tw_d WHERE _tw_d.`{key}` = _tw_r.`{key}` AND {condition})"


def on_days(column: str, days: Iterable[date]) -> str:
    """Rows whose `column` falls on one of `days` (UTC), as ranges that partition pruning understands.

    Engines try one range after the other, so more than a few are a set.

    >>> on_days("t", [date(2013, 1, 1), date(2013, 1, 2)])
    "((t >= TIMESTAMP '2013-01-01 00:00:00+00:00' AND t < TIMESTAMP '2013-01-03 00:00:00+00:00'))"
    """
    numbers = sorted({day.toordinal() for day in days})
    ranges = joined(numbers)
    if len(ranges) > _RANGES:
        named = ", ".join(f"DATE '{date.fromordinal(number)}'" for number in numbers)
        return f"({day_of(column)} IN ({named}))"
    text = " OR ".join(f"({_between(column, low, high)})" for low, high in ranges)
    return f"({text})" if text else "FALSE"


def day_of(column: str) -> str:
    """The day of a moment (UTC); what Python has no date for counts as its first day, or its last."""
    return f"CAST(least(greatest({column}, {moment(date.min)}), {moment(date.max)}) AS DATE)"


def _between(column: str, low: int, high: int) -> str:
    # What Python has no date for counts as its first day, or its last.
    above = f"{column} >= {moment(date.fromordinal(low))}" if low > date.min.toordinal() else ""
    below = f"{column} < {moment(date.fromordinal(high))}" if high <= date.max.toordinal() else ""
    return " AND ".join(filter(None, (above, below))) or "TRUE"


def widened(days: Iterable[date], horizon: timedelta) -> set[date]:
    """`days` and all days within `horizon` of them: where rows of the same ids may lie.

    >>> sorted(widened([date(1, 1, 1)], timedelta(hours=30)))
    [datetime.date(1, 1, 1), datetime.date(1, 1, 2), datetime.date(1, 1, 3)]
    """
    reach = -(-horizon // timedelta(days=1))
    last = date.max.toordinal()
    near = {day.toordinal() + shift for day in days for shift in range(-reach, reach + 1)}
    return {date.fromordinal(number) for number in near if 1 <= number <= last}


def moment(value: date | datetime) -> str:
    """A timestamp literal with its zone (UTC), the same instant in both engines."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return f"TIMESTAMP '{value.astimezone(UTC).isoformat(sep=' ')}'"


def unified_view(
    view: View, batch: str | None, touched: str | None, folded: str | None, sealed_through: datetime | None
) -> str:
    """Rows of `batch`, but for windows that start as a row of `touched` says; and the rows of `folded`.

    At least one of `batch` and `folded` is a relation.
    """
    names = columns([*tables.view_keys(view), *view.measures])
    final = f"{_sealed(sealed_through)} AS final"
    parts = []
    if batch:
        parts.append(
            f"SELECT {names}, '{tables.BATCH_LAYER}' AS layer, {final} FROM {batch} AS _tw_b{_without(touched)}"
        )
    if folded:
        parts.append(f"SELECT {names}, 'both' AS layer, {final} FROM {folded} AS _tw_f")
    return "\nUNION ALL\n".join(parts)


def _without(touched: str | None) -> str:
    if touched is None:
        return ""
    return f"\nWHERE NOT EXISTS (SELECT 1 FROM {touched} AS _tw_t WHERE _tw_t.window_start = _tw_b.window_start)"


def live_view(view: View, batch: str | None, stream: str | None, sealed_through: datetime | None) -> str:
    """Rows of `batch`, and the newest of `stream` in windows that are not sealed and that `batch` does not have."""
    names, sealed = columns([*tables.view_keys(view), *view.measures]), _sealed(sealed_through)
    parts = []
    if batch:
        parts.append(f"SELECT {names}, '{tables.BATCH_LAYER}' AS layer, {sealed} AS final FROM {batch} AS _tw_b")
    if stream:
        had = f"(SELECT 1 FROM {batch} AS _tw_b WHERE _tw_b.window_start = _tw_s.window_start)"
        absent = f" AND NOT EXISTS {had}" if batch else ""
        rows = f"({newest(view, view.measures, stream)})"
        parts.append(
            f"SELECT {names}, '{tables.STREAM_LAYER}' AS layer, FALSE AS final FROM {rows} AS _tw_s\n"
            f"WHERE NOT {sealed}{absent}"
        )
    return "\nUNION ALL\n".join(parts)


def newest(view: View, measures: Iterable[str], source: str) -> str:
    """Keys and measures of `stream_<view>`, one row per key: of the versions of a window, the last."""
    keys = tables.view_keys(view)
    return f"""SELECT {columns([*keys, *measures])} FROM (
  SELECT *, row_number() OVER (PARTITION BY {columns(keys)} ORDER BY `{tables.VERSION}` DESC) AS _tw_place
  FROM {source} AS _tw_versions) AS _tw_ranked
WHERE _tw_place = 1"""


def _sealed(sealed_through: datetime | None) -> str:
    return "FALSE" if sealed_through is None else f"(window_end <= {moment(sealed_through)})"
