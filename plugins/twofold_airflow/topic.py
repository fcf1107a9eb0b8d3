"""The operator that makes sure of a pipeline's topic, by the Kafka provider's connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, ResourceType  # type: ignore[attr-defined]
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from twofold import topic as topics
from twofold.definition.model import Topic
from twofold_airflow.services import START, STOP
from twofold_airflow.wiring import Linked, failed

_TIMEOUT_S = 10.0


class TopicOperator(Linked):
    """Make a pipeline's topic with its declared settings if there is none; report what differs, and alter nothing.

    More partitions are added where more are declared. A drift that breaks the counts fails the task. To stop services
    needs no topic, and must work while Kafka is away. (The hook's own `create_topic` takes no settings.)
    """

    template_fields = ("action",)

    def __init__(
        self,
        *,
        pipeline: str,
        topic: Topic,
        action: str = START,
        kafka_config_id: str = "kafka_default",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.topic = topic
        self.action = action
        self.kafka_config_id = kafka_config_id

    def execute(self, context: Context) -> dict[str, str]:
        """Make sure, and return the drift: setting → what it is and what is declared."""
        if self.action == STOP:
            self.log.info("topic %s is not looked at: nothing is to be started", self.topic.name)
            return {}
        client = KafkaAdminClientHook(self.kafka_config_id).get_conn
        try:
            found = self._ensure(client)
        except KafkaException as error:
            raise self._refused(error.args[0]) from None
        return self._reported(found)

    def _ensure(self, client: AdminClient) -> dict[str, tuple[str, str]]:
        partitions = self._partitions(client)
        if partitions == 0:
            self._create(client)
        elif partitions < self.topic.partitions:
            (added,) = client.create_partitions([NewPartitions(self.topic.name, self.topic.partitions)]).values()
            added.result()
            self.log.info("topic %s has %d partitions now, not %d", self.topic.name, self.topic.partitions, partitions)
        return topics.drift(self.topic, max(partitions, self.topic.partitions), self._configs(client))

    def _create(self, client: AdminClient) -> None:
        wanted = NewTopic(
            self.topic.name, self.topic.partitions, self.topic.replication, config=topics.configs(self.topic)
        )
        (made,) = client.create_topics([wanted], operation_timeout=_TIMEOUT_S).values()
        try:
            made.result()
        except KafkaException as error:  # the producer, or another run, was quicker
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        self.log.info("topic %s is there, with %d partitions", self.topic.name, self.topic.partitions)

    def _partitions(self, client: AdminClient) -> int:
        """How many there are; 0: no topic. All topics are listed: asking for one by name could make it."""
        found = client.list_topics(timeout=_TIMEOUT_S).topics.get(self.topic.name)
        return len(found.partitions) if found else 0

    def _configs(self, client: AdminClient) -> dict[str, str | None]:
        """Settings of the topic. In KRaft a broker learns of a new topic a moment after its controller has made it."""
        asked = ConfigResource(ResourceType.TOPIC, self.topic.name)
        until_known = Retrying(
            retry=retry_if_exception(_unknown), stop=stop_after_delay(_TIMEOUT_S), wait=wait_fixed(0.2), reraise=True
        )
        told = until_known(lambda: client.describe_configs([asked])[asked].result(_TIMEOUT_S))
        return {name: entry.value for name, entry in told.items()}

    def _reported(self, drift: Mapping[str, tuple[str, str]]) -> dict[str, str]:
        told = {name: f"{actual}, declared {declared}" for name, (declared, actual) in drift.items()}
        for name, text in told.items():
            self.log.warning("topic %s: %s is %s; it is left as it is", self.topic.name, name, text)
        if fault := topics.inexact(drift):
            what = f"topic {self.topic.name} is there already, and cannot be counted exactly: {fault}"
            remedy = f"`{topics.repair_command(self.pipeline)}` sets it"
            raise AirflowFailException(failed(what, remedy, "topic-drift"))
        if not told:
            self.log.info("topic %s is as declared", self.topic.name)
        return told

    def _refused(self, error: KafkaError) -> AirflowException:
        away = error.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
        if away:
            what = f"Kafka does not answer (connection {self.kafka_config_id}): {error.str()}"
            return AirflowException(failed(what, "see that the broker runs: `twofold status`", "kafka-away"))
        what = f"the broker refuses topic {self.topic.name}: {error.str()}"
        return AirflowFailException(failed(what, "correct `topic` in the pipeline file", "topic-refused"))


def _unknown(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
