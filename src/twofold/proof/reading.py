"""`unified_events` and every `unified_<view>` as `twofold query` gives them: by `twofold.reader`, of the same pins.

The one place of the proof that runs the SQL under test; what it is compared with is written apart from it.
"""

from __future__ import annotations

import duckdb

from twofold import tables
from twofold.definition.model import Pipeline
from twofold.proof import sql
from twofold.proof.world import UNIFIED, Pinned, World, of
from twofold.reader import Reader, statements

ORDER = (tables.EVENTS, tables.STREAM_LOG, tables.BATCH_LOG)


def pins(reader: Reader, pipeline: Pipeline) -> dict[str, Pinned]:
    """The three tables that `unified_events` is made of."""
    reader.pin_in_order(pipeline, [statements.UNIFIED_EVENTS, *map(statements.unified_view_name, pipeline.views)])
    return {name: of(name, reader.pinned(pipeline, name).table) for name in ORDER}


def materialize(reader: Reader, world: World) -> None:
    """Make tables of what a reader sees in the proof's DuckDB, with the columns that are compared."""
    pipeline, columns = world.pipeline, sql.names(sql.union_columns(world.pipeline))
    there = reader.catalog.namespace_exists(pipeline.name)
    if there:
        _copy(reader.query(f"SELECT {columns} FROM {UNIFIED}", pipeline.name), world.connection, UNIFIED)
    else:
        world.connection.execute(f"CREATE TEMP TABLE {UNIFIED} AS SELECT {columns} FROM {tables.EVENTS}")
    for view in pipeline.views.values():
        name, kept = statements.unified_view_name(view.name), sql.names([*tables.view_keys(view), *view.measures])
        if there:
            _copy(reader.query(f"SELECT {kept} FROM {sql.quoted(name)}", pipeline.name), world.connection, name)
        else:
            nothing = sql.folded(UNIFIED, pipeline.event.time, view)
            moments = f"make_timestamptz({sql.START}) AS window_start, make_timestamptz({sql.END}) AS window_end"
            world.connection.execute(f"CREATE TEMP TABLE {sql.quoted(name)} AS SELECT *, {moments} FROM ({nothing})")


def _copy(rows: duckdb.DuckDBPyRelation, connection: duckdb.DuckDBPyConnection, name: str) -> None:
    batches = rows.to_arrow_reader()
    connection.register("_tw_batches", batches)
    connection.execute(f"CREATE TEMP TABLE {sql.quoted(name)} AS SELECT * FROM _tw_batches")
    connection.unregister("_tw_batches")
