"""I5: every view table against its recomputation with the declared measures, in DuckDB.

batch_<view>   from `events` as of the snapshot it was folded from: every row is compared
stream_<view>  its newest rows, from stream_log as of the snapshot it has read: windows holding a possibly late
               record, or an id whose duplicates disagree, are exempt, for there the stream may differ

A record may be late where all its windows had ended, longer ago than the lateness, by what was landed before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from twofold import table_state, tables
from twofold.definition import fingerprint
from twofold.definition.model import View
from twofold.proof import sql
from twofold.proof.differences import LONG_AGO_US, Difference, compare
from twofold.proof.report import Check, Findings, counted
from twofold.proof.waiting import read_up_to
from twofold.proof.world import Pinned, World
from twofold.table_state import Folded

_FIRST_WATERMARK_US = 0
"""Spark's watermark begins at the epoch: to the stream, what is older is late from the first batch on."""


@dataclass(frozen=True)
class Side:
    """One view in one layer."""

    view: View
    name: str
    log: str
    """The table it is computed from."""
    job: str
    """What brings it up to date."""

    @property
    def source(self) -> str:
        """DuckDB's name of the log's rows as of the snapshot that the view has read."""
        return f"_tw_source_of_{self.name}"


def equal_recomputations(world: World) -> Check:
    """I5: all views of both layers."""
    found = Findings("I5")
    for view in world.pipeline.views.values():
        union, stream = f"twofold union {world.pipeline.name}", f"twofold stream {world.pipeline.name}"
        _check(world, Side(view, tables.batch_view_name(view), tables.EVENTS, union), found)
        _check(world, Side(view, tables.stream_view_name(view), tables.STREAM_LOG, stream), found)
    return found.check()


def _check(world: World, side: Side, found: Findings) -> None:
    pinned, log = world.pins[side.name], world.pins[side.log]
    state = table_state.folded(pinned.history)
    if pinned.table is None or state is None:
        _absent(world, side, found)
    elif state.definition != fingerprint.view(world.pipeline, side.view):
        found.behind(f"{side.name} was computed by another declaration: `twofold rebuild {world.pipeline.name}`")
    elif state.snapshot is not None and state.snapshot not in log.history.snapshots:
        found.behind(f"{side.name} was computed from a snapshot of {side.log} that has expired: `{side.job}`")
    else:
        _say_behind(world, side, state, found)
        _register(world, side, pinned)
        world.register(side.source, log.at(state.snapshot))
        _compare(world, side, found)


def _register(world: World, side: Side, pinned: Pinned) -> None:
    """Give the view's rows its name: of a stream's those in force, each key's with the highest version."""
    known = pinned.table.schema().column_names if pinned.table else ()
    if side.log == tables.EVENTS or tables.VERSION not in known:
        world.register(side.name, pinned)
        return
    versions, version = f"_tw_versions_of_{side.name}", sql.quoted(tables.VERSION)
    world.register(versions, pinned)
    keys = sql.names(tables.view_keys(side.view))
    # Equal rows of one version are one: a batch that was done twice.
    world.connection.execute(
        f"""CREATE OR REPLACE TEMP VIEW {sql.quoted(side.name)} AS
            SELECT DISTINCT * FROM (SELECT *, coalesce({version}, -1) AS _tw_at FROM {sql.quoted(versions)}) AS _tw_all
            QUALIFY _tw_at = max(_tw_at) OVER (PARTITION BY {keys})"""
    )


def _absent(world: World, side: Side, found: Findings) -> None:
    """A view that was never computed; a crash between two commits leaves one behind, and the next run heals it."""
    holds_rows = world.number(f"SELECT count(*) FROM {side.log}") > 0
    if holds_rows:
        found.behind(f"{side.name} is not filled yet: `{side.job}`")
    else:
        found.say(f"{side.name} not there yet, nor any {side.log}")


def _say_behind(world: World, side: Side, state: Folded, found: Findings) -> None:
    log = world.pins[side.log]
    if side.log == tables.EVENTS:
        touched = table_state.touched_since(log.history, state.snapshot)
        days = "unknown" if touched is None else len(touched)
        if days:
            found.behind(f"{side.name} has not caught up with events ({days} days touched): `{side.job}`")
    elif behind := _unread(world, log, state):
        found.behind(f"{side.name} has not read {counted(behind, 'record')} of stream_log: `{side.job}`")


def _unread(world: World, log: Pinned, state: Folded) -> int:
    """Accepted rows of stream_log that the view has not read; the others do not concern it."""
    read = read_up_to(log.history, state, world.pipeline.name)
    past = " OR ".join(f"(kafka_partition = {p} AND kafka_offset < {end})" for p, end in read.items())
    return world.number(
        f"SELECT count(*) FROM {tables.STREAM_LOG} WHERE outcome = 'accepted' AND NOT ({past or 'false'})"
    )


def _compare(world: World, side: Side, found: Findings) -> None:
    time = world.pipeline.event.time
    if side.log == tables.EVENTS:
        rows, exempt = f"(SELECT * FROM {side.source} WHERE NOT withdrawn)", None
    else:
        rows, exempt = f"({_first_of_each_id(world, side.source)})", _exempt(world, side)
    after_us = _deleted_up_to_us(world, side)
    difference = compare(world, side.view, side.name, sql.folded(rows, time, side.view), exempt, after_us)
    _report(side, difference, found)
    if after_us != LONG_AGO_US:
        found.say(f"{side.name}: windows that rows deleted by retention may have been in are left out")


def _report(side: Side, difference: Difference, found: Findings) -> None:
    found.numbers[side.name] = {
        "compared": difference.compared,
        "exempt": difference.exempt,
        "different": difference.different,
    }
    if difference.different:
        found.violated(
            f"{counted(difference.different, 'row')} of {side.name} differ from a recomputation", difference.offenders
        )
    exempt = f" ({difference.exempt:,} exempt: late records, disagreeing duplicates)" if difference.exempt else ""
    found.say(f"{side.name} {counted(difference.compared, 'row')} compared{exempt}")


def _deleted_up_to_us(world: World, side: Side) -> int:
    """The latest event time that rows deleted by retention may have had, in microseconds since the epoch."""
    gone = [p for p, low in world.retained_from.items() if low]
    if side.log == tables.EVENTS or not gone:
        return LONG_AGO_US
    oldest = f"""SELECT min(kafka_timestamp) AS _tw_oldest FROM {side.source}
                 WHERE kafka_partition IN ({", ".join(map(str, gone))})
                 GROUP BY kafka_partition HAVING min(kafka_offset) > 0"""
    latest = world.row(f"SELECT epoch_us(max(_tw_oldest)) FROM ({oldest}) AS _tw_partitions")[0]
    return LONG_AGO_US if latest is None else int(latest) + sql.microseconds(world.pipeline.event.max_future)


def _first_of_each_id(world: World, source: str) -> str:
    """Accepted rows, the earliest of each id."""
    key = sql.quoted(world.pipeline.event.id)
    return f"""SELECT _tw_log.* FROM {source} AS _tw_log
JOIN ({sql.best_of_stream(source, world.pipeline.event.id)}) AS _tw_earliest
  ON _tw_log.{key} = _tw_earliest._tw_id
  AND {sql.struct(sql.FROM_KAFKA, "_tw_log.")} = _tw_earliest._tw_best
WHERE _tw_log.outcome = 'accepted'"""


def _exempt(world: World, side: Side) -> str:
    """Windows and groups that hold a possibly late record, or an id whose duplicates disagree."""
    key, time = sql.quoted(world.pipeline.event.id), sql.quoted(world.pipeline.event.time)
    behind = sql.microseconds(world.pipeline.lateness) + sql.microseconds(side.view.window)
    # What a record says of how far time has come: no more than its arrival does.
    seen = f"least(epoch_us({time}), epoch_us(kafka_timestamp))"
    accepted = f"(SELECT * FROM {side.source} WHERE outcome = 'accepted')"
    columns = sql.struct(world.pipeline.columns)
    # The watermark that a record meets comes from micro-batches before its own, so from landings before its own:
    # but for a landing that the limit of a micro-batch may have split.
    doubtful = f"""(
  WITH _tw_landings AS (
         SELECT landing, count(*) AS _tw_size, max({seen}) FILTER (outcome = 'accepted') AS _tw_latest
         FROM {side.source} GROUP BY landing),
       _tw_tops AS (
         SELECT landing, CASE WHEN sum(_tw_size) OVER _tw_up_to > {tables.VIEW_ROWS_PER_BATCH}
                         THEN max(_tw_latest) OVER _tw_up_to ELSE max(_tw_latest) OVER _tw_before END AS _tw_top
         FROM _tw_landings WINDOW _tw_up_to AS (ORDER BY landing ROWS UNBOUNDED PRECEDING),
           _tw_before AS (ORDER BY landing ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),
       _tw_repeated AS (SELECT {key} AS _tw_id FROM {accepted} GROUP BY {key} HAVING count(*) > 1),
       _tw_disagreeing AS (SELECT {key} AS _tw_id FROM {accepted} WHERE {key} IN (SELECT _tw_id FROM _tw_repeated)
                       GROUP BY {key} HAVING count(DISTINCT {columns}) > 1)
  SELECT _tw_log.* FROM {accepted} AS _tw_log JOIN _tw_tops USING (landing)
  WHERE {seen} <= greatest(_tw_tops._tw_top - {behind}, {_FIRST_WATERMARK_US})
     OR _tw_log.{key} IN (SELECT _tw_id FROM _tw_disagreeing))"""
    by = "".join(f", {sql.quoted(column)}" for column in side.view.by)
    windows = sql.in_windows(doubtful, world.pipeline.event.time, side.view)
    return f"SELECT DISTINCT {sql.START}, {sql.END}{by} FROM ({windows}) AS _tw_doubtful"
