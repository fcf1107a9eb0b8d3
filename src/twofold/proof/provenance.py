"""I4 for the speed layer and `events`: nothing is there that was not sent; a rejected record keeps its exact bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from twofold import boundary, tables, topic
from twofold.proof import landings, sql
from twofold.proof.report import MOST_OFFENDERS, Check, Findings, counted
from twofold.proof.world import World

SAMPLE = 500
"""So many rejected records at most are compared byte for byte with Kafka's."""
IDS = 50
"""So many accepted records at most are compared by their id."""
_SAMPLE_BYTES = 64 << 20
_KAFKA_TIMEOUT_S = 60.0


def nothing_invented(world: World) -> Check:
    """I4: events come from the logs, the stream log from Kafka, the batch log from files."""
    found = Findings("I4")
    _events(world, found)
    _beyond_kafka(world, found)
    _bytes(world, found)
    landings.compare(world, found)
    return found.check()


def _events(world: World, found: Findings) -> None:
    columns = sql.names(tables.events(world.pipeline).column_names)
    logged = sql.contenders(world.pipeline, "stream_log", "batch_log")
    kept = _still_logged(world)
    invented = f"""SELECT {columns} FROM {tables.EVENTS} WHERE {kept}
                   EXCEPT SELECT {columns} FROM ({logged}) AS _tw_logged"""
    count = world.number(f"SELECT count(*) FROM ({invented}) AS _tw_invented")
    rows = world.number(f"SELECT count(*) FROM {tables.EVENTS} WHERE {kept}")
    found.numbers |= {"events": rows, "events_not_in_logs": count}
    if count:
        found.violated(f"{counted(count, 'event')} not in the logs as they are", _first_invented(world, invented))
    found.say(f"{counted(rows, 'event')} found in the logs with equal columns")


def _still_logged(world: World) -> str:
    """Rows that retention has not yet taken from stream_log."""
    gone = [f"(kafka_partition = {p} AND kafka_offset < {low})" for p, low in sorted(world.retained_from.items())]
    return f"coalesce(NOT ({' OR '.join(gone)}), true)" if gone else "true"


def _first_invented(world: World, invented: str) -> list[str]:
    key, origin = sql.quoted(world.pipeline.event.id), sql.origin(world.pipeline.topic.name)
    rows = world.rows(f"SELECT {key}, {origin} FROM ({invented}) AS _tw_invented ORDER BY ALL LIMIT {MOST_OFFENDERS}")
    return [f"events: id {key!r} from {where}" for key, where in rows]


def _is_of_this_topic(world: World) -> bool:
    """Whether stream_log and Kafka speak of one topic; where they do not, I2 says so."""
    marker = boundary.landed(world.pins[tables.STREAM_LOG].history, world.pipeline.name)
    return world.before.topic_id is not None and marker.topic_id in (None, world.before.topic_id)


def _beyond_kafka(world: World, found: Findings) -> None:
    """Rows at offsets that Kafka has not given out; asked anew where more landed than there was at first."""
    if not _is_of_this_topic(world):
        return
    ends = world.before.ends
    count = _count_beyond(world, ends)
    if count:
        ends = world.after.ends
        count = _count_beyond(world, ends)
    found.numbers["beyond_kafka"] = count
    if count:
        rows = world.rows(f"SELECT kafka_partition, kafka_offset {_beyond(ends)} ORDER BY ALL LIMIT {MOST_OFFENDERS}")
        found.violated(
            f"{counted(count, 'row')} of stream_log past Kafka's end",
            [f"{world.pipeline.topic.name}[{p}]@{o}: Kafka ends at {ends.get(p, 0)}" for p, o in rows],
        )


def _count_beyond(world: World, ends: Mapping[int, int]) -> int:
    return world.number(f"SELECT count(*) {_beyond(ends)}")


def _beyond(ends: Mapping[int, int]) -> str:
    inside = " OR ".join(f"(kafka_partition = {p} AND kafka_offset < {end})" for p, end in ends.items())
    return f"FROM {tables.STREAM_LOG} WHERE NOT ({inside or 'false'})"


def _bytes(world: World, found: Findings) -> None:
    if not _is_of_this_topic(world):
        return
    rejected, accepted = _rejected_sample(world), _accepted_sample(world)
    wanted: dict[int, list[int]] = {}
    for partition, offset in [*rejected, *accepted]:
        wanted.setdefault(partition, []).append(offset)
    sent = topic.records(world.settings, world.pipeline.topic.name, wanted, _KAFKA_TIMEOUT_S) if wanted else {}
    _compare_payloads(world, rejected, sent, found)
    _compare_ids(world, accepted, sent, found)


def _rejected_sample(world: World) -> dict[tuple[int, int], str | None]:
    """(partition, offset) → SHA-256 of the kept payload (None: null): all, or the first, the last, and some between."""
    third = SAMPLE // 3
    rows = world.rows(
        f"""WITH placed AS (
              SELECT kafka_partition, kafka_offset, octet_length(payload) AS size_bytes,
                row_number() OVER (ORDER BY kafka_partition, kafka_offset) AS nth, count(*) OVER () AS total
              FROM {tables.STREAM_LOG} WHERE outcome = 'rejected'),
            chosen AS (
              SELECT *, sum(size_bytes) OVER (ORDER BY spread ROWS UNBOUNDED PRECEDING) AS up_to_bytes FROM (
                SELECT *, CASE WHEN nth <= {third} OR nth > total - {third} THEN 0::UBIGINT
                          ELSE hash(kafka_partition, kafka_offset) END AS spread
                FROM placed ORDER BY spread, nth LIMIT {SAMPLE}))
            SELECT kafka_partition, kafka_offset, sha256(payload) FROM {tables.STREAM_LOG}
            SEMI JOIN (SELECT * FROM chosen WHERE coalesce(up_to_bytes, 0) <= {_SAMPLE_BYTES})
              USING (kafka_partition, kafka_offset) WHERE outcome = 'rejected'"""
    )
    return {(partition, offset): digest for partition, offset, digest in rows}


def _compare_payloads(
    world: World,
    kept: Mapping[tuple[int, int], str | None],
    sent: Mapping[tuple[int, int], bytes | None],
    found: Findings,
) -> None:
    rejected = world.number(f"SELECT count(*) FROM {tables.STREAM_LOG} WHERE outcome = 'rejected'")
    compared = [place for place in kept if place in sent]
    wrong = [place for place in compared if kept[place] != _sha256(sent[place])]
    found.numbers |= {"rejected": rejected, "payloads_compared": len(compared), "payloads_wrong": len(wrong)}
    if wrong:
        name = world.pipeline.topic.name
        found.violated(
            f"{counted(len(wrong), 'rejected record')} without their exact bytes",
            [f"{name}[{p}]@{o}: payload differs from Kafka's bytes" for p, o in sorted(wrong)[:MOST_OFFENDERS]],
        )
    gone = len(kept) - len(compared)
    expired = f" ({gone:,} no longer in Kafka)" if gone else ""
    found.say(f"{len(compared):,} of {counted(rejected, 'rejected record')} equal Kafka's bytes{expired}")


def _sha256(value: bytes | None) -> str | None:
    return None if value is None else hashlib.sha256(value).hexdigest()


def _accepted_sample(world: World) -> dict[tuple[int, int], Any]:
    """(partition, offset) → id, for some accepted records."""
    rows = world.rows(
        f"""SELECT kafka_partition, kafka_offset, {sql.quoted(world.pipeline.event.id)} FROM {tables.STREAM_LOG}
            WHERE outcome = 'accepted' ORDER BY hash(kafka_partition, kafka_offset) LIMIT {IDS}"""
    )
    return {(partition, offset): key for partition, offset, key in rows}


def _compare_ids(
    world: World, kept: Mapping[tuple[int, int], Any], sent: Mapping[tuple[int, int], bytes | None], found: Findings
) -> None:
    ids = {place: _id_sent(sent[place], world.pipeline.event.id) for place in kept if place in sent}
    # Only ids that JSON and the column hold in the same type: a text, or a whole number.
    alike = {place: key for place, key in ids.items() if type(key) is type(kept[place])}
    wrong = [place for place, key in alike.items() if key != kept[place]]
    found.numbers |= {"ids_compared": len(alike), "ids_wrong": len(wrong)}
    if wrong:
        name = world.pipeline.topic.name
        found.violated(
            f"{counted(len(wrong), 'record')} with another id than was sent",
            [f"{name}[{p}]@{o}: id {kept[p, o]!r}, sent {alike[p, o]!r}" for p, o in sorted(wrong)[:MOST_OFFENDERS]],
        )


def _id_sent(value: bytes | None, key: str) -> Any:  # noqa: ANN401
    try:
        record = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    return record.get(key) if isinstance(record, dict) else None
