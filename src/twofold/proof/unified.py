"""I6: `unified_events`, as a reader sees it, against a union and dedup of both logs made from scratch."""

from __future__ import annotations

from twofold.proof import sql
from twofold.proof.report import MOST_OFFENDERS, Check, Findings, counted
from twofold.proof.world import UNIFIED, World


def equals_from_scratch(world: World) -> Check:
    """I6: the same rows both ways, all columns, at the same snapshots of the logs."""
    found = Findings("I6")
    columns = sql.names(sql.union_columns(world.pipeline))
    world.connection.execute(
        f"CREATE TEMP TABLE _tw_scratch AS {sql.from_scratch(world.pipeline, 'stream_log', 'batch_log')}"
    )
    unified = f"SELECT {columns} FROM {UNIFIED} WHERE {_kept(world)}"
    scratch = f"SELECT {columns} FROM _tw_scratch WHERE {_kept(world)}"
    lost, invented = f"{scratch} EXCEPT {unified}", f"{unified} EXCEPT {scratch}"
    counts = {
        name: world.number(f"SELECT count(*) FROM ({rows}) AS _tw_counted") for name, rows in _sides(lost, invented)
    }
    for name, rows in _sides(lost, invented):
        if counts[name]:
            found.violated(f"{counted(counts[name], 'row')} {name}", _named(world, name, rows))
    there = world.number(f"SELECT count(*) FROM {UNIFIED}")
    made = world.number("SELECT count(*) FROM _tw_scratch")
    found.numbers |= {"unified_events": there, "from_scratch": made, "lost": counts[LOST], "invented": counts[INVENTED]}
    found.say(f"unified_events {counted(there, 'row')}, made from scratch {counted(made, 'row')}")
    return found.check()


LOST = "of the logs not in unified_events"
INVENTED = "of unified_events not in the logs"


def _sides(lost: str, invented: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (LOST, lost), (INVENTED, invented)


def _kept(world: World) -> str:
    """Leave out ids whose winning row retention has taken from stream_log: there is nothing to make them from."""
    gone = [f"(kafka_partition = {p} AND kafka_offset < {low})" for p, low in sorted(world.retained_from.items())]
    if not gone:
        return "true"
    key = sql.quoted(world.pipeline.event.id)
    return f"{key} NOT IN (SELECT {key} FROM {UNIFIED} WHERE {' OR '.join(gone)})"


def _named(world: World, name: str, rows: str) -> list[str]:
    key, origin = sql.quoted(world.pipeline.event.id), sql.origin(world.pipeline.topic.name)
    found = world.rows(f"SELECT {key}, {origin} FROM ({rows}) AS _tw_different ORDER BY ALL LIMIT {MOST_OFFENDERS}")
    return [f"id {key!r} from {where}: {name}" for key, where in found]
