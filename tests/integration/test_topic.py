"""Topics that are there already: what breaks exact counts is refused everywhere, and fixed by a command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
from airflow.sdk.exceptions import AirflowFailException
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from spark_jobs import streaming_job
from twofold import kafka
from twofold.definition.model import REQUIRED_SETTINGS, Pipeline, Topic
from twofold.lake import Lake
from twofold.settings import Settings
from twofold_airflow.topic_operator import TopicOperator

Define = Callable[..., Pipeline]
Twofold = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize(
    ("made_with", "fault"),
    [
        ({"message.timestamp.type": "CreateTime"}, "message.timestamp.type is CreateTime, not LogAppendTime"),
        ({"cleanup.policy": "compact,delete"}, "cleanup.policy is compact,delete, not delete"),
    ],
)
def test_a_topic_that_breaks_the_counts_is_refused_until_it_is_mended(
    stack: Settings, define: Define, twofold: Twofold, made_with: dict[str, str], fault: str
) -> None:
    pipeline = define(topic={"settings": {"retention.ms": "1000000"}})
    made(stack, pipeline.topic, {**REQUIRED_SETTINGS, "retention.ms": "2000000", **made_with})
    said = f"topic {pipeline.topic.name} is there already, and cannot be counted exactly: {fault}"
    commands = (["produce", pipeline.name, "--generate", "1"], ["stream", pipeline.name, "--until-caught-up"])
    refused = [twofold(*command, check=False) for command in commands]
    assert [done.returncode for done in refused] == [1, 1]
    assert all(said in done.stderr for done in refused), refused
    shown = twofold("topic", pipeline.name, check=False)
    assert (shown.returncode, fault in shown.stderr) == (1, True)

    remedy = f"twofold topic {pipeline.name} --repair"
    assert all(f"`{remedy}`" in done.stderr for done in (*refused, shown))
    after = json.loads(twofold(*shlex.split(remedy)[1:], "--json").stdout)
    assert REQUIRED_SETTINGS.items() <= after["settings"].items()
    # What else differs is reported, and left as it is.
    assert after["drift"] == {"retention.ms": ["1000000", "2000000"]}
    assert streaming_job.check(Lake(stack, pipeline)) == after["topic_id"]
    assert "1 records acknowledged" in twofold("produce", pipeline.name, "--generate", "1").stderr


def test_a_topic_of_ours_is_sound_from_its_start(stack: Settings, define: Define, twofold: Twofold) -> None:
    pipeline = define()
    assert f"there is no topic {pipeline.topic.name}" in twofold("topic", pipeline.name, check=False).stderr
    assert f"there is no topic {pipeline.topic.name}" in twofold("topic", pipeline.name, "--repair", check=False).stderr
    state = kafka.ensure(stack, pipeline)
    assert state.drift == {}
    assert REQUIRED_SETTINGS.items() <= state.settings.items()
    assert "as declared" in twofold("topic", pipeline.name).stdout


def test_the_task_of_the_dag_names_the_command_too() -> None:
    operator = TopicOperator(task_id="topic", pipeline="orders", topic=Topic("orders-v1"))
    assert operator._reported({"partitions": ("1", "2")}) == {"partitions": "2, declared 1"}
    with pytest.raises(AirflowFailException, match=r"cleanup\.policy is compact, not delete[^`]*`twofold topic orders"):
        operator._reported({"cleanup.policy": ("delete", "compact")})


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_records_in_any_codec_can_be_read(stack: Settings, define: Define, codec: str) -> None:
    pipeline = define(topic={"partitions": 1, "settings": {"compression.type": codec}})
    kafka.ensure(stack, pipeline)
    sent = [b"one", b"two" * 1000, b"three"]
    producer = KafkaProducer(bootstrap_servers=stack.kafka_bootstrap, acks="all", compression_type=codec)
    for value in sent:
        producer.send(pipeline.topic.name, value).get(timeout=30)
    producer.close()
    found = kafka.read(stack, pipeline.topic.name, {0: [(0, 1), (1, 3)]})
    assert [(record.offset, record.value) for record in found] == list(enumerate(sent))


def made(settings: Settings, declared: Topic, configs: dict[str, str]) -> None:
    """Make a topic as someone else would."""
    client = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    wanted = {"num_partitions": declared.partitions, "replication_factor": 1, "configs": configs}
    client.create_topics({declared.name: wanted})
    client.wait_for_topics([declared.name])
    client.close()
