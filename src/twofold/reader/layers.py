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

    Columns: the keys, both sides of each measure (`b_<measure>`, `s_<measure>`), `in_batch`, `in_stream`, and
    `difference`: the largest among the measures, each relative to the larger side; 1 where a side lacks the row.
    """
    keys = ("window_start", "window_end", *view.by)
    on = " AND ".join(f"b.{quoted(key)} IS NOT DISTINCT FROM s.{quoted(key)}" for key in keys)
    either = ", ".join(f"coalesce(b.{quoted(key)}, s.{quoted(key)}) AS {quoted(key)}" for key in keys)
    sides = "".join(
        f", b.{quoted(m)} AS {quoted(f'b_{m}')}, s.{quoted(m)} AS {quoted(f's_{m}')}" for m in view.measures
    )
    differences = ", ".join(_difference(m, m in numeric) for m in view.measures)
    reach = (
        f"window_start BETWEEN (SELECT min(window_start) FROM {stream}) AND (SELECT max(window_start) FROM {stream})"
    )
    chosen = f"WHERE ({condition}) AND {reach}"
    return f"""SELECT {either}{sides}, b.there IS NOT NULL AS in_batch, s.there IS NOT NULL AS in_stream,
  CASE WHEN b.there IS NULL OR s.there IS NULL THEN 1.0 ELSE greatest({differences}) END AS difference
FROM (SELECT *, true AS there FROM {batch} {chosen}) AS b
FULL JOIN (SELECT *, true AS there FROM {stream} {chosen}) AS s ON {on}"""


def came_late(pipeline_time: str, views: list[View], log: str, since: str, top_us: int | None, lateness_us: int) -> str:
    """Count the accepted rows of `log` past `since` that came after one of their windows had closed to the stream.

    What a landing meets is the watermark of the landings before it; `top_us` is the highest event time before them all.
    """
    time = f"epoch_us(log.{quoted(pipeline_time)})"
    first_ends = [_first_end(time, view) for view in views]
    closed = " OR ".join(f"{end} <= tops.top - {lateness_us}" for end in first_ends) or "false"
    before = "NULL" if top_us is None else str(top_us)
    return f"""WITH tail AS (SELECT * FROM {log} WHERE outcome = 'accepted' AND ({since})),
  landings AS (SELECT landing, max(epoch_us({quoted(pipeline_time)})) AS latest FROM tail GROUP BY landing),
  tops AS (SELECT landing, greatest({before}, max(latest) OVER earlier) AS top FROM landings
           WINDOW earlier AS (ORDER BY landing ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
SELECT count(*) FROM tail AS log JOIN tops USING (landing) WHERE {closed}"""


def _difference(measure: str, numeric: bool) -> str:
    b, s = f"b.{quoted(measure)}", f"s.{quoted(measure)}"
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
