"""Ids whose rows lie further apart in event time than `id_horizon`: look-ups by id do not reach that far.

boundary of the last search (PostgreSQL) ─► rows landed since ─► their ids ─► all rows of these ids, in both logs
                                                                                  └─► further apart ─► kept, reported

A search costs what is new: of what was landed before only ids and times are read, and only of files whose ids overlap
the new ones'. It begins again where rows were replaced or removed since, or the horizon is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from spark_jobs import union
from spark_jobs.days import Scratch, scratch
from spark_jobs.union import Logs
from twofold import database, serving, table_state
from twofold.lake import Lake
from twofold.reader import pruning
from twofold.reader.pinned import Pinned
from twofold.table_state import Boundary
from twofold.text import quoted

KIND = "ids beyond the horizon"
"""Of the result in `twofold.database`, which names ids."""
_SHOWN = 10
_KEPT = 1000


@dataclass(frozen=True)
class Beyond:
    """How many ids, and some of them."""

    ids: int
    shown: tuple[str, ...]


def search(lake: Lake, *, keep: bool) -> Beyond:
    """Search what was landed since the last search that was to `keep` its result; all that is known is reported."""
    logs, last = union.read(lake), database.latest_result(lake.settings, lake.name, KIND)
    scope = _scope(lake, logs)
    known: Mapping[str, Any] = last.body if last and last.body["scope"] == scope else {"ids": [], "count": 0}
    offsets = {int(partition): end for partition, end in known.get("offsets", {}).items()}
    edge = Boundary(lake.name, offsets=offsets, landing=known.get("landing", 0))
    now = logs.next
    found: list[str] = []
    if (now.offsets, now.landing) != (edge.offsets, edge.landing):
        with scratch(lake.settings) as duck:
            found = far_apart(logs, duck, edge)
    more = sorted(set(found).difference(known["ids"]))
    ids, count = [*known["ids"], *more][:_KEPT], known["count"] + len(more)
    if keep:
        covered = {"offsets": now.offsets, "landing": now.landing}
        database.save_result(lake.settings, lake.name, KIND, {"scope": scope, **covered, "ids": ids, "count": count})
    return Beyond(count, tuple(sorted(ids)[:_SHOWN]))


def _scope(lake: Lake, logs: Logs) -> dict[str, Any]:
    """What a kept search holds for, as JSON has it."""
    event, log = lake.pipeline.event, logs.stream.table
    retained = table_state.retained_from(log.properties) if log else {}
    return {
        "id": list(event.id),
        "time": event.time,
        "id_horizon_s": event.id_horizon.total_seconds(),
        "relanded": list(logs.next.relanded),
        "retained_from": {str(partition): first for partition, first in retained.items()},
    }


def far_apart(logs: Logs, duck: Scratch, edge: Boundary) -> list[str]:
    """The ids with rows past `edge` that have rows further apart than the horizon, as texts."""
    pipeline, engine = logs.pipeline, logs.engine(duck)
    key, time = quoted(pipeline.event.key), quoted(pipeline.event.time)
    horizon_us = pipeline.event.id_horizon // timedelta(microseconds=1)
    nothing = Boundary(pipeline.name)

    def contenders(stream: str, batch: str, since: Boundary) -> str:
        parts = (
            serving.stream_contenders(pipeline, stream, since.offsets),
            serving.batch_contenders(pipeline, batch, since.landing),
        )
        return " UNION ALL ".join(f"SELECT {key}, {time} FROM ({serving.duckdb(part)}) AS _tw_one" for part in parts)

    past = contenders(engine.stream_log(edge), engine.batch_log(edge), edge)
    new = engine.table("new", f"SELECT DISTINCT {key} FROM ({past}) AS _tw_past")
    where = pruning.overlapping(duck.connection, pipeline.event.key, new)

    def overlapping(log: Pinned) -> str:
        return duck.read(log, log.narrowed(log.all_files, where))

    everything = contenders(overlapping(logs.stream), overlapping(logs.batch), nothing)
    rows = duck.connection.execute(
        f"""SELECT CAST({key} AS VARCHAR) FROM ({everything}) AS _tw_all SEMI JOIN {new} USING ({key})
GROUP BY {key} HAVING epoch_us(max({time})) - epoch_us(min({time})) > {horizon_us}"""
    ).fetchall()
    return [row[0] for row in rows]
