"""Facts about a Kafka topic, asked of a child process: the core itself holds no Kafka client.

    describe | ensure | repair ──► `python -m producer.topic …` ──JSON──► TopicState
    records | filled ────────────►                                      bytes, offsets

By hand: `python -m producer.topic describe 127.0.0.1:19092 flights`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from twofold import errors
from twofold.errors import TwofoldError

if TYPE_CHECKING:
    from twofold.definition.model import Pipeline, Topic
    from twofold.settings import Settings

TIMEOUT_S = 10.0
"""How long a broker may take to answer before it counts as not running."""

REQUIRED_SETTINGS = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
"""Always so. Outcomes are judged by the time of arrival, so that a replay judges alike; and what Kafka compacts away
before it was landed is lost without a trace."""


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

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; partition numbers become strings."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            name=data["name"],
            topic_id=data["topic_id"],
            partitions={int(number): (begin, end) for number, (begin, end) in data["partitions"].items()},
            settings=dict(data["settings"]),
            stable_ends={int(number): end for number, end in data["stable_ends"].items()},
            drift={name: (declared, actual) for name, (declared, actual) in data["drift"].items()},
        )


def configs(topic: Topic) -> dict[str, str]:
    """The settings that the topic is made with."""
    return {**topic.settings, **REQUIRED_SETTINGS}


def drift(topic: Topic, partitions: int, settings: Mapping[str, str | None]) -> dict[str, tuple[str, str]]:
    """What of an existing topic differs from its declaration: name → (declared, actual).

    >>> from twofold.definition.model import Topic
    >>> actual = {"retention.ms": "5", "cleanup.policy": "delete", "message.timestamp.type": "CreateTime"}
    >>> drift(Topic("t", 2, settings={"retention.ms": "5"}), 3, actual)
    {'partitions': ('2', '3'), 'message.timestamp.type': ('LogAppendTime', 'CreateTime')}
    """
    declared = {"partitions": str(topic.partitions), **configs(topic)}
    actual = {"partitions": str(partitions), **settings}
    return {name: (value, str(actual.get(name))) for name, value in declared.items() if str(actual.get(name)) != value}


def inexact(drift: Mapping[str, tuple[str, str]]) -> str:
    """What of a topic's drift exact counts cannot be had with, as a clause; empty where there is nothing of the kind.

    >>> inexact({"partitions": ("2", "3"), "cleanup.policy": ("delete", "compact")})
    'cleanup.policy is compact, not delete'
    """
    broken = {name: drift[name] for name in REQUIRED_SETTINGS if name in drift}
    return " and ".join(f"{name} is {actual}, not {declared}" for name, (declared, actual) in broken.items())


def repair_command(pipeline: str) -> str:
    """What gives the topic of a pipeline the settings that exactness needs."""
    return f"twofold topic {pipeline} --repair"


def require_exact(pipeline: str, state: TopicState) -> None:
    """TwofoldError, with the command that mends it, where `ensure` found a topic that cannot be counted exactly."""
    if fault := inexact(state.drift):
        raise TwofoldError(
            f"topic {state.name} is there already, and cannot be counted exactly: {fault}",
            f"`{repair_command(pipeline)}` sets it; records that are there already keep their time stamps",
        )


def not_there(topic: str) -> TwofoldError:
    """What is said where there is no topic to look at."""
    return TwofoldError(f"there is no topic {topic}", "the first job that needs it makes it, as declared")


def describe(settings: Settings, topic: str, timeout_s: float = TIMEOUT_S) -> TopicState | None:
    """Describe a topic, None if there is none; raise NotRunning if no broker answers within `timeout_s`."""
    found = _ask(settings, "describe", [topic], {}, timeout_s)
    return TopicState.from_json(found) if found else None


def ensure(settings: Settings, pipeline: Pipeline, timeout_s: float = TIMEOUT_S) -> TopicState:
    """Make the pipeline's topic if there is none, raise its partitions if more are declared; report other drift."""
    return TopicState.from_json(_ask(settings, "ensure", [], asdict(pipeline.topic), timeout_s))


def repair(settings: Settings, pipeline: Pipeline, timeout_s: float = TIMEOUT_S) -> TopicState:
    """Give the pipeline's topic, which must be there, the settings that exactness needs; leave all others."""
    return TopicState.from_json(_ask(settings, "repair", [], asdict(pipeline.topic), timeout_s))


def records(
    settings: Settings, topic: str, offsets: Mapping[int, Sequence[int]], timeout_s: float = TIMEOUT_S
) -> dict[tuple[int, int], bytes | None]:
    """Fetch single committed records by (partition, offset); meant for samples. A record with a null value gives None.

    Left out are offsets that are gone, or hold no committed record.
    """
    wanted = {str(partition): list(numbers) for partition, numbers in offsets.items()}
    found = _ask(settings, "records", [topic], wanted, timeout_s)
    return {
        (partition, offset): None if value is None else base64.b64decode(value) for partition, offset, value in found
    }


def filled(
    settings: Settings, topic: str, ranges: Mapping[int, Sequence[Range]], timeout_s: float = TIMEOUT_S
) -> dict[int, Filled]:
    """Which offsets of the given ranges hold a committed record; the others are markers, or of aborted transactions."""
    wanted = {str(partition): list(numbers) for partition, numbers in ranges.items()}
    found = _ask(settings, "filled", [topic], wanted, timeout_s)
    return {
        int(partition): Filled(begin, end, tuple((low, high) for low, high in records))
        for partition, (begin, end, records) in found.items()
    }


def _ask(settings: Settings, verb: str, args: Sequence[str], body: Mapping[str, Any], timeout_s: float) -> Any:  # noqa: ANN401
    """Run the child; its last word is JSON: the answer, or `{"error": …}` naming one of our errors."""
    command = [sys.executable, "-m", "producer.topic", verb, settings.kafka_bootstrap, *args]
    done = subprocess.run(
        [*command, "--timeout", str(timeout_s)],
        env={**os.environ, **settings.environment()},
        input=json.dumps(body),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return json.loads(done.stdout)
    try:
        problem = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise TwofoldError(f"{' '.join(command)} failed", done.stderr.strip()[-2000:]) from None
    raise getattr(errors, problem["error"])(problem["message"], problem["remedy"])
