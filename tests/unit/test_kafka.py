"""What is said of Kafka's errors: only a broker that is away is said to be away."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from twofold import kafka
from twofold.errors import NotRunning, TwofoldError


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._BAD_MSG,
        KafkaError.UNKNOWN,
    ],
)
def test_a_broker_that_is_away_is_waited_for(code: int) -> None:
    found = kafka.explain("Kafka at h:1", KafkaError(code, "111 ECONNREFUSED"))
    assert isinstance(found, NotRunning)
    assert found.message.startswith("Kafka at h:1 does not answer: ")


@pytest.mark.parametrize(
    ("error", "heard", "said"),
    [
        (KafkaError(KafkaError._INVALID_ARG, "acks"), [], "Kafka at h:1 cannot be used: "),
        (KafkaError(KafkaError._STATE, "closed"), [], "Kafka at h:1 cannot be used: "),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "t"), [], "Kafka at h:1 refuses: TOPIC_AUTH"),
        # The question itself only times out: the reason is the connection's.
        (
            KafkaError(KafkaError._TIMED_OUT),
            [KafkaError(KafkaError._AUTHENTICATION, "wrong"), KafkaError(KafkaError._ALL_BROKERS_DOWN)],
            "Kafka at h:1 refuses: wrong",
        ),
    ],
)
def test_what_no_waiting_fixes_is_reported_as_it_is(error: KafkaError, heard: list[KafkaError], said: str) -> None:
    found = kafka.explain("Kafka at h:1", error, heard)
    assert isinstance(found, TwofoldError)
    assert not isinstance(found, NotRunning)
    assert said in found.message
    assert "does not answer" not in str(found)
