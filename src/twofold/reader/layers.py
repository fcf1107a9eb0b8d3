"""SQL that sets the two layers of one view side by side, in DuckDB's dialect.

batch_<view> ─┐ full join on window and group, of the windows the stream reached ─► difference of each row, 0 to 1
stream_<view> ┘
"""

from __future__ import annotations

from twofold.definition.model import View
from twofold.reader.rendering import quoted

NEARLY = 1e-9
"""Doubles may differ by this much of their size: engines add in different orders."""


def side_by_side(view: View, batch: str, stream: str, condition: str, numeric: frozenset[str]) -> str:
    """One row per window and group that meets `condition` and lies where the stream has windows.

    Columns: the keys, both sides of each measure (`_tw_b_<measure>`, `_tw_s_<measure>`), `_tw_in_batch`,
    `_tw_in_stream`, and `_tw_difference`: the largest among the measures, each relative to the larger side; 1 where a
    side lacks the row.
    """
    keys = ("window_start", "window_end", *view.by)
    on = " AND ".join(f"_tw_b.{quoted(key)} IS NOT DISTINCT FROM _tw_s.{quoted(key)}" for key in keys)
    either = ", ".join(f"coalesce(_tw_b.{quoted(key)}, _tw_s.{quoted(key)}) AS {quoted(key)}" for key in keys)
    sides = "".join(
        f", _tw_b.{quoted(m)} AS {quoted(f'_tw_b_{m}')}, _tw_s.{quoted(m)} AS {quoted(f'_tw_s_{m}')}"
        for m in view.measures
    )
    differences = ", ".join(_difference(m, m in numeric) for m in view.measures)
    reach = (
        f"window_start BETWEEN (SELECT min(window_start) FROM {stream}) AND (SELECT max(window_start) FROM {stream})"
    )
    chosen = f"WHERE ({condition}) AND {reach}"
    return f"""SELECT {either}{sides},
  _tw_b._tw_there IS NOT NULL AS _tw_in_batch, _tw_s._tw_there IS NOT NULL AS _tw_in_stream,
  CASE WHEN _tw_b._tw_there IS NULL OR _tw_s._tw_there IS NULL THEN 1.0
       ELSE greatest({differences}) END AS _tw_difference
FROM (SELECT *, true AS _tw_there FROM {batch} {chosen}) AS _tw_b
FULL JOIN (SELECT *, true AS _tw_there FROM {stream} {chosen}) AS _tw_s ON {on}"""


def came_late(pipeline_time: str, views: list[View], log: str, since: str, top_us: int | None, lateness_us: int) -> str:
    """Count the accepted rows of `log` past `since` that came after one of their windows had closed to the stream.

    What a landing meets is the watermark of the landings before it; `top_us` is the highest event time before them all.
    """
    time = f"epoch_us(_tw_log.{quoted(pipeline_time)})"
    first_ends = [_first_end(time, view) for view in views]
    closed = " OR ".join(f"{end} <= _tw_tops._tw_top - {lateness_us}" for end in first_ends) or "false"
    before = "NULL" if top_us is None else str(top_us)
    return f"""WITH _tw_tail AS (SELECT * FROM {log} WHERE outcome = 'accepted' AND ({since})),
  _tw_landings AS (SELECT landing, max(epoch_us({quoted(pipeline_time)})) AS _tw_latest
    FROM _tw_tail GROUP BY landing),
  _tw_tops AS (SELECT landing, greatest({before}, max(_tw_latest) OVER _tw_earlier) AS _tw_top FROM _tw_landings
    WINDOW _tw_earlier AS (ORDER BY landing ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
SELECT count(*) FROM _tw_tail AS _tw_log JOIN _tw_tops USING (landing) WHERE {closed}"""


def _difference(measure: str, numeric: bool) -> str:
    b, s = f"_tw_b.{quoted(measure)}", f"_tw_s.{quoted(measure)}"
    same = f"{b} IS NOT DISTINCT FROM {s}"
    if not numeric:
        return f"CASE WHEN {same} THEN 0.0 ELSE 1.0 END"
    x, y = f"{b}::DOUBLE", f"{s}::DOUBLE"
    size = f"greatest(abs({x}), abs({y}))"
    return (
        f"CASE WHEN {same} THEN 0.0 WHEN {b} IS NULL OR {s} IS NULL THEN 1.0 "
        f"WHEN abs({x} - {y}) <= {NEARLY} * {size} THEN 0.0 ELSE least(1.0, abs({x} - {y}) / {size}) END"
    )


def _first_end(time_us: str, view: View) -> str:
    """End of the earliest window that holds the moment, in microseconds since the epoch."""
    window, every = (round(length.total_seconds() * 1_000_000) for length in (view.window, view.every))
    return f"((floor(({time_us} - {window}) / {every}) + 1) * {every} + {window})::BIGINT"
