"""Topic facts as JSON on stdout, for programs that hold no Kafka client; and the same as functions.

    describe BOOTSTRAP TOPIC | ensure BOOTSTRAP < topic.json | repair BOOTSTRAP < topic.json
    records BOOTSTRAP TOPIC < offsets.json | filled BOOTSTRAP TOPIC < ranges.json

By hand: `python -m producer.topic describe 127.0.0.1:19092 flights`. Imports little: it is started often.
"""

from __future__ import annotations

from twofold import shell

if __name__ == "__main__":
    shell.enter()

import argparse
import base64
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from producer import committed, kafka_client
from twofold.definition.model import Topic
from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.topic import REQUIRED_SETTINGS, TIMEOUT_S, TopicState, configs, drift, inexact, not_there

_POLL_S = 0.1


def admin(settings: Settings, timeout_s: float = TIMEOUT_S) -> KafkaAdminClient:
    """Connect; raise NotRunning if no broker answers within `timeout_s`."""
    try:
        return KafkaAdminClient(
            **kafka_client.connection(settings, timeout_s), request_timeout_ms=int(timeout_s * 1000)
        )
    except KafkaError as error:
        raise kafka_client.explain(settings.kafka_bootstrap, error) from error


def describe(client: KafkaAdminClient, name: str) -> TopicState | None:
    """Describe a topic; None if there is none."""
    (found,) = client.describe_topics([name])
    if found["error_code"] == UnknownTopicOrPartitionError.errno:
        return None
    if found["error_code"]:
        raise for_code(found["error_code"])
    numbers = sorted(partition["partition_index"] for partition in found["partitions"])
    offsets = _offsets(client, [TopicPartition(name, number) for number in numbers])
    return TopicState(
        name=name,
        topic_id=_as_kafka_prints(found["topic_id"]),
        partitions={number: (begin, end) for number, (begin, _, end) in offsets.items()},
        settings=_settings(client, name),
        stable_ends={number: stable for number, (_, stable, _) in offsets.items()},
    )


def ensure(client: KafkaAdminClient, topic: Topic) -> TopicState:
    """Make the topic if there is none, raise its partitions if more are declared; report other drift, alter nothing."""
    state = describe(client, topic.name)
    if state is None:
        _create(client, topic)
    elif len(state.partitions) < topic.partitions:
        response = client.create_partitions({topic.name: topic.partitions}, raise_errors=False)
        _refused_if_failed(topic, response.to_dict())
    client.wait_for_topics([topic.name])
    return _compared(client, topic)


def repair(client: KafkaAdminClient, topic: Topic, timeout_s: float = TIMEOUT_S) -> TopicState:
    """Give a topic the settings that exactness needs, one by one: whatever else is set on it stays."""
    if describe(client, topic.name) is None:
        raise not_there(topic.name)
    wanted = ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=dict(REQUIRED_SETTINGS))
    said = client.alter_configs([wanted], raise_on_unknown=False, incremental=True)["topic"][topic.name]
    deadline = time.monotonic() + timeout_s
    # A broker takes up what its controller was told a moment later.
    while fault := inexact((state := _compared(client, topic)).drift):
        if said != "OK" or time.monotonic() > deadline:
            what = f"the broker does not take up the settings of topic {topic.name} (it says {said}): {fault}"
            raise TwofoldError(what, "have them set by someone who may")
        time.sleep(_POLL_S)
    return state


def _compared(client: KafkaAdminClient, topic: Topic) -> TopicState:
    """The topic with what differs from its declaration."""
    state = describe(client, topic.name)
    if state is None:
        raise TwofoldError(f"topic {topic.name} vanished while it was being made", "run the command again")
    return TopicState(**{**vars(state), "drift": drift(topic, len(state.partitions), state.settings)})


def _create(client: KafkaAdminClient, topic: Topic) -> None:
    wanted = {
        "num_partitions": topic.partitions,
        "replication_factor": topic.replication,
        "configs": configs(topic),
    }
    _refused_if_failed(topic, client.create_topics({topic.name: wanted}, raise_errors=False))


def _refused_if_failed(topic: Topic, response: Mapping[str, Any]) -> None:
    """Raise what the broker says; someone else having made the topic meanwhile is fine."""
    (result,) = response.get("topics") or response["results"]
    if result["error_code"] not in (0, TopicAlreadyExistsError.errno):
        raise TwofoldError(
            f"the broker refuses topic {topic.name}: {result['error_message']}",
            "correct `topic` in the pipeline file",
        )


def _offsets(client: KafkaAdminClient, partitions: Sequence[TopicPartition]) -> dict[int, tuple[int, int, int]]:
    """Partition → first offset, last stable offset, end; asked in this order, so that they never contradict."""
    newest = dict.fromkeys(partitions, OffsetSpec.LATEST)
    begin = client.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
    stable = client.list_partition_offsets(newest, "read_committed")
    end = client.list_partition_offsets(newest)
    return {found.partition: (begin[found].offset, stable[found].offset, end[found].offset) for found in partitions}


def _settings(client: KafkaAdminClient, name: str) -> dict[str, str | None]:
    found = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")
    return {key: entry["value"] for key, entry in found["topic"][name].items()}


def _as_kafka_prints(topic_id: str) -> str:
    """Kafka's tools print the 16 bytes in URL-safe base64; this client gives the hexadecimal form."""
    return base64.urlsafe_b64encode(UUID(topic_id).bytes).rstrip(b"=").decode()


def _answer(settings: Settings, args: argparse.Namespace) -> Any:  # noqa: ANN401
    if args.verb == "records":
        offsets = {int(number): wanted for number, wanted in json.load(sys.stdin).items()}
        found = committed.records(settings, args.topic, offsets, args.timeout)
        return [(n, o, None if value is None else base64.b64encode(value).decode()) for n, o, value in found]
    if args.verb == "filled":
        ranges = {int(number): [(low, high) for low, high in wanted] for number, wanted in json.load(sys.stdin).items()}
        return committed.filled(settings, args.topic, ranges, args.timeout)
    client = admin(settings, args.timeout)
    if args.verb == "describe":
        state = describe(client, args.topic)
        return state and state.to_json()
    declared = Topic(**json.load(sys.stdin))
    return (ensure(client, declared) if args.verb == "ensure" else repair(client, declared, args.timeout)).to_json()


def main() -> int:
    """Answer one question; an error of ours is JSON too, with exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["describe", "ensure", "repair", "records", "filled"])
    parser.add_argument("bootstrap", help="host:port[,host:port…]")
    parser.add_argument("topic", nargs="?", help="name of the topic (not for ensure and repair)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds a broker may take to answer")
    args = parser.parse_args()
    kafka_client.quiet()
    try:
        answer, code = _answer(Settings(kafka_bootstrap=args.bootstrap), args), 0
    except KafkaError as error:
        answer, code = _as_json(kafka_client.explain(args.bootstrap, error)), 1
    except TwofoldError as error:
        answer, code = _as_json(error), 1
    json.dump(answer, sys.stdout)
    return code


def _as_json(error: TwofoldError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}


if __name__ == "__main__":
    sys.exit(main())
