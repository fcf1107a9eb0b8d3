"""The operator that makes sure of a pipeline's topic, by the Kafka provider's connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from twofold import kafka
from twofold.definition.load import load_pipeline
from twofold.definition.model import Topic
from twofold.errors import NotRunning, TwofoldError
from twofold.services import due, removed
from twofold.settings import Settings
from twofold.topic import refusal
from twofold_airflow.service_operators import START, STOP
from twofold_airflow.wiring import PipelineOperator, failed

_CONNECTION = "kafka_default"


class TopicOperator(PipelineOperator):
    """Make a pipeline's topic with its declared settings if there is none; report what differs, and alter nothing.

    More partitions are added where more are declared; a topic of somebody else is only looked at. A drift that breaks
    the counts fails the task. To stop services needs no topic, and must work while Kafka is away. (The hook's own
    `create_topic` takes no settings.)
    """

    template_fields = ("action",)

    def __init__(self, *, topic: Topic, action: str = START, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.topic = topic
        self.action = action

    def execute(self, context: Context) -> dict[str, str]:
        """Make sure, and return the drift: setting → what it is and what is declared."""
        if self.action == STOP:
            self.log.info("topic %s is not looked at: nothing is to be started", self.topic.name)
            return {}
        try:
            with kafka.explained(f"Kafka (connection {_CONNECTION})"):
                found = kafka.ensure_by(KafkaAdminClientHook(_CONNECTION).get_conn, self.topic)
        except NotRunning as error:
            remedy = "see that the broker runs: `twofold status`"
            raise AirflowException(failed(error.message, remedy, "kafka-away")) from None
        except TwofoldError as error:
            raise AirflowFailException(failed(error.message, error.remedy, "topic-refused")) from None
        self._keep_metrics_true()
        return self._reported(found.drift)

    def _keep_metrics_true(self) -> None:
        """Also of what nobody watches any more (each pipeline that is left does it), and of a schedule that changed."""
        settings = Settings()
        try:
            for done in removed.retire(settings, self.pipeline):
                self.log.warning("%s", done)
            due.resend(settings, load_pipeline(settings, self.pipeline))
        except TwofoldError as error:
            self.log.warning("removed pipelines and changed schedules are not looked for now: %s", error)

    def _reported(self, drift: Mapping[str, tuple[str, str]]) -> dict[str, str]:
        told = {name: f"{actual}, declared {declared}" for name, (declared, actual) in drift.items()}
        for name, text in told.items():
            self.log.warning("topic %s: %s is %s; it is left as it is", self.topic.name, name, text)
        if refused := refusal(self.pipeline, self.topic, drift):
            raise AirflowFailException(failed(refused.message, refused.remedy, "topic-drift"))
        if not told:
            self.log.info("topic %s is as declared", self.topic.name)
        return told
