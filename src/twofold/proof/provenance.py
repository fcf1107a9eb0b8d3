"""I4 for the speed layer and `events`: nothing is there that was not sent; a rejected record keeps its exact bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twofold import kafka, table_state, tables
from twofold.proof import gaps, landings, sent_json, sql
from twofold.proof.report import MOST_OFFENDERS, Check, Findings, counted
from twofold.proof.world import World

SAMPLE = 500
"""So many rejected records at most are compared byte for byte with Kafka's."""
IDS = 50
"""So many accepted records at most are read anew, and compared value by value."""
_COMPARABLE = ("string", "int", "long", "decimal", "double", "boolean")
"""Types whose values JSON and the column hold alike; instants and dates have many spellings."""
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


def _beyond_kafka(world: World, found: Findings) -> None:
    """Rows at offsets that Kafka has not given out; asked anew where more landed than there was at first."""
    if not gaps.is_of_this_topic(world):
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
    if not gaps.is_of_this_topic(world):
        return
    rejected, accepted = _rejected_sample(world), _accepted_sample(world)
    wanted: dict[int, list[int]] = {}
    for partition, offset in [*rejected, *accepted]:
        wanted.setdefault(partition, []).append(offset)
    sent = kafka.records(world.settings, world.pipeline.topic.name, wanted, _KAFKA_TIMEOUT_S) if wanted else {}
    _compare_payloads(world, rejected, sent, found)
    _compare_values(world, accepted, sent, found)
    _uncommitted(world, {*rejected, *accepted} - set(sent), found)


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


@dataclass(frozen=True)
class Accepted:
    """What the log keeps of one accepted record."""

    exact: bool
    """Landed since a `string` field takes the exact text that was sent; before, a number's was Spark's own."""
    values: Mapping[str, Any]


def _accepted_sample(world: World) -> dict[tuple[int, int], Accepted]:
    """(partition, offset) → the fields whose values JSON can be compared with, of some accepted records."""
    table = world.pins[tables.STREAM_LOG].table
    since = table_state.rules_since(table.properties if table else {})
    fields = [name for name, field in world.pipeline.event.fields.items() if field.type.name in _COMPARABLE]
    rows = world.rows(
        f"""SELECT {sql.names(("kafka_partition", "kafka_offset", "landing", *fields))} FROM {tables.STREAM_LOG}
            WHERE outcome = 'accepted' ORDER BY hash(kafka_partition, kafka_offset) LIMIT {IDS}"""
    )
    return {
        (partition, offset): Accepted(since is not None and landing >= since, dict(zip(fields, values, strict=True)))
        for partition, offset, landing, *values in rows
    }


def _compare_values(
    world: World,
    kept: Mapping[tuple[int, int], Accepted],
    sent: Mapping[tuple[int, int], bytes | None],
    found: Findings,
) -> None:
    """Accepted records, read anew by Python's own parser: exactly one object, whose values are those in the log.

    Earlier releases took more for an object; what they took is counted apart.
    """
    name, compared, ids, others = world.pipeline.topic.name, 0, 0, []
    unreadable: list[str] = []
    before: list[str] = []
    for (partition, offset), row in sorted(kept.items()):
        if (partition, offset) not in sent:
            continue
        where = f"{name}[{partition}]@{offset}"
        try:
            record = sent_json.members(sent[partition, offset] or b"")
        except RecursionError:
            continue  # nested deeper than Python's parser goes
        except ValueError as error:
            (unreadable if row.exact else before).append(f"{where}: accepted, but it is not one JSON object: {error}")
            continue
        comparable = _comparable(world, row, record)
        compared += 1
        ids += world.pipeline.event.id in comparable
        others += [
            f"{where}: {field} {row.values[field]!r}, sent {record[field].plain if field in record else None!r}"
            for field, kind in comparable.items()
            if field not in record or not sent_json.alike(row.values[field], record[field], kind)
        ]
    found.numbers |= {"ids_compared": ids, "values_compared_records": compared, "values_wrong": len(others)}
    found.numbers |= {"accepted_not_json": len(unreadable), "accepted_not_json_before": len(before)}
    if unreadable:
        found.violated(f"{counted(len(unreadable), 'accepted record')} not one JSON object", unreadable)
    if others:
        found.violated(f"{counted(len(others), 'value')} other than what was sent", others[:MOST_OFFENDERS])
    found.say(f"{counted(compared, 'accepted record')} equal what was sent")
    if before:
        found.say(f"{counted(len(before), 'record')} that an earlier release accepted would be rejected today")


def _comparable(world: World, row: Accepted, record: Mapping[str, sent_json.Member]) -> dict[str, str]:
    """Field → type, where the log has a value: a null may be from before the field was declared."""
    kinds = {name: world.pipeline.event.fields[name].type.name for name, kept in row.values.items() if kept is not None}
    if row.exact:
        return kinds
    key = world.pipeline.event.id
    # Only ids that JSON and the column hold in the same type: a text, or a whole number.
    if key not in kinds or key not in record or (kinds[key] == "string") != (record[key].string is not None):
        return {}
    return {key: kinds[key]}


def _uncommitted(world: World, absent: set[tuple[int, int]], found: Findings) -> None:
    """Sampled rows at offsets that Kafka still reaches, but gives no reader of committed records anything at."""
    begins, ends = world.after.begins, world.before.stable_ends
    aborted = sorted((p, o) for p, o in absent if begins.get(p, 0) <= o < ends.get(p, 0))
    found.numbers["uncommitted"] = len(aborted)
    if aborted:
        found.violated(
            f"{counted(len(aborted), 'record')} that no producer committed",
            [f"{world.pipeline.topic.name}[{p}]@{o}: of an aborted transaction" for p, o in aborted[:MOST_OFFENDERS]],
        )
