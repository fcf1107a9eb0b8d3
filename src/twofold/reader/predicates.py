"""Iceberg predicates, by which files are left out before they are opened.

pyiceberg's predicates are models whose constructors take other arguments than their type annotations say; this is
the one place that works around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from itertools import pairwise
from typing import Any

from pyiceberg import expressions
from pyiceberg.expressions import AlwaysFalse, AlwaysTrue, BooleanExpression

EVERYTHING: BooleanExpression = AlwaysTrue()
NOTHING: BooleanExpression = AlwaysFalse()

_COMPARISONS: dict[str, Any] = {
    "=": expressions.EqualTo,
    ">": expressions.GreaterThan,
    ">=": expressions.GreaterThanOrEqual,
    "<": expressions.LessThan,
    "<=": expressions.LessThanOrEqual,
    "in": expressions.In,
}
_AND: Any = expressions.And
_OR: Any = expressions.Or


def compared(column: str, operator: str, value: object) -> BooleanExpression:
    """`column operator value`; moments and days are ISO texts.

    >>> compared("n", ">=", 1)
    GreaterThanOrEqual(term=Reference(name='n'), literal=LongLiteral(1))
    """
    result: BooleanExpression = _COMPARISONS[operator](column, value)
    return result


def all_of(conditions: Iterable[BooleanExpression]) -> BooleanExpression:
    """And over any number of conditions."""
    return reduce(_AND, conditions, EVERYTHING)


def any_of(conditions: Iterable[BooleanExpression]) -> BooleanExpression:
    """Or over any number of conditions."""
    return reduce(_OR, conditions, NOTHING)


def past_offsets(offsets: dict[int, int]) -> BooleanExpression:
    """Stream rows at or past these offsets, or of a partition not named.

    Written as ranges of partitions, since NOT IN would leave no file out.
    """
    if not offsets:
        return EVERYTHING
    past = [
        all_of([compared("kafka_partition", "=", partition), compared("kafka_offset", ">=", offset)])
        for partition, offset in offsets.items()
    ]
    edges = [-1, *sorted(offsets)]
    gaps = [
        all_of([compared("kafka_partition", ">", low), compared("kafka_partition", "<", high)])
        for low, high in pairwise(edges)
        if high - low > 1
    ]
    return any_of([*past, *gaps, compared("kafka_partition", ">", edges[-1])])
