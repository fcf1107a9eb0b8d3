"""A small world as the proof sees it: made, changed row by row behind the jobs' backs, and proved."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import BooleanExpression

from tests import conftest, small_world
from tests.lake import EqualTo
from tests.small_world import SmallWorld
from twofold import table_state, tables
from twofold.definition import fingerprint
from twofold.definition.load import load_file
from twofold.lake import Lake
from twofold.proof.findings import Check, Proof
from twofold.proof.prover import prove
from twofold.settings import Settings
from twofold.table_state import Folded

MEASURES = conftest.DEFINITION["views"]["by_kind"]["measures"]
SLIDING = {"window": "1 hour", "every": "15 minutes", "by": ["kind"], "measures": MEASURES}


def new_world(settings: Settings, pipelines_folder: Path) -> SmallWorld:
    name = conftest.random_name()
    document = conftest.merged(
        {"name": name, **conftest.DEFINITION}, {"topic": {"name": name}, "views": {"sliding": SLIDING}}
    )
    path = pipelines_folder / f"{name}.yaml"
    path.write_text(json.dumps(document))
    return small_world.build(settings, load_file(path))


def proof_of(world: SmallWorld, *, since_last: bool = False) -> Proof:
    return prove(Lake(world.settings, world.pipeline), 0, lambda line: None, since_last=since_last)


def check(proof: Proof, invariant: str) -> Check:
    (found,) = (one for one in proof.checks if one.id == invariant)
    return found


def violated(proof: Proof) -> set[str]:
    return {one.id for one in proof.checks if not one.ok}


def change(
    world: SmallWorld, name: str, where: BooleanExpression, changed: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Replace the rows of a table that fulfil a condition."""
    table = world.table(name)
    rows = table.scan(row_filter=where).to_arrow()
    assert rows.num_rows
    table.delete(where)
    table.append(pa.Table.from_pylist([changed(row) for row in rows.to_pylist()], schema=rows.schema))


def at(partition: int, offset: int) -> BooleanExpression:
    return EqualTo("kafka_partition", partition) & EqualTo("kafka_offset", offset)


def write_down_the_last_landing(world: SmallWorld) -> dict[str, Any]:
    """What a run does first: `landed_files` gets the file that only the last commit of batch_log names."""
    (file,) = table_state.landed(table_state.history_of(world.table(tables.BATCH_LOG)), world.pipeline.name).files
    world.append(tables.LANDED_FILES, [{**file, "landed_at": datetime.fromisoformat(file["landed_at"])}])
    return file


def catch_up_views(world: SmallWorld, rows: list[dict[str, Any]]) -> None:
    for view in world.pipeline.views.values():
        name = tables.stream_view_name(view)
        folded = small_world.fold(small_world.winners(rows, ()), view.window, view.every)
        state = Folded(small_world.snapshot_of(world, tables.STREAM_LOG), fingerprint.view(world.pipeline, view))
        world.table(name).overwrite(folded, snapshot_properties=table_state.encode(state))
