"""Row by row: a view's table against its recomputation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from twofold.definition.model import View
from twofold.proof import sql
from twofold.proof.findings import MOST_OFFENDERS
from twofold.proof.world import World

RELATIVE = 1e-9
"""Doubles may differ by this much of their size: engines add in different orders."""
_CANCELLED = 1e-12
"""… and by this much of the measure's largest value, for what is left where large numbers cancel out."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Difference:
    """How many rows were compared, exempt and different; and the first that differ."""

    compared: int
    exempt: int
    different: int
    offenders: tuple[str, ...]


LONG_AGO_US = -(1 << 62)
"""Before every window."""


def compare(
    world: World, view: View, table: str, expected: str, exempt: str | None = None, after_us: int = LONG_AGO_US
) -> Difference:
    """Compare a view's table with the query `expected`, but for the windows and groups of the query `exempt`.

    Windows that start at or before `after_us` (microseconds since the epoch) are left out of the comparison.
    """
    by, keys = view.by, (sql.START, sql.END, *view.by)
    world.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _tw_expected AS FROM ({expected}) WHERE {sql.START} > {after_us}"
    )
    world.connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE _tw_actual AS SELECT epoch_us(window_start) AS {sql.START},
              epoch_us(window_end) AS {sql.END}, {sql.names([*by, *view.measures])} FROM {sql.quoted(table)}
            WHERE epoch_us(window_start) > {after_us}"""
    )
    nothing = f"SELECT {sql.names(keys)} FROM _tw_expected WHERE false"
    world.connection.execute(f"CREATE OR REPLACE TEMP TABLE _tw_exempt AS {exempt or nothing}")
    world.connection.execute(f"CREATE OR REPLACE TEMP TABLE _tw_joined AS {_joined(view, keys)}")
    wrong = " OR ".join([*(f"NOT {_same(world, name)}" for name in view.measures), _one_sided()])
    compared = world.number("SELECT count(*) FROM _tw_joined WHERE NOT _tw_is_exempt")
    exempted = world.number("SELECT count(*) FROM _tw_joined WHERE _tw_is_exempt")
    different = world.number(f"SELECT count(*) FROM _tw_joined WHERE NOT _tw_is_exempt AND ({wrong})")
    offenders = _offenders(world, view, table, wrong) if different else ()
    return Difference(compared, exempted, different, offenders)


def _joined(view: View, keys: tuple[str, ...]) -> str:
    """Every row of either side: its keys, both sides' measures, how often each side has it, whether it is exempt."""
    on = " AND ".join(f"_tw_a.{sql.quoted(key)} IS NOT DISTINCT FROM _tw_e.{sql.quoted(key)}" for key in keys)
    both = ", ".join(f"coalesce(_tw_a.{sql.quoted(key)}, _tw_e.{sql.quoted(key)}) AS {sql.quoted(key)}" for key in keys)
    measures = "".join(
        f", _tw_a.{sql.quoted(m)} AS {_side('a', m)}, _tw_e.{sql.quoted(m)} AS {_side('e', m)}" for m in view.measures
    )
    same = " AND ".join(f"_tw_joined.{sql.quoted(key)} IS NOT DISTINCT FROM _tw_x.{sql.quoted(key)}" for key in keys)
    return f"""SELECT *, EXISTS (SELECT 1 FROM _tw_exempt AS _tw_x WHERE {same}) AS _tw_is_exempt FROM (
  SELECT {both}{measures}, _tw_a._tw_times AS _tw_times_a, _tw_e._tw_times AS _tw_times_e
  FROM (SELECT *, count(*) OVER (PARTITION BY {sql.names(keys)}) AS _tw_times FROM _tw_actual) AS _tw_a
  FULL JOIN (SELECT *, 1 AS _tw_times FROM _tw_expected) AS _tw_e ON {on}) AS _tw_joined"""


def _one_sided() -> str:
    return "_tw_times_a IS DISTINCT FROM 1 OR _tw_times_e IS DISTINCT FROM 1"


def _side(side: str, measure: str) -> str:
    return sql.quoted(f"_tw_{side}_{measure}")


def _same(world: World, measure: str) -> str:
    """Whether both sides' values are equal; where either is a double, nearly."""
    actual, expected = _side("a", measure), _side("e", measure)
    types = world.row(f"SELECT any_value(typeof({actual})), any_value(typeof({expected})) FROM _tw_joined")
    equal = f"{actual} IS NOT DISTINCT FROM {expected}"
    if not {"DOUBLE", "FLOAT"} & set(types):
        return f"({equal})"
    a, e = f"{actual}::DOUBLE", f"{expected}::DOUBLE"
    largest = world.row(f"SELECT max(abs({e})) FILTER (isfinite({e})) FROM _tw_joined")[0] or 0.0
    near = f"abs({a} - {e}) <= {RELATIVE} * greatest(abs({a}), abs({e})) + {_CANCELLED * largest!r}"
    return f"({equal} OR coalesce(isfinite({a}) AND isfinite({e}) AND {near}, false))"


def _offenders(world: World, view: View, table: str, wrong: str) -> tuple[str, ...]:
    sides = [_side(side, measure) for measure in view.measures for side in ("a", "e")]
    rest = ", ".join([*(sql.quoted(column) for column in view.by), *sides])
    rows = world.rows(
        f"""SELECT {sql.START}, {sql.END}, _tw_times_a, _tw_times_e, {rest}
            FROM _tw_joined WHERE NOT _tw_is_exempt AND ({wrong}) ORDER BY ALL LIMIT {MOST_OFFENDERS}"""
    )
    return tuple(_described(view, table, row) for row in rows)


def _described(view: View, table: str, row: tuple[Any, ...]) -> str:
    start, end, actual_times, expected_times, *rest = row
    groups = "".join(f" {name}={value!r}" for name, value in zip(view.by, rest, strict=False))
    window = f"{table} [{_moment(start)}, {_moment(end)}){groups}"
    if actual_times is None:
        return f"{window}: missing"
    if expected_times is None:
        return f"{window}: nothing there to be counted"
    if actual_times != 1:
        return f"{window}: {actual_times} rows"
    pairs = zip(view.measures, rest[len(view.by) :: 2], rest[len(view.by) + 1 :: 2], strict=True)
    return f"{window}: " + ", ".join(f"{name} is {a}, recomputed {e}" for name, a, e in pairs if a != e)


def _moment(microseconds: int) -> str:
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")
