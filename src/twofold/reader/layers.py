"""SQL that sets the two layers of one view side by side, in DuckDB's dialect.

batch_<view> ─┐ full join on window and group, of the windows the stream reached ─► difference of each row, 0 to 1
stream_<view> ┘
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from twofold.definition.model import Pipeline, View
from twofold.text import quoted
from twofold.windows import EPOCH

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


@dataclass(frozen=True)
class Read:
    """In which micro-batches a view's query read the log: by the number of the last landing in each."""

    ends: tuple[int, ...] = ()
    known_after: int = 0
    """Of landings up to this one nothing is known: each counts as a micro-batch, which can only find more rows late."""


def came_late(pipeline: Pipeline, view: View, log: str, since: str, top: datetime | None, read: Read) -> str:
    """Query of the places (partition, offset) of the accepted rows of `log` past `since` that came too late for a view.

    As Spark counts, in milliseconds: a row is dropped at the watermark that the micro-batches before its own have left,
    which is behind by the lateness and a window, so that no row is late that has an open window. `top` is how far
    time had come before them all: no record says more of it than its own arrival does.
    """
    seen = f"least(epoch_us({quoted(pipeline.event.time)}), epoch_us(kafka_timestamp))"
    behind_ms = (pipeline.lateness + view.window) // timedelta(milliseconds=1)
    before = "NULL" if top is None else str((top - EPOCH) // timedelta(microseconds=1))
    ends = ", ".join(f"({end})" for end in read.ends) or "(NULL::BIGINT)"
    return f"""WITH _tw_tail AS (SELECT *, {seen} AS _tw_seen FROM {log} WHERE outcome = 'accepted' AND ({since})),
  _tw_batches AS (SELECT landing, coalesce(min(_tw_end), landing) AS _tw_batch
    FROM (SELECT DISTINCT landing FROM _tw_tail) AS _tw_landings
    LEFT JOIN (VALUES {ends}) AS _tw_read(_tw_end) ON _tw_end >= landing AND landing > {read.known_after}
    GROUP BY landing),
  _tw_rows AS (SELECT * FROM _tw_tail JOIN _tw_batches USING (landing)),
  _tw_latest AS (SELECT _tw_batch, max(_tw_seen) AS _tw_last FROM _tw_rows GROUP BY _tw_batch),
  _tw_tops AS (SELECT _tw_batch, greatest({before}, max(_tw_last) OVER _tw_earlier) AS _tw_top FROM _tw_latest
    WINDOW _tw_earlier AS (ORDER BY _tw_batch ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
SELECT kafka_partition, kafka_offset FROM _tw_rows JOIN _tw_tops USING (_tw_batch)
WHERE _tw_seen <= greatest(_tw_top // 1000 - {behind_ms}, 0) * 1000"""


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
