"""What a Kafka topic must be like for exact counts, and what one is like: no broker is asked here (`twofold.kafka`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from twofold.definition.model import KEEPS_ALL, REQUIRED_SETTINGS, Pipeline, Topic
from twofold.errors import TwofoldError

_Thing = TypeVar("_Thing")
Range = tuple[int, int]
"""Offsets from the first up to, not including, the second."""


@dataclass(frozen=True)
class Filled:
    """Which of the offsets of a partition that were asked for hold a committed record."""

    begin: int
    """Below it Kafka has deleted what it had."""
    end: int
    """The last stable offset: from it on nothing is committed yet."""
    records: tuple[Range, ...]
    """Within what was asked for, from `begin` to `end`, in order."""


@dataclass(frozen=True)
class TopicState:
    """A topic as the broker describes it."""

    name: str
    topic_id: str
    """Kafka's own id, as Kafka prints it; a topic deleted and recreated has another one."""
    partitions: dict[int, tuple[int, int]]
    """Partition → (first offset still there, end offset)."""
    settings: dict[str, str | None]
    """Every effective setting."""
    stable_ends: dict[int, int] = field(default_factory=dict)
    """Partition → end of what a reader of committed records gets: lower than the end while a transaction is open."""
    drift: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What differs from the declaration: name → (declared, actual). Only `ensure` fills it."""

    @property
    def ends(self) -> dict[int, int]:
        """Partition → end offset, exclusive."""
        return {partition: end for partition, (_, end) in self.partitions.items()}


def configs(topic: Topic) -> dict[str, str]:
    """The settings that the topic is made with."""
    return {**topic.settings, **REQUIRED_SETTINGS}


def drift(topic: Topic, partitions: int, settings: Mapping[str, str | None]) -> dict[str, tuple[str, str]]:
    """The differences of an existing topic from its declaration: name → (declared, actual).

    >>> from twofold.definition.model import Topic
    >>> actual = {"retention.ms": "5", "cleanup.policy": "delete", "message.timestamp.type": "CreateTime"}
    >>> drift(Topic("t", 2, settings={"retention.ms": "5"}), 3, actual)
    {'partitions': ('2', '3'), 'message.timestamp.type': ('LogAppendTime', 'CreateTime')}
    >>> drift(Topic("t", managed=False), 3, {**actual, "cleanup.policy": "compact"})
    {'cleanup.policy': ('delete', 'compact')}
    """
    declared = {"partitions": str(topic.partitions), **configs(topic)} if topic.managed else KEEPS_ALL
    actual = {"partitions": str(partitions), **settings}
    return {name: (value, str(actual.get(name))) for name, value in declared.items() if str(actual.get(name)) != value}


def inexact(drift: Mapping[str, tuple[str, str]]) -> str:
    """The part of a topic's drift that makes exact counts impossible, as a clause; empty where there is none.

    >>> inexact({"partitions": ("2", "3"), "cleanup.policy": ("delete", "compact")})
    'cleanup.policy is compact, not delete'
    """
    broken = {name: drift[name] for name in REQUIRED_SETTINGS if name in drift}
    return " and ".join(f"{name} is {actual}, not {declared}" for name, (declared, actual) in broken.items())


def refusal(pipeline: str, topic: Topic, drift: Mapping[str, tuple[str, str]]) -> TwofoldError | None:
    """Why a topic that is there cannot be counted exactly, and the remedy; None where it can."""
    fault = inexact(drift)
    if not fault:
        return None
    remedy = f"`twofold topic {pipeline} --repair` sets it; records that are there already keep their time stamps"
    if not topic.managed:
        remedy = "Kafka may drop records before they land: have its owner set it, or read a topic that keeps them all"
    return TwofoldError(f"topic {topic.name} is there already, and cannot be counted exactly: {fault}", remedy)


def require_exact(pipeline: Pipeline, state: TopicState) -> None:
    """TwofoldError, with the remedy, where `ensure` found a topic that cannot be counted exactly."""
    if refused := refusal(pipeline.name, pipeline.topic, state.drift):
        raise refused


def require_managed(topic: Topic, what: str) -> None:
    """TwofoldError where `what` would be done to a topic of somebody else."""
    if not topic.managed:
        raise TwofoldError(
            f"topic {topic.name} belongs to somebody else (`managed: false`), and {what}",
            "ask its owner, or declare a topic of your own",
        )


def not_there(topic: Topic | str) -> TwofoldError:
    """The message where the topic, declared or known by its name alone, does not exist."""
    if isinstance(topic, str):
        return TwofoldError(f"there is no topic {topic}", "correct its name, or start again once it is there")
    makes = "the first job that needs it makes it, as declared"
    if not topic.managed:
        makes = "its owner makes it (`managed: false`): correct `topic.name`, or start again once it is there"
    return TwofoldError(f"there is no topic {topic.name}", makes)


def place(name: str, partition: int, span: Range) -> str:
    """Where offsets of a topic lie.

    >>> place("flights", 0, (3, 4)), place("flights", 0, (3, 9))
    ('flights[0]@3', 'flights[0]@3–8')
    """
    low, high = span
    return f"{name}[{partition}]@{low}{'' if high == low + 1 else f'–{high - 1}'}"


def merged(ranges: Iterable[Range], near: int) -> list[Range]:
    """Ranges with those that lie near each other made one.

    >>> merged([(1, 2), (4, 5), (20, 30)], 3)
    [(1, 5), (20, 30)]
    >>> merged([(1, 9), (2, 3)], 0)
    [(1, 9)]
    >>> merged([], 3)
    []
    """
    found: list[Range] = []
    for low, high in ranges:
        if found and low - found[-1][1] <= near:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def cut(ranges: Iterable[Range], low: int, high: int) -> list[Range]:
    """What lies from `low` up to `high`.

    >>> cut([(1, 3), (5, 9)], 2, 5)
    [(2, 3)]
    """
    within = ((max(low, start), min(high, end)) for start, end in ranges)
    return [(start, end) for start, end in within if start < end]


def within(found: Iterable[_Thing], ranges: Sequence[Range], offset_of: Callable[[_Thing], int]) -> Iterator[_Thing]:
    """Those of the things, whose offsets ascend, that lie in one of the ranges, which are in order.

    >>> list(within([1, 2, 3, 7, 9, 12, 13], [(2, 4), (9, 10)], lambda offset: offset))
    [2, 3, 9]
    """
    left = iter(ranges)
    low, high = 0, 0
    for one in found:
        offset = offset_of(one)
        while high <= offset:
            low, high = next(left, (sys.maxsize, sys.maxsize))
        if low <= offset:
            yield one


def joined(offsets: Iterable[int]) -> list[Range]:
    """Ascending offsets as ranges.

    >>> joined([2, 3, 4, 9])
    [(2, 5), (9, 10)]
    """
    return merged(((offset, offset + 1) for offset in offsets), near=0)
