"""I3: one row per id in `events` and in `unified_events`; and ids whose rows lie further apart than look-ups reach."""

from __future__ import annotations

from twofold import tables
from twofold.proof import sql
from twofold.proof.report import MOST_OFFENDERS, Check, Findings, counted
from twofold.proof.world import UNIFIED, World


def one_row_per_id(world: World) -> Check:
    """I3, and its precondition: rows of one id lie within `id_horizon` of event time."""
    found = Findings("I3")
    for name in (tables.EVENTS, UNIFIED):
        _count(world, name, found)
    _spread(world, found)
    return found.check()


def _count(world: World, name: str, found: Findings) -> None:
    key = sql.quoted(world.pipeline.event.id)
    rows, ids = world.row(f"SELECT count(*), count(DISTINCT {key}) FROM {name}")
    found.numbers[name] = {"rows": rows, "ids": ids}
    if rows != ids:
        found.violated(f"{counted(rows - ids, 'row')} too many in {name}", _doubled(world, name))
    found.say(f"{name} {counted(rows, 'row')} = {counted(ids, 'id')}" if rows == ids else f"{name} {ids:,} ids")


def _doubled(world: World, name: str) -> list[str]:
    key = sql.quoted(world.pipeline.event.id)
    rows = world.rows(
        f"""SELECT {key}, count(*), string_agg({sql.origin(world.pipeline.topic.name)}, ', ')
            FROM {name} GROUP BY {key} HAVING count(*) > 1 OR {key} IS NULL ORDER BY 1 LIMIT {MOST_OFFENDERS}"""
    )
    return [f"{name}: id {key!r} {times} times, from {origins}" for key, times, origins in rows]


def _spread(world: World, found: Findings) -> None:
    """Look-ups by id search only `id_horizon` around a row, so rows further apart would not find each other."""
    event, horizon = world.pipeline.event, world.pipeline.event.id_horizon
    key, time = sql.quoted(event.id), sql.quoted(event.time)
    logged = sql.contenders(world.pipeline, "stream_log", "batch_log")
    apart = f"""SELECT {key} AS _tw_id, epoch_us(max({time})) - epoch_us(min({time})) AS _tw_apart_us,
                  min({time}) AS _tw_first, max({time}) AS _tw_last FROM ({logged}) AS _tw_rows
                GROUP BY {key} HAVING _tw_apart_us > {sql.microseconds(horizon)}"""
    count = world.number(f"SELECT count(*) FROM ({apart}) AS _tw_far")
    found.numbers["ids_beyond_horizon"] = count
    if count:
        rows = world.rows(
            f"SELECT _tw_id, _tw_first, _tw_last FROM ({apart}) AS _tw_far ORDER BY _tw_id LIMIT {MOST_OFFENDERS}"
        )
        found.violated(
            f"{counted(count, 'id')} with rows further apart than id_horizon ({horizon}): "
            "their duplicates cannot be found; raise event.id_horizon and `twofold rebuild`, or mend the ids",
            [f"id {key!r}: from {first.isoformat()} to {last.isoformat()}" for key, first, last in rows],
        )
