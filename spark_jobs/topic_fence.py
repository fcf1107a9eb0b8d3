"""May this job still write? Its lock must be held, and the topic must be the one that it started on."""

from __future__ import annotations

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession

from spark_jobs import session
from spark_jobs.locks import Held
from twofold import kafka
from twofold.errors import BoundaryError
from twofold.settings import Settings

_TIMEOUT_S = 30


class TopicFence:
    """Asked before every commit to stream_log, by the JVM's own Kafka client."""

    def __init__(self, spark: SparkSession, settings: Settings, topic: str, topic_id: str, lock: Held) -> None:
        self._spark = spark
        self._topic = topic
        self._topic_id = topic_id
        self._lock = lock
        self._admin = _admin(spark, settings)

    def __call__(self) -> str:
        """The topic's id; Busy where the lock was lost, BoundaryError where the topic was made anew."""
        self._lock.check()
        found = self._current_id()
        if found != self._topic_id:
            raise BoundaryError(
                f"Kafka topic {self._topic!r} was deleted and created again while the job ran: "
                f"its id was {self._topic_id} and is now {found}, and its offsets start anew",
                "declare the new stream under a new pipeline name (the old tables stay readable)",
            )
        return found

    def _current_id(self) -> str:
        jvm = session.jvm(self._spark)
        names = jvm.java.util.Collections.singletonList(self._topic)
        seconds = jvm.java.util.concurrent.TimeUnit.SECONDS
        described = self._admin.describeTopics(names).allTopicNames().get(_TIMEOUT_S, seconds)
        return str(described.get(self._topic).topicId().toString())

    def close(self) -> None:
        """Close the client."""
        self._admin.close()


def _admin(spark: SparkSession, settings: Settings) -> JavaObject:
    jvm = session.jvm(spark)
    properties = jvm.java.util.Properties()
    for name, value in kafka.java(settings).items():
        properties.setProperty(name, value)
    # Spark's own class loader knows the Kafka client; the gateway thread's may not.
    return jvm.org.apache.kafka.clients.admin.Admin.create(properties)
