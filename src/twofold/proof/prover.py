"""The proof from start to end.

    what was sent ─► wait for the job ─► pin ─► offsets (I1, I2), origins (I4), recomputed (I3, I5, I6, I8)
                                             └─► files_there (I7)

Manually: `twofold prove flights`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from twofold import database, job_metrics, metrics, table_state, tables
from twofold.errors import TwofoldError
from twofold.lake import Lake
from twofold.proof import files_there, offsets, origins, recomputed, sent, sql
from twofold.proof.findings import Check, Findings, Proof
from twofold.proof.sent import Sent
from twofold.proof.world import UNIFIED, World, connect, declared, pinned
from twofold.reader import Reader, statements
from twofold.text import counted

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
_POLL_S = 0.5

Say = Callable[[str], None]
"""Where progress goes, a line at a time."""


def prove(lake: Lake, longest_wait_s: float, say: Say, *, compare_all: bool = False) -> Proof:
    """Check I1 to I8 on the live tables; waits for a running streaming job to pass what Kafka holds now.

    Values are compared of a sample of the records, or of all. The outcome is kept in `twofold.database`, and sent as
    metrics, too.
    """
    with job_metrics.measured(lake, "prove") as meter:
        proof = _prove(lake, longest_wait_s, say, compare_all)
        for check in proof.checks:
            meter.gauge(metrics.PROVED_HOLDS, int(check.ok), invariant=check.id)
            meter.gauge(metrics.PROVED_BEHIND, int(check.behind), invariant=check.id)
            meter.gauge(metrics.PROVED_WHOLLY, int(check.proved), invariant=check.id)
    database.save_result(lake.settings, lake.name, database.PROOF, proof.to_json())
    return proof


def _prove(lake: Lake, longest_wait_s: float, say: Say, compare_all: bool) -> Proof:
    before = sent.read(lake.settings, lake.pipeline)
    _wait(lake, before, longest_wait_s, say)
    # Everything refers to what is pinned after it: views to `events` and stream_log, `events` to the logs.
    views = [tables.batch_view_name, tables.stream_view_name]
    names = [name(view) for view in lake.pipeline.views.values() for name in views]
    pins = {name: pinned(name, lake.find(name)) for name in names}
    with (
        tempfile.TemporaryDirectory(prefix="twofold-prove-", ignore_cleanup_errors=True) as folder,
        Reader(lake.settings, {lake.name: lake.pipeline}) as reader,
    ):
        unified = [statements.UNIFIED_EVENTS, *map(statements.unified_view_name, lake.pipeline.views)]
        reader.pin_in_order(lake.pipeline, unified)
        for name in (tables.EVENTS, tables.STREAM_LOG, tables.BATCH_LOG):
            pins[name] = pinned(name, reader.pinned(lake.pipeline, name).table)
        pins[tables.LANDED_FILES] = pinned(tables.LANDED_FILES, lake.find(tables.LANDED_FILES))
        world = World(lake, connect(Path(folder)), before, pins, compare_all=compare_all)
        for name in declared(lake.pipeline):
            world.register(name, pins[name])
        try:
            _materialize(reader, world)
        except (OSError, duckdb.Error, TwofoldError) as error:
            world.unreadable[UNIFIED] = str(error)
        checks = [_check(name, world) for name in CHECKS]
    checks.append(files_there.all_there(lake, datetime.now(UTC)))
    return Proof(lake.name, tuple(sorted(checks, key=lambda check: check.id)))


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
    log = lake.history(tables.STREAM_LOG)
    state = table_state.landed(log, lake.name)
    if before.topic_id is None or state.topic_id not in (None, before.topic_id):
        return 0
    left = before.offsets_behind(state.offsets)
    for view in lake.pipeline.views:
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
        _copy(reader.query(f"SELECT {columns} FROM {UNIFIED}", pipeline.name), world.connection, UNIFIED)
    else:
        world.connection.execute(f"CREATE TEMP TABLE {UNIFIED} AS SELECT {columns} FROM {tables.EVENTS}")
    for view in pipeline.views.values():
        name = statements.unified_view_name(view.name)
        kept = sql.names([*tables.view_keys(view), *view.measures])
        if there:
            _copy(reader.query(f"SELECT {kept} FROM {sql.quoted(name)}", pipeline.name), world.connection, name)
        else:
            nothing = sql.folded(UNIFIED, pipeline.event.time, view)
            moments = f"make_timestamptz({sql.START}) AS window_start, make_timestamptz({sql.END}) AS window_end"
            world.connection.execute(f"CREATE TEMP TABLE {sql.quoted(name)} AS SELECT *, {moments} FROM ({nothing})")


def _copy(rows: duckdb.DuckDBPyRelation, connection: duckdb.DuckDBPyConnection, name: str) -> None:
    connection.register("_tw_batches", rows.to_arrow_reader())
    connection.execute(f"CREATE TEMP TABLE {sql.quoted(name)} AS SELECT * FROM _tw_batches")
    connection.unregister("_tw_batches")


def _check(name: str, world: World) -> Check:
    """One check; where files are missing it cannot be done, which is a violation in itself."""
    try:
        return CHECKS[name](world)
    except (OSError, duckdb.Error) as error:
        if not world.unreadable and not isinstance(error, OSError | duckdb.IOException):
            raise  # a fault of the proof itself
        found = Findings(name)
        reasons = world.unreadable or {"": str(error)}
        found.violated("could not be checked", [f"{table}: {reason}" for table, reason in reasons.items()])
        return found.check()
