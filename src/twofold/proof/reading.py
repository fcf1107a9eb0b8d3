"""`unified_events` as every reader gets it: by `twofold.reader`, which pins `events` first, then the logs.

The one place of the proof that runs the SQL under test; what it is compared with is written apart from it.
"""

from __future__ import annotations

import duckdb

from twofold import tables
from twofold.definition.model import Pipeline
from twofold.proof import sql
from twofold.proof.world import UNIFIED, Pinned, World, of
from twofold.reader import Reader

ORDER = (tables.EVENTS, tables.STREAM_LOG, tables.BATCH_LOG)
"""As the reader pins them: what a union moves meanwhile from a log into `events` is then seen in the log."""


def pins(reader: Reader, pipeline: Pipeline) -> dict[str, Pinned]:
    """The three tables that `unified_events` is made of."""
    return {name: of(name, reader.pinned(pipeline, name).table) for name in ORDER}


def materialize(reader: Reader, world: World) -> None:
    """Make the table `unified_events` in the proof's DuckDB, with the columns that are compared."""
    pipeline, columns = world.pipeline, sql.names(sql.union_columns(world.pipeline))
    if not reader.catalog.namespace_exists(pipeline.name):
        world.connection.execute(f"CREATE TEMP TABLE {UNIFIED} AS SELECT {columns} FROM {tables.EVENTS}")
        return
    _copied(reader.query(f"SELECT {columns} FROM {UNIFIED}", pipeline.name), world.connection)


def _copied(rows: duckdb.DuckDBPyRelation, connection: duckdb.DuckDBPyConnection) -> None:
    batches = rows.to_arrow_reader()
    connection.register("_tw_batches", batches)
    connection.execute(f"CREATE TEMP TABLE {UNIFIED} AS SELECT * FROM _tw_batches")
    connection.unregister("_tw_batches")
