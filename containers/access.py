"""Kafka's users and rights, made by the broker's own administrator whenever a broker starts.

The same in ZooKeeper and in KRaft mode, and at every start, so that a changed password takes effect. The broker counts
as healthy once this has ended well: nobody is told to come before they can log in.

    user      topics                                     groups
    producer  make, describe, write                      -
    stream    describe, read                             those of Spark's source
    airflow   make, alter, describe                      -
    reader    describe, read                             -
    anyone else: nothing; Kafka's own topics (`__…`): nobody

By hand: `python -m containers.access`
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError
from pydantic import SecretStr

from containers.broker import ADMIN, BROKER_PORT
from containers.places import ACCESS_IS_SET
from containers.running import main
from containers.settings import ContainerSettings
from producer import kafka_client
from twofold.errors import TwofoldError
from twofold.settings import Settings

USERS = ("producer", "stream", "airflow", "reader")
_SEE = (ACLOperation.DESCRIBE, ACLOperation.DESCRIBE_CONFIGS)
_TOPICS = {
    "producer": (*_SEE, ACLOperation.CREATE, ACLOperation.ALTER, ACLOperation.WRITE),
    "stream": (*_SEE, ACLOperation.READ),
    "airflow": (*_SEE, ACLOperation.CREATE, ACLOperation.ALTER),
    "reader": (*_SEE, ACLOperation.READ),
}
_SPARK_GROUPS = "spark-kafka-"
_WITHIN_S = 120.0


def rights() -> list[ACL]:
    """Everything that is allowed, and the one thing that is denied to all."""
    allow, deny = ACLPermissionType.ALLOW, ACLPermissionType.DENY
    topics = ResourcePattern(ResourceType.TOPIC, "*")
    groups = ResourcePattern(ResourceType.GROUP, _SPARK_GROUPS, ACLResourcePatternType.PREFIXED)
    own = ResourcePattern(ResourceType.TOPIC, "__", ACLResourcePatternType.PREFIXED)
    allowed = [ACL(f"User:{user}", "*", each, allow, topics) for user in USERS for each in _TOPICS[user]]
    return [
        *allowed,
        ACL("User:stream", "*", ACLOperation.READ, allow, groups),
        *(ACL(f"User:{user}", "*", ACLOperation.ALL, deny, own) for user in USERS),
    ]


def start(_arguments: Sequence[str]) -> None:
    """Wait for the broker, then make users and rights."""
    kafka_client.quiet()
    settings = ContainerSettings()
    client = _administrator(settings)
    mechanism = ScramMechanism.SCRAM_SHA_512
    passwords = [(user, settings.secret(f"kafka_{user}_password")) for user in USERS]
    client.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(user, mechanism, password) for user, password in passwords]
    )
    outcome = client.create_acls(rights())
    if outcome["failed"]:
        raise TwofoldError(f"the broker refuses rights: {outcome['failed']}")
    ACCESS_IS_SET.touch()


def _administrator(settings: ContainerSettings) -> KafkaAdminClient:
    """A client of the brokers' own listener, once one answers there."""
    reached = Settings(
        kafka_bootstrap=f"{settings.kafka_name}:{BROKER_PORT}",
        kafka_user=ADMIN,
        kafka_password=SecretStr(settings.secret("kafka_admin_password")),
        kafka_mechanism="PLAIN",
    )
    until = time.monotonic() + _WITHIN_S
    while True:
        try:
            return KafkaAdminClient(**kafka_client.connection(reached, 5.0))
        except KafkaError as error:
            if time.monotonic() > until:
                raise TwofoldError(f"the broker does not answer: {error}", "see the container's log") from None


if __name__ == "__main__":
    main(start)
