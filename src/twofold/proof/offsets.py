"""I1 and I2: what Kafka holds, and what producers got acknowledged, against the offsets in stream_log.

    stream_log's offsets, the end its last commit says ─► gaps ─► Kafka, committed records only
        holds a record ─► missing        holds none: a marker, an aborted record ─► vacant
        deleted since  ─► missing where an earlier proof saw a record there, else untold
        in a transaction that is still open ─► open

Kafka is asked once, of all gaps together, in one pass per partition.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from twofold import kafka, tables
from twofold.definition.names import ELEMENT
from twofold.proof import sql
from twofold.proof.findings import MOST_OFFENDERS, Check, Findings
from twofold.proof.sent import Sent
from twofold.proof.world import Gaps, Span, World
from twofold.table_state import Landed
from twofold.text import counted
from twofold.topic import Filled, Range, cut, merged, place

_KAFKA_TIMEOUT_S = 60.0
_MOST_KEPT = 1_000
"""Ranges that are kept of a partition, the newest: each transaction begins another one."""
_NOWHERE = "(kafka_partition IS NULL OR kafka_offset IS NULL)"

Ranges = dict[int, list[Range]]
"""Partition → ranges of offsets, in order; a partition without any is left out."""


def each_once(world: World) -> Check:
    """I2: every offset of [start, landed end) that holds a record exists once; both are the commit's own."""
    found, held, landed = Findings("I2"), spans(world), world.landed(tables.STREAM_LOG)
    _compare_topic(world, landed.topic_id, found)
    _compare_gaps(world, found)
    _compare_lost(world, landed, found)
    _compare_rows(world, held, landed, found)
    _compare_elements(world, found)
    behind = world.before.offsets_behind(landed.offsets) if found.holds else 0
    if behind:
        found.behind(f"{counted(behind, 'offset')} of Kafka not landed yet")
    found.numbers |= _numbers(world, held, landed.offsets, behind)
    reach = ", ".join(f"{p}: [{span.first:,}, {span.last + 1:,})" for p, span in held.items()) or "none"
    found.say(f"{counted(found.numbers['records'], 'record')} in {counted(len(held), 'partition')}: {reach}")
    _say_vacant(world, found)
    return found.check()


def acknowledged(world: World) -> Check:
    """I1: every acknowledged offset is below the landed end, where I2 says that all offsets below it exist."""
    found, held, name, sent = Findings("I1"), spans(world), world.pipeline.topic.name, world.before
    ends = {**world.proved_offsets, **{partition: span.last + 1 for partition, span in held.items()}}
    state = world.landed(tables.STREAM_LOG)
    gone = _deleted(world, state)
    # Retention may have left no row; what of it is lost, I2 says.
    for partition, end in (*world.retained_from.items(), *((one.partition, one.end) for one in state.lost)):
        ends[partition] = max(end, ends.get(partition, 0))
    for partition, offset in sorted(sent.acknowledged.items()):
        if offset >= (end := sent.ends.get(partition, 0)):
            found.violated("Kafka lost acknowledged records", [f"{name}[{partition}]@{offset}: Kafka ends at {end}"])
    due = {p: o for p, o in sorted(sent.acknowledged.items()) if o >= state.start.get(p, 0)}
    absent = {p: o for p, o in due.items() if o >= ends.get(p, 0)}
    if lost := [f"{name}[{p}]@{o}" for p, o in absent.items() if o < state.offsets.get(p, 0)]:
        found.violated("acknowledged records are said to be landed, but are missing", lost)
    if deleted := [f"{name}[{p}]@{o}" for p, o in absent.items() if p in gone and o in range(*gone[p])]:
        found.violated("acknowledged records were deleted by Kafka before they landed", deleted)
    waiting = [f"{name}[{p}]@{o}" for p, o in absent.items() if o >= max(state.offsets.get(p, 0), *gone.get(p, (0,)))]
    if waiting:
        found.behind(f"acknowledged but not landed yet: {', '.join(waiting)}")
    for partition, ranges in gaps(world).missing.items():
        below = min(sent.acknowledged.get(partition, -1), ends.get(partition, 0) - 1)
        if missing := [(low, high) for low, high in ranges if low <= below]:
            found.violated("acknowledged records are missing", _missing(name, partition, missing))
    found.numbers |= {
        "acknowledged": sent.acknowledged_records,
        "highest": {str(p): o for p, o in sorted(sent.acknowledged.items())},
        "landed_ends": {str(p): ends[p] for p in sorted(ends)},
        "journals_of_other_topics": sent.foreign_journals,
    }
    _say_acknowledged(sent, due, ends, found)
    return found.check()


def _say_acknowledged(sent: Sent, due: Mapping[int, int], ends: Mapping[int, int], found: Findings) -> None:
    """What was compared; `due` are the highest offsets that lie past the stream's start."""
    if sent.foreign_journals:
        found.say(f"{counted(sent.foreign_journals, 'journal')} of another topic id ignored")
    if before := len(sent.acknowledged) - len(due):
        found.say(f"what {counted(before, 'partition')} got acknowledged lies before the stream's start")
    if due:
        pairs = ", ".join(f"{p}: {o:,} < {ends.get(p, 0):,}" for p, o in due.items())
        found.say(f"{counted(sent.acknowledged_records, 'record')} acknowledged; highest offset < landed end: {pairs}")
    if not sent.acknowledged:
        found.say("no producer's journal here: nothing was acknowledged to compare (I2 needs none)")


def spans(world: World) -> Mapping[int, Span]:
    """Partition → its offsets in stream_log, looked at once."""
    if world.spans is None:
        distinct = f"(kafka_offset, {ELEMENT})" if world.pipeline.event.each else "kafka_offset"
        found = world.rows(
            f"""SELECT kafka_partition, count(*), min(kafka_offset), max(kafka_offset),
                  count(DISTINCT kafka_offset), count(DISTINCT {distinct})
                FROM {tables.STREAM_LOG} WHERE NOT {_NOWHERE} GROUP BY kafka_partition ORDER BY kafka_partition"""
        )
        world.spans = {partition: Span(*numbers) for partition, *numbers in found}
    return world.spans


def _compare_topic(world: World, landed_topic: str | None, found: Findings) -> None:
    name, now = world.pipeline.topic.name, world.topic_id
    if landed_topic is not None and now is None:
        found.violated(f"topic {name} (id {landed_topic}) is gone from Kafka", [f"{name}: no such topic"])
    elif landed_topic is not None and now != landed_topic:
        found.violated(
            f"stream_log was filled from topic id {landed_topic}, but {name} now has id {now}",
            [f"{name}: another topic of this name"],
        )


def _compare_gaps(world: World, found: Findings) -> None:
    """Offsets that hold a record which stream_log does not have."""
    for partition, ranges in gaps(world).missing.items():
        named = _missing(world.pipeline.topic.name, partition, ranges)
        found.violated(f"{counted(_size(ranges), 'offset')} missing in partition {partition}", named)
    if waiting := _total(gaps(world).open):
        found.behind(f"{counted(waiting, 'offset')} of a transaction that is still open, which no row is of")


def _compare_lost(world: World, landed: Landed, found: Findings) -> None:
    """What was accepted as lost is said for good; it must be gone."""
    name = world.pipeline.topic.name
    found.numbers["lost"] = landed.lost_offsets
    if landed.lost:
        named = ", ".join(
            f"{place(name, one.partition, (one.start, one.end))} on {one.accepted_at:%Y-%m-%d}" for one in landed.lost
        )
        found.say(f"{counted(landed.lost_offsets, 'offset')} lost, deleted by Kafka before they landed: {named}")
    if gone := _deleted(world, landed):
        what = f"{counted(_size(gone.values()), 'offset')} deleted by Kafka before they landed (`twofold accept-loss`)"
        found.violated(what, [place(name, partition, span) for partition, span in gone.items()])
    # As of after the log was read: Kafka may have deleted them, and somebody accepted them, since it was asked first.
    begins = world.after.begins if landed.lost and world.is_of_one_topic else {}
    if there := [one for one in landed.lost if begins.get(one.partition, one.end) < one.end]:
        named_there = [place(name, one.partition, (one.start, one.end)) for one in there]
        found.violated("offsets are said to be lost that Kafka still has", named_there)


def _compare_rows(world: World, held: Mapping[int, Span], landed: Landed, found: Findings) -> None:
    """Offsets that occur more than once, or that no commit covers."""
    name = world.pipeline.topic.name
    nowhere = f"SELECT concat('stream_log: of landing ', landing) FROM {tables.STREAM_LOG} WHERE {_NOWHERE}"
    world.see_none(found, "row", "without partition or offset", nowhere)
    if any(span.rows > span.distinct for span in held.values()):
        by = f"kafka_partition, kafka_offset{f', {ELEMENT}' if world.pipeline.event.each else ''}"
        twice = f"""SELECT {by}, concat({sql.in_topic(name)}, ': ', count(*), ' times') FROM {tables.STREAM_LOG}
                    WHERE NOT {_NOWHERE} GROUP BY {by} HAVING count(*) > 1"""
        world.see_none(found, "offset", "more than once", twice)
    for partition, span in held.items():
        if span.first < (begin := landed.start.get(partition, 0)):
            early = f"partition {partition} has rows from offset {span.first:,}, before the stream's start at {begin:,}"
            found.violated(early, [f"{name}[{partition}]@{span.first}"])
        if (said := landed.offsets.get(partition, 0)) <= span.last:
            found.violated(
                f"the last commit says that partition {partition} ends at {said:,}, its rows end at {span.last + 1:,}",
                [f"{name}[{partition}]@{said}"],
            )


def _compare_elements(world: World, found: Findings) -> None:
    """With `event.each`, an offset has the elements 1, 2, … of its record, or one row numbered 0."""
    if world.pipeline.event.each is None:
        return
    place = ("kafka_partition", "kafka_offset")
    torn = sql.torn_elements(tables.STREAM_LOG, place, sql.in_topic(world.pipeline.topic.name))
    found.numbers["offsets_with_elements_missing"] = world.see_none(
        found, "offset", "without all elements from the first to the last", torn
    )


def _say_vacant(world: World, found: Findings) -> None:
    """Offsets without a row at which no record is missing, as far as Kafka knows."""
    vacant, untold = _total(gaps(world).vacant), _total(gaps(world).untold)
    found.numbers |= {"offsets_without_record": vacant, "offsets_untold": untold}
    if vacant:
        found.say(f"{counted(vacant, 'offset')} {'holds' if vacant == 1 else 'hold'} no record: transactions")
    if untold:
        found.not_proved(
            f"of {counted(untold, 'offset')} without a row nobody can tell any more, as Kafka has deleted them"
        )
    if waiting := world.before.offsets_open:
        found.say(f"{counted(waiting, 'offset')} of Kafka can land only when an open transaction has ended")


def _deleted(world: World, landed: Landed) -> dict[int, Range]:
    """Partition → offsets past the landed end that Kafka no longer has; a stream begins with the first that it has."""
    begins = world.before.begins if landed.offsets and world.is_of_one_topic else {}
    ends = {partition: landed.offsets.get(partition, 0) for partition in sorted(begins)}
    return {partition: (end, begins[partition]) for partition, end in ends.items() if end < begins[partition]}


def _missing(name: str, partition: int, ranges: Sequence[Range]) -> list[str]:
    return [f"{place(name, partition, span)}: missing" for span in ranges[:MOST_OFFENDERS]]


def _numbers(world: World, held: Mapping[int, Span], landed: Mapping[int, int], behind: int) -> dict[str, object]:
    partitions = {
        str(p): {
            "records": held[p].records if p in held else 0,
            "first": held[p].first if p in held else None,
            "end": held[p].last + 1 if p in held else 0,
            "landed": landed.get(p, 0),
            "without_record": _size(gaps(world).vacant.get(p, ())),
            "kafka_begin": world.before.begins.get(p),
            "kafka_end": world.before.ends.get(p),
            "kafka_stable_end": world.before.stable_ends.get(p),
        }
        for p in sorted({*held, *landed, *world.before.ends})
    }
    records = sum(span.records for span in held.values())
    return {"records": records, "behind": behind, "topic_id": world.before.topic_id, "partitions": partitions}


def gaps(world: World) -> Gaps:
    """All gaps, Kafka asked of them once; where it has another topic of this name, all of them are missing."""
    if world.gaps is None:
        edges, topic_name = _edges(world), world.pipeline.topic.name
        between: Ranges = {}
        for partition, low, high in world.rows(_gaps_sql(edges)) if edges else ():
            between.setdefault(partition, []).append((low, high))
        ranges = _but_lost(world, between)
        found = Gaps(missing=ranges)
        if ranges and world.is_of_one_topic:
            filled = kafka.filled(world.lake.settings, topic_name, ranges, _KAFKA_TIMEOUT_S)
            found = sort(ranges, filled, world.after.ends, world.seen)
        rows = {partition: _newest(low, end, between.get(partition, [])) for partition, low, end in edges}
        world.gaps = replace(found, rows=rows)
    return world.gaps


def _newest(low: int, end: int, between: list[Range]) -> list[Range]:
    """What lies between the last gaps, as far as it is kept: with transactions there may be millions.

    >>> _newest(0, 9, [(2, 3), (5, 6)])
    [(0, 2), (3, 5), (6, 9)]
    """
    last = between[-_MOST_KEPT:]
    return _without([(last[0][0] if len(last) < len(between) else low, end)], last)


def seen(world: World, *, holds: bool) -> Ranges:
    """Where Kafka had a record, or, if a proof `holds`, stream_log has one: as far as this proof or one before saw."""
    found, told = gaps(world), world.before.stable_ends
    there = {
        partition: [
            *world.seen.get(partition, ()),
            *(found.rows.get(partition, ()) if holds else ()),
            *cut(found.missing.get(partition, ()), 0, told.get(partition, 0)),
        ]
        for partition in {*world.seen, *found.rows}
    }
    return {partition: merged(sorted(ranges), 0)[-_MOST_KEPT:] for partition, ranges in sorted(there.items())}


def sort(
    ranges: Mapping[int, list[Range]],
    filled: Mapping[int, Filled],
    given_out: Mapping[int, int],
    seen: Mapping[int, list[Range]],
) -> Gaps:
    """Gaps by kind. `given_out` are the ends of all offsets that Kafka has given out.

    >>> found = sort({0: [(2, 4), (7, 8), (11, 15)]}, {0: Filled(3, 12, ((7, 8),))}, {0: 14}, {})
    >>> found.missing, found.vacant, found.untold, found.open
    ({0: [(7, 8), (14, 15)]}, {0: [(3, 4), (11, 12)]}, {0: [(2, 3)]}, {0: [(12, 14)]})

    A deleted offset held a record, or was a marker, which Kafka alone could tell: unless a record was `seen` there.

    >>> found = sort({0: [(2, 4)]}, {0: Filled(5, 12, ())}, {0: 12}, {0: [(0, 3)]})
    >>> found.missing, found.untold
    ({0: [(2, 3)]}, {0: [(3, 4)]})
    """
    missing: Ranges = {}
    vacant: Ranges = {}
    untold: Ranges = {}
    waiting: Ranges = {}
    for partition, wanted in ranges.items():
        kafka, end = filled[partition], given_out.get(partition, 0)
        deleted = cut(wanted, 0, kafka.begin)
        untold[partition] = _without(deleted, seen.get(partition, ()))
        vacant[partition] = _without(cut(wanted, kafka.begin, kafka.end), kafka.records)
        waiting[partition] = cut(wanted, kafka.end, end)
        never = cut(wanted, max(end, kafka.end), wanted[-1][1])
        missing[partition] = [*_without(deleted, untold[partition]), *kafka.records, *never]
    return Gaps(*({p: found for p, found in kind.items() if found} for kind in (missing, vacant, untold, waiting)))


def _size(ranges: Iterable[Range]) -> int:
    return sum(high - low for low, high in ranges)


def _total(kind: Mapping[int, list[Range]]) -> int:
    return sum(map(_size, kind.values()))


def _without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """Ranges without those taken out of them, both in order.

    >>> _without([(1, 5), (8, 9), (12, 15)], [(0, 1), (2, 3), (4, 13)])
    [(1, 2), (3, 4), (13, 15)]
    """
    left: list[Range] = []
    out, none = iter(taken), (sys.maxsize, sys.maxsize)
    low, high = next(out, none)
    for start, end in ranges:
        at = start
        while low < end:
            left.append((at, low))
            at = max(at, high)
            if high > end:  # it reaches into the next one
                break
            low, high = next(out, none)
        left.append((at, end))
    return [(start, end) for start, end in left if start < end]


def _edges(world: World) -> list[tuple[int, int, int]]:
    """Partition, its lowest offset, and the end that the last commit, or its last row, says."""
    state, held = world.landed(tables.STREAM_LOG), spans(world)
    landed, start = state.offsets, state.start
    edges = []
    for partition in sorted({*landed, *held}):
        # Records that Kafka still has must exist; those that retention is deleting no longer count.
        retained, end = world.retained_from.get(partition, 0), landed.get(partition, 0)
        # The stream began there, whatever Kafka has before; and what the last proof had seen is not asked for again.
        retained = max(retained, start.get(partition, 0), world.proved_offsets.get(partition, 0))
        low = max(world.before.begins.get(partition, 0), retained)
        if partition in held:
            # What Kafka had dropped before the job began is in neither.
            low, end = max(min(held[partition].first, low), retained), max(end, held[partition].last + 1)
        if low < end:
            edges.append((partition, low, end))
    return edges


def _but_lost(world: World, between: Ranges) -> Ranges:
    """What was accepted as lost is no gap."""
    found = dict(between)
    for one in world.landed(tables.STREAM_LOG).lost:
        if left := _without(found.pop(one.partition, []), [(one.start, one.end)]):
            found[one.partition] = left
    return found


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
