"""Offsets that stream_log does not have, and what Kafka says of each: a record is missing, or there never was one.

    stream_log's offsets, the end its last commit says ─► gaps ─► Kafka, committed records only
        holds a record ─► missing        holds none: a marker, an aborted record ─► vacant
        deleted since  ─► untold         in a transaction that is still open     ─► open

Kafka is asked once, of all gaps together, in one pass per partition (`kafka.filled`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twofold import kafka, table_state, tables
from twofold.topic import Filled, Range

if TYPE_CHECKING:
    from twofold.proof.world import World

_KAFKA_TIMEOUT_S = 60.0

Ranges = dict[int, list[Range]]
"""Partition → ranges of offsets, in order; a partition without any is not there."""


@dataclass(frozen=True)
class Gaps:
    """All gaps of a stream_log, by kind."""

    missing: Mapping[int, list[Range]] = field(default_factory=dict)
    vacant: Mapping[int, list[Range]] = field(default_factory=dict)
    untold: Mapping[int, list[Range]] = field(default_factory=dict)
    open: Mapping[int, list[Range]] = field(default_factory=dict)


def size(ranges: Iterable[Range]) -> int:
    """The number of offsets in ranges.

    >>> size([(3, 5), (9, 10)])
    3
    """
    return sum(high - low for low, high in ranges)


def total(kind: Mapping[int, list[Range]]) -> int:
    """The number of offsets over all partitions."""
    return sum(map(size, kind.values()))


def is_of_this_topic(world: World) -> bool:
    """Whether stream_log and Kafka speak of one topic; where they do not, I2 says so."""
    marker = table_state.landed(world.pins[tables.STREAM_LOG].history, world.pipeline.name)
    return world.before.topic_id is not None and marker.topic_id in (None, world.before.topic_id)


def lowest(world: World, partition: int) -> int:
    """The offset that a partition's rows must at least start at: what Kafka still has must be there."""
    return max(world.before.begins.get(partition, 0), world.retained_from.get(partition, 0))


def find(world: World) -> Gaps:
    """Ask Kafka of all gaps at once; where it has another topic of this name, all of them are missing."""
    ranges = _ranges(world)
    if not ranges or not is_of_this_topic(world):
        return Gaps(missing=ranges)
    filled = kafka.filled(world.settings, world.pipeline.topic.name, ranges, _KAFKA_TIMEOUT_S)
    return sort(ranges, filled, world.after.ends, _landed(world))


def sort(
    ranges: Mapping[int, list[Range]],
    filled: Mapping[int, Filled],
    given_out: Mapping[int, int],
    landed: Mapping[int, int],
) -> Gaps:
    """Gaps by kind. `given_out` are the ends of all offsets that Kafka has given out.

    >>> gaps = sort({0: [(2, 4), (7, 8), (11, 15)]}, {0: Filled(3, 12, ((7, 8),))}, {0: 14}, {0: 15})
    >>> gaps.missing, gaps.vacant, gaps.untold, gaps.open
    ({0: [(7, 8), (14, 15)]}, {0: [(3, 4), (11, 12)]}, {0: [(2, 3)]}, {0: [(12, 14)]})

    Where Kafka still has what landed next, and nothing in it speaks of transactions, what it has deleted is missing.

    >>> sort({0: [(2, 4)]}, {0: Filled(5, 12, ())}, {0: 12}, {0: 12}).missing
    {0: [(2, 4)]}
    """
    missing: Ranges = {}
    vacant: Ranges = {}
    untold: Ranges = {}
    waiting: Ranges = {}
    for partition, wanted in ranges.items():
        kafka, end = filled[partition], given_out.get(partition, 0)
        told = _cut(wanted, kafka.begin, kafka.end)
        _keep(untold, partition, _cut(wanted, 0, kafka.begin))
        _keep(vacant, partition, _without(told, kafka.records))
        _keep(waiting, partition, _cut(wanted, kafka.end, end))
        _keep(missing, partition, [*kafka.records, *_cut(wanted, max(end, kafka.end), _last(wanted))])
    if untold and not vacant and any(kafka.begin < landed.get(p, 0) for p, kafka in filled.items()):
        for partition, ranges_untold in untold.items():
            missing[partition] = [*ranges_untold, *missing.get(partition, [])]
        untold = {}
    return Gaps(missing, vacant, untold, waiting)


def _keep(kind: Ranges, partition: int, ranges: list[Range]) -> None:
    if ranges:
        kind[partition] = ranges


def _last(ranges: list[Range]) -> int:
    return ranges[-1][1]


def _cut(ranges: Iterable[Range], low: int, high: int) -> list[Range]:
    """What lies from `low` up to `high`."""
    cut = ((max(low, start), min(high, end)) for start, end in ranges)
    return [(start, end) for start, end in cut if start < end]


def _without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """Ranges without those taken out of them; both in order, and each taken one lies within a range.

    >>> _without([(1, 5), (8, 9), (12, 15)], [(2, 3), (8, 9)])
    [(1, 2), (3, 5), (12, 15)]
    """
    left: list[Range] = []
    out = iter(taken)
    low, high = next(out, (-1, -1))
    for start, end in ranges:
        at = start
        while at <= low < end:
            left.append((at, low))
            at = high
            low, high = next(out, (-1, -1))
        left.append((at, end))
    return [(start, end) for start, end in left if start < end]


def _ranges(world: World) -> Ranges:
    """Per partition what lies between its lowest offset and the end that the last commit, or its last row, says."""
    marker = _landed(world)
    held = {p: (first, last) for p, first, last in world.rows(_SPANS)}
    edges = []
    for partition in sorted({*marker, *held}):
        low, end = lowest(world, partition), marker.get(partition, 0)
        if partition in held:
            first, last = held[partition]
            # What Kafka had dropped before the job began is in neither; what retention is deleting counts no more.
            low, end = max(min(first, low), world.retained_from.get(partition, 0)), max(end, last + 1)
        if low < end:
            edges.append((partition, low, end))
    if not edges:
        return {}
    found: Ranges = {}
    for partition, low, high in world.rows(_gaps_sql(edges)):
        found.setdefault(partition, []).append((low, high))
    return found


def _landed(world: World) -> Mapping[int, int]:
    """Partition → the end that the last commit of stream_log says."""
    return table_state.landed(world.pins[tables.STREAM_LOG].history, world.pipeline.name).offsets


_SPANS = f"SELECT kafka_partition, min(kafka_offset), max(kafka_offset) FROM {tables.STREAM_LOG} GROUP BY 1"


def _gaps_sql(edges: Iterable[tuple[int, int, int]]) -> str:
    """Partition, first offset and end of each gap; `edges` are partition, lowest offset and end."""
    values = ", ".join(f"({partition}, {low}::BIGINT, {end}::BIGINT)" for partition, low, end in edges)
    return f"""
        WITH edges(_tw_part, _tw_low, _tw_end) AS (VALUES {values}),
        placed AS (
          SELECT _tw_part, kafka_offset AS _tw_at FROM {tables.STREAM_LOG} JOIN edges ON _tw_part = kafka_partition
            WHERE kafka_offset >= _tw_low
          UNION ALL SELECT _tw_part, _tw_low - 1 FROM edges
          UNION ALL SELECT _tw_part, _tw_end FROM edges),
        followed AS (
          SELECT *, lead(_tw_at) OVER (PARTITION BY _tw_part ORDER BY _tw_at) AS _tw_next FROM placed)
        SELECT _tw_part, _tw_at + 1, _tw_next FROM followed WHERE _tw_next > _tw_at + 1 ORDER BY ALL"""
