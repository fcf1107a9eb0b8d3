"""How every program of this package reaches Kafka."""

from __future__ import annotations

import logging
from typing import Any

from twofold.settings import Settings


def connection(settings: Settings, timeout_s: float) -> dict[str, Any]:
    """Client settings shared by admin, consumer and producer; the first contact may take `timeout_s`."""
    access: dict[str, Any] = {"bootstrap_servers": settings.kafka_bootstrap.split(",")}
    if settings.kafka_user:
        access |= {
            "security_protocol": settings.kafka_protocol,
            "sasl_mechanism": settings.kafka_mechanism,
            "sasl_plain_username": settings.kafka_user,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    return {
        **access,
        "client_id": "twofold",
        "bootstrap_timeout_ms": int(timeout_s * 1000),
        # A broker that comes back is found within a second, however long it was away.
        "reconnect_backoff_max_ms": 1000,
    }


def quiet() -> None:
    """Keep the client library's own log off the terminal: what matters is said in our words, once."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)


def loud() -> None:
    """Show the client library's own log on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
