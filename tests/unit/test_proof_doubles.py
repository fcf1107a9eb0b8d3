"""How far doubles of a view may be from their recomputation: as far as another order of addition takes them."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

import duckdb
import pytest

from twofold.definition.expressions import check_measure
from twofold.definition.model import Measure, View
from twofold.definition.types import FieldType
from twofold.lake import Lake
from twofold.proof import recomputed, sql
from twofold.proof.sent import Sent
from twofold.proof.world import World

HOUR = timedelta(hours=1)
HOUR_US = HOUR // timedelta(microseconds=1)
FIELDS = {"x": FieldType("double"), "n": FieldType("int")}
ROWS: dict[int, list[float | None]] = {
    0: [1e15, 2.5],
    1: [40.0, 2.5],
    2: [1e15, 42.5, -1e15],
    3: [0.1, 0.2],
    4: [1e300, 1e300, float("inf")],
    5: [float("nan"), 1.0],
    6: [None],
}
"""Hour → values of x; one huge one must not loosen what is asked of other windows."""


def _measure(text: str) -> Measure:
    checked = check_measure(text, FIELDS, ())
    assert checked.expression is not None, checked.problems
    return checked.expression


@pytest.mark.parametrize(
    ("text", "hour", "value", "is_same"),
    [
        ("sum(x)", 1, "42.5", True),
        ("sum(x)", 1, "42.50000000000001", True),
        ("sum(x)", 1, "999.0", False),
        ("sum(x)", 1, "42.500001", False),
        ("sum(x)", 1, "NULL", False),
        ("sum(x)", 0, "1000000000000002.6", True),
        ("sum(x)", 2, "42.4375", True),
        ("sum(x)", 2, "0.0", True),
        ("sum(x)", 2, "10000.0", False),
        ("sum(x) - sum(x + 40.0)", 1, "-80.0", True),
        ("sum(x) - sum(x + 40.0)", 1, "-80.0000001", False),
        ("1000 * sum(x)", 2, "0.0", True),
        ("abs(sum(x))", 2, "0.0", True),
        ("sum(x) * sum(x)", 2, "1.5", True),
        ("greatest(sum(x), 0 - sum(x))", 2, "10000.0", False),
        ("avg(x)", 1, "21.25", True),
        ("avg(x)", 1, "21.250001", False),
        ("sum(x)", 4, "'inf'", True),
        ("sum(x)", 4, "1.0", False),
        ("sum(x)", 5, "'nan'", True),
        ("sum(x)", 5, "1.0", False),
        ("min(x)", 1, "2.5", True),
        ("min(x)", 1, "2.5000000000001", False),
        ("max(x)", 2, "1e15", True),
        ("max(x)", 2, "1000000000000001.0", False),
        ("max(x) * 1.1", 1, "44.0", True),
        ("max(x) * 1.1", 1, "44.00000000001", False),
        ("count_if(x > 3)", 1, "1", True),
        ("count_if(x > 3)", 1, "2", False),
        ("case when sum(x) > 0.3 then 1 else 0 end", 3, "0", True),
        ("case when sum(x) > 0.3 then 1 else 0 end", 3, "1", True),
        ("case when sum(x) > 0.3 then 1 else 0 end", 1, "0", False),
        ("case when sum(x) > 0.3 then 'much' else 'little' end", 3, "'little'", True),
        ("case when sum(x) > 0.3 then 'much' else 'little' end", 3, "'other'", False),
        ("case when sum(x) > 0.3 then 'much' end", 3, "NULL", True),
        ("case when sum(x) > 0.3 then 'much' end", 1, "NULL", False),
        ("sum(x)", 6, "NULL", True),
        ("sum(x)", 6, "0.0", False),
        ("sum(n)", 1, "7", True),
        ("sum(n)", 1, "8", False),
    ],
)
def test_a_value_is_as_near_as_its_own_window_asks(text: str, hour: int, value: str, is_same: bool) -> None:
    """One value of 1e15 anywhere in a view switched off the comparison of that measure in every window."""
    measure = _measure(text)
    view = View("v", HOUR, HOUR, (), {"it": measure})
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("CREATE TABLE t (moment TIMESTAMPTZ, x DOUBLE, n INT)")
    for at, xs in ROWS.items():
        connection.executemany(
            "INSERT INTO t VALUES (make_timestamptz(?), ?, ?)", [(at * HOUR_US, x, 3 + i) for i, x in enumerate(xs)]
        )
    folded = sql.folded("t", "moment", view)
    connection.execute(
        f"""CREATE TABLE v AS SELECT make_timestamptz({sql.START}) AS window_start,
        make_timestamptz({sql.END}) AS window_end,
        CASE WHEN {sql.START} = {hour * HOUR_US} THEN CAST({value} AS {measure.type.duckdb}) ELSE it END AS it
        FROM ({folded})"""
    )
    found = recomputed.compare(World(cast(Lake, None), connection, Sent("p", None), {}), view, "v", folded)
    assert (found.compared, found.different) == (len(ROWS), 0 if is_same else 1), found.offenders


def test_a_measure_that_streams_compute_wrongly_is_not_its_own_excuse() -> None:
    """What a value may be is made of the measure as a stream computes it."""
    right = _measure("sum(x)")
    wrong = Measure(right.duckdb, right.declared, right.type, right.parts, f"({right.after} + 1000)")
    view = View("v", HOUR, HOUR, (), {"it": wrong})
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("CREATE TABLE t AS SELECT make_timestamptz(0) AS moment, 42.5::DOUBLE AS x")
    connection.execute(
        f"CREATE TABLE v AS SELECT make_timestamptz(0) AS window_start, make_timestamptz({HOUR_US}) AS window_end, "
        "1042.5::DOUBLE AS it"
    )
    world = World(cast(Lake, None), connection, Sent("p", None), {})
    assert recomputed.compare(world, view, "v", sql.folded("t", "moment", view)).different == 1
