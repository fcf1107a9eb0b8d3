"""I1 and I2: what Kafka holds, and what producers were told, against the offsets in stream_log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twofold import table_state, tables
from twofold.proof import gaps
from twofold.proof.report import MOST_OFFENDERS, Check, Findings, counted
from twofold.proof.world import World
from twofold.topic import Range


@dataclass(frozen=True)
class Span:
    """The offsets of one partition in stream_log."""

    records: int
    first: int
    last: int
    distinct: int


def spans(world: World) -> dict[int, Span]:
    """Partition → its offsets in stream_log."""
    found = world.rows(
        f"""SELECT kafka_partition, count(*), min(kafka_offset), max(kafka_offset), count(DISTINCT kafka_offset)
            FROM {tables.STREAM_LOG} GROUP BY kafka_partition ORDER BY kafka_partition"""
    )
    return {partition: Span(*numbers) for partition, *numbers in found}


def each_once(world: World) -> Check:
    """I2: every offset of [first, landed end) that holds a record is there once; the landed end is the commit's own."""
    found, held = Findings("I2"), spans(world)
    marker = table_state.landed(world.pins[tables.STREAM_LOG].history, world.pipeline.name)
    _compare_topic(world, marker.topic_id, found)
    _compare_gaps(world, found)
    _compare_rows(world, held, marker.offsets, found)
    behind = world.before.offsets_behind(marker.offsets) if found.holds else 0
    if behind:
        found.behind(f"{counted(behind, 'offset')} of Kafka not landed yet")
    found.numbers |= _numbers(world, held, marker.offsets, behind)
    records = sum(span.records for span in held.values())
    found.say(f"{counted(records, 'record')} in {counted(len(held), 'partition')}: {_ranges(held)}")
    _say_vacant(world, found)
    return found.check()


def acknowledged(world: World) -> Check:
    """I1: every acknowledged offset is below the landed end, where I2 says that all offsets below it are there."""
    found, held = Findings("I1"), spans(world)
    sent, topic = world.before, world.pipeline.topic.name
    for partition, offset in sorted(sent.acknowledged.items()):
        if offset >= sent.ends.get(partition, 0):
            end = sent.ends.get(partition, 0)
            found.violated("Kafka lost acknowledged records", [f"{topic}[{partition}]@{offset}: Kafka ends at {end}"])
    marker = table_state.landed(world.pins[tables.STREAM_LOG].history, world.pipeline.name).offsets
    absent = {p: o for p, o in sent.acknowledged.items() if o >= _end(held, p)}
    lost = {p: o for p, o in absent.items() if o < marker.get(p, 0)}
    if lost:
        found.violated("acknowledged records are said to be landed, but are missing", _named(topic, lost))
    if waiting := {p: o for p, o in absent.items() if p not in lost}:
        found.behind(f"acknowledged but not landed yet: {', '.join(_named(topic, waiting))}")
    for partition, ranges in world.gaps.missing.items():
        below = min(sent.acknowledged.get(partition, -1), _end(held, partition) - 1)
        missing = [(low, high) for low, high in ranges if low <= below]
        if missing:
            found.violated("acknowledged records are missing", _missing(topic, partition, missing))
    found.numbers |= {
        "acknowledged": sent.acknowledged_records,
        "highest": {str(p): o for p, o in sorted(sent.acknowledged.items())},
        "landed_ends": {str(p): _end(held, p) for p in sorted(held)},
        "journals_of_other_topics": sent.foreign_journals,
    }
    _say_acknowledged(world, held, found)
    return found.check()


def _say_acknowledged(world: World, held: Mapping[int, Span], found: Findings) -> None:
    sent = world.before
    if sent.foreign_journals:
        found.say(f"{counted(sent.foreign_journals, 'journal')} of another topic id ignored")
    if not sent.acknowledged:
        found.say("no producer's journal here: nothing was acknowledged to compare (I2 needs none)")
        return
    ends = ", ".join(f"{p}: {o:,} < {_end(held, p):,}" for p, o in sorted(sent.acknowledged.items()))
    found.say(f"{counted(sent.acknowledged_records, 'record')} acknowledged; highest offset < landed end: {ends}")


def _compare_topic(world: World, landed_topic: str | None, found: Findings) -> None:
    topic, now = world.pipeline.topic.name, world.before.topic_id
    if landed_topic is not None and now is None:
        found.violated(f"topic {topic} (id {landed_topic}) is gone from Kafka", [f"{topic}: no such topic"])
    elif landed_topic is not None and now != landed_topic:
        found.violated(
            f"stream_log was filled from topic id {landed_topic}, but {topic} now has id {now}",
            [f"{topic}: another topic of this name"],
        )


def _compare_gaps(world: World, found: Findings) -> None:
    """Offsets that hold a record which stream_log does not have."""
    topic = world.pipeline.topic.name
    for partition, ranges in world.gaps.missing.items():
        found.violated(
            f"{counted(gaps.size(ranges), 'offset')} missing in partition {partition}",
            _missing(topic, partition, ranges),
        )
    if waiting := gaps.total(world.gaps.open):
        found.behind(f"{counted(waiting, 'offset')} of a transaction that is still open, which no row is of")


def _compare_rows(world: World, held: Mapping[int, Span], marker: Mapping[int, int], found: Findings) -> None:
    """Offsets that are there more than once, or that no commit speaks of."""
    topic = world.pipeline.topic.name
    for partition, span in held.items():
        if span.records > span.distinct:
            more = span.records - span.distinct
            found.violated(f"{counted(more, 'record')} too many in partition {partition}", _doubled(world, partition))
        if (said := marker.get(partition, 0)) <= span.last:
            found.violated(
                f"the last commit says that partition {partition} ends at {said:,}, its rows end at {span.last + 1:,}",
                [f"{topic}[{partition}]@{said}"],
            )


def _say_vacant(world: World, found: Findings) -> None:
    """Offsets without a row that nothing is missing at, as far as Kafka can tell."""
    vacant, untold = gaps.total(world.gaps.vacant), gaps.total(world.gaps.untold)
    found.numbers |= {"offsets_without_record": vacant, "offsets_untold": untold}
    if vacant:
        holds = "holds" if vacant == 1 else "hold"
        found.say(f"{counted(vacant, 'offset')} {holds} no record: transactions")
    if untold:
        found.say(f"of {counted(untold, 'offset')} without a row nobody can tell any more, as Kafka has deleted them")
    if waiting := world.before.offsets_open:
        found.say(f"{counted(waiting, 'offset')} of Kafka can land only when an open transaction has ended")


def _missing(topic: str, partition: int, ranges: Sequence[Range]) -> list[str]:
    return [
        f"{topic}[{partition}]@{low}{'' if high == low + 1 else f'–{high - 1}'}: missing"
        for low, high in ranges[:MOST_OFFENDERS]
    ]


def _doubled(world: World, partition: int) -> list[str]:
    topic = world.pipeline.topic.name
    found = world.rows(
        f"""SELECT kafka_offset, count(*) FROM {tables.STREAM_LOG} WHERE kafka_partition = {partition}
            GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT {MOST_OFFENDERS}"""
    )
    return [f"{topic}[{partition}]@{offset}: {times} times" for offset, times in found]


def _end(held: Mapping[int, Span], partition: int) -> int:
    return held[partition].last + 1 if partition in held else 0


def _named(topic: str, offsets: Mapping[int, int]) -> list[str]:
    return [f"{topic}[{partition}]@{offset}" for partition, offset in sorted(offsets.items())]


def _ranges(held: Mapping[int, Span]) -> str:
    return ", ".join(f"{p}: [{span.first:,}, {span.last + 1:,})" for p, span in held.items()) or "none"


def _numbers(world: World, held: Mapping[int, Span], marker: Mapping[int, int], behind: int) -> dict[str, object]:
    partitions = {
        str(p): {
            "records": held[p].records if p in held else 0,
            "first": held[p].first if p in held else None,
            "end": _end(held, p),
            "landed": marker.get(p, 0),
            "without_record": gaps.size(world.gaps.vacant.get(p, ())),
            "kafka_begin": world.before.begins.get(p),
            "kafka_end": world.before.ends.get(p),
            "kafka_stable_end": world.before.stable_ends.get(p),
        }
        for p in sorted({*held, *marker, *world.before.ends})
    }
    records = sum(span.records for span in held.values())
    return {"records": records, "behind": behind, "topic_id": world.before.topic_id, "partitions": partitions}
