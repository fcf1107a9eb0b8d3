"""What a Kafka topic must be like for exact counts, and what one is like: no broker is asked here (`twofold.kafka`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twofold.errors import TwofoldError

if TYPE_CHECKING:
    from twofold.definition.model import Topic

REQUIRED_SETTINGS = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
"""Always so. Outcomes are judged by the time of arrival, so that a replay judges alike; and what Kafka compacts away
before it was ingested is lost without a trace."""


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
    """Kafka's own id, as Kafka prints it; a topic deleted and made again has another one."""
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
    """
    declared = {"partitions": str(topic.partitions), **configs(topic)}
    actual = {"partitions": str(partitions), **settings}
    return {name: (value, str(actual.get(name))) for name, value in declared.items() if str(actual.get(name)) != value}


def inexact(drift: Mapping[str, tuple[str, str]]) -> str:
    """The part of a topic's drift that makes exact counts impossible, as a clause; empty where there is none.

    >>> inexact({"partitions": ("2", "3"), "cleanup.policy": ("delete", "compact")})
    'cleanup.policy is compact, not delete'
    """
    broken = {name: drift[name] for name in REQUIRED_SETTINGS if name in drift}
    return " and ".join(f"{name} is {actual}, not {declared}" for name, (declared, actual) in broken.items())


def repair_command(pipeline: str) -> str:
    """What gives the topic of a pipeline the settings that exactness needs."""
    return f"twofold topic {pipeline} --repair"


def require_exact(pipeline: str, state: TopicState) -> None:
    """TwofoldError, with the command that fixes it, where `ensure` found a topic that cannot be counted exactly."""
    if fault := inexact(state.drift):
        raise TwofoldError(
            f"topic {state.name} is there already, and cannot be counted exactly: {fault}",
            f"`{repair_command(pipeline)}` sets it; records that are there already keep their time stamps",
        )


def not_there(topic: str) -> TwofoldError:
    """The message where the topic does not exist."""
    return TwofoldError(f"there is no topic {topic}", "the first job that needs it makes it, as declared")
