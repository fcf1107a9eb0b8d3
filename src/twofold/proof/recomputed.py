"""What is computed, against the proof's own computation: ids (I3), views (I5), union (I6), unified views (I8).

    stream_log, batch_log ─► union and dedup ─┬─► I6: `unified_events`
                                              └─► windows folded ─► I8: every `unified_<view>`

I5 folds every view table again with the declared measures, in DuckDB:

batch_<view>   from `events` as of the snapshot it was folded from: every row is compared
stream_<view>  its newest rows, from stream_log as of the snapshot it has read: windows holding a possibly late
               record, or an id whose duplicates disagree, are exempt, for there the stream may differ

A record may be late where all its windows had ended, longer ago than the lateness, by the records ingested before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from twofold import job_metrics, table_state, tables
from twofold.definition import fingerprint
from twofold.definition.model import Measure, Pipeline, View
from twofold.definition.types import NUMBERS
from twofold.proof import changes, sql
from twofold.proof.findings import Check, Findings
from twofold.proof.last_proof import LastProof
from twofold.proof.world import UNIFIED, TableAt, World
from twofold.reader.statements import unified_view_name
from twofold.table_state import Folded, History
from twofold.text import counted
from twofold.windows import EPOCH

_RELATIVE = 1e-9
"""Doubles that rest on sums may differ by this much of their size: engines add in different orders."""

LONG_AGO_US = -(1 << 62)
"""Before every window."""
_FIRST_WATERMARK_US = 0
"""Spark's watermark begins at the epoch: to the stream, what is older is late from the first batch on."""


def one_row_per_id(world: World) -> Check:
    """I3, and its precondition: rows of one id lie within `id_horizon` of event time."""
    found = Findings("I3")
    key, origin = sql.quoted(world.pipeline.event.key), sql.origin(world.pipeline.topic.name)
    shown = sql.shown(key)
    for name in (tables.EVENTS, UNIFIED):
        marked = f"SELECT {key}, hash({key}) IN ({sql.repeated(key, name)}) AS _tw_several FROM {name}"
        rows, ids = world.row(
            f"""SELECT count(*), count({key}) FILTER (NOT _tw_several) + count(DISTINCT {key}) FILTER (_tw_several)
                FROM ({marked}) AS _tw_marked"""
        )
        found.numbers[name] = {"rows": rows, "ids": ids}
        if rows == ids:
            found.say(f"{name} {counted(rows, 'row')} = {counted(ids, 'id')}")
            continue
        several = f"""SELECT {key},
                        concat('{name}: id ', {shown}, ' ', count(*), ' times, from ', string_agg({origin}, ', '))
                      FROM {name} GROUP BY {key} HAVING count(*) > 1 OR {key} IS NULL"""
        world.see_none(found, "id", f"more than once, or not at all, in {name}", several)
        found.say(f"{name} {ids:,} ids")
    _spread(world, found)
    return found.check()


def _spread(world: World, found: Findings) -> None:
    """Look-ups by id search only `id_horizon` around a row, so rows further apart would not find each other."""
    event, horizon = world.pipeline.event, world.pipeline.event.id_horizon
    time, scope = sql.quoted(event.time), world.scope
    logged = sql.contenders(world.pipeline, scope.stream_rows, scope.batch_rows)
    key, several = sql.quoted(event.key), _contended(world)
    first, last = (sql.moment(f"epoch_us({end}({time}))") for end in ("min", "max"))
    far = f"""SELECT {key}, concat('id ', {sql.shown(key)}, ': from ', {first}, ' to ', {last})
              FROM ({logged}) AS _tw_logged WHERE hash({key}) IN (SELECT _tw_hash FROM {several}) GROUP BY {key}
              HAVING epoch_us(max({time})) - epoch_us(min({time})) > {sql.microseconds(horizon)}"""
    found.numbers["ids_beyond_horizon"] = world.see_none(
        found,
        "id",
        f"with rows further apart than id_horizon ({horizon}): "
        "their duplicates cannot be found; raise event.id_horizon and `twofold rebuild`, or correct the ids",
        far,
    )


def equals_from_scratch(world: World) -> Check:
    """I6: the same rows, each as often, all columns, at the same snapshots of the logs."""
    found, key = Findings("I6"), sql.quoted(world.pipeline.event.key)
    columns, kept = sql.names(sql.union_columns(world.pipeline)), _kept(world)
    _make_scratch(world)
    there = world.number(f"SELECT count(*) FROM {UNIFIED}")
    made = world.number("SELECT count(*) FROM _tw_scratch")
    found.numbers |= {"unified_events": there, "from_scratch": made}
    unified, scratch = (f"(SELECT * FROM {name} WHERE {kept}) AS _tw_one" for name in (UNIFIED, "_tw_scratch"))
    world.connection.execute(f"CREATE OR REPLACE TEMP TABLE _tw_more AS {sql.more_often(columns, unified, scratch)}")
    for number, what, sign in (
        ("lost", "of the logs not in unified_events", -1),
        ("invented", "of unified_events not in the logs", 1),
    ):
        times = f"{sql.MORE} * {sign}"
        where = f"concat({sql.id_from(world.pipeline)}, ': {what}', {sql.if_several(times, 'times')})"
        rows = f"SELECT {key}, {where} FROM _tw_more WHERE {times} > 0"
        found.numbers[number] = world.see_none(found, "row", what, rows)
    found.say(f"unified_events {counted(there, 'row')}, made from scratch {counted(made, 'row')}")
    return found.check()


def unified_views_equal_folds(world: World) -> Check:
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
        difference.tell(found, name, "a fold of the union from scratch")
    return found.check()


def _contended(world: World) -> str:
    """Relation with the ids that have several rows that take part, made once: the others need no decision."""
    logged = sql.contenders(world.pipeline, world.scope.stream_rows, world.scope.batch_rows)
    query = sql.repeated(sql.quoted(world.pipeline.event.key), f"({logged}) AS _tw_logged")
    world.connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS _tw_contended AS {query}")
    return "_tw_contended"


def _make_scratch(world: World) -> None:
    scope = world.scope
    union = sql.from_scratch(world.pipeline, scope.stream_rows, scope.batch_rows, _contended(world))
    rows = f"FROM ({union}) WHERE {world.scope.part.rows}"
    world.connection.execute(f"CREATE TABLE IF NOT EXISTS _tw_scratch AS {rows}")


def _kept(world: World) -> str:
    """Leave out ids whose winning row retention has taken from stream_log: there is nothing to make them from.

    A row of a stream wins where the files have none of its id.
    """
    key = sql.quoted(world.pipeline.event.key)
    gone = sql.before({partition: low for partition, low in world.retained_from.items() if low})
    retained = f"SELECT {key} FROM {UNIFIED} WHERE {gone} AND {key} IS NOT NULL"
    of_files = f"SELECT {key} FROM {world.scope.batch_rows} WHERE outcome IN ('accepted', 'filtered')"
    world.connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS _tw_retained AS {retained} EXCEPT {of_files}")
    # A row without an id is of no union made from scratch: it is kept, and shows.
    return f"coalesce({key} NOT IN (FROM _tw_retained), true)"


@dataclass(frozen=True)
class ViewTable:
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


def views_equal_recomputations(world: World) -> Check:
    """I5: all views of both layers."""
    found = Findings("I5")
    for view in world.pipeline.views.values():
        union, stream = f"twofold union {world.pipeline.name}", f"twofold stream {world.pipeline.name}"
        _check(world, ViewTable(view, tables.batch_view_name(view), tables.EVENTS, union), found)
        _check(world, ViewTable(view, tables.stream_view_name(view), tables.STREAM_LOG, stream), found)
    return found.check()


def _check(world: World, side: ViewTable, found: Findings) -> None:
    pinned, log = world.pins[side.name], world.pins[side.log]
    state = table_state.folded(pinned.history)
    if pinned.table is None or state is None:
        # A crash between two commits leaves a view behind, and the next run fills it.
        if world.number(f"SELECT count(*) FROM {side.log}"):
            found.behind(f"{side.name} is not filled yet: `{side.job}`", _failure(world, side))
        else:
            found.say(f"{side.name} not there yet, nor any {side.log}")
    elif state.definition != fingerprint.view(world.pipeline, side.view):
        found.behind(f"{side.name} was computed by another declaration: `twofold rebuild {world.pipeline.name}`")
    elif not state.has_types(fingerprint.types(world.pipeline, side.view)):
        found.behind(f"{side.name} was computed with other types of its fields: `{side.job}`", _failure(world, side))
    elif state.snapshot is not None and state.snapshot not in log.history.snapshots:
        found.behind(
            f"{side.name} was computed from a snapshot of {side.log} that has expired: `{side.job}`",
            _failure(world, side),
        )
    else:
        _say_behind(world, side, state, found)
        if world.last and side.log == tables.STREAM_LOG:
            # Whether any other record was late, or the first of its id, depends on all that came before it.
            found.say(f"{side.name} is compared in full only, but for the windows of new ids")
            _find_new_windows(world, side, state, world.last, found)
            return
        _register(world, side, pinned)
        world.register(side.source, log.at(state.snapshot), world.scope.part)
        _compare_view(world, side, found)


def _failure(world: World, side: ViewTable) -> str:
    """How the last run of what brings a view up to date failed; a streaming job tells that itself."""
    return job_metrics.failure(world.lake, "union") if side.log == tables.EVENTS else ""


def _find_new_windows(world: World, side: ViewTable, state: Folded, last: LastProof, found: Findings) -> None:
    """See that windows are there which hold a row past the earlier boundary, certainly in time and of a new id."""
    pipeline, pinned, key = world.pipeline, world.pins[side.name], sql.quoted(world.pipeline.event.key)
    then = table_state.boundary(world.pins[tables.EVENTS].at(last.snapshots[tables.EVENTS]).history, pipeline.name)
    if then.seen is None and then.offsets:
        return  # no accepted row was united, so nobody knows how far time had come
    top = LONG_AGO_US if then.seen is None else (then.seen - EPOCH) // timedelta(microseconds=1)
    read = sql.before(read_up_to(world.pins[side.log].history, state, pipeline.name))
    certain = f"""(
  SELECT * FROM (
    SELECT *, greatest({top}, max({_seen(pipeline)}) OVER (ORDER BY landing)) AS _tw_top,
           count(*) OVER (PARTITION BY {key}) AS _tw_times
    FROM {tables.STREAM_LOG} WHERE outcome = '{tables.ACCEPTED}' AND {read}) AS _tw_new_rows
  WHERE {_seen(pipeline)} > greatest(_tw_top - {_behind_us(pipeline, side.view)}, {_FIRST_WATERMARK_US})
    AND _tw_times = 1 AND {key} NOT IN (SELECT {key} FROM _tw_met))"""
    world.register(side.name, pinned, changes.during("window_start", world.scope.ranges or ()))
    by = "".join(f", {sql.quoted(column)}" for column in side.view.by)
    missing = f"""SELECT {sql.START}, {sql.END}{by} FROM ({sql.in_windows(certain, pipeline.event.time, side.view)})
                  EXCEPT SELECT epoch_us(window_start), epoch_us(window_end){by} FROM {sql.quoted(side.name)}"""
    where = f"concat({sql.window(side.view, side.name)}, ': missing')"
    what = f"of {side.name} missing that new records are in"
    world.see_none(found, "row", what, f"SELECT *, {where} FROM ({missing}) AS _tw_missing")


def _register(world: World, side: ViewTable, pinned: TableAt) -> None:
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


def _say_behind(world: World, side: ViewTable, state: Folded, found: Findings) -> None:
    log = world.pins[side.log]
    if side.log == tables.EVENTS:
        touched = table_state.touched_since(log.history, state.snapshot)
        days = "unknown" if touched is None else len(touched)
        if days:
            found.behind(
                f"{side.name} has not caught up with events ({days} days touched): `{side.job}`", _failure(world, side)
            )
        return
    if (
        table_state.landed(log.at(state.snapshot).history, world.pipeline.name).relanded
        != world.landed(side.log).relanded
    ):
        found.behind(f"{side.name} has read rows that were judged again since: `{side.job}`")
    # Accepted rows only: the others do not concern a view.
    unread = f"outcome = 'accepted' AND NOT {sql.before(read_up_to(log.history, state, world.pipeline.name))}"
    if behind := world.number(f"SELECT count(*) FROM {tables.STREAM_LOG} WHERE {unread}"):
        found.behind(f"{side.name} has not read {counted(behind, 'record')} of stream_log: `{side.job}`")


def read_up_to(log: History, folded: Folded | None, pipeline: str) -> dict[int, int]:
    """Kafka offsets (exclusive) that a view of the speed layer has read from the log."""
    if folded is None or folded.snapshot is None:
        return {}
    return table_state.landed(History(log.snapshots, folded.snapshot), pipeline).offsets


def _compare_view(world: World, side: ViewTable, found: Findings) -> None:
    time = world.pipeline.event.time
    if side.log == tables.EVENTS:
        rows, exempt = f"(SELECT * FROM {side.source} WHERE NOT withdrawn)", None
    else:
        _find_repeated(world, side.source)
        rows, exempt = f"({_first_of_each_id(world, side.source)})", _exempt(world, side)
    after_us = _deleted_up_to_us(world, side)
    difference = compare(world, side.view, side.name, sql.folded(rows, time, side.view), exempt, after_us)
    difference.tell(found, side.name, "a recomputation")
    if after_us != LONG_AGO_US:
        found.say(f"{side.name}: windows that rows deleted by retention may have been in are left out")


def _deleted_up_to_us(world: World, side: ViewTable) -> int:
    """The latest event time that rows deleted by retention may have had, in microseconds since the epoch."""
    gone = [p for p, low in world.retained_from.items() if low]
    if side.log == tables.EVENTS or not gone:
        return LONG_AGO_US
    oldest = f"""SELECT min({tables.arrival(world.pipeline)}) AS _tw_oldest FROM {side.source}
                 WHERE kafka_partition IN ({", ".join(map(str, gone))})
                 GROUP BY kafka_partition HAVING min(kafka_offset) > 0"""
    latest = world.row(f"SELECT epoch_us(max(_tw_oldest)) FROM ({oldest}) AS _tw_partitions")[0]
    return LONG_AGO_US if latest is None else int(latest) + sql.microseconds(world.pipeline.event.max_future)


def _find_repeated(world: World, source: str) -> None:
    """Make _tw_repeated, of the ids that have several accepted rows."""
    query = sql.repeated(sql.quoted(world.pipeline.event.key), f"{source} WHERE outcome = 'accepted'")
    world.connection.execute(f"CREATE OR REPLACE TEMP TABLE _tw_repeated AS {query}")


def _first_of_each_id(world: World, source: str) -> str:
    """Accepted rows, the earliest of each id; only those of _tw_repeated have more than one."""
    key = sql.quoted(world.pipeline.event.key)
    is_repeated = f"hash({key}) IN (SELECT _tw_hash FROM _tw_repeated)"
    some = f"(SELECT * FROM {source} WHERE outcome = 'accepted' AND {is_repeated})"
    return f"""SELECT * FROM {source} WHERE outcome = 'accepted' AND NOT {is_repeated}
UNION ALL
SELECT _tw_log.* FROM {some} AS _tw_log
JOIN ({sql.best_of_stream(some, world.pipeline)}) AS _tw_earliest
  ON _tw_log.{key} = _tw_earliest._tw_id
  AND {sql.rank(world.pipeline, sql.FROM_KAFKA, "_tw_log.")} = _tw_earliest._tw_best"""


def _exempt(world: World, side: ViewTable) -> str:
    """Windows and groups that hold a possibly late record, or an id whose duplicates disagree."""
    key = sql.quoted(world.pipeline.event.key)
    behind, seen = _behind_us(world.pipeline, side.view), _seen(world.pipeline)
    accepted = f"(SELECT * FROM {side.source} WHERE outcome = 'accepted')"
    columns = sql.struct(world.pipeline.columns)
    # The watermark that a record meets comes from micro-batches before its own, so from landings before its own:
    # except a landing that the limit of a micro-batch may have split.
    doubtful = f"""(
  WITH _tw_landings AS (
         SELECT landing, count(*) AS _tw_size, max({seen}) FILTER (outcome = 'accepted') AS _tw_latest
         FROM {side.source} GROUP BY landing),
       _tw_tops AS (
         SELECT landing, CASE WHEN sum(_tw_size) OVER _tw_up_to > {tables.VIEW_ROWS_PER_BATCH}
                         THEN max(_tw_latest) OVER _tw_up_to ELSE max(_tw_latest) OVER _tw_before END AS _tw_top
         FROM _tw_landings WINDOW _tw_up_to AS (ORDER BY landing ROWS UNBOUNDED PRECEDING),
           _tw_before AS (ORDER BY landing ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),
       _tw_disagreeing AS (SELECT {key} AS _tw_id FROM {accepted}
                       WHERE hash({key}) IN (SELECT _tw_hash FROM _tw_repeated)
                       GROUP BY {key} HAVING count(DISTINCT {columns}) > 1)
  SELECT _tw_log.* FROM {accepted} AS _tw_log JOIN _tw_tops USING (landing)
  WHERE {seen} <= greatest(_tw_tops._tw_top - {behind}, {_FIRST_WATERMARK_US})
     OR _tw_log.{key} IN (SELECT _tw_id FROM _tw_disagreeing))"""
    by = "".join(f", {sql.quoted(column)}" for column in side.view.by)
    windows = sql.in_windows(doubtful, world.pipeline.event.time, side.view)
    return f"SELECT DISTINCT {sql.START}, {sql.END}{by} FROM ({windows}) AS _tw_doubtful"


def _behind_us(pipeline: Pipeline, view: View) -> int:
    return sql.microseconds(pipeline.lateness) + sql.microseconds(view.window)


def _seen(pipeline: Pipeline) -> str:
    """How far time has come by a record: no further than its arrival."""
    return f"least(epoch_us({sql.quoted(pipeline.event.time)}), epoch_us({tables.arrival(pipeline)}))"


@dataclass(frozen=True)
class FoldDifference:
    """How many rows were compared, exempt and different; and the first that differ."""

    compared: int
    exempt: int
    different: int
    offenders: tuple[str, ...]

    def tell(self, found: Findings, name: str, other: str) -> None:
        """Say of a view what it was compared with, and how they differ."""
        found.numbers[name] = {"compared": self.compared, "exempt": self.exempt, "different": self.different}
        if self.different:
            found.violated(f"{counted(self.different, 'row')} of {name} differ from {other}", self.offenders)
        why = f" ({self.exempt:,} exempt: late records, disagreeing duplicates)" if self.exempt else ""
        found.say(f"{name} {counted(self.compared, 'row')} compared{why}")


def compare(
    world: World, view: View, table: str, expected: str, exempt: str | None = None, after_us: int = LONG_AGO_US
) -> FoldDifference:
    """Compare a view's table with the query `expected`, but for the windows and groups of the query `exempt`.

    Windows that start at or before `after_us` (microseconds since the epoch) are left out of the comparison.
    """
    by, keys = view.by, (sql.START, sql.END, *view.by)
    rest = sql.names([*by, *view.measures])
    # What has no window is of none that was left out.
    within = f"WHERE coalesce({sql.START} > {after_us} AND {world.scope.windows}, true)"
    world.connection.execute(f"CREATE OR REPLACE TEMP TABLE _tw_expected AS FROM ({expected}) {within}")
    world.connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE _tw_actual AS FROM (SELECT epoch_us(window_start) AS {sql.START},
              epoch_us(window_end) AS {sql.END}, {rest} FROM {sql.quoted(table)}) {within}"""
    )
    left_out = exempt or f"SELECT {sql.names(keys)} FROM _tw_expected WHERE false"
    world.connection.execute(f"CREATE OR REPLACE TEMP TABLE _tw_exempt AS {left_out}")
    world.connection.execute(f"CREATE OR REPLACE TEMP TABLE _tw_joined AS {_joined(view, keys)}")
    one_sided = "_tw_times_a IS DISTINCT FROM 1 OR _tw_times_e IS DISTINCT FROM 1"
    unlike = {name: f"NOT {_same(name, measure)}" for name, measure in view.measures.items()}
    wrong = " OR ".join([*unlike.values(), one_sided])
    compared, exempted, different = world.row(
        f"""SELECT count(*) FILTER (NOT _tw_is_exempt), count(*) FILTER (_tw_is_exempt),
              count(*) FILTER (NOT _tw_is_exempt AND ({wrong})) FROM _tw_joined"""
    )
    differing = ", ".join(
        f"CASE WHEN {is_unlike} THEN concat({sql.literal(name)}, ' is ', {actual}, ', recomputed ', {wanted}) END"
        for name, is_unlike in unlike.items()
        for actual, wanted in [(sql.shown(_side("a", name), ""), sql.shown(_side("e", name), ""))]
    )
    where = f"""concat({sql.window(view, table)}, ': ', CASE WHEN _tw_times_a IS NULL THEN 'missing'
      WHEN _tw_times_e IS NULL THEN 'nothing there to be counted' WHEN _tw_times_a <> 1 THEN _tw_times_a || ' rows'
      ELSE concat_ws(', ', {differing}) END)"""
    offenders = f"SELECT {sql.names(keys)}, {where} FROM _tw_joined WHERE NOT _tw_is_exempt AND ({wrong})"
    return FoldDifference(compared, exempted, different, tuple(world.first(offenders)) if different else ())


def _joined(view: View, keys: tuple[str, ...]) -> str:
    """Every row of either side: its keys, both sides' measures, how often each side has it, whether it is exempt."""
    on = " AND ".join(f"_tw_a.{sql.quoted(key)} IS NOT DISTINCT FROM _tw_e.{sql.quoted(key)}" for key in keys)
    both = ", ".join(f"coalesce(_tw_a.{sql.quoted(key)}, _tw_e.{sql.quoted(key)}) AS {sql.quoted(key)}" for key in keys)
    measures = "".join(
        f", _tw_a.{sql.quoted(m)} AS {_side('a', m)}, _tw_e.{sql.quoted(m)} AS {_side('e', m)}" for m in view.measures
    )
    near = "".join(f", _tw_e.{sql.quoted(sql.near(m))}" for m, measure in view.measures.items() if sql.summed(measure))
    same = " AND ".join(f"_tw_joined.{sql.quoted(key)} IS NOT DISTINCT FROM _tw_x.{sql.quoted(key)}" for key in keys)
    return f"""SELECT *, EXISTS (SELECT 1 FROM _tw_exempt AS _tw_x WHERE {same}) AS _tw_is_exempt FROM (
  SELECT {both}{measures}{near}, _tw_a._tw_times AS _tw_times_a, _tw_e._tw_times AS _tw_times_e
  FROM (SELECT *, count(*) OVER (PARTITION BY {sql.names(keys)}) AS _tw_times FROM _tw_actual) AS _tw_a
  FULL JOIN (SELECT *, 1 AS _tw_times FROM _tw_expected) AS _tw_e ON {on}) AS _tw_joined"""


def _side(side: str, measure: str) -> str:
    return sql.quoted(f"_tw_{side}_{measure}")


def _same(name: str, measure: Measure) -> str:
    """Whether both sides' values are equal; where a measure rests on sums of doubles, as near as these can be.

    What is left where large numbers cancel out, and what is decided by a sum, may be what it is with that sum a little
    different; by how much, the magnitudes of the window's own events say.
    """
    actual, expected = _side("a", name), _side("e", name)
    equal = f"{actual} IS NOT DISTINCT FROM {expected}"
    if not sql.summed(measure):
        return f"({equal})"
    near = sql.quoted(sql.near(name))
    # The list is made of the measure as a stream computes it, so it counts for nothing where that is something else.
    nearby = f"CASE WHEN {near}[1] IS NOT DISTINCT FROM {expected} THEN {near} ELSE [{expected}] END"
    same = f"len(list_filter({nearby}, lambda _tw_one: _tw_one IS NOT DISTINCT FROM {actual})) > 0"
    if measure.type.name not in NUMBERS:
        return f"({same})"
    finite = f"list_filter({nearby}, lambda _tw_one: isfinite(_tw_one::DOUBLE))"
    room = f"{_RELATIVE} * greatest(abs({actual}), abs({expected}))" if measure.type.name == "double" else "0"
    between = f"{actual} BETWEEN list_min({finite}) - {room} AND list_max({finite}) + {room}"
    return f"({same} OR coalesce(isfinite({actual}::DOUBLE) AND {between}, false))"
