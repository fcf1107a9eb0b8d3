"""How every program of this package reaches Kafka."""

from __future__ import annotations

import logging
from typing import Any

from kafka.errors import (
    BrokerResponseError,
    KafkaError,
    KafkaProtocolError,
    KafkaTimeoutError,
    RetriableError,
    UnknownBrokerIdError,
    UnrecognizedBrokerVersion,
    UnsupportedCodecError,
)

from twofold import kafka_access
from twofold.errors import NotRunning, TwofoldError
from twofold.settings import Settings

_AWAY = (RetriableError, KafkaProtocolError, UnknownBrokerIdError, UnrecognizedBrokerVersion)
"""What a client meets while no broker answers, or one that starts or ends."""


def connection(settings: Settings, timeout_s: float) -> dict[str, Any]:
    """Client settings shared by admin, consumer and producer; the first contact may take `timeout_s`."""
    return {
        **kafka_access.kafka_python(settings),
        "client_id": "twofold",
        "bootstrap_timeout_ms": int(timeout_s * 1000),
        # A broker that comes back is found within a second, however long it was away.
        "reconnect_backoff_max_ms": 1000,
    }


def explain(bootstrap: str, error: KafkaError) -> TwofoldError:
    """The error to show: no broker answers, or one answers that it will not, or its records cannot be read here."""
    if isinstance(error, BrokerResponseError) and not isinstance(error, RetriableError):
        return TwofoldError(f"Kafka at {bootstrap} refuses: {error.message}: {error.description}")
    if isinstance(error, UnsupportedCodecError):
        return TwofoldError(
            f"records of Kafka at {bootstrap} are compressed in a way that cannot be read here: {error}",
            "run `make setup`, which installs every codec that Kafka has",
        )
    if not isinstance(error, _AWAY):
        return TwofoldError(f"Kafka at {bootstrap} cannot be used: {error}")
    said = "no answer in time" if isinstance(error, KafkaTimeoutError) else str(error)
    return NotRunning(
        f"Kafka at {bootstrap} does not answer: {said}",
        "start it with `twofold up`, or point TWOFOLD_KAFKA_BOOTSTRAP at a running broker",
    )


def quiet() -> None:
    """Keep the client library's own log off the terminal: what matters is said in our words, once."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)


def loud() -> None:
    """Show the client library's own log on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
