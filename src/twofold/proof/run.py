"""The proof from start to end.

    what was sent ─► wait for the job ─► pin ─► offsets (I1, I2), ids (I3), origins (I4), views (I5),
                                             │    union (I6), unified views (I8)
                                             └─► files (I7)

By hand: `twofold prove flights`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from twofold import catalog as catalogs
from twofold import database, job_metrics, metrics, table_state, tables
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.lake import Lake
from twofold.proof import files, identity, offsets, provenance, reading, sent, sources, unified, views, waiting
from twofold.proof.report import Check, Findings, Proof
from twofold.proof.sent import Sent
from twofold.proof.waiting import Say
from twofold.proof.world import UNIFIED, Pinned, World, declared, pin, view_names
from twofold.reader import Reader
from twofold.settings import Settings

CHECKS: dict[str, Callable[[World], Check]] = {
    "I1": offsets.acknowledged,
    "I2": offsets.each_once,
    "I3": identity.one_row_per_id,
    "I4": provenance.nothing_invented,
    "I5": views.equal_recomputations,
    "I6": unified.equals_from_scratch,
    "I8": unified.views_equal_folds,
}
"""Invariant → its check on the pinned tables; I7 looks at the catalog instead."""


def prove(settings: Settings, pipeline: Pipeline, longest_wait_s: float, say: Say) -> Proof:
    """Check I1 to I8 on the live tables; waits for a running streaming job to pass what Kafka holds now.

    The outcome is kept in `twofold.database`, and sent as metrics, too.
    """
    with job_metrics.measured(Lake(settings, pipeline), "prove") as meter:
        proof = _prove(settings, pipeline, longest_wait_s, say)
        for check in proof.checks:
            meter.gauge(metrics.PROVED_HOLDS, int(check.ok), invariant=check.id)
            meter.gauge(metrics.PROVED_BEHIND, int(check.behind), invariant=check.id)
    database.save_result(settings, pipeline.name, database.PROOF, proof.to_json())
    return proof


def _prove(settings: Settings, pipeline: Pipeline, longest_wait_s: float, say: Say) -> Proof:
    catalog = catalogs.load(settings)
    before = sent.read(settings, pipeline)
    waiting.wait(settings, catalog, pipeline, before, longest_wait_s, say)
    views = {name: pin(catalog, pipeline.name, name) for name in view_names(pipeline)}
    with sources.spill_folder() as folder, Reader(settings, {pipeline.name: pipeline}) as reader:
        world = _pinned(settings, reader, before, views, Path(folder))
        checks = [_run(name, world) for name in CHECKS]
    checks.append(files.all_there(catalog, pipeline.name, datetime.now(UTC)))
    return Proof(pipeline.name, tuple(sorted(checks, key=lambda check: check.id)))


def _pinned(settings: Settings, reader: Reader, before: Sent, views: Mapping[str, Pinned], spill_to: Path) -> World:
    """Everything refers to what is pinned after it: views to `events` and stream_log, `events` to the logs."""
    pipeline = reader.pipelines[before.pipeline]
    pins = {**views, **reading.pins(reader, pipeline)}
    pins[tables.LANDED_FILES] = pin(reader.catalog, pipeline.name, tables.LANDED_FILES)
    log = pins[tables.STREAM_LOG].table
    retained = table_state.retained_from(log.properties) if log else {}
    world = World(settings, pipeline, sources.connect(spill_to), before, pins, retained)
    for name in declared(pipeline):
        world.register(name, pins[name])
    try:
        reading.materialize(reader, world)
    except (OSError, duckdb.Error, TwofoldError) as error:
        world.unreadable[UNIFIED] = str(error)
    return world


def _run(name: str, world: World) -> Check:
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
