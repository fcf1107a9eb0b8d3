"""The core's one way to Kafka: topics, offsets, single records, and how each client logs in.

    describe | ensure | repair ◄─── admin client ───┐
    records | filled | read    ◄─── consumer, ──────┴── brokers
                                    committed records only

What a topic must be like, known without a broker: `twofold.topic`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
    Uuid,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from twofold.definition.model import REQUIRED_SETTINGS
from twofold.errors import NotRunning, TwofoldError
from twofold.topic import (
    Filled,
    Range,
    TopicState,
    configs,
    cut,
    drift,
    inexact,
    joined,
    merged,
    not_there,
    require_managed,
    within,
)
from twofold.windows import EPOCH

if TYPE_CHECKING:
    from twofold.definition.model import Pipeline, Topic
    from twofold.settings import Settings

_Told = TypeVar("_Told")
TIMEOUT_S = 10.0
"""How long a broker may take to answer before it counts as not running."""
_MADE_WITHIN_S = 60.0
"""How long a broker that answers may take to finish deleting a topic, and to describe the one made in its place."""
_NONE_FOR_S = 5.0
"""Said for that long, there is no topic: a broker that starts takes questions before it knows any (0.3 s before)."""
_PAUSE_S = 0.1
_RECORDS_A_STEP = 1_000
_NEAR = 5_000
"""Records between two ranges are read along, up to this many: another request costs more."""
_SETTLING = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.NOT_CONTROLLER,
    # A broker says no more than this while it has lost its session with ZooKeeper.
    KafkaError.UNKNOWN,
)
"""What a broker reports of a topic made a moment ago, or for some seconds after its session with ZooKeeper was lost."""
_AWAY = (
    *_SETTLING,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._BAD_MSG,
    KafkaError._WAIT_COORD,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.REQUEST_TIMED_OUT,
)
"""What a client meets while no broker answers, or one that starts or ends."""
_DONE = (KafkaError.TOPIC_ALREADY_EXISTS, KafkaError.INVALID_PARTITIONS)
"""What a broker says of a topic, or of more partitions, that are there already; a description says whether as asked."""
_DENIED = (KafkaError._AUTHENTICATION, KafkaError._SSL)
_URL_SAFE = str.maketrans("+/", "-_")
_LOGIN_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


class KafkaRecord(NamedTuple):
    """A record as Kafka keeps it."""

    partition: int
    offset: int
    value: bytes | None
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    at_ms: int
    """Kafka's time stamp, in milliseconds since 1970. A sender may choose any number."""


def java(settings: Settings) -> dict[str, str]:
    """Access for Spark's source (each with `kafka.` before it) and Kafka's own tools; holds the password."""
    properties = {"bootstrap.servers": settings.kafka_bootstrap}
    if settings.kafka_user:
        password = settings.kafka_password.get_secret_value()
        properties |= {
            "security.protocol": settings.kafka_protocol,
            "sasl.mechanism": settings.kafka_mechanism,
            "sasl.jaas.config": login_module(settings.kafka_mechanism, settings.kafka_user, password),
        }
    return properties


def login_module(mechanism: str, user: str, password: str) -> str:
    """A client's login in Java's words.

    >>> login_module("PLAIN", "me", 'a"b')
    'org.apache.kafka.common.security.plain.PlainLoginModule required username="me" password="a\\\\"b";'
    """
    return f"{_LOGIN_MODULES[mechanism.split('-')[0]]} required username={quoted(user)} password={quoted(password)};"


def quoted(text: str) -> str:
    """A value in Java's JAAS syntax."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def librdkafka(settings: Settings) -> dict[str, Any]:
    """Access for clients built on librdkafka: this module's, the producer's, Airflow's connection."""
    properties: dict[str, Any] = {"bootstrap.servers": settings.kafka_bootstrap}
    if settings.kafka_user:
        properties |= {
            "security.protocol": settings.kafka_protocol,
            "sasl.mechanism": settings.kafka_mechanism,
            "sasl.username": settings.kafka_user,
            "sasl.password": settings.kafka_password.get_secret_value(),
        }
    return properties


@contextmanager
def admin(settings: Settings) -> Iterator[AdminClient]:
    """A client for questions; what it meets is raised as NotRunning or TwofoldError."""
    heard: list[KafkaError] = []
    # What matters is reported once, by this module: the library's own log stays off the terminal.
    quiet: dict[str, Any] = {"client.id": "twofold", "log_level": 0, "error_cb": heard.append}
    client = AdminClient({**librdkafka(settings), **quiet})
    with explained(f"Kafka at {settings.kafka_bootstrap}", heard):
        try:
            yield client
        finally:
            client.poll(0)


@contextmanager
def explained(where: str, heard: Sequence[KafkaError] = ()) -> Iterator[None]:
    """Raise what a client says as NotRunning or TwofoldError."""
    try:
        yield
    except KafkaException as error:
        raise explain(where, error.args[0], heard) from error


def explain(where: str, error: KafkaError, heard: Sequence[KafkaError] = ()) -> TwofoldError:
    """The error to show: no broker answers, or one answers that it will not. `heard`: what connections met."""
    if denied := next((each for each in heard if each.code() in _DENIED), None):
        return TwofoldError(f"{where} refuses: {denied.str()}", "check TWOFOLD_KAFKA_USER and its password")
    if error.code() in _AWAY or error.retriable():
        said = "no answer in time" if error.code() == KafkaError._TIMED_OUT else error.str()
        return NotRunning(
            f"{where} does not answer: {heard[-1].str() if heard else said}",
            "start it with `twofold up`, or point TWOFOLD_KAFKA_BOOTSTRAP at a running broker",
        )
    if error.code() > 0:
        return TwofoldError(f"{where} refuses: {error.name()}: {error.str()}")
    return TwofoldError(f"{where} cannot be used: {error.str()}")


def describe(
    settings: Settings, name: str, timeout_s: float = TIMEOUT_S, *, at_once: bool = False
) -> TopicState | None:
    """Describe a topic, None if there is none; raise NotRunning if no broker answers within `timeout_s`.

    With `at_once` None may also come of a broker that has only started: for where nobody misses the topic.
    """
    with admin(settings) as client:
        return _described(client, name, timeout_s, at_once=at_once)


def ensure(settings: Settings, pipeline: Pipeline, timeout_s: float = TIMEOUT_S) -> TopicState:
    """Make the pipeline's topic if there is none, raise its partitions if more are declared; report other drift.

    A topic of somebody else is only looked at: TwofoldError where there is none.
    """
    with admin(settings) as client:
        return ensure_by(client, pipeline.topic, timeout_s)


def ensure_by(client: AdminClient, topic: Topic, timeout_s: float = TIMEOUT_S) -> TopicState:
    """`ensure` by an existing client; raises KafkaException while no broker answers.

    `timeout_s` is for one answer: until Kafka has made the topic it may be a minute.
    """
    deadline, asked_for_more = time.monotonic() + _MADE_WITHIN_S, False
    later: KafkaException | None = None
    while True:
        state = _described(client, topic.name, timeout_s, at_once=topic.managed)
        if state and len(state.partitions) >= topic.partitions:
            return _compared(state, topic)
        if not topic.managed:
            raise not_there(topic)
        if time.monotonic() > deadline:
            if later:
                raise later
            what = f"Kafka has not made topic {topic.name} within {_MADE_WITHIN_S:.0f} s"
            raise TwofoldError(what, "if it was deleted just now, run the command again once Kafka has finished that")
        if state is None:
            # Asked again: a topic that is being deleted is in the way until it is gone.
            wanted = NewTopic(topic.name, topic.partitions, topic.replication, config=configs(topic))
            later = _later(topic, client.create_topics([wanted], request_timeout=timeout_s))
        elif not asked_for_more:
            more = NewPartitions(topic.name, topic.partitions)
            later = _later(topic, client.create_partitions([more], request_timeout=timeout_s))
            asked_for_more = later is None
        time.sleep(_PAUSE_S)


def repair(settings: Settings, pipeline: Pipeline) -> TopicState:
    """Give the pipeline's existing topic the settings that exactness needs; leave all others."""
    topic = pipeline.topic
    require_managed(topic, "is not changed")
    with admin(settings) as client:
        if _described(client, topic.name, TIMEOUT_S) is None:
            raise not_there(topic)
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in REQUIRED_SETTINGS.items()
        ]
        wanted = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=entries)
        deadline = time.monotonic() + TIMEOUT_S
        # A broker applies a change a moment after its controller has it; what is set may be set again.
        while True:
            (altered,) = client.incremental_alter_configs([wanted], request_timeout=TIMEOUT_S).values()
            refusal = altered.exception()
            state = _described(client, topic.name, TIMEOUT_S)
            if state is None:
                raise not_there(topic)
            if not (fault := inexact((compared := _compared(state, topic)).drift)):
                return compared
            if (refusal and not _is_settling(refusal)) or time.monotonic() > deadline:
                said = refusal or "OK"
                what = f"the broker does not take up the settings of topic {topic.name} (it says {said}): {fault}"
                raise TwofoldError(what, "have them set by someone who may")
            time.sleep(_PAUSE_S)


def first_offsets(settings: Settings, name: str, since: datetime | None) -> dict[int, int]:
    """Partition → its first record since a moment, by Kafka's time stamps; None: the first that no reader can get yet.

    Where no record is that young, the offset past the last one. TwofoldError where there is no such topic.
    """
    with admin(settings) as client:
        found = _if_there(client, name, TIMEOUT_S)
        if found is None:
            raise not_there(name)
        numbers = sorted(each.id for each in found.partitions)
        # Asked first: what comes after this question is taken, whatever the next one finds.
        stable = {number: end for number, (_, end, _) in _offsets(client, name, numbers, TIMEOUT_S).items()}
        if since is None:
            return stable
        # Kafka's time stamps are whole milliseconds.
        spec = OffsetSpec.for_timestamp(-(-(since - EPOCH) // timedelta(milliseconds=1)))
        places = [TopicPartition(name, number) for number in numbers]
        told = _asked(client, places, spec, IsolationLevel.READ_UNCOMMITTED, TIMEOUT_S)
        return {number: offset if offset >= 0 else stable[number] for number, offset in told.items()}


def topic_id(client: AdminClient, name: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """Kafka's own id of a topic, as Kafka prints it; None: no such topic, as far as the broker knows now."""
    found = _if_there(client, name, timeout_s, at_once=True)
    return found and _as_kafka_prints(found.topic_id)


def broker_fault(host: str, port: int, timeout_s: float) -> str:
    """Why a broker is not well, or an empty string: it must be registered, and know the cluster's controller."""
    conf: dict[str, Any] = {"bootstrap.servers": f"{host}:{port}", "log_level": 0, "error_cb": lambda _: None}
    client = AdminClient(conf)
    try:
        found = client.list_topics(timeout=timeout_s)
    except KafkaException as error:
        return str(error.args[0].str())
    return "" if found.brokers and found.controller_id >= 0 else "the broker is not registered yet"


def newest(settings: Settings, name: str, count: int) -> list[KafkaRecord]:
    """About the newest `count` committed records, as many of each partition."""
    state = describe(settings, name)
    if state is None:
        raise not_there(name)
    share = -(-count // max(len(state.partitions), 1))
    ends = state.stable_ends
    ranges = {
        number: [(max(begin, ends[number] - share), ends[number])] for number, (begin, _) in state.partitions.items()
    }
    return list(islice(read(settings, name, ranges), count))


def filled(
    settings: Settings, name: str, ranges: Mapping[int, Sequence[Range]], timeout_s: float = TIMEOUT_S
) -> dict[int, Filled]:
    """Which offsets of the given ranges hold a committed record; the others are markers, or of aborted transactions.

    The ranges are in order per partition, and do not meet: near ones are read in one pass.
    """
    found: dict[int, Filled] = {}
    with admin(settings) as client, closing(_consumer(settings)) as consumer:
        for number, wanted in ranges.items():
            begin, end, _ = _offsets(client, name, [number], timeout_s)[number]
            there = cut(wanted, begin, end)
            held = tuple(joined(message.offset() or 0 for message in _near(consumer, name, number, there, timeout_s)))
            # An offset may have gone between the two questions; so the result is as of the end.
            now = _offsets(client, name, [number], timeout_s)[number][0] if there else begin
            found[number] = Filled(max(begin, now), end, held)
    return found


def read(
    settings: Settings, name: str, ranges: Mapping[int, Sequence[Range]], timeout_s: float = TIMEOUT_S
) -> Iterator[KafkaRecord]:
    """The committed records of the given ranges that are still there, by partition and in order.

    The ranges are as for `filled`.
    """
    with admin(settings) as client, closing(_consumer(settings)) as consumer:
        for number, wanted in ranges.items():
            begin, end, _ = _offsets(client, name, [number], timeout_s)[number]
            for one in _near(consumer, name, number, cut(wanted, begin, end), timeout_s):
                headers: Any = one.headers() or ()
                at_ms = one.timestamp()[1]
                yield KafkaRecord(number, one.offset() or 0, one.value(), one.key(), list(headers), at_ms)


def _near(consumer: Consumer, name: str, number: int, ranges: Sequence[Range], timeout_s: float) -> Iterator[Message]:
    """The records of the ranges; those between near ones are read along, and left out."""
    spans = (_read(consumer, name, number, span, timeout_s) for span in merged(ranges, _NEAR))
    yield from within(chain.from_iterable(spans), ranges, lambda message: message.offset() or 0)


def _if_there(client: AdminClient, name: str, timeout_s: float, *, at_once: bool = False) -> Any:  # noqa: ANN401
    """What Kafka says of a topic; None: it says that there is none, and unless `at_once` for `_NONE_FOR_S`."""
    sure_at = 0.0
    while True:
        try:
            return client.describe_topics(TopicCollection([name]), request_timeout=timeout_s)[name].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
        sure_at = sure_at or time.monotonic() + _NONE_FOR_S
        if at_once or time.monotonic() >= sure_at:
            return None
        time.sleep(_PAUSE_S)


def _described(client: AdminClient, name: str, timeout_s: float, *, at_once: bool = False) -> TopicState | None:
    found = _if_there(client, name, timeout_s, at_once=at_once)
    if found is None:
        return None
    offsets = _offsets(client, name, sorted(each.id for each in found.partitions), timeout_s)
    resource = ConfigResource(ResourceType.TOPIC, name)
    settings = _settled(
        lambda: client.describe_configs([resource], request_timeout=timeout_s)[resource].result(), timeout_s
    )
    return TopicState(
        name=name,
        topic_id=_as_kafka_prints(found.topic_id),
        partitions={number: (begin, end) for number, (begin, _, end) in offsets.items()},
        settings={key: entry.value for key, entry in settings.items()},
        stable_ends={number: stable for number, (_, stable, _) in offsets.items()},
    )


def _compared(state: TopicState, topic: Topic) -> TopicState:
    return replace(state, drift=drift(topic, len(state.partitions), state.settings))


def _later(topic: Topic, asked: Mapping[str, Any]) -> KafkaException | None:
    """Why the broker must be asked again; None: it does it. Raises what else it says."""
    error = asked[topic.name].exception()
    if not isinstance(error, KafkaException) or error.args[0].code() in _DONE:
        return None
    if _is_settling(error):
        return error
    if error.args[0].code() in _AWAY:
        raise error
    what = f"the broker refuses topic {topic.name}: {error.args[0].str()}"
    raise TwofoldError(what, "correct `topic` in the pipeline file") from error


def _offsets(
    client: AdminClient, name: str, numbers: Iterable[int], timeout_s: float
) -> dict[int, tuple[int, int, int]]:
    """Partition → first offset, last stable offset, end; asked in this order, so that they never contradict."""
    places = [TopicPartition(name, number) for number in numbers]
    first, last = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
    begin = _asked(client, places, first, IsolationLevel.READ_UNCOMMITTED, timeout_s)
    stable = _asked(client, places, last, IsolationLevel.READ_COMMITTED, timeout_s)
    end = _asked(client, places, last, IsolationLevel.READ_UNCOMMITTED, timeout_s)
    return {number: (begin[number], stable[number], end[number]) for number in begin}


def _asked(
    client: AdminClient, places: Sequence[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel, timeout_s: float
) -> dict[int, int]:
    """Partition → the offset that is asked for; below 0 where there is none."""

    def ask() -> dict[int, int]:
        told = client.list_offsets(dict.fromkeys(places, spec), isolation_level=isolation, request_timeout=timeout_s)
        return {place.partition: future.result().offset for place, future in told.items()}

    return _settled(ask, timeout_s) if places else {}


def _settled(ask: Callable[[], _Told], timeout_s: float) -> _Told:
    """Ask until the brokers have all heard of a topic that was made just now, and of their controller."""
    settling = retry_if_exception(_is_settling)
    return Retrying(retry=settling, stop=stop_after_delay(timeout_s), wait=wait_fixed(_PAUSE_S), reraise=True)(ask)


def _is_settling(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in _SETTLING


def _as_kafka_prints(identifier: Uuid) -> str:
    """Kafka's tools print the 16 bytes in URL-safe base64."""
    return str(identifier).translate(_URL_SAFE)


def _consumer(settings: Settings) -> Consumer:
    return Consumer(
        {
            **librdkafka(settings),
            "client.id": "twofold",
            # Asked for by the library, and never joined: partitions are assigned, and nothing is stored.
            "group.id": "twofold",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "log_level": 0,
            "error_cb": lambda _: None,
        }
    )


def _read(consumer: Consumer, name: str, number: int, span: Range, timeout_s: float) -> Iterator[Message]:
    """The records of a span, which ends at the last stable offset at the latest; KafkaException without progress."""
    at, end = span
    consumer.assign([TopicPartition(name, number, at)])
    deadline = time.monotonic() + timeout_s
    while at < end:
        for message in consumer.consume(num_messages=min(end - at, _RECORDS_A_STEP), timeout=_PAUSE_S):
            error = message.error()
            if error is None:
                at = (message.offset() or 0) + 1
                deadline = time.monotonic() + timeout_s
                if at <= end:
                    yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                at = end
            elif error.code() not in (*_AWAY, KafkaError.GROUP_AUTHORIZATION_FAILED):
                raise KafkaException(error)
        if at < end and time.monotonic() > deadline:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{name}[{number}]@{at}"))
