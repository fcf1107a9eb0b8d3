"""The proof's own SQL: precedence by extremes of (landing, file, row) and (time, partition, offset), windows by sums.

Declared names are quoted; those that are made up here begin with `_tw_`, as no declared name may.

Written for DuckDB alone, apart from the SQL that it checks, so that one mistake cannot hide in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from twofold.definition.model import Measure, Part, Pipeline, View
from twofold.definition.names import ELEMENT
from twofold.windows import EPOCH

FROM_FILES = ("landing", "file", "row")
FROM_KAFKA = ("kafka_timestamp", "kafka_partition", "kafka_offset")
MORE = "_tw_more"
"""How much more often one side of `more_often` has a row."""

START = "_tw_window_start_us"
END = "_tw_window_end_us"


def quoted(name: str) -> str:
    """An identifier.

    >>> quoted('a "b"')
    '"a ""b""\"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def names(columns: Iterable[str], prefix: str = "") -> str:
    """A select list.

    >>> names(["a", "row"], "e.")
    'e."a", e."row"'
    """
    return ", ".join(prefix + quoted(column) for column in columns)


def struct(columns: Iterable[str], prefix: str = "") -> str:
    """Columns as one value, ordered by the first, then the second …"""
    return f"row({names(columns, prefix)})"


def microseconds(length: timedelta) -> int:
    """A duration in whole microseconds."""
    return length // timedelta(microseconds=1)


def before(ends: Mapping[int, int]) -> str:
    """Condition of stream rows below these ends; a partition not named has none.

    >>> before({0: 3})
    '(kafka_partition = 0 AND kafka_offset < 3)'
    """
    parts = [f"kafka_partition = {partition} AND kafka_offset < {end}" for partition, end in sorted(ends.items())]
    return f"({' OR '.join(parts) or 'false'})"


def more_often(columns: str, one: str, other: str, sides: str = "<> 0") -> str:
    """The rows that two relations do not have equally often; MORE is above 0 where `one` has more of them.

    With `sides` "> 0" only those: a second look at all rows is then rarely needed.

    >>> query = more_often("a", "(VALUES (1), (1), (2)) AS t(a)", "(VALUES (1), (3)) AS u(a)")
    >>> import duckdb; sorted(duckdb.sql(query).fetchall())
    [(1, 1), (2, 1), (3, -1)]
    >>> query = more_often("a", "(VALUES (1), (1), (2)) AS t(a)", "(VALUES (1), (3)) AS u(a)", "> 0")
    >>> sorted(duckdb.sql(query).fetchall())
    [(1, 1), (2, 1)]
    """
    # By a number of 64 bits first: to group all rows by all their columns takes three times as long. Both sides are
    # read twice, the second time where any number differs: kept, they would need room for all rows with all columns.
    return f"""WITH _tw_both AS NOT MATERIALIZED (
  SELECT {columns}, 1 AS {MORE}, hash({columns}) AS _tw_hash FROM {one}
  UNION ALL SELECT {columns}, -1, hash({columns}) FROM {other}),
_tw_unequal AS (SELECT _tw_hash FROM _tw_both GROUP BY _tw_hash HAVING sum({MORE}) {sides})
SELECT {columns}, sum({MORE})::BIGINT AS {MORE} FROM _tw_both SEMI JOIN _tw_unequal USING (_tw_hash)
GROUP BY {columns} HAVING sum({MORE}) {sides}"""


def union_columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Event columns and where a row comes from: what `events` and `unified_events` have in common."""
    return (*pipeline.columns, "layer", *FROM_FILES, *FROM_KAFKA)


def contenders(pipeline: Pipeline, stream: str, batch: str) -> str:
    """Every row of both logs that takes part, with the columns of `events`; a record without elements is no event."""
    events = names(pipeline.columns)
    return f"""
SELECT {events}, 'stream' AS layer, false AS withdrawn, NULL::BIGINT AS landing, NULL::VARCHAR AS file,
  NULL::BIGINT AS "row", {names(FROM_KAFKA)}
FROM {stream} WHERE outcome = 'accepted'
UNION ALL
SELECT {events}, 'batch', outcome = 'filtered', {names(FROM_FILES)}, NULL::TIMESTAMPTZ, NULL::INTEGER, NULL::BIGINT
FROM {batch} WHERE outcome IN ('accepted', 'filtered') AND {quoted(pipeline.event.key)} IS NOT NULL"""


def rank(pipeline: Pipeline, place: tuple[str, ...], prefix: str = "") -> str:
    """Where a row lies, and with `event.each` its element: the last of an id wins in batch, the first in stream."""
    return struct((*place, ELEMENT) if pipeline.event.each else place, prefix)


def repeated(key: str, source: str) -> str:
    """Hashes of the ids that more than one row has; of an id that has one, by chance, too.

    >>> import duckdb; duckdb.sql(repeated("a", "(VALUES (1), (1), (2)) AS t(a)")).fetchall() == duckdb.sql(
    ...     "SELECT hash(1)").fetchall()
    True
    """
    return f"SELECT hash({key}) AS _tw_hash FROM {source} GROUP BY ALL HAVING count(*) > 1"


def best_of_batch(source: str, pipeline: Pipeline) -> str:
    """id → the latest (landing, file, row) of it, among the batch rows that take part."""
    return f"""SELECT {quoted(pipeline.event.key)} AS _tw_id, max({rank(pipeline, FROM_FILES)}) AS _tw_best
FROM {source} WHERE outcome IN ('accepted', 'filtered') GROUP BY ALL"""


def best_of_stream(source: str, pipeline: Pipeline) -> str:
    """id → the earliest (time, partition, offset) of it, among the accepted stream rows."""
    return f"""SELECT {quoted(pipeline.event.key)} AS _tw_id, min({rank(pipeline, FROM_KAFKA)}) AS _tw_best
FROM {source} WHERE outcome = 'accepted' GROUP BY ALL"""


def from_scratch(pipeline: Pipeline, stream: str, batch: str, several: str) -> str:
    """The unified events recomputed from both logs: the latest batch row of an id, else its earliest stream row.

    `several` is a relation of `repeated` ids, among all rows that take part: an id with one row is won by that.
    """
    key, events = quoted(pipeline.event.key), names(pipeline.columns, "_tw_log.")
    last, first = (rank(pipeline, place, "_tw_log.") for place in (FROM_FILES, FROM_KAFKA))
    is_contended = f"hash({key}) IN (SELECT _tw_hash FROM {several})"
    some_stream, some_batch = (f"(SELECT * FROM {log} WHERE {is_contended})" for log in (stream, batch))
    return f"""
WITH _tw_latest AS ({best_of_batch(some_batch, pipeline)}),
     _tw_earliest AS ({best_of_stream(some_stream, pipeline)})
SELECT {names(union_columns(pipeline))} FROM ({contenders(pipeline, stream, batch)}) AS _tw_alone
WHERE NOT withdrawn AND {key} IS NOT NULL AND NOT {is_contended}
UNION ALL
SELECT {events}, 'batch' AS layer, {names(FROM_FILES, "_tw_log.")}, NULL::TIMESTAMPTZ AS kafka_timestamp,
  NULL::INTEGER AS kafka_partition, NULL::BIGINT AS kafka_offset
FROM {some_batch} AS _tw_log
  JOIN _tw_latest ON _tw_log.{key} = _tw_latest._tw_id AND {last} = _tw_latest._tw_best
WHERE _tw_log.outcome = 'accepted'
UNION ALL
SELECT {events}, 'stream', NULL::BIGINT, NULL::VARCHAR, NULL::BIGINT, {names(FROM_KAFKA, "_tw_log.")}
FROM {some_stream} AS _tw_log
  JOIN _tw_earliest ON _tw_log.{key} = _tw_earliest._tw_id AND {first} = _tw_earliest._tw_best
WHERE NOT EXISTS (SELECT 1 FROM _tw_latest WHERE _tw_latest._tw_id = _tw_log.{key})"""


def torn_elements(log: str, record: Iterable[str], where: str) -> str:
    """The records, by these columns, whose elements are neither 1, 2, … without gaps nor one row numbered 0."""
    by = names(record)
    return f"""SELECT {by}, concat({where}, ': elements ', string_agg({ELEMENT}::VARCHAR, ', ' ORDER BY {ELEMENT}))
FROM {log} GROUP BY {by}
HAVING count({ELEMENT}) < count(*)
  OR NOT (min({ELEMENT}) = 1 AND max({ELEMENT}) = count(DISTINCT {ELEMENT}) OR max({ELEMENT}) = 0 AND count(*) = 1)"""


def in_topic(topic: str) -> str:
    """Where a stream row comes from, as text."""
    return f"concat({literal(topic)}, '[', kafka_partition, ']@', kafka_offset)"


IN_FILE = """concat(coalesce("file", '?'), ':', coalesce("row"::VARCHAR, '?'),
  ' (landing ', coalesce(landing::VARCHAR, '?'), ')')"""
"""Where a batch row comes from, as text."""


def origin(topic: str) -> str:
    """Where a row of either log comes from, as text."""
    return f"CASE WHEN kafka_offset IS NOT NULL THEN {in_topic(topic)} ELSE {IN_FILE} END"


def shown(value: str, quote: str = "'") -> str:
    """A value as text, in quotes.

    >>> import duckdb; duckdb.sql(f"SELECT {shown('a')} FROM (VALUES (5), (NULL)) AS t(a)").fetchall()
    [("'5'",), ('null',)]
    """
    return f"coalesce({literal(quote)} || {value} || {literal(quote)}, 'null')"


def moment(us: str) -> str:
    """A moment, of microseconds since the epoch, as text; what lies outside the years 1 to 9999 as what it is.

    >>> import duckdb; duckdb.sql(f"SELECT {moment('0')}, {moment('500000')}, {moment('NULL')}").fetchall()
    [('1970-01-01T00:00:00Z', '1970-01-01T00:00:00.5Z', 'null')]
    >>> duckdb.sql(f"SELECT {moment('a')} FROM (SELECT {-1 << 63} AS a)").fetchall()
    [('-9223372036854775808 µs after 1970',)]
    """
    # DuckDB ends a query that shows a moment for which it has no date; no job writes one.
    first = microseconds(datetime.min.replace(tzinfo=UTC) - EPOCH)
    last = microseconds(datetime.max.replace(tzinfo=UTC) - EPOCH)
    dated = f"make_timestamp(CASE WHEN {us} BETWEEN {first} AND {last} THEN {us} END)"
    return f"coalesce(replace({dated}::VARCHAR, ' ', 'T') || 'Z', {us} || ' µs after 1970', 'null')"


def if_several(number: str, what: str) -> str:
    """A number and a noun or more as text, after a comma; null where it is 1.

    >>> import duckdb; duckdb.sql(f"SELECT {if_several('1', 'times')}, {if_several('2', 'times')}").fetchall()
    [(None, ', 2 times')]
    """
    return f"CASE WHEN {number} > 1 THEN concat(', ', {number}, {literal(f' {what}')}) END"


def id_from(pipeline: Pipeline) -> str:
    """The id of an event, and where it comes from, as text."""
    return f"concat('id ', {shown(quoted(pipeline.event.key))}, ' from ', {origin(pipeline.topic.name)})"


def window(view: View, table: str) -> str:
    """A window and its group in a view's table, as text."""
    groups = "".join(f", {literal(f' {name}=')}, {shown(quoted(name))}" for name in view.by)
    return f"concat({literal(table)}, ' [', {moment(START)}, ', ', {moment(END)}, ')'{groups})"


def in_windows(source: str, time: str, view: View) -> str:
    """Each row once per window that holds it; START and END in microseconds since the epoch, UTC.

    Windows start at multiples of `every`; a row is in those that start in (time - window, time].
    """
    every, window = microseconds(view.every), microseconds(view.window)
    at = f"epoch_us({quoted(time)})"
    # The remainder follows the dividend's sign, so it is made positive for times before 1970.
    last = f"({at} - ((({at} % {every}) + {every}) % {every}))"
    return f"""SELECT *, {START} + {window} AS {END} FROM (
  SELECT *, unnest(generate_series({last}, {at} - {window} + 1, -{every})) AS {START} FROM {source}) AS _tw_placed"""


def folded(source: str, time: str, view: View) -> str:
    """The view recomputed: START, END, groups, measures; and of each measure of `summed`, what it may be (`nearby`)."""
    measures = ", ".join(f"{measure.duckdb} AS {quoted(name)}" for name, measure in view.measures.items())
    by = "".join(f", {quoted(column)}" for column in view.by)
    rough = {name: measure for name, measure in view.measures.items() if summed(measure)}
    parts = {part: None for measure in rough.values() for part in measure.parts}
    aggregates = "".join(f", {part.function}({part.argument}) AS {part.name}" for part in parts)
    aggregates += "".join(f", {_ROOM} * sum(abs({p.argument})) AS {p.name}_room" for p in parts if _is_rough(p))
    nearby = "".join(f", {_nearby(measure)} AS {quoted(near(name))}" for name, measure in rough.items())
    return f"""SELECT {START}, {END}{by}, {names(view.measures)}{nearby} FROM (
  SELECT {START}, {END}{by}, {measures}{aggregates}
  FROM ({in_windows(source, time, view)}) AS _tw_placed GROUP BY {START}, {END}{by}) AS _tw_folded"""


_ROOM = 1e-12
"""Of the sum of magnitudes: by how much a sum of doubles may differ, as engines add in different orders."""


def summed(measure: Measure) -> bool:
    """Whether a measure rests on a sum of doubles; every other is the same in whatever order events come."""
    return any(map(_is_rough, measure.parts))


def near(name: str) -> str:
    """The column of `folded` with a list of what a measure may be: what it is, then with each sum less, more, and 0."""
    return f"_tw_near_{name}"


def _is_rough(part: Part) -> bool:
    return part.function == "sum" and part.type.name == "double"


def _nearby(measure: Measure) -> str:
    rough = [part.name for part in measure.parts if _is_rough(part)]
    # Each by as much as all of them: so that what is left of their difference lies in between, too. And 0, where it may
    # be that: of what has its least there, as `abs(sum(x))`, both ends are higher.
    room = {name: f"{len(rough)} * {name}_room" for name in rough}
    maybe_0 = "CASE WHEN isfinite({0}) AND abs({0}) <= {1} THEN 0e0 ELSE {0} END"
    tried = {name: f"[{name} - {by}, {name} + {by}, {maybe_0.format(name, by)}]" for name, by in room.items()}
    moved = (f"list_transform({several}, lambda {name}: {measure.after})" for name, several in tried.items())
    return " || ".join([f"[{measure.after}]", *moved])
