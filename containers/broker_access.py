"""Kafka's users and rights, made by the broker's own administrator whenever a broker starts.

The same in ZooKeeper and in KRaft mode, and at every start, so that a changed password takes effect. The broker counts
as healthy once this has ended well: nobody is sent to it before they can log in.

    user      topics                                     groups
    producer  make, describe, write                      -
    stream    describe, read                             those of Spark's source
    airflow   make, alter, describe, read (the proof)    -
    reader    describe, read                             -
    anyone else: nothing; Kafka's own topics (`__…`): nobody

Run manually: `python -m containers kafka-access`
"""

from __future__ import annotations

import time

import click
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from containers.broker import ADMIN, BROKER_PORT
from containers.container_settings import ContainerSettings
from containers.healthcheck import ACCESS_IS_SET
from twofold import kafka
from twofold.settings import Settings

USERS = ("producer", "stream", "airflow", "reader")
_SEE = (AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
_TOPICS = {
    "producer": (*_SEE, AclOperation.CREATE, AclOperation.ALTER, AclOperation.WRITE),
    "stream": (*_SEE, AclOperation.READ),
    "airflow": (*_SEE, AclOperation.CREATE, AclOperation.ALTER, AclOperation.READ),
    "reader": (*_SEE, AclOperation.READ),
}
_SPARK_GROUPS = "spark-kafka-"
_TIMEOUT_S, _PAUSE_S = 5.0, 1.0
_ITERATIONS = 4096


def rights() -> list[AclBinding]:
    """Everything that is allowed, and the one thing that is denied to all."""
    allow, deny = AclPermissionType.ALLOW, AclPermissionType.DENY
    topics = (ResourceType.TOPIC, "*", ResourcePatternType.LITERAL)
    groups = (ResourceType.GROUP, _SPARK_GROUPS, ResourcePatternType.PREFIXED)
    own = (ResourceType.TOPIC, "__", ResourcePatternType.PREFIXED)
    return [
        *(AclBinding(*topics, f"User:{user}", "*", each, allow) for user in USERS for each in _TOPICS[user]),
        AclBinding(*groups, "User:stream", "*", AclOperation.READ, allow),
        *(AclBinding(*own, f"User:{user}", "*", AclOperation.ALL, deny) for user in USERS),
    ]


def start() -> None:
    """Make users and rights as soon as the broker lets them be made: it may still look for its controller."""
    settings, said = ContainerSettings(), ""
    # The broker may not answer yet, which is not reported: it starts beside this process.
    client = AdminClient({**kafka.librdkafka(_administrator(settings)), "log_level": 0})
    while refusal := _refusal(client, settings):
        if refusal != said:
            click.echo(f"users and rights are not made yet: {refusal}", err=True)
        said = refusal
        time.sleep(_PAUSE_S)
    ACCESS_IS_SET.touch()


def _refusal(client: AdminClient, settings: ContainerSettings) -> str:
    """Make users and rights; the obstacle, or nothing once they exist."""
    how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
    users: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(user, how, settings.secret(f"kafka_{user}_password").encode()) for user in USERS
    ]
    asked = [
        *client.alter_user_scram_credentials(users, request_timeout=_TIMEOUT_S).values(),
        *client.create_acls(rights(), request_timeout=_TIMEOUT_S).values(),
    ]
    faults = [str(error) for outcome in asked if (error := outcome.exception())]
    return "; ".join(dict.fromkeys(faults))


def _administrator(settings: ContainerSettings) -> Settings:
    """How its administrator reaches this broker: by the brokers' own listener."""
    return Settings(
        kafka_bootstrap=f"{settings.kafka_name}:{BROKER_PORT}",
        kafka_user=ADMIN,
        kafka_password=SecretStr(settings.secret("kafka_admin_password")),
        kafka_mechanism="PLAIN",
    )
