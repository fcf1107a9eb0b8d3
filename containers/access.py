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
from contextlib import closing

import click
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
_TIMEOUT_S, _PAUSE_S = 5.0, 1.0


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
    """Make users and rights as soon as the broker lets them be made: it may still look for its controller."""
    kafka_client.quiet()
    settings, told = ContainerSettings(), ""
    while refusal := _refusal(settings):
        if refusal != told:
            click.echo(f"users and rights are not made yet: {refusal}", err=True)
        told = refusal
        time.sleep(_PAUSE_S)
    ACCESS_IS_SET.touch()


def _refusal(settings: ContainerSettings) -> str:
    """Make users and rights; what stands in the way, or nothing once they are there."""
    mechanism = ScramMechanism.SCRAM_SHA_512
    passwords = [(user, settings.secret(f"kafka_{user}_password")) for user in USERS]
    users = [UserScramCredentialUpsertion(user, mechanism, password) for user, password in passwords]
    try:
        with closing(KafkaAdminClient(**kafka_client.connection(_administrator(settings), _TIMEOUT_S))) as client:
            faults = [f"{user}: {error}" for user, error in client.alter_user_scram_credentials(users).items() if error]
            return "; ".join([*faults, *(str(fault) for fault in client.create_acls(rights())["failed"])])
    except KafkaError as error:
        return str(error)


def _administrator(settings: ContainerSettings) -> Settings:
    """How its administrator reaches this broker: by the brokers' own listener."""
    return Settings(
        kafka_bootstrap=f"{settings.kafka_name}:{BROKER_PORT}",
        kafka_user=ADMIN,
        kafka_password=SecretStr(settings.secret("kafka_admin_password")),
        kafka_mechanism="PLAIN",
    )


if __name__ == "__main__":
    main(start)
