"""I4 for the speed layer and `events`: nothing is there that was not sent, landed, or made of what was.

events ⊆ rows of both logs that take part      stream_log ⊆ Kafka, up to its ends
accepted and filtered rows ─► as the declared filter says          values ─► values.py, files ─► landed_files.py
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pyarrow as pa

from twofold import tables
from twofold.contract import reasons
from twofold.definition.names import ELEMENT
from twofold.proof import changes, landed_files, sql, values
from twofold.proof.expected import Expecting
from twofold.proof.findings import Check, Findings
from twofold.proof.world import UNIFIED, World
from twofold.schema_registry import Registry
from twofold.text import counted

_AT_ONCE = 256
"""Records read at once: each may be large."""


def nothing_invented(world: World) -> Check:
    """I4: events come from the logs, the stream log from Kafka, the batch log from files."""
    found = Findings("I4")
    _events(world, found)
    if world.is_of_one_topic:
        beyond_kafka(world, found)
        values.compare_kafka(world, found)
    landed_files.compare(world, found)
    outcomes(world, found)
    _erased(world, found)
    changes.compare_kept(world, found)
    return found.check()


def _events(world: World, found: Findings) -> None:
    if not world.is_united:
        found.behind(f"events are of rows that were judged again since: `twofold union {world.pipeline.name}`")
        return
    columns = sql.names(tables.events(world.pipeline).column_names)
    logged = sql.contenders(world.pipeline, "stream_log", "batch_log")
    # Rows that retention has not yet taken from stream_log.
    kept = f"{world.scope.added_events} WHERE coalesce(NOT {sql.before(world.retained_from)}, true)"
    more = sql.more_often(columns, kept, f"({logged}) AS _tw_logged", "> 0")
    where = f"concat('events: ', {sql.id_from(world.pipeline)}, {sql.if_several(sql.MORE, 'times more')})"
    count = world.see_none(found, "event", "not in the logs as they are", f"SELECT {where} FROM ({more}) AS _tw_more")
    rows = world.number(f"SELECT count(*) FROM {kept}")
    found.numbers |= {"events": rows, "events_not_in_logs": count}
    found.say(f"{counted(rows, 'event')} found in the logs with equal columns")


def beyond_kafka(world: World, found: Findings) -> None:
    """Rows at offsets that Kafka has not given out; asked again where more was ingested than existed at first."""
    # Of what the last proof had seen the last offsets are enough.
    seen = "".join(f" UNION ALL SELECT {p}, {end - 1}" for p, end in world.proved_offsets.items() if end)
    rows = f"(SELECT kafka_partition, kafka_offset FROM {tables.STREAM_LOG}{seen}) AS _tw_rows"
    count = world.number(f"SELECT count(*) FROM {rows} WHERE NOT {sql.before(world.before.ends)}")
    if count:
        ends = world.after.ends
        # Of a topic that was deleted since, there are none.
        end = f"MAP {{{', '.join(f'{p}: {end}' for p, end in ends.items())}}}[kafka_partition]"
        where = f"concat({sql.in_topic(world.pipeline.topic.name)}, ': Kafka ends at ', coalesce({end}, 0))"
        beyond = f"SELECT kafka_partition, kafka_offset, {where} FROM {rows} WHERE NOT {sql.before(ends)}"
        count = world.see_none(found, "row", "of stream_log past Kafka's end", beyond)
    found.numbers["beyond_kafka"] = count


def outcomes(world: World, found: Findings) -> None:
    """Rows of the logs have an outcome; accepted ones are of the declared filter, filtered ones not; both have ids."""
    condition = world.pipeline.filter.duckdb if world.pipeline.filter else "true"
    # What stands for a record without elements is filtered, and has no id.
    is_event = f"{ELEMENT} IS DISTINCT FROM 0" if world.pipeline.event.each else "true"
    expected = f"CASE WHEN {is_event} AND ({condition}) THEN '{tables.ACCEPTED}' ELSE '{tables.FILTERED}' END"
    has_no_id = f"({is_event} AND {sql.quoted(world.pipeline.event.key)} IS NULL)"
    passed = f"outcome IN ('{tables.ACCEPTED}', '{tables.FILTERED}')"
    unknown = f"coalesce(NOT {passed} AND outcome NOT IN ('{tables.REJECTED}', '{tables.ERASED}'), true)"
    what = f"""CASE WHEN {unknown} THEN ', which is no outcome' WHEN {has_no_id} THEN ' without an id'
                 ELSE ', though the filter says otherwise' END"""
    numbers = {True: 0, False: 0}
    for log, place in (
        (tables.STREAM_LOG, sql.in_topic(world.pipeline.topic.name)),
        (tables.BATCH_LOG, sql.IN_FILE),
    ):
        since = world.defined_since(log)
        is_exact = "false" if since is None else f"coalesce(landing >= {since}, true)"
        rows = f"""SELECT {unknown} OR {is_exact} AS _tw_exact,
                     concat({place}, ': ', coalesce(outcome, 'null'), {what}) AS _tw_where
                   FROM {log} WHERE {unknown} OR ({passed} AND (outcome <> {expected} OR {has_no_id}))"""
        told = f"SELECT _tw_exact, count(*), min(_tw_where) FROM ({rows}) AS _tw_rows GROUP BY ALL"
        for exact, count, one in world.rows(told):
            numbers[exact] += count
            if exact:
                named = world.first(f"SELECT _tw_where FROM ({rows}) AS _tw_rows WHERE _tw_exact")
                found.violated(f"{counted(count, 'row')} of {log} not accepted or filtered as the filter says", named)
            else:
                values.say_before(found, log, count, one)
    found.numbers |= {"rows_filtered_wrongly": numbers[True], "rows_filtered_otherwise_before": numbers[False]}


def _erased(world: World, found: Findings) -> None:
    """No table has an id of the ledger; and how many records are blank for it."""
    logs = (tables.STREAM_LOG, tables.BATCH_LOG)
    blank = [world.number(f"SELECT count(*) FROM {log} WHERE outcome = '{tables.ERASED}'") for log in logs]
    found.numbers["records_erased"] = dict(zip(logs, blank, strict=True))
    if any(blank):
        found.say(f"{counted(sum(blank), 'record')} erased for good")
    if not world.erased.hashes:
        if any(blank):
            found.violated("records are blank, though the ledger has no erased id", [f"{sum(blank):,} rows"])
        return
    world.connection.register("_tw_ledger", pa.table({"_tw_hash": sorted(world.erased.hashes)}))
    id_, each = f"{sql.quoted(world.pipeline.event.key)}::VARCHAR", ELEMENT if world.pipeline.event.each else "NULL"
    again = f"`twofold erase {world.pipeline.name}` was cut short: run it again with the same ids"
    for name in (*logs, tables.EVENTS, UNIFIED):
        key = id_
        if name in logs and not world.pipeline.event.id:  # that of a rejected record is its place
            place = "'kafka', kafka_partition, kafka_offset" if name == tables.STREAM_LOG else '\'file\', "file", "row"'
            key = f"if(outcome = '{tables.REJECTED}', concat_ws('/', {place}, {each}), {id_})"
        hashed = f"SELECT sha256({sql.literal(world.erased.salt)} || {key}) AS _tw_hash FROM {name}"
        rows = f"""SELECT concat('hash ', _tw_hash[:16], '… of the ledger')
                   FROM ({hashed}) SEMI JOIN _tw_ledger USING (_tw_hash)"""
        found.numbers[f"{name}_rows_of_erased_ids"] = world.see_none(
            found, "row", f"of {name} have an id that was erased; {again}", rows
        )
    for log in logs if world.pipeline.event.id else ():
        _rejected(world, log, found)


def _rejected(world: World, log: str, found: Findings) -> None:
    """No rejected record has an id of the ledger, as far as its bytes tell."""
    any_size = replace(world.pipeline, event=replace(world.pipeline.event, max_bytes=sys.maxsize))
    expecting, last, ids = Expecting(any_size, Registry.of(world.lake.settings).schema), (b"", ""), set[str | None]()
    from_kafka = log == tables.STREAM_LOG
    place = sql.in_topic(world.pipeline.topic.name) if from_kafka else sql.IN_FILE
    # What could not be judged is not read again.
    query = f"""SELECT payload, {"NULL" if from_kafka else '"file"'}, {place} FROM {log}
                WHERE outcome = '{tables.REJECTED}' AND octet_length(payload) > 0
                  AND reason_kind IS DISTINCT FROM '{reasons.NOT_JUDGED}'"""
    erased, untold = [], 0
    for batch in world.connection.sql(query).to_arrow_reader(_AT_ONCE):
        for payload, file, where in zip(*batch.to_pydict().values(), strict=True):
            if (payload, file) != last:  # the rows of a record's elements follow each other
                last, ids = (payload, file), expecting.kept_ids(payload, file)
            erased += [where] if any(one is not None and world.is_erased(one) for one in ids) else []
            untold += None in ids
    found.numbers |= {f"{log}_rejected_of_erased_ids": len(erased), f"{log}_rejected_without_ids": untold}
    if erased:
        again = f"run `twofold erase {world.pipeline.name}` again with it"
        found.violated(f"{counted(len(erased), 'rejected row')} of {log} with an id that was erased; {again}", erased)
    if untold:
        found.say(f"of {counted(untold, 'rejected row')} of {log} no id can be read")
