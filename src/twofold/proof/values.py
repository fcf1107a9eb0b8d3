"""I4, value by value: rows of the logs against an independent reading of Kafka's records and of the files still there.

    rows of a log (a sample spread over outcomes and places, or all) ─┐
    their records in Kafka, or in the inbox ─► expected.py ───────────┴─► values alike? rejected with good cause?

Rows that were landed under an earlier definition may differ from what today's asks: those are not proved.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa

from twofold import inbox, kafka, tables
from twofold.contract import reasons
from twofold.definition.model import AVRO
from twofold.definition.names import ELEMENT, KEY
from twofold.proof import file_records, sent, sql
from twofold.proof.expected import LAST, Expected, Expecting
from twofold.proof.file_records import FileRecord
from twofold.proof.findings import MOST_OFFENDERS, Findings
from twofold.proof.recount import Irregular
from twofold.proof.world import World
from twofold.schema_registry import Registry
from twofold.taken import TakenFiles
from twofold.text import counted
from twofold.topic import Range, joined
from twofold.windows import EPOCH

SAMPLE = 1_000
"""How many records of each log are compared, unless all of them are asked for."""
_RUN = 128
"""How many neighbours of one outcome are chosen together, as they are read together."""
_AT_ONCE = 10_000
"""Records whose rows are held in memory at a time, where all are compared."""
_FILE_ROWS = 50_000
"""Rows of files that are read for the sample, over all files."""
_KAFKA_TIMEOUT_S = 60.0

Row = Mapping[str, Any]
Place = tuple[int, str]
"""A landing, and the name of a file that it took."""
Ranges = dict[Any, list[Range]]
"""Partition, or file → ranges of offsets or row numbers, in order."""


@dataclass
class Tally:
    """What the comparison of one log found."""

    world: World
    log: str
    records: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=dict)
    """Kind of violation → the rows that show it."""
    differ: list[str] = field(default_factory=list)
    """Rows of an earlier definition that differ from what today's asks."""
    failed: list[str] = field(default_factory=list)
    """Rows that were not judged, though nothing is wrong with their records."""
    untold: Counter[str] = field(default_factory=Counter)
    """What this reader cannot judge → how often."""

    def __post_init__(self) -> None:
        self.expecting = Expecting(self.world.pipeline, Registry.of(self.world.lake.settings).schema)
        self.exact_since = self.world.defined_since(self.log)
        """The first landing by the definition of today."""

    def is_exact(self, row: Row) -> bool:
        """Whether a row was landed by the definition of today."""
        return self.exact_since is not None and (row["landing"] or self.exact_since) >= self.exact_since

    def compare(
        self,
        where: str,
        rows: Sequence[Row],
        wanted: Sequence[Expected],
        place: Sequence[object],
        payload: bytes | None,
    ) -> None:
        """The rows of one record with what they should be."""
        self.records += 1
        self.outcomes.update(row["outcome"] for row in rows)
        if wanted[0].unknown_schema and rows[0]["outcome"] != tables.REJECTED:
            self.untold["values in Avro whose schema the registry has no more"] += len(rows)
            return
        by_element = {one.element or 0: one for one in wanted}
        numbers = [row.get(ELEMENT) or 0 for row in rows]
        if not any(one.untold for one in wanted) and sorted(numbers) != sorted(by_element):
            self._differs(
                rows[0],
                "rows that are not those of their record",
                f"{where}: {len(rows)} rows for {len(wanted)} elements",
            )
        for row, number in zip(rows, numbers, strict=True):
            at = f"{where}/{number}" if self.world.pipeline.event.each else where
            if row["outcome"] == tables.ERASED:
                self._blank(at, row, by_element.get(number), place)
                continue
            self._payload(at, row, payload)
            if one := by_element.get(number):
                self._row(at, row, one, [*place, *([number] if self.world.pipeline.event.each else [])])
            else:
                self.untold.update(wanted[0].untold)

    def _payload(self, where: str, row: Row, sent: bytes | None) -> None:
        # What a row of Parquet keeps is nobody's bytes but the product's own.
        if row["outcome"] == tables.REJECTED and (
            self.log == tables.STREAM_LOG or (sent is not None and self.is_exact(row))
        ):
            digest = None if sent is None else hashlib.sha256(sent).hexdigest()
            if row["digest"] != digest and row["reason_kind"] != reasons.NOT_JUDGED:
                self.violated("rejected without their exact bytes", f"{where}: payload differs from what was sent")

    def _row(self, where: str, row: Row, one: Expected, place: Sequence[object]) -> None:
        self.untold.update(one.untold)
        if row["outcome"] == tables.REJECTED:
            if not (one.faults or one.untold):
                self._rejected_for_nothing(where, row)
            return
        if one.faults:
            what = "not one JSON object" if one.is_no_record else "accepted against the contract"
            self._differs(row, what, f"{where}: accepted, but {'; '.join(one.faults)}")
            return
        if one.holds_nothing:
            if row["outcome"] != tables.FILTERED:
                self._differs(row, "events of nothing", f"{where}: accepted, but the record has no element")
            return
        for name, value in one.values.items():
            if not alike(row[name], value):
                self._differs(
                    row, "values other than what was sent", f"{where}: {name} {_shown(row[name])}, sent {_shown(value)}"
                )
        has_key = self.world.pipeline.event.key == KEY
        if has_key and not one.untold and row[KEY] != self.expecting.key(one.values, *place):
            self._differs(row, "ids other than what was sent", f"{where}: {KEY} {row[KEY]!r}")

    def _rejected_for_nothing(self, where: str, row: Row) -> None:
        if row["reason_kind"] == reasons.NOT_JUDGED:
            self.failed.append(f"{where}: {row['reason']}")
        elif self.world.pipeline.topic.format == AVRO and row["reason_kind"] == reasons.MALFORMED:
            self.untold["records in Avro that were malformed and are not now: a schema registered since?"] += 1
        else:
            self._differs(row, "rejected for nothing", f"{where}: rejected ({row['reason']}), nothing is wrong")

    def _blank(self, where: str, row: Row, one: Expected | None, place: Sequence[object]) -> None:
        """A record that was erased: nothing is left of it, and where its id can be read, the ledger has it."""
        if row["digest"] is not None or any(
            row[name] is not None for name in self.world.pipeline.columns if name != ELEMENT
        ):
            self.violated("records that were not erased whole", f"{where}: something is left of it")
        if one is None or one.faults or one.untold or one.holds_nothing:
            return
        element = [row[ELEMENT]] if self.world.pipeline.event.each else []
        if not self.world.is_erased(self.expecting.key(one.values, *place, *element)):
            self.violated("records that are blank though nobody erased them", where)

    def _differs(self, row: Row, what: str, offender: str) -> None:
        if self.is_exact(row):
            self.violated(what, offender)
        else:
            self.differ.append(offender)

    def violated(self, what: str, offender: str) -> None:
        """Note a row that shows a violation of this kind."""
        self.wrong.setdefault(what, []).append(offender)

    def report(self, found: Findings) -> None:
        """Say it all."""
        found.numbers[f"{self.log}_records_compared"] = self.records
        found.numbers[f"{self.log}_rows_compared"] = dict(sorted(self.outcomes.items(), key=str))
        found.numbers[f"{self.log}_rows_wrong"] = sum(map(len, self.wrong.values()))
        found.numbers[f"{self.log}_differences_before"] = len(self.differ)
        found.numbers[f"{self.log}_rows_not_judged"] = len(self.failed)
        for what, offenders in sorted(self.wrong.items()):
            found.violated(f"{counted(len(offenders), 'finding')} in {self.log}: {what}", offenders)
        if not self.wrong:
            found.say(f"{counted(self.records, 'record')} of {self.log} equal what was sent, value by value")
        if self.failed:
            rows = counted(len(self.failed), "row")
            found.say(f"not judged though nothing is wrong: {rows} of {self.log}, report it: {min(self.failed)}")
        if self.differ:
            say_before(found, self.log, len(self.differ), min(self.differ))
        for what, times in self.untold.most_common(MOST_OFFENDERS):
            found.not_proved(f"{what} ({counted(times, 'row')} of {self.log})")


def say_before(found: Findings, log: str, count: int, one: str) -> None:
    """Other rules may have been right then."""
    differences = f"{counted(count, 'difference')} in rows of {log} that were landed under an earlier definition"
    found.not_proved(f"{differences}, such as {one}")


def alike(kept: Any, value: Any) -> bool:  # noqa: ANN401
    """Whether a column holds a value: of one type, and equal.

    >>> alike(1, True), alike(None, 0), alike("1", 1), alike(0.5, 0.5)
    (False, False, False, True)
    """
    return type(kept) is type(value) and bool(kept == value)


def _shown(value: Any) -> str:  # noqa: ANN401
    return value.isoformat() if isinstance(value, date) else repr(value)


def compare_kafka(world: World, found: Findings) -> None:
    """Rows of stream_log with Kafka's records."""
    tally = Tally(world, tables.STREAM_LOG)
    absent: list[tuple[int, int]] = []
    for ranges in _kafka_ranges(world):
        kept = _rows(world, tables.STREAM_LOG, ("kafka_partition",), "kafka_offset", ranges)
        for record in kafka.read(world.lake.settings, world.pipeline.topic.name, ranges, _KAFKA_TIMEOUT_S):
            if rows := kept.pop(((record.partition,), record.offset), None):
                _compare_record(tally, record, rows)
        absent += [(partition, offset) for (partition,), offset in kept]
    # Asked again, as Kafka may have deleted them while they were read; of a topic that was deleted, there are none.
    begins, ends = sent.read(world.lake).begins if absent else world.before.begins, world.before.stable_ends
    gone = world.number(f"SELECT count(*) FROM {tables.STREAM_LOG} WHERE {sql.before(begins)}")
    name = world.pipeline.topic.name
    aborted = [(p, o) for p, o in absent if begins.get(p, o + 1) <= o < ends.get(p, 0)]
    if aborted:
        named = [f"{name}[{p}]@{o}: of an aborted transaction" for p, o in sorted(aborted)]
        found.violated(f"{counted(len(aborted), 'record')} that no producer committed", named)
    found.numbers |= {"uncommitted": len(aborted), "records_gone_from_kafka": gone}
    tally.report(found)
    if gone:
        found.not_proved(f"{counted(gone, 'row')} of {tables.STREAM_LOG} whose records Kafka no longer has")


def _compare_record(tally: Tally, record: kafka.KafkaRecord, rows: Sequence[Row]) -> None:
    where = f"{tally.world.pipeline.topic.name}[{record.partition}]@{record.offset}"
    headers = {f"header {name}": value for name, value in record.headers}
    landed_at = rows[0].get("landed_at")
    arrived = arrival(record.at_ms, landed_at)
    judged_at = landed_at or arrived or LAST
    wanted = tally.expecting.of_kafka(record.value, record.key, headers, arrived, judged_at)
    tally.compare(where, rows, wanted, ("kafka", record.partition, record.offset), record.value)
    for row in rows:
        if row["at_ms"] != record.at_ms:
            said = f"{where}: kafka_timestamp {row['at_ms']} ms after 1970, Kafka says {record.at_ms}"
            tally.violated("time stamps other than Kafka's", said)


def arrival(at_ms: int, landed_at: datetime | None) -> datetime | None:
    """What `time: arrival` is of a record with Kafka's time stamp `at_ms`; None beyond any calendar.

    With a topic of somebody else, whose senders choose it, a record without one has the moment of its landing.

    >>> noon = datetime(2026, 3, 1, 12, tzinfo=EPOCH.tzinfo)
    >>> arrival(1_000, noon).second, arrival(-1, noon) == noon, arrival(1 << 60, noon)
    (1, True, None)
    """
    if landed_at is not None and at_ms < 0:
        return landed_at
    try:
        return EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        return None


def _kafka_ranges(world: World) -> Iterator[Ranges]:
    held = f"{tables.STREAM_LOG} WHERE NOT {sql.before(world.before.begins)}"
    if not world.compare_all:
        yield _spread(world, held, ("kafka_partition",), "kafka_offset")
        return
    spans = f"SELECT kafka_partition, min(kafka_offset), max(kafka_offset) + 1 FROM {held} GROUP BY ALL ORDER BY ALL"
    for partition, low, end in world.rows(spans):
        for start in range(low, end, _AT_ONCE):
            yield {partition: [(start, min(start + _AT_ONCE, end))]}


def _spread(world: World, held: str, group: Sequence[str], number: str) -> Ranges:
    """The sample: from every place and outcome in turn, chosen again whenever something was landed."""
    seed = world.landed(tables.STREAM_LOG).landing + world.landed(tables.BATCH_LOG).landing
    names, at = sql.names(group), sql.quoted(number)
    block = f"{at} // greatest(1, {_RUN} * _tw_span // _tw_count)"
    found = world.rows(
        f"""WITH _tw_groups AS (SELECT {names}, outcome, max({at}) - min({at}) + 1 AS _tw_span, count(*) AS _tw_count
                                FROM {held} GROUP BY ALL),
              _tw_hashed AS (SELECT {names}, outcome, {at} AS _tw_number, hash({names}, {block}, {seed}) AS _tw_hash
                             FROM (FROM {held}) AS _tw_held JOIN _tw_groups USING ({names}, outcome)),
              _tw_first AS (SELECT {names}, outcome, min_by(_tw_number, _tw_hash, {SAMPLE}) AS _tw_numbers
                            FROM _tw_hashed GROUP BY ALL),
              _tw_turns AS (SELECT {names}, outcome, unnest(_tw_numbers) AS _tw_number,
                              generate_subscripts(_tw_numbers, 1) AS _tw_turn FROM _tw_first)
            SELECT {names}, _tw_number FROM _tw_turns ORDER BY _tw_turn, {names}, outcome LIMIT {SAMPLE}"""
    )
    chosen: dict[Any, set[int]] = {}
    for *place, number_there in found:
        chosen.setdefault(place[0] if len(place) == 1 else tuple(place), set()).add(number_there)
    return {place: joined(sorted(numbers)) for place, numbers in chosen.items()}


def _rows(
    world: World, log: str, group: Sequence[str], number: str, ranges: Ranges
) -> dict[tuple[tuple[Any, ...], int], list[Row]]:
    """Place and number → the rows of a log in these ranges, by column."""
    places = [(place if isinstance(place, tuple) else (place,), one) for place, some in ranges.items() for one in some]
    if not places:
        return {}
    columns = [f"_tw_{name}" for name in group]
    listed = [[*place, low, end] for place, (low, end) in places]
    ranges_of = {
        name: list(one) for name, one in zip([*columns, "_tw_low", "_tw_end"], zip(*listed, strict=True), strict=True)
    }
    world.connection.register("_tw_wanted", pa.table(ranges_of))
    more = [name for name in ("landed_at",) if name in world.columns(log)]
    wanted = [*group, number, "landing", *world.pipeline.columns, "outcome", "reason_kind", "reason", *more]
    # As a number, which a time stamp beyond any calendar is, too.
    at_ms = "epoch_ms(kafka_timestamp)" if log == tables.STREAM_LOG else "NULL"
    names = list(dict.fromkeys(wanted))
    on = " AND ".join(f"{sql.quoted(name)} = {column}" for name, column in zip(group, columns, strict=True))
    lowest, highest = min(low for _, (low, _) in places), max(end for _, (_, end) in places)
    at = sql.quoted(number)
    rows = world.rows(
        f"""SELECT {sql.names(names)}, sha256(payload), {at_ms} FROM {log} JOIN _tw_wanted
              ON {on} AND {at} >= _tw_low AND {at} < _tw_end WHERE {at} >= {lowest} AND {at} < {highest}"""
    )
    kept: dict[tuple[tuple[Any, ...], int], list[Row]] = {}
    for found in rows:
        row = dict(zip([*names, "digest", "at_ms"], found, strict=True))
        kept.setdefault((tuple(row[name] for name in group), int(row[number])), []).append(row)
    return kept


def compare_files(
    world: World, there: Sequence[Place], found: Findings, look: Callable[[Iterable[Place]], dict[Place, str]]
) -> dict[Place, str]:
    """Rows of batch_log with the records of files that are still there unchanged.

    Where anything is wrong, `look` says which are not by now, and why: they are left out, and returned.
    """
    tally = Tally(world, tables.BATCH_LOG)
    unread: list[str] = []
    for (landing, file), ranges in _file_ranges(world, there):
        try:
            _compare_file(tally, landing, file, ranges)
        except (Irregular, FileNotFoundError) as error:
            unread.append(f"{inbox.shown(file)} ({error})")
    if (tally.wrong or unread) and (gone := look(there)):
        return gone | compare_files(world, [place for place in there if place not in gone], found, look)
    tally.report(found)
    if unread:
        found.not_proved(f"values of {counted(len(unread), 'file')}: {', '.join(unread[:MOST_OFFENDERS])}")
    return {}


def _file_ranges(world: World, there: Sequence[Place]) -> Iterator[tuple[Place, list[Range]]]:
    if not there:
        return
    world.connection.execute("CREATE OR REPLACE TEMP TABLE _tw_there (landing BIGINT, file VARCHAR)")
    world.connection.executemany("INSERT INTO _tw_there VALUES (?, ?)", [list(one) for one in there])
    held = f'{tables.BATCH_LOG} SEMI JOIN _tw_there USING (landing, "file")'
    if not world.compare_all:
        first = max(2 * _RUN, _FILE_ROWS // len(there))
        yield from sorted(_spread(world, f'{held} WHERE "row" <= {first}', ("landing", "file"), "row").items())
        return
    for landing, file, last in world.rows(
        f'SELECT landing, "file", coalesce(max("row"), 0) FROM {held} GROUP BY ALL ORDER BY ALL'
    ):
        yield (landing, file), [(low, low + _AT_ONCE) for low in range(1, last + 1, _AT_ONCE)]


def _compare_file(tally: Tally, landing: int, file: str, ranges: Sequence[Range]) -> None:
    """Reads the file once; of the rows, those of some ranges at a time."""
    world = tally.world
    records = file_records.read(TakenFiles(world.lake).of(landing), file, world.pipeline, ranges)
    record = next(records, None)
    steps = [[one] for one in ranges] if world.compare_all else [list(ranges)]
    for step in steps:
        kept = _rows(world, tables.BATCH_LOG, ("landing", "file"), "row", {(landing, file): step})
        while record is not None and record.number < step[-1][1]:
            if rows := kept.pop(((landing, file), record.number), None):
                _compare_file_record(tally, record, file, rows)
            record = next(records, None)
        for _, number in sorted(kept, key=lambda place: place[1]):
            tally.violated("rows that their file does not have", f"{file}:{number} (landing {landing})")


def _compare_file_record(tally: Tally, record: FileRecord, file: str, rows: Sequence[Row]) -> None:
    landed_at = rows[0]["landed_at"] or LAST
    if record.text is not None:
        wanted: Iterable[Expected] = tally.expecting.of_text(record.text, landed_at)
    elif record.fault:
        wanted = [Expected(faults=(record.fault,))]
    else:
        wanted = [tally.expecting.of_cells(record.cells, landed_at)]
    where = f"{file}:{record.number} (landing {rows[0]['landing']})"
    tally.compare(where, rows, list(wanted), ("file", file, record.number), record.payload)
