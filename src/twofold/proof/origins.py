"""I4: nothing is there that was not sent, landed, or made of what was.

events ⊆ rows of both logs that take part      stream_log ⊆ Kafka, up to its ends
batch_log = the records of each landed file    accepted and filtered rows ─► as the declared filter says
values ─► values.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa

from twofold import inbox, tables
from twofold.contract import reasons
from twofold.definition.names import ELEMENT
from twofold.proof import changes, recount, sql, values
from twofold.proof.expected import Expecting
from twofold.proof.findings import MOST_OFFENDERS, Check, Findings
from twofold.proof.values import Place
from twofold.proof.world import UNIFIED, World
from twofold.schema_registry import Registry
from twofold.taken import TakenFiles
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
    landed_files(world, found)
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


# ---- the files that landings took ----


@dataclass(frozen=True)
class LoggedFile:
    """One version of a file that a landing ingested, and its rows in batch_log."""

    landing: int
    file: str
    rows: int
    version: str
    sha256: str
    logged: int
    distinct: int
    """Rows that differ in their number, or with `event.each` in number and element."""
    records: int
    """Numbers that differ."""
    first: int
    filled: int
    """Rows that are not blank, as those of erased records are."""

    @property
    def whole(self) -> bool:
        """Whether batch_log has as many records as were ingested, each once, numbered from 1."""
        return self.rows == self.records and self.logged == self.distinct and self.first >= 1

    def __str__(self) -> str:
        return f"{inbox.shown(self.file)} (landing {self.landing})"


def landed_files(world: World, found: Findings) -> None:
    """Landed files against batch_log, and against the files that are still in the inbox unchanged."""
    _register_landed(world)
    taken = _taken(world)
    if wrong := [file for file in taken if not file.whole]:
        named = [f"{file}: {file.rows:,} landed, {file.logged:,} logged, {file.records:,} different" for file in wrong]
        found.violated(f"{counted(len(wrong), 'file')} not whole in batch_log", named)
    _elements(world, found)
    _no_strangers(world, found)
    _none_twice(world, found)
    rows, logged = sum(file.rows for file in taken), world.number(f"SELECT count(*) FROM {tables.BATCH_LOG}")
    found.numbers |= {"files": len(taken), "file_rows": rows, "batch_log": logged}
    found.say(f"{counted(len(taken), 'landed file')}, {counted(rows, 'record')}, {logged:,} rows in batch_log")
    _set_aside(world, found)
    _recount(world, taken, found)


def _register_landed(world: World) -> None:
    """`landed`: landed_files up to the pinned batch_log's last landing; and that landing's files, if missing there."""
    state = world.landed(tables.BATCH_LOG)
    world.connection.execute(
        f"""CREATE TEMP TABLE landed AS SELECT landing, file, "rows", version, sha256, reason
            FROM {tables.LANDED_FILES} WHERE landing <= {state.landing}"""
    )
    for file in state.files:
        values = {name: file.get(name) for name in ("landing", "file", "rows", "version", "sha256", "reason")}
        world.connection.execute(
            """INSERT INTO landed SELECT $landing, $file, $rows, $version, $sha256, $reason
               WHERE NOT EXISTS (SELECT 1 FROM landed WHERE landing = $landing AND file = $file)""",
            values,
        )


def _taken(world: World) -> list[LoggedFile]:
    distinct = f'("row", {ELEMENT})' if world.pipeline.event.each else '"row"'
    rows = world.rows(
        f"""WITH logged AS (SELECT landing, file, count(*) AS logged, count(DISTINCT {distinct}) AS different,
                              count(DISTINCT "row") AS records, min(coalesce("row", 0)) AS first,
                              count(*) FILTER (outcome IS DISTINCT FROM '{tables.ERASED}') AS filled
                            FROM {tables.BATCH_LOG} GROUP BY landing, file)
            SELECT t.landing, t.file, coalesce(t."rows", 0), coalesce(t.version, ''), coalesce(t.sha256, ''),
              coalesce(logged, 0), coalesce(different, 0), coalesce(records, 0), coalesce(first, 1), coalesce(filled, 0)
            FROM landed AS t LEFT JOIN logged AS l ON l.landing = t.landing AND l.file = t.file
            WHERE t.reason IS NULL AND t.landing > {world.proved_landing} ORDER BY t.landing, t.file"""
    )
    return [LoggedFile(*row) for row in rows]


def _elements(world: World, found: Findings) -> None:
    """With `event.each`, a record has its elements 1, 2, …, or one row numbered 0."""
    if world.pipeline.event.each is None:
        return
    torn = sql.torn_elements(tables.BATCH_LOG, sql.FROM_FILES, sql.IN_FILE)
    world.see_none(found, "record", "of files without all elements from the first to the last", torn)


def _no_strangers(world: World, found: Findings) -> None:
    """Rows of batch_log are of landings only."""
    rows = sql.if_several("count(*)", "rows")
    strange = f"""SELECT landing, file, concat(file, ':', min("row"), ' (landing ', landing, ')', {rows})
                  FROM {tables.BATCH_LOG} ANTI JOIN (FROM landed WHERE reason IS NULL) USING (landing, file)
                  GROUP BY landing, file"""
    world.see_none(found, "file", "in batch_log that no landing took", strange)


def _none_twice(world: World, found: Findings) -> None:
    """The same content of a file in two landings, one right after the other: it did not change in between.

    Nor did what was ingested, where only other contents were set aside in between; so version 0.2.0 took files.
    """
    twice, around = (
        f"""SELECT file, landing, concat(file, ': landings ', before, ' and ', landing) AS _tw_where
            FROM (SELECT file, landing, sha256, lag(landing) OVER w AS before, lag(sha256) OVER w AS sha256_before
                  FROM landed WHERE {some} WINDOW w AS (PARTITION BY file ORDER BY landing))
            WHERE sha256 = sha256_before AND sha256 <> ''"""
        for some in ("true", "reason IS NULL")
    )
    world.see_none(found, "file", "landed twice", twice)
    again = [where for (where,) in world.rows(f"SELECT _tw_where FROM ({around} EXCEPT {twice}) ORDER BY ALL")]
    _not_proved(found, again, "landed again as before, over corrections made in between, if any")


def _set_aside(world: World, found: Findings) -> None:
    """Files whose newest version was set aside, unless what lies there now is what was ingested before."""
    rows = world.rows(
        """SELECT file, reason, arg_max(sha256, landing) FILTER (reason IS NULL) OVER (PARTITION BY file) FROM landed
           QUALIFY row_number() OVER (PARTITION BY file ORDER BY landing DESC) = 1 AND reason IS NOT NULL
           ORDER BY file"""
    )

    def is_ingested(file: str, digest: str) -> bool:
        try:
            return inbox.digest(world.lake.inbox(), file) == digest
        except FileNotFoundError:
            return True

    aside = [
        f"{inbox.shown(file)} ({reason})"
        for file, reason, digest in rows
        if digest is None or not is_ingested(file, digest)
    ]
    found.numbers["files_set_aside"] = len(aside)
    _not_proved(found, aside, "set aside")


def _recount(world: World, taken: list[LoggedFile], found: Findings) -> None:
    """Count the records of files that are still there as they were ingested, without Spark or the product's readers."""
    files = {(file.landing, file.file): file for file in taken}

    def look(places: Iterable[Place]) -> dict[Place, str]:
        """Why the files of some places are not there as they were ingested, by a look of now; without the others."""
        now = TakenFiles(world.lake)
        return {at: why for at in places if (why := now.absence(*at, files[at].version, files[at].sha256))}

    lying, wanted = TakenFiles(world.lake), {one.source.column for one in recount.in_cells(world.pipeline)}
    gone, irregular, counts = look(files), dict[Place, str](), dict[Place, int]()
    for place in sorted(files.keys() - gone.keys()):
        try:
            counts[place] = recount.records(lying.of(place[0]), place[1], wanted, world.pipeline.files)
        except (recount.Irregular, FileNotFoundError) as error:
            irregular[place] = f"{inbox.shown(place[1])} ({error})"
    wrong = {place for place, number in counts.items() if number != files[place].rows}
    # What somebody put there, or took away, between the look and the count is no fault of the landing.
    gone |= look([*irregular, *wrong])
    for place in sorted(wrong - gone.keys()):
        named = [f"{place[1]}: {files[place].rows:,}, it has {counts[place]:,}"]
        found.violated("a landed file has another number of records", named)
    gone |= values.compare_files(world, sorted(counts.keys() - gone.keys()), found, look)
    recounted, odd = counts.keys() - gone.keys(), sorted(irregular.keys() - gone.keys())
    # Of a landing of no records, or of erased ones alone, nothing is there that could be proved.
    unproved = [f"{files[place]}: {gone[place]}" for place in sorted(gone) if files[place].filled]
    found.numbers |= {"files_recounted": len(recounted), "files_irregular": len(odd)}
    found.numbers["files_changed_or_gone"] = len(unproved)
    found.say(f"{counted(len(recounted), 'file')} recounted")
    _not_proved(found, unproved, "not there any more as ingested (`files.taken: archive` keeps every version)")
    _not_proved(found, [irregular[place] for place in odd], "could not be recounted")


def _not_proved(found: Findings, files: list[str], what: str) -> None:
    if files:
        more = ", …" if len(files) > MOST_OFFENDERS else ""
        found.not_proved(f"{counted(len(files), 'file')} {what}: {', '.join(files[:MOST_OFFENDERS])}{more}")
