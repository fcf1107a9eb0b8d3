"""Only what changed since the last proof: parts of the tables take the names that the checks read.

    stream_log, batch_log   rows past the earlier boundary; older ones by their blocks' sums, where files were replaced
    events then ─┐          files of either snapshot alone ─► rows that came or went ─┐
    events now ──┴──────────────────────────────────────────────────────────────────── ├─► days touched
    ids past the boundary ─► their rows in events then, and their own days ────────────┘
    days touched, a window more at both ends ─► events, unified_events; and unified views, batch_<view> in their windows

What wins among all rows of an id is what wins among those that are new and the one that won before. So the union is
made from scratch of the earlier events, which were proved, and of the new rows of the logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pyiceberg import expressions
from pyiceberg.expressions import AlwaysFalse, BooleanExpression
from pyiceberg.expressions.literals import TimestampLiteral
from pyiceberg.manifest import DataFile

from twofold import table_state, tables
from twofold.definition import fingerprint
from twofold.definition.model import View
from twofold.proof import sql
from twofold.proof.findings import MOST_OFFENDERS, Check, Findings
from twofold.proof.last_proof import Block, LastProof, Sum, rules
from twofold.proof.world import Scope, SomeRows, TableAt, World
from twofold.text import counted
from twofold.topic import Range, merged

DAY_US = sql.microseconds(timedelta(days=1))
_MOST_RANGES = 50
_BLOCK_OFFSETS = 250_000
_MODULUS = (1 << 61) - 1
_LOGS = (tables.STREAM_LOG, tables.BATCH_LOG)
_UUID = "twofold.uuid"
_LANDINGS = {tables.BATCH_LOG: "0, landing, 0", tables.LANDED_FILES: "0, 0, 0"}
"""Log of files → the block of a row; `landed_files` is one block."""
# The constructors of pyiceberg's predicates take other arguments than their type annotations say.
_AT_LEAST: Any = expressions.GreaterThanOrEqual
_ABOVE: Any = expressions.GreaterThan
_BELOW: Any = expressions.LessThan
_EQUAL: Any = expressions.EqualTo
_IS_NULL: Any = expressions.IsNull
_AND: Any = expressions.And
_OR: Any = expressions.Or


def obstacle(world: World, last: LastProof | None) -> str:
    """Why everything must be checked; empty where the last proof can be built on."""
    if last is None:
        return "there is no proof yet that found nothing violated"
    edge, events = world.boundary, world.pins[tables.EVENTS].history
    then = {name: last.snapshots.get(name) for name in map(tables.batch_view_name, world.pipeline.views)}
    expired = [name for name, at in then.items() if at not in (None, *world.pins[name].history.snapshots)]
    if last.rules != rules(world.pipeline, world.erased.hashes):
        return "the definition, the release, or the ledger of erased ids is another one since the last proof"
    if last.topic_id not in (None, world.landed(tables.STREAM_LOG).topic_id):
        return "the log is of another topic since the last proof"
    if not world.is_united or last.relanded != edge.relanded:
        return "rows were judged again since the last proof"
    if edge.landing < last.landing or any(edge.offsets.get(p, 0) < end for p, end in last.offsets.items()):
        return "events covers less than at the last proof"
    now = _properties(world)
    if other := sorted({name for log in _LOGS for name, _ in last.properties[log].items() ^ now[log].items()}):
        return f"{', '.join(other)} of a log is another one since the last proof"
    if any(_sequence(world.pins[log]) < last.sequences[log] for log in _LOGS):
        return "a log was set back since the last proof"
    if last.snapshots[tables.EVENTS] and table_state.touched_since(events, last.snapshots[tables.EVENTS]) is None:
        return "events was rebuilt or set back since the last proof, or the snapshot of it has expired"
    world.register("_tw_files_then", world.pins[tables.LANDED_FILES])
    if _sums_of_files(world, "_tw_files_then", last.landing) != last.sums.get(tables.LANDED_FILES):
        return "rows of landed_files are other ones than at the last proof"
    return f"the snapshot of {expired[0]} that the last proof had seen has expired" if expired else ""


def _sums_of_files(world: World, source: str, landing: int) -> list[tuple[Block, Sum]]:
    return list(block_sums(world, tables.LANDED_FILES, source, f"landing <= {landing}").items())


def _properties(world: World) -> dict[str, dict[str, str]]:
    """What decides of rows that are there already; not retention, of which the property of now tells enough."""
    found = {}
    for log in _LOGS:
        table = world.pins[log].table
        own = {**table.properties, _UUID: str(table.metadata.table_uuid)} if table else {}
        kept = (name for name in own if name.startswith("twofold.") and name != table_state.RETAINED_FROM)
        found[log] = {name: own[name] for name in kept}
    return found


def _sequence(pin: TableAt) -> int:
    return pin.snapshot.sequence_number or 0 if pin.snapshot else 0


# ---- the parts ----


def narrow(world: World, last: LastProof) -> None:
    """Give the names that the checks read to what changed since the last proof."""
    world.last, pipeline = last, world.pipeline
    log = world.pins[tables.STREAM_LOG]
    files = {task.file.file_path: task.file for task in log.files(_AT_LEAST("landing", last.first_landing))}
    # What somebody moved past the boundary says that it was landed before, but lies in a file of since then.
    added = {file.file_path: file for file in _added_since(log, last.sequences[tables.STREAM_LOG])}
    moved = {task.file.file_path for task in log.files(_past(last.offsets))} & added.keys()
    files.update((path, added[path]) for path in moved)
    past = f"coalesce(NOT {sql.before(last.offsets)}, true)"
    world.register_files(tables.STREAM_LOG, log, list(files.values()), past)
    landed = _OR(_ABOVE("landing", last.landing), _IS_NULL("landing"))
    rows = SomeRows(landed, f"coalesce(landing > {last.landing}, true)")
    world.register(tables.BATCH_LOG, world.pins[tables.BATCH_LOG], rows)
    world.register(tables.LANDED_FILES, world.pins[tables.LANDED_FILES])
    contenders = sql.contenders(pipeline, tables.STREAM_LOG, tables.BATCH_LOG)
    world.connection.execute(f"CREATE TEMP TABLE _tw_new AS {contenders}")
    fresh = _days(world, f"epoch_us({sql.quoted(pipeline.event.time)})", "_tw_new")
    # Event times at which other rows of new ids may lie.
    near = during(pipeline.event.time, longer(as_ranges(fresh), sql.microseconds(pipeline.event.id_horizon)))
    longest = max((view.window for view in pipeline.views.values()), default=timedelta())
    touched = as_ranges(fresh | _touched_days(world, last, near))
    ranges = longer(touched, sql.microseconds(longest))
    here = during(pipeline.event.time, ranges)
    _bind_events(world, last, here)
    windows = (f"({sql.START} < {high} AND {sql.END} > {low})" for low, high in touched)
    world.scope = Scope(
        "_tw_stream_rows", "_tw_batch_rows", "_tw_added", ranges, here, f"({' OR '.join(windows) or 'false'})"
    )


def _past(ends: Mapping[int, int]) -> BooleanExpression:
    """Files that may hold stream rows at or past these ends, or of no place, by their statistics."""
    last = max(ends, default=-1)
    there = (
        _AND(_EQUAL("kafka_partition", number), _AT_LEAST("kafka_offset", ends.get(number, 0)))
        for number in range(last + 1)
    )
    beside = (_ABOVE("kafka_partition", last), _BELOW("kafka_partition", 0))
    return _any_of([*there, *beside, *map(_IS_NULL, ("kafka_partition", "kafka_offset"))])


def _touched_days(world: World, last: LastProof, near: SomeRows) -> set[int]:
    """Starts of the days, in microseconds since the epoch, in which what was there may be other than it was."""
    time, key = sql.quoted(world.pipeline.event.time), sql.quoted(world.pipeline.event.key)
    then = world.pins[tables.EVENTS].at(last.snapshots[tables.EVENTS])
    world.register("_tw_near", then, near)
    # Earlier rows that have an id of a new one.
    met = f"SELECT {key}, {time} FROM _tw_near WHERE {key} IN (SELECT {key} FROM _tw_new)"
    world.connection.execute(f"CREATE TEMP TABLE _tw_met AS {met}")
    beaten = _days(world, f"epoch_us({time})", "_tw_met")
    _changed(world, tables.EVENTS, then, tables.events(world.pipeline).column_names)
    world.connection.execute(f"CREATE TEMP VIEW _tw_added AS FROM _tw_changed_{tables.EVENTS} WHERE {sql.MORE} > 0")
    touched = beaten | _days(world, f"epoch_us({time})", f"_tw_changed_{tables.EVENTS}")
    for view in world.pipeline.views.values():
        name = tables.batch_view_name(view)
        if world.pins[name].table is None:
            continue
        before = world.pins[name].at(last.snapshots.get(name))
        changed = _changed(world, name, before, (*tables.view_keys(view), *view.measures))
        touched |= _days(world, "epoch_us(window_start)", changed) | _days(world, "epoch_us(window_end) - 1", changed)
    return touched


def _days(world: World, at: str, source: str) -> set[int]:
    day = f"{at} - ((({at} % {DAY_US}) + {DAY_US}) % {DAY_US})"
    return {start for (start,) in world.rows(f"SELECT DISTINCT {day} FROM {source}") if start is not None}


def _changed(world: World, name: str, then: TableAt, columns: Iterable[str]) -> str:
    """A table of the rows that a table has more often, or less often, than it had; MORE says by how much."""
    now, target = world.pins[name], f"_tw_changed_{name}"
    old, new = ({task.file.file_path: task.file for task in pin.files()} for pin in (then, now))
    sides = {f"_tw_gone_of_{name}": old.keys() - new.keys(), f"_tw_come_of_{name}": new.keys() - old.keys()}
    for side, paths in sides.items():
        world.register_files(side, now, [{**old, **new}[path] for path in sorted(paths)])
    gone, come = map(sql.quoted, sides)
    query = sql.more_often(sql.names(columns), come, gone)
    world.connection.execute(f"CREATE TEMP TABLE {sql.quoted(target)} AS {query}")
    return sql.quoted(target)


def _bind_events(world: World, last: LastProof, here: SomeRows) -> None:
    """Events of now and of the last proof, in these times; and the logs that the latter stand for.

    Rows of an id that is new lie in these times, too: those of then by the days they are on, and those of now that are
    on another day are of then.
    """
    pipeline, now = world.pipeline, world.pins[tables.EVENTS]
    world.register(tables.EVENTS, now, here)
    world.register("_tw_unread_then", now.at(last.snapshots[tables.EVENTS]), here)
    # Read once: it is looked at as either log.
    world.connection.execute("CREATE TEMP TABLE _tw_events_then AS FROM _tw_unread_then")
    events = sql.names(pipeline.columns)
    world.connection.execute(
        f"""CREATE TEMP VIEW _tw_stream_rows AS SELECT outcome, {events}, {sql.names(sql.FROM_KAFKA)}
            FROM {tables.STREAM_LOG} UNION ALL SELECT '{tables.ACCEPTED}', {events}, {sql.names(sql.FROM_KAFKA)}
            FROM _tw_events_then WHERE layer = '{tables.STREAM_LAYER}'"""
    )
    was = f"CASE WHEN withdrawn THEN '{tables.FILTERED}' ELSE '{tables.ACCEPTED}' END"
    world.connection.execute(
        f"""CREATE TEMP VIEW _tw_batch_rows AS SELECT outcome, {events}, {sql.names(sql.FROM_FILES)}
            FROM {tables.BATCH_LOG} UNION ALL SELECT {was}, {events}, {sql.names(sql.FROM_FILES)}
            FROM _tw_events_then WHERE layer = '{tables.BATCH_LAYER}'"""
    )


def as_ranges(days: Iterable[int], most: int = _MOST_RANGES) -> list[Range]:
    """Days, by their starts, as ranges of microseconds: at most so many, which then hold days between them, too.

    >>> day = DAY_US
    >>> [(low // day, high // day) for low, high in as_ranges([day, 0, 5 * day, 9 * day])]
    [(0, 2), (5, 6), (9, 10)]
    >>> [(low // day, high // day) for low, high in as_ranges([0, day, 5 * day, 99 * day], 2)]
    [(0, 6), (99, 100)]
    """
    found, gap = merged([(start, start + DAY_US) for start in sorted(days)], 0), DAY_US
    while len(found) > most:
        found, gap = merged(found, gap), 2 * gap
    return found


def longer(ranges: Iterable[Range], by_us: int) -> list[Range]:
    """Ranges that are so much longer at both ends.

    >>> longer([(0, 5), (7, 9), (20, 21)], 2)
    [(-2, 11), (18, 23)]
    """
    return merged([(low - by_us, high + by_us) for low, high in ranges], 0)


def during(column: str, ranges: Iterable[Range]) -> SomeRows:
    """The rows of these times, in microseconds since the epoch."""
    ranges = list(ranges)
    files = [
        _AND(_AT_LEAST(column, TimestampLiteral(low)), _BELOW(column, TimestampLiteral(high))) for low, high in ranges
    ]
    at = f"epoch_us({sql.quoted(column)})"
    rows = " OR ".join(f"({at} >= {low} AND {at} < {high})" for low, high in ranges)
    return SomeRows(_any_of(files), f"({rows or 'false'})")


def _any_of(conditions: Iterable[BooleanExpression]) -> BooleanExpression:
    # As a balanced tree: hundreds of blocks in one chain would be too deep for Python's stack.
    found: BooleanExpression = _OR(AlwaysFalse(), AlwaysFalse(), *conditions)
    return found


# ---- what was proved of the logs is still there ----


def compare_kept(world: World, found: Findings) -> None:
    """Rows of the logs that were proved: as many as then, and where files were replaced, the same; and of `events`."""
    last = world.last
    if last is None:
        return
    for log in _LOGS:
        _compare_kept(world, log, last, found)
    key = sql.quoted(world.pipeline.event.key)
    where = f"concat('events: ', {sql.id_from(world.pipeline)}, ' is gone, or another one')"
    gone = f"SELECT {where} FROM _tw_changed_{tables.EVENTS} ANTI JOIN _tw_new USING ({key}) WHERE {sql.MORE} < 0"
    world.see_none(found, "row", "of events gone that nothing new beats", gone)


def _compare_kept(world: World, log: str, last: LastProof, found: Findings) -> None:
    pin = world.pins[log]
    retained = world.retained_from if log == tables.STREAM_LOG else {}
    then = _left(last.sums[log], retained)
    world.register_files(f"_tw_replaced_{log}", pin, _added_since(pin, last.sequences[log]))
    query = f"SELECT DISTINCT {_place(world, log)} FROM _tw_replaced_{log}"
    looked = {*world.rows(f"{query} WHERE {_proved(log, last.offsets, last.landing)}")}
    rows = _total(pin) - world.number(f"SELECT count(*) FROM {log}")
    expected = sum(count for count, *_ in then.values())
    if not retained and rows != expected:
        looked |= then.keys()
    now = _left(_sums(world, log, last, looked).items(), retained) if looked else {}
    wrong = sorted(block for block in looked if now.get(block) != then.get(block))
    found.numbers[f"{log}_blocks_compared"] = len(looked)
    if wrong:
        named = [_described(world, log, block, then.get(block), now.get(block)) for block in wrong[:MOST_OFFENDERS]]
        found.violated(f"{counted(len(wrong), 'block')} of {log} not as the last proof found them", named)
    elif not retained and rows != expected:
        found.violated(f"{log} has {rows:,} rows of the {expected:,} that the last proof had seen")
    if retained:
        found.say(f"how many rows retention has left in {log} is counted in full only")


def _left(sums: Iterable[tuple[Block, Sum]], retained: Mapping[int, int]) -> dict[Block, Sum]:
    """Without those that retention deletes, or has deleted: whole days, so whole blocks."""
    return {block: kept for block, kept in sums if kept[2] >= retained.get(block[0], 0)}


def _place(world: World, log: str) -> str:
    """The block of a row: partition, some offsets, and the day by which the table is partitioned; or its landing."""
    day = f"coalesce(epoch_us({tables.arrival(world.pipeline)}) // {DAY_US}, 0)"
    return _LANDINGS.get(log, f"kafka_partition, kafka_offset // {_BLOCK_OFFSETS}, {day}")


def _proved(log: str, offsets: Mapping[int, int], landing: int) -> str:
    return sql.before(offsets) if log == tables.STREAM_LOG else f"landing <= {landing}"


def _added_since(pin: TableAt, sequence: int) -> list[DataFile]:
    """Data files that commits after this one have added: new rows, and old ones that were rewritten."""
    if pin.table is None or pin.snapshot is None:
        return []
    io = pin.table.io
    entries = (
        entry
        for manifest in pin.snapshot.manifests(io)
        if manifest.sequence_number > sequence
        for entry in manifest.fetch_manifest_entry(io)
    )
    return [one.data_file for one in entries if (one.file_sequence_number or 0) > sequence]


def _total(pin: TableAt) -> int:
    """Rows of a table, by its list of manifests."""
    manifests = pin.snapshot.manifests(pin.table.io) if pin.table and pin.snapshot else []
    return sum((one.added_rows_count or 0) + (one.existing_rows_count or 0) for one in manifests)


def _sums(world: World, log: str, last: LastProof, blocks: set[Block]) -> dict[Block, Sum]:
    """The sums of some blocks, as the table has them now."""
    if log == tables.STREAM_LOG:
        files = _any_of(
            _AND(
                _EQUAL("kafka_partition", partition),
                _AND(
                    _AT_LEAST("kafka_offset", number * _BLOCK_OFFSETS),
                    _BELOW("kafka_offset", (number + 1) * _BLOCK_OFFSETS),
                ),
            )
            for partition, number, _ in blocks
        )
    else:
        files = _any_of(_EQUAL("landing", landing) for _, landing, _ in blocks)
    world.register(f"_tw_kept_{log}", world.pins[log], SomeRows(files))
    found = block_sums(world, log, f"_tw_kept_{log}", _proved(log, last.offsets, last.landing))
    return {block: kept for block, kept in found.items() if block in blocks}


def block_sums(world: World, log: str, source: str, where: str) -> dict[Block, Sum]:
    """Block → how many rows a relation has of it, the sum of their hashes, and their lowest offset."""
    columns, lowest = sql.names(sorted(world.columns(log))), "0" if log in _LANDINGS else "min(kafka_offset)"
    found = world.rows(
        f"""SELECT {_place(world, log)}, count(*),
              coalesce(sum(hash({columns})::HUGEINT) % {_MODULUS}, 0)::BIGINT, {lowest}
            FROM {source} WHERE {where} GROUP BY ALL"""
    )
    return {(row[0], row[1], row[2]): (row[3], row[4], row[5]) for row in found}


def _described(world: World, log: str, block: Block, then: Sum | None, now: Sum | None) -> str:
    partition, number, _ = block
    low = number * _BLOCK_OFFSETS
    place = f"{world.pipeline.topic.name}[{partition}]@{low:,}–{low + _BLOCK_OFFSETS - 1:,}"
    where = place if log == tables.STREAM_LOG else f"landing {number}"
    was, rows = then[0] if then else 0, now[0] if now else 0
    return f"{where}: {was:,} rows then, {rows:,} now" if was != rows else f"{where}: {rows:,} rows, with other values"


# ---- what the next proof may build on ----


def _is_folded(world: World, view: View) -> bool:
    """Whether all of `events` was compared with a view: where it had yet to catch up, what it will do is not proved."""
    state, events = table_state.folded(world.pins[tables.batch_view_name(view)].history), world.pins[tables.EVENTS]
    if state is None:
        return not events.files()
    definition, types = (of(world.pipeline, view) for of in (fingerprint.view, fingerprint.types))
    current = state.definition == definition and state.has_types(types)
    return current and table_state.touched_since(events.history, state.snapshot) == set()


def seen(world: World, checks: Iterable[Check], now: datetime) -> LastProof | None:
    """What this proof had seen; None where `events` or a view has yet to follow, or anything is violated."""
    checks, views = list(checks), world.pipeline.views.values()
    if (
        not world.is_united
        or not all(check.ok for check in checks)
        or not all(_is_folded(world, view) for view in views)
    ):
        return None
    edge, state, last = world.boundary, world.landed(tables.STREAM_LOG), world.last
    offsets = {**state.start, **edge.offsets}
    sums: dict[str, list[tuple[Block, Sum]]] = {}
    for log in _LOGS:
        found = block_sums(world, log, log, _proved(log, offsets, edge.landing))
        for block, (count, total, first) in last.sums[log] if last else ():
            more, sum_of_more, _ = found.get(block, (0, 0, 0))
            found[block] = (more + count, (sum_of_more + total) % _MODULUS, first)
        sums[log] = sorted(found.items())
    sums[tables.LANDED_FILES] = _sums_of_files(world, tables.LANDED_FILES, edge.landing)
    past = f"SELECT min(landing) FROM {tables.STREAM_LOG} WHERE NOT {sql.before(offsets)}"
    names = (tables.EVENTS, *map(tables.batch_view_name, views))
    return LastProof(
        at=now,
        in_full_at=last.in_full_at if last else now,
        rules=rules(world.pipeline, world.erased.hashes),
        topic_id=state.topic_id,
        snapshots={name: world.pins[name].history.head for name in names},
        sequences={log: _sequence(world.pins[log]) for log in _LOGS},
        offsets=offsets,
        landing=edge.landing,
        first_landing=world.row(past)[0] or state.landing + 1,
        relanded=edge.relanded,
        properties=_properties(world),
        sums=sums,
        unproved=tuple(check.id for check in checks if not check.proved),
    )
