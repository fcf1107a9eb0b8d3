"""What is said of Kafka's errors: only a broker that is away is said to be away, and only a topic that is not there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from twofold import kafka
from twofold.definition.model import REQUIRED_SETTINGS, Pipeline, Topic
from twofold.errors import NotRunning, TwofoldError
from twofold.settings import Settings


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


class Broker:
    """Says of the topic `t` each time what comes next: it is there, or an error; the last of these for ever."""

    def __init__(self, *says: int | None) -> None:
        self.says = list(says)
        self.asked = 0
        self.made: list[str] = []
        self.partitions, self.settings = 1, dict[str, str]()
        self.later: dict[str, int] = {}
        """What it cannot do yet, having lost its session with ZooKeeper → how many more times."""

    def describe_topics(self, *_: object, **__: object) -> dict[str, Future[Any]]:
        self.asked += 1
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        there = SimpleNamespace(topic_id="id", partitions=[SimpleNamespace(id=n) for n in range(self.partitions)])
        return {"t": answer(there if said is None else KafkaException(KafkaError(said)))}

    def create_topics(self, wanted: Iterable[Any], **_: object) -> dict[str, Future[Any]]:
        names = [one.topic for one in wanted]
        self.made += names
        return dict.fromkeys(names, self.answer("create", None))

    def create_partitions(self, wanted: Iterable[Any], **_: object) -> dict[str, Future[Any]]:
        """Done, whatever is answered; but this broker describes it only once it was asked a second time."""
        ((name, total),) = ((one.topic, one.new_total_count) for one in wanted)
        self.made.append(f"{name}: {total}")
        if len(self.made) == 1:
            return {name: self.answer("partitions", None)}
        self.partitions = total
        return {name: answer(KafkaException(KafkaError(KafkaError.INVALID_PARTITIONS, "already has 2 partitions")))}

    def incremental_alter_configs(self, wanted: Iterable[Any], **_: object) -> dict[str, Future[Any]]:
        answered = self.answer("alter", None)
        if answered.exception() is None:
            self.settings = dict(REQUIRED_SETTINGS)
        return {one.name: answered for one in wanted}

    def list_offsets(self, places: Iterable[Any], **_: object) -> dict[Any, Future[Any]]:
        return dict.fromkeys(places, answer(SimpleNamespace(offset=7)))

    def describe_configs(self, wanted: Iterable[Any], **_: object) -> dict[Any, Future[Any]]:
        settings = {name: SimpleNamespace(value=value) for name, value in self.settings.items()}
        return dict.fromkeys(wanted, self.answer("configs", settings))

    def poll(self, seconds: float) -> None:
        pass

    def answer(self, what: str, outcome: object) -> Future[Any]:
        if not self.later.get(what):
            return answer(outcome)
        self.later[what] -= 1
        return answer(KafkaException(KafkaError(KafkaError.UNKNOWN)))


def answer(outcome: object) -> Future[Any]:
    found: Future[Any] = Future()
    if isinstance(outcome, Exception):
        found.set_exception(outcome)
    else:
        found.set_result(outcome)
    return found


def clock() -> SimpleNamespace:
    """Each look at it takes a second."""
    seconds = itertools.count()
    return SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda _: None)


OTHERS, OURS = Topic("t", 1, managed=False), Topic("t", 1)
UNKNOWN, AWAY = KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._TRANSPORT


def ensured(broker: Broker, topic: Topic) -> str:
    return kafka.ensure_by(cast(AdminClient, broker), topic).topic_id


def test_a_broker_that_starts_knows_its_topics_a_moment_later() -> None:
    broker = Broker(UNKNOWN, UNKNOWN, None)
    assert (ensured(broker, OTHERS), broker.asked, broker.made) == ("id", 3, [])


def test_a_topic_is_not_there_once_that_was_said_for_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "time", clock())
    broker = Broker(UNKNOWN)
    with pytest.raises(TwofoldError, match="there is no topic t"):
        ensured(broker, OTHERS)
    assert broker.asked > 1
    gone = Broker(UNKNOWN, AWAY)
    with pytest.raises(KafkaException) as met:
        ensured(gone, OTHERS)
    assert met.value.args[0].code() == AWAY


def test_a_broker_without_its_session_is_asked_again() -> None:
    broker = Broker(UNKNOWN, UNKNOWN, None)
    broker.later = {"create": 1, "configs": 1}
    assert (ensured(broker, OURS), broker.made, broker.later) == ("id", ["t", "t"], {"create": 0, "configs": 0})


def test_partitions_that_are_there_when_they_are_asked_for_again_are_made() -> None:
    broker = Broker(None)
    broker.later = {"partitions": 1}
    assert (ensured(broker, Topic("t", 2)), broker.made) == ("id", ["t: 2", "t: 2"])


def test_settings_are_set_again_where_the_broker_says_nothing_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(None)
    broker.later = {"alter": 1}
    monkeypatch.setattr(kafka, "AdminClient", lambda _: broker)
    pipeline = cast(Pipeline, SimpleNamespace(topic=OURS))
    assert kafka.repair(Settings(), pipeline).drift.keys().isdisjoint(REQUIRED_SETTINGS)


def test_a_broker_that_never_finds_its_session_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "time", clock())
    broker = Broker(UNKNOWN)
    broker.later = {"create": 1_000}
    with pytest.raises(KafkaException) as met:
        ensured(broker, OURS)
    assert met.value.args[0].code() == KafkaError.UNKNOWN


def test_a_topic_of_ours_is_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_NONE_FOR_S", float("inf"))
    broker = Broker(UNKNOWN, None)
    assert (ensured(broker, OURS), broker.asked, broker.made) == ("id", 2, ["t"])
    watched = Broker(UNKNOWN)
    assert (kafka.topic_id(cast(AdminClient, watched), "t"), watched.asked) == (None, 1)
