"""I4 for the speed layer and `events`: no record exists that was not sent; a rejected record keeps its exact bytes.

A sample of the records is asked of Kafka again, and read by Python's own JSON parser, made strict: a second opinion
on what the product accepted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from twofold import kafka, table_state, tables
from twofold.proof import landed_files, sql
from twofold.proof.findings import Check, Findings
from twofold.proof.world import World
from twofold.text import counted

SAMPLE = 500
"""At most this many rejected records are compared byte for byte with Kafka's."""
IDS = 50
"""At most this many accepted records are read again, and compared value by value."""
_COMPARABLE = ("string", "int", "long", "decimal", "double", "boolean")
"""Types whose values JSON and the column hold alike; instants and dates have many spellings."""
_SAMPLE_BYTES = 64 << 20
_KAFKA_TIMEOUT_S = 60.0
_BLANK = re.compile(r"[ \t\n\r]*")
_BOM = "\ufeff"

Place = tuple[int, int]
"""Partition and offset."""


def nothing_invented(world: World) -> Check:
    """I4: events come from the logs, the stream log from Kafka, the batch log from files."""
    found = Findings("I4")
    _events(world, found)
    if world.is_of_one_topic:
        _beyond_kafka(world, found)
        _bytes(world, found)
    landed_files.compare(world, found)
    return found.check()


def _events(world: World, found: Findings) -> None:
    if not world.is_united:
        found.behind(f"events are of rows that were judged anew since: `twofold union {world.pipeline.name}`")
        return
    columns = sql.names(tables.events(world.pipeline).column_names)
    logged = sql.contenders(world.pipeline, "stream_log", "batch_log")
    # Rows that retention has not yet taken from stream_log.
    kept = f"{tables.EVENTS} WHERE coalesce(NOT {sql.before(world.retained_from)}, true)"
    invented = f"SELECT {columns} FROM {kept} EXCEPT SELECT {columns} FROM ({logged}) AS _tw_logged"
    id_and_origin = f"{sql.quoted(world.pipeline.event.key)}, {sql.origin(world.pipeline.topic.name)}"
    count, named = world.offenders(invented, id_and_origin, lambda key, where: f"events: id {key!r} from {where}")
    rows = world.number(f"SELECT count(*) FROM {kept}")
    found.numbers |= {"events": rows, "events_not_in_logs": count}
    if count:
        found.violated(f"{counted(count, 'event')} not in the logs as they are", named)
    found.say(f"{counted(rows, 'event')} found in the logs with equal columns")


def _beyond_kafka(world: World, found: Findings) -> None:
    """Rows at offsets that Kafka has not given out; asked again where more was ingested than existed at first."""
    ends = world.before.ends
    count = world.number(f"SELECT count(*) FROM ({_beyond(ends)})")
    named: list[str] = []
    if count:
        ends = world.after.ends
        count, named = world.offenders(
            _beyond(ends),
            "kafka_partition, kafka_offset",
            lambda p, o: f"{world.pipeline.topic.name}[{p}]@{o}: Kafka ends at {ends.get(p, 0)}",
        )
    found.numbers["beyond_kafka"] = count
    if count:
        found.violated(f"{counted(count, 'row')} of stream_log past Kafka's end", named)


def _beyond(ends: Mapping[int, int]) -> str:
    return f"SELECT kafka_partition, kafka_offset FROM {tables.STREAM_LOG} WHERE NOT {sql.before(ends)}"


def _bytes(world: World, found: Findings) -> None:
    rejected, accepted = _rejected_sample(world), _accepted_sample(world)
    wanted: dict[int, list[int]] = {}
    for partition, offset in [*rejected, *accepted]:
        wanted.setdefault(partition, []).append(offset)
    name = world.pipeline.topic.name
    sent = kafka.records(world.lake.settings, name, wanted, _KAFKA_TIMEOUT_S) if wanted else {}
    _compare_payloads(world, rejected, sent, found)
    _compare_values(world, accepted, sent, found)
    _uncommitted(world, {*rejected, *accepted} - set(sent), found)


def _rejected_sample(world: World) -> dict[Place, str | None]:
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
    kept: Mapping[Place, str | None],
    sent: Mapping[Place, bytes | None],
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
            [f"{name}[{p}]@{o}: payload differs from Kafka's bytes" for p, o in sorted(wrong)],
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
    """Ingested since a `string` field takes the exact text that was sent; before, a number's text was Spark's own."""
    values: Mapping[str, Any]


def _accepted_sample(world: World) -> dict[Place, Accepted]:
    """(partition, offset) → the fields whose values JSON can be compared with, of some accepted records."""
    since = table_state.rules_since(world.pins[tables.STREAM_LOG].properties)
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
    kept: Mapping[Place, Accepted],
    sent: Mapping[Place, bytes | None],
    found: Findings,
) -> None:
    """Accepted records, read again by Python's own parser: exactly one object, whose values are those in the log.

    Earlier releases accepted more as an object; those records are counted separately.
    """
    name, compared, ids, others = world.pipeline.topic.name, 0, 0, []
    unreadable: list[str] = []
    before: list[str] = []
    for (partition, offset), row in sorted(kept.items()):
        if (partition, offset) not in sent:
            continue
        where = f"{name}[{partition}]@{offset}"
        try:
            record = members(sent[partition, offset] or b"")
        except RecursionError:
            continue  # nested deeper than Python's parser goes
        except ValueError as error:
            (unreadable if row.exact else before).append(f"{where}: accepted, but it is not one JSON object: {error}")
            continue
        comparable = _comparable(world, row, record)
        compared += 1
        ids += world.pipeline.event.key in comparable
        others += [
            f"{where}: {field} {row.values[field]!r}, sent {record[field].plain if field in record else None!r}"
            for field, kind in comparable.items()
            if field not in record or not alike(row.values[field], record[field], kind)
        ]
    found.numbers |= {"ids_compared": ids, "values_compared_records": compared, "values_wrong": len(others)}
    found.numbers |= {"accepted_not_json": len(unreadable), "accepted_not_json_before": len(before)}
    if unreadable:
        found.violated(f"{counted(len(unreadable), 'accepted record')} not one JSON object", unreadable)
    if others:
        found.violated(f"{counted(len(others), 'value')} other than what was sent", others)
    found.say(f"{counted(compared, 'accepted record')} equal what was sent")
    if before:
        found.say(f"{counted(len(before), 'record')} that an earlier release accepted would be rejected today")


def _comparable(world: World, row: Accepted, record: Mapping[str, SentValue]) -> dict[str, str]:
    """Field → type, where the log has a value: a null may be from before the field was declared."""
    kinds = {name: world.pipeline.event.fields[name].type.name for name, kept in row.values.items() if kept is not None}
    if row.exact:
        return kinds
    key = world.pipeline.event.key
    # Only ids that JSON and the column hold in the same type: a text, or a whole number.
    if key not in kinds or key not in record or (kinds[key] == "string") != (record[key].string is not None):
        return {}
    return {key: kinds[key]}


def _uncommitted(world: World, absent: set[Place], found: Findings) -> None:
    """Sampled rows at offsets that Kafka still reaches, but gives no reader of committed records anything at."""
    begins, ends = world.after.begins, world.before.stable_ends
    aborted = sorted((p, o) for p, o in absent if begins.get(p, 0) <= o < ends.get(p, 0))
    found.numbers["uncommitted"] = len(aborted)
    if aborted:
        found.violated(
            f"{counted(len(aborted), 'record')} that no producer committed",
            [f"{world.pipeline.topic.name}[{p}]@{o}: of an aborted transaction" for p, o in aborted],
        )


@dataclass(frozen=True)
class SentValue:
    """One value of an object."""

    text: str
    """As it was sent, without the blanks around it."""
    string: str | None
    """The value of a JSON string; None for any other kind."""

    @property
    def plain(self) -> str:
        """What a `string` field takes: a string's own value, the text of anything else."""
        return self.text if self.string is None else self.string


def members(value: bytes) -> dict[str, SentValue]:
    r"""The members of exactly one JSON object in UTF-8; the last one of a name counts. ValueError says what else it is.

    >>> members(b'{"id": 1.50, "a": [1.0 ,2]}')["a"].text
    '[1.0 ,2]'
    >>> members(b'{"id": "a\\u0062"}')["id"].plain
    'ab'
    >>> for text in (b'{"a":1}{"b":2}', b'{"a":NaN}', b'[1]', rb'{"a":["\ud83d"]}', b'{"a":1,}', b'', b'{"a":"\xff"}'):
    ...     try: members(text)
    ...     except ValueError as error: print(type(error).__name__)
    ValueError
    ValueError
    ValueError
    UnicodeEncodeError
    JSONDecodeError
    ValueError
    UnicodeDecodeError
    """
    text = value.decode().removeprefix(_BOM)
    at = _expect(text, _past_blanks(text, 0), "{")
    found: dict[str, SentValue] = {}
    more = not text.startswith("}", at)
    while more:
        key, at = _string(text, at)
        start = _expect(text, at, ":")
        parsed, end = _DECODER.raw_decode(text, start)
        _refuse_half_surrogates(parsed)
        found[key] = SentValue(text[start:end], parsed if text[start] == '"' else None)
        at = _past_blanks(text, end)
        more = text.startswith(",", at)
        at = _past_blanks(text, at + more)
    at = _expect(text, at, "}")
    if at < len(text):
        raise ValueError(f"more follows the object, at character {at}")
    return found


def alike(kept: Any, sent: SentValue, kind: str) -> bool:  # noqa: ANN401
    """Whether a column of a type holds what was sent; a number or a boolean may have been sent in quotes.

    >>> sent = members(b'{"s": 1.50, "n": "5.0", "b": true}')
    >>> alike("1.50", sent["s"], "string"), alike(5, sent["n"], "int"), alike(True, sent["b"], "boolean")
    (True, True, True)
    >>> alike("1.5", sent["s"], "string"), alike(50, sent["n"], "int")
    (False, False)
    """
    if kind == "string":
        return bool(kept == sent.plain)
    if kind == "boolean":
        return str(kept).lower() == sent.plain.lower()
    try:
        if kind == "double":
            return bool(kept == float(sent.plain))
        return bool(Decimal(kept) == Decimal(sent.plain))
    except (ValueError, InvalidOperation):
        return False


def _string(text: str, at: int) -> tuple[str, int]:
    """The string at a place, and where the blanks after it end."""
    if not text.startswith('"', at):
        raise json.JSONDecodeError("a name in quotes is missing", text, at)
    key, end = _DECODER.raw_decode(text, at)
    _refuse_half_surrogates(key)
    return key, _past_blanks(text, end)


def _expect(text: str, at: int, character: str) -> int:
    """Past a character and the blanks that follow it."""
    if not text.startswith(character, at):
        raise ValueError(f"not one JSON object: no {character} at character {at}")
    return _past_blanks(text, at + 1)


def _past_blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refuse_half_surrogates(parsed: Any) -> None:  # noqa: ANN401
    """UnicodeEncodeError where a text, however deep, is none that UTF-8 can write."""
    json.dumps(parsed, ensure_ascii=False).encode()


# Numbers stay texts: Python would round them, and refuses whole ones of many digits.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)
