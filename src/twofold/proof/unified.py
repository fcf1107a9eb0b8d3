"""What a reader sees against what the proof makes of both logs from scratch.

stream_log, batch_log ─► union and dedup ─┬─► I6: `unified_events`
                                          └─► windows folded ─► I8: every `unified_<view>`
"""

from __future__ import annotations

from twofold.proof import sql
from twofold.proof.differences import compare
from twofold.proof.report import MOST_OFFENDERS, Check, Findings, counted
from twofold.proof.world import UNIFIED, World
from twofold.reader.statements import unified_view_name


def equals_from_scratch(world: World) -> Check:
    """I6: the same rows both ways, all columns, at the same snapshots of the logs."""
    found = Findings("I6")
    columns = sql.names(sql.union_columns(world.pipeline))
    _make_scratch(world)
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


def views_equal_folds(world: World) -> Check:
    """I8: every row of every unified view, in the same windows and groups, at the same snapshots."""
    found, pipeline = Findings("I8"), world.pipeline
    _make_scratch(world)
    columns, kept = sql.names(sql.union_columns(pipeline)), _kept(world)
    # What retention has taken from stream_log can only be had from `events`: I4 and I6 leave it out, too.
    events = f"""(SELECT {columns} FROM _tw_scratch WHERE {kept}
UNION ALL SELECT {columns} FROM {UNIFIED} WHERE NOT ({kept}))"""
    for view in pipeline.views.values():
        name = unified_view_name(view.name)
        difference = compare(world, view, name, sql.folded(events, pipeline.event.time, view))
        found.numbers[name] = {"compared": difference.compared, "different": difference.different}
        if difference.different:
            found.violated(
                f"{counted(difference.different, 'row')} of {name} differ from a fold of the union from scratch",
                difference.offenders,
            )
        found.say(f"{name} {counted(difference.compared, 'row')} compared")
    return found.check()


def _make_scratch(world: World) -> None:
    union = sql.from_scratch(world.pipeline, "stream_log", "batch_log")
    world.connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS _tw_scratch AS {union}")


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
