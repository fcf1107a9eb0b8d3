"""The proof from start to end.

    what was sent ─► wait for the job ─► pin ─┬─► all of the tables, or what changed since the last proof (`changes`)
                                              │      └─► offsets (I1, I2), origins (I4), recomputed (I3, I5, I6, I8)
                                              └─► files_there (I7)

Manually: `twofold prove flights`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from twofold import commits, database, job_metrics, metrics, schemas, table_state, tables
from twofold.errors import TwofoldError
from twofold.lake import Lake
from twofold.proof import changes, files_there, last_proof, offsets, origins, recomputed, sent, sql
from twofold.proof.findings import Check, Findings, Proof
from twofold.proof.last_proof import LastProof
from twofold.proof.sent import Sent
from twofold.proof.world import UNIFIED, UNREAD, TableAt, World, connect, declared, pinned
from twofold.reader import Reader, engine, statements
from twofold.reader.session import expired
from twofold.text import counted
from twofold.topic import Range
from twofold.windows import EPOCH

CHECKS: dict[str, Callable[[World], Check]] = {
    "I1": offsets.acknowledged,
    "I2": offsets.each_once,
    "I3": recomputed.one_row_per_id,
    "I4": origins.nothing_invented,
    "I5": recomputed.views_equal_recomputations,
    "I6": recomputed.equals_from_scratch,
    "I8": recomputed.unified_views_equal_folds,
}
"""Invariant → its check on the pinned tables; I7 looks at the catalog instead."""
LONGEST_WAIT_S = 60.0
"""How long a proof waits for a streaming job that makes no progress, unless told otherwise."""
_POLL_S = 0.5
_READER_MEMORY = "512MB"
_SPILLED = 6
"""Rows that are sorted and joined take about so many times the space of their files."""
_HELD_IN_MEMORY = 1 << 28
"""Of files that are no larger together, next to nothing is spilled."""

Say = Callable[[str], None]
"""Where progress goes, a line at a time."""


def prove(lake: Lake, longest_wait_s: float, say: Say, *, compare_all: bool = False, since_last: bool = False) -> Proof:
    """Check I1 to I8 on the live tables; waits for a running streaming job to pass what Kafka holds now.

    Values are compared of a sample of the records, or of all. With `since_last` only what changed is checked since the
    last proof in which nothing was violated, if it can be built on. The outcome is kept in `twofold.database`, and
    sent as metrics, too.
    """
    with job_metrics.measured(lake, "prove") as meter:
        proof, seen = _prove(lake, longest_wait_s, say, compare_all, since_last)
        for check in proof.checks:
            meter.gauge(metrics.PROVED_HOLDS, int(check.ok), invariant=check.id)
            meter.gauge(metrics.PROVED_BEHIND, int(check.behind), invariant=check.id)
            meter.gauge(metrics.PROVED_WHOLLY, int(check.proved), invariant=check.id)
        if proof.ok:
            meter.gauge(metrics.PROVED_HELD, time.time())
    database.save_result(lake.settings, lake.name, database.PROOF, proof.to_json())
    if seen:
        last_proof.save(lake, seen)
    return proof


def _prove(
    lake: Lake, longest_wait_s: float, say: Say, compare_all: bool, since_last: bool
) -> tuple[Proof, LastProof | None]:
    """The proof, and what the next one may build on."""
    before = sent.read(lake)
    _wait(lake, before, longest_wait_s, say)
    # Everything refers to what is pinned after it: views to `events` and stream_log, `events` to the logs.
    views = [tables.batch_view_name, tables.stream_view_name]
    # What the ledger has by now no table may have.
    names = [tables.LEDGER, *(name(view) for view in lake.pipeline.views.values() for name in views)]
    pins = {name: pinned(name, lake.find(name)) for name in names}
    with (
        engine.scratch(lake.settings) as folder,
        ThreadPoolExecutor(1) as beside,
        Reader(lake.settings, {lake.name: lake.pipeline}, folder, _READER_MEMORY) as reader,
    ):
        unified = [statements.UNIFIED_EVENTS, *map(statements.unified_view_name, lake.pipeline.views)]
        reader.pin_in_order(lake.pipeline, unified)
        united = (tables.EVENTS, tables.STREAM_LOG, tables.BATCH_LOG)
        for name in united:
            pins[name] = pinned(name, reader.pinned(lake.pipeline, name).table)
        schemas.require_readable(lake.pipeline, (pins[name].table for name in united))
        pins[tables.LANDED_FILES] = pinned(tables.LANDED_FILES, lake.find(tables.LANDED_FILES))
        files = beside.submit(files_there.all_there, lake, datetime.now(UTC))
        world = _world(lake, before, pins, folder, say, since_last)
        world.compare_all, world.seen = compare_all, last_proof.load_records(lake, before.topic_id)
        try:
            _materialize(reader, world)
        except (OSError, duckdb.Error, TwofoldError) as error:
            world.unreadable[UNIFIED] = str(error)
        # Its memory is for the checks now.
        reader.close()
        checks = sorted([*(_check(name, world) for name in CHECKS), files.result()], key=lambda check: check.id)
        if last := world.last:
            checks = [_as_last(check, last) for check in checks]
        at, in_full_at = (last.at, last.in_full_at) if last else (None, None)
        found = Proof(lake.name, tuple(checks), at, in_full_at)
        if world.gaps and world.is_of_one_topic:
            last_proof.save_records(lake, before.topic_id, offsets.seen(world, holds=found.ok))
        return found, changes.seen(world, found.checks, datetime.now(UTC))


def _world(lake: Lake, before: Sent, pins: Mapping[str, TableAt], folder: Path, say: Say, since_last: bool) -> World:
    """The pinned tables, or of them what changed since the last proof, where it can be built on."""
    if since_last:
        world, last = World(lake, connect(folder), before, pins), last_proof.load(lake)
        try:
            why = changes.obstacle(world, last)
            if last and not why:
                changes.narrow(world, last)
                return world
        except (OSError, duckdb.Error) as error:
            if not _is_of_files(world, error):
                raise
            # It may be an earlier file, which was expired meanwhile; one of now is missed in full, too.
            why = f"a file cannot be read: {next(iter(world.unreadable.values()), error)}"
        say(f"everything is checked: {why}")
    logs = (tables.EVENTS, tables.STREAM_LOG, tables.BATCH_LOG)
    need = spilled_bytes(sum(pins[name].size_bytes for name in logs))
    world = World(lake, connect(folder, on_disk=need > 0), before, pins)
    if need:
        free = shutil.disk_usage(folder).free
        say(f"may need up to {need / 1e9:,.1f} GB in {folder.parent} for a while; {free / 1e9:,.1f} GB are free there")
    for name in declared(lake.pipeline):
        world.register(name, pins[name])
    return world


def spilled_bytes(size_bytes: int) -> int:
    """About how many bytes a proof in full spills, of tables whose files have so many; 0: next to nothing.

    >>> spilled_bytes(10_000_000), spilled_bytes(1_000_000_000)
    (0, 6000000000)
    """
    return _SPILLED * size_bytes if size_bytes > _HELD_IN_MEMORY else 0


def _as_last(check: Check, last: LastProof) -> Check:
    """What a proof could not check, those that build on it do not look at again."""
    if check.id not in last.unproved:
        return check
    text = (
        f"not proved: what a proof since {last.in_full_at:%Y-%m-%d %H:%M} UTC could not check; one in full looks again"
    )
    return replace(check, proved=False, text=f"{text}; {check.text}")


def _wait(lake: Lake, before: Sent, longest_s: float, say: Say) -> None:
    """Return once log and views have passed the stable ends, the job has ended, or `longest_s` went by in vain."""
    deadline, best = time.monotonic() + longest_s, None
    while (left := _remaining(lake, before)) and database.is_held(lake.settings, lake.name, "stream"):
        if best is None or left < best:
            deadline, best = time.monotonic() + longest_s, left
            say(f"waiting for the streaming job: {counted(left, 'offset')} to go")
        if time.monotonic() >= deadline:
            return
        time.sleep(_POLL_S)


def _remaining(lake: Lake, before: Sent) -> int:
    """Offsets up to `before.stable_ends` that the log, and then that each view has yet to read."""
    log, table = lake.history(tables.STREAM_LOG), lake.find(tables.STREAM_LOG)
    state = table_state.begun(table_state.landed(log, lake.name), table.properties if table else {})
    if before.topic_id is None or state.topic_id not in (None, before.topic_id):
        return 0
    left = before.offsets_behind(state.offsets)
    # Of a log without rows views have nothing to read.
    for view in lake.pipeline.views if log.head is not None else ():
        folded = table_state.folded(lake.history(tables.stream_view_name(view)))
        left += before.offsets_behind(recomputed.read_up_to(log, folded, lake.name))
    return left


def _materialize(reader: Reader, world: World) -> None:
    """Make tables of what a reader sees in the proof's DuckDB, with the columns that are compared.

    The one place of the proof that runs the SQL under test; the SQL it is compared with is written separately.
    """
    pipeline, columns = world.pipeline, sql.names(sql.union_columns(world.pipeline))
    there = reader.catalog.namespace_exists(pipeline.name)
    if there:
        _copy(reader, world, UNIFIED, columns, pipeline.event.time)
    else:
        world.connection.execute(f"CREATE TABLE {UNIFIED} AS SELECT {columns} FROM {tables.EVENTS}")
    for view in pipeline.views.values():
        name = statements.unified_view_name(view.name)
        if there:
            _copy(reader, world, name, sql.names([*tables.view_keys(view), *view.measures]), "window_start")
        else:
            nothing = sql.folded(UNIFIED, pipeline.event.time, view)
            moments = f"make_timestamptz({sql.START}) AS window_start, make_timestamptz({sql.END}) AS window_end"
            world.connection.execute(f"CREATE TABLE {sql.quoted(name)} AS SELECT *, {moments} FROM ({nothing})")


def _copy(reader: Reader, world: World, name: str, columns: str, time: str) -> None:
    """What a reader sees of a relation, in the times that are compared."""
    source, make = sql.quoted(name), f"CREATE TABLE {sql.quoted(name)} AS"
    for where in _conditions(time, world.scope.ranges):
        found = reader.query(f"SELECT {columns} FROM {source} WHERE {where}", world.pipeline.name)
        world.connection.register("_tw_batches", found.to_arrow_reader())
        world.connection.execute(f"{make} SELECT * FROM _tw_batches")
        world.connection.unregister("_tw_batches")
        make = f"INSERT INTO {source}"


def _conditions(time: str, ranges: Sequence[Range] | None) -> Iterator[str]:
    """Of the rows of each range, as a reader can leave files out by; what Python has no date for has no limit there.

    >>> print(*_conditions("at", [(0, 1_500_000)]))
    "at" >= TIMESTAMPTZ '1970-01-01 00:00:00+00:00' AND "at" < TIMESTAMPTZ '1970-01-01 00:00:01.500000+00:00'
    >>> list(_conditions("at", None)), list(_conditions("at", []))
    (['true'], ['false'])
    """
    for low, high in ranges or ():
        yield f"{_limit(time, '>=', low)} AND {_limit(time, '<', high)}"
    if not ranges:
        yield "true" if ranges is None else "false"


def _limit(time: str, sign: str, us: int) -> str:
    try:
        at = (EPOCH + timedelta(microseconds=us)).isoformat(sep=" ")
    except OverflowError:
        return f"epoch_us({sql.quoted(time)}) {sign} {us}"
    return f"{sql.quoted(time)} {sign} TIMESTAMPTZ '{at}'"


def _is_of_files(world: World, error: Exception) -> bool:
    """Whether files cannot be read; else it is a fault of the proof itself."""
    return bool(world.unreadable) or isinstance(error, (OSError, *UNREAD))


def _check(name: str, world: World) -> Check:
    """One check; where files are missing it cannot be done, which is a violation in itself."""
    try:
        return CHECKS[name](world)
    except (OSError, duckdb.Error) as error:
        if not _is_of_files(world, error):
            raise
        if late := [pin for pin in world.pins.values() if pin.table and commits.is_expired(pin.table)]:
            raise expired(f"{world.pipeline.name}.{late[0].name}") from error
        found = Findings(name)
        reasons = world.unreadable or {"": str(error)}
        found.violated("could not be checked", [f"{table}: {reason}" for table, reason in reasons.items()])
        return found.check()
