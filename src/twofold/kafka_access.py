"""How a client reaches the brokers and logs in, in the words of each of the three Kafka clients in use."""

from __future__ import annotations

from typing import Any

from twofold.settings import Settings

_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


def java(settings: Settings) -> dict[str, str]:
    """For Spark's source (each with `kafka.` before it) and Kafka's own tools. Holds the password: never print it."""
    properties = {"bootstrap.servers": settings.kafka_bootstrap}
    if settings.kafka_user:
        properties |= {
            "security.protocol": settings.kafka_protocol,
            "sasl.mechanism": settings.kafka_mechanism,
            "sasl.jaas.config": login_module(
                settings.kafka_mechanism, settings.kafka_user, settings.kafka_password.get_secret_value()
            ),
        }
    return properties


def login_module(mechanism: str, user: str, password: str) -> str:
    """A client's login as Java's clients are told it.

    >>> login_module("PLAIN", "me", 'a"b')
    'org.apache.kafka.common.security.plain.PlainLoginModule required username="me" password="a\\\\"b";'
    """
    return f"{_MODULES[mechanism.split('-')[0]]} required username={quoted(user)} password={quoted(password)};"


def quoted(text: str) -> str:
    """A value in Java's JAAS syntax."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def librdkafka(settings: Settings) -> dict[str, str]:
    """For Airflow's connection."""
    properties = {"bootstrap.servers": settings.kafka_bootstrap}
    if settings.kafka_user:
        properties |= {
            "security.protocol": settings.kafka_protocol,
            "sasl.mechanism": settings.kafka_mechanism,
            "sasl.username": settings.kafka_user,
            "sasl.password": settings.kafka_password.get_secret_value(),
        }
    return properties


def kafka_python(settings: Settings) -> dict[str, Any]:
    """For the producer and for questions about topics."""
    arguments: dict[str, Any] = {"bootstrap_servers": settings.kafka_bootstrap.split(",")}
    if settings.kafka_user:
        arguments |= {
            "security_protocol": settings.kafka_protocol,
            "sasl_mechanism": settings.kafka_mechanism,
            "sasl_plain_username": settings.kafka_user,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    return arguments
