"""What is said of Kafka's errors: only a broker that is away is said to be away."""

from __future__ import annotations

import pytest
from kafka import errors

from producer import kafka_client
from twofold.errors import NotRunning, TwofoldError


@pytest.mark.parametrize(
    "error",
    [
        errors.KafkaConnectionError("111 ECONNREFUSED"),
        errors.KafkaTimeoutError("after 3 s"),
        errors.NodeNotReadyError(),
        errors.RequestTimedOutError(),
        errors.InvalidReceiveError("no Kafka"),
    ],
)
def test_a_broker_that_is_away_is_waited_for(error: errors.KafkaError) -> None:
    found = kafka_client.explain("h:1", error)
    assert isinstance(found, NotRunning)
    assert found.message.startswith("Kafka at h:1 does not answer: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.UnsupportedCodecError("Libraries for snappy"), "are compressed in a way that cannot be read here: "),
        (errors.KafkaConfigurationError("acks"), "Kafka at h:1 cannot be used: "),
        (errors.IllegalStateError("closed"), "Kafka at h:1 cannot be used: "),
        (errors.TopicAuthorizationFailedError("t"), "Kafka at h:1 refuses: "),
    ],
)
def test_what_no_waiting_mends_is_told_as_it_is(error: errors.KafkaError, said: str) -> None:
    found = kafka_client.explain("h:1", error)
    assert isinstance(found, TwofoldError)
    assert not isinstance(found, NotRunning)
    assert said in found.message
    assert "does not answer" not in str(found)
