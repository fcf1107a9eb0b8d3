"""What the producer takes for delivered: never more than Kafka has acknowledged, never a record in two places."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer import reporting, sending
from producer.delivery import Ledger, Record
from producer.reporting import Progress, Reporter, Screen
from producer.sending import Pace, split, within
from producer.sources import Chunk, RecordSource, Request, Shares
from tests import overhear, running
from twofold import health, journal, metrics
from twofold.errors import Busy, NotRunning, TwofoldError, UsageError
from twofold.journal import Delivered
from twofold.metrics import Meter
from twofold.settings import Settings
from twofold.topic import TopicState


def chunk_of(keys: list[bytes | None], first: int = 0) -> Chunk:
    return Chunk(first, [b"%d" % number for number in range(len(keys))], keys)


LIMIT = 1_000_000


def numbered(first: int, count: int) -> list[Record]:
    return [(position, b"k", b"v%d" % position) for position in range(first, first + count)]


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12), data=st.data())
def test_the_position_never_passes_a_record_that_is_not_acknowledged(sizes: list[int], data: st.DataObject) -> None:
    ledger = Ledger(100, 3, Path("unused"), LIMIT)
    lanes: list[deque[int]] = [deque() for _ in range(3)]
    position = 100
    for index, size in enumerate(sizes):
        ledger.hand_over(index % 3, numbered(position, size))
        lanes[index % 3] += range(position, position + size)
        position += size
        ledger.submitted(position)
    while waiting := {number for lane in lanes for number in lane}:
        assert ledger.progress().position == min(waiting)
        assert ledger.held_bytes > 0
        partition = data.draw(st.sampled_from([number for number, lane in enumerate(lanes) if lane]))
        count = data.draw(st.integers(1, len(lanes[partition])))
        taken = [lanes[partition].popleft() for _ in range(count)]
        ledger.delivered(partition, count, taken[-1])
    assert ledger.progress().position == position
    assert ledger.progress().acked == position - 100
    assert ledger.held_bytes == 0


def test_a_group_counts_each_record_and_a_too_large_one_is_kept_aside(tmp_path: Path) -> None:
    ledger = Ledger(0, 2, tmp_path / "j" / "aside", limit=1000)
    large = b"\xff" + b"x" * 2000
    groups = list(ledger.parted([(0, b"a", b"one"), (4, b"b", large), (7, b"c", b"two")]))
    assert [(len(group), alone) for group, alone in groups] == [(1, False), (1, True), (1, False)]
    for group, _ in groups:
        ledger.hand_over(0, group)
    ledger.submitted(8)
    ledger.delivered(0, 1, 20)
    assert ledger.progress().position == 4
    ledger.refused(0, "MSG_SIZE_TOO_LARGE", too_large=True)
    assert ledger.progress().position == 7
    ledger.delivered(0, 1, 21)
    assert ledger.progress() == Progress(
        position=8,
        sent=3,
        acked=2,
        too_large=1,
        refused=((4, 2001),),
        partitions={0: Delivered(2, 21)},
        sent_bytes=2007,
        last_ack_at=ledger.progress().last_ack_at,
        ack_s=ledger.progress().ack_s,
    )
    assert (tmp_path / "j" / "aside").read_bytes() == large + b"\n"


@pytest.mark.parametrize("too_large", [False, True])
def test_what_follows_a_refusal_settles_nothing(tmp_path: Path, too_large: bool) -> None:
    """A record that is small is never set aside: the topic may take it once its limit is what it was."""
    ledger = Ledger(0, 1, tmp_path / "aside", LIMIT)
    ledger.hand_over(0, numbered(0, 3))
    ledger.submitted(3)
    ledger.delivered(0, 1, 0)
    ledger.refused(0, "no", too_large)
    ledger.delivered(0, 1, 2)
    found = ledger.progress()
    assert (found.failure, found.position, found.too_large) == ("Kafka refuses: no", 1, 0)
    assert found.partitions == {0: Delivered(2, 2)}
    assert ledger.held_bytes > 0
    assert not (tmp_path / "aside").exists()


def test_a_wait_begins_with_the_first_record_in_flight_and_ends_with_a_report() -> None:
    now = [50.0]
    ledger = Ledger(0, 1, Path("unused"), LIMIT, lambda: now[0])
    assert ledger.progress().waiting_s == 0
    ledger.hand_over(0, numbered(0, 2))
    assert ledger.progress().waiting_s == 0
    now[0] += 3
    assert ledger.progress().waiting_s == 3
    ledger.delivered(0, 1, 0)
    assert (ledger.progress().waiting_s, ledger.progress().last_ack_at) == (0, 53)
    now[0] += 2
    assert ledger.progress().waiting_s == 2
    ledger.delivered(0, 1, 1)
    assert ledger.progress().waiting_s == 0
    now[0] += 9
    assert (ledger.progress().waiting_s, ledger.progress().ack_s) == (0, 5)


@given(
    keys=st.lists(st.none() | st.binary(max_size=3), max_size=80),
    partitions=st.integers(1, 5),
    first=st.integers(0, 10_000),
)
def test_every_record_is_in_one_partition_and_every_id_in_one(
    keys: list[bytes | None], partitions: int, first: int
) -> None:
    chunk = chunk_of(keys, first)
    seen: list[int] = []
    home: dict[bytes, set[int]] = {}
    for partition, group in enumerate(split(chunk, 0, len(keys), partitions)):
        positions = [position for position, _, _ in group]
        assert positions == sorted(positions)
        seen += positions
        for _, key, _ in group:
            if key is not None:
                home.setdefault(key, set()).add(partition)
    assert sorted(seen) == list(range(first, first + len(keys)))
    assert all(len(places) == 1 for places in home.values())


@pytest.mark.parametrize(("limit", "kept"), [(None, 4), (20, 4), (12, 2), (10, 0), (3, 0)])
def test_a_limit_counts_from_the_start_of_the_source(limit: int | None, kept: int) -> None:
    assert len(within(chunk_of([None] * 4, 10), limit)) == kept


class Time:
    """A clock that waiting moves."""

    def __init__(self) -> None:
        self.now = 50.0
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.now += seconds
        return False


def sent_at(pace: Pace, time: Time, chunk: Chunk, stall: Callable[[int], float] = lambda _: 0.0) -> list[float]:
    """When each record of a chunk was given out, from the clock's start."""
    moments: list[float] = []
    for low, high in pace.slices(chunk):
        moments += [time.now - 50.0] * (high - low)
        time.now += stall(low)
    return moments


def test_a_rate_is_kept_and_a_stall_is_not_made_up_for_in_one_burst() -> None:
    time = Time()
    pace = Pace(10, None, time.wait, lambda: time.now)
    assert sent_at(pace, time, chunk_of([None] * 4, 7)) == pytest.approx([0, 0.1, 0.2, 0.3], abs=0.006)
    moments = sent_at(pace, time, chunk_of([None] * 40, 11), lambda low: 100.0 if low == 0 else 0.0)
    assert sum(moment < 101.5 for moment in moments) < 25


def test_gaps_between_send_times_are_kept_only_shorter() -> None:
    time = Time()
    chunk = Chunk(0, [b""] * 3, [None] * 3, [1000.0, 1060.0, 1180.0])
    assert sent_at(Pace(None, 120, time.wait, lambda: time.now), time, chunk) == pytest.approx([0, 0.5, 1.5], abs=0.006)


def test_at_full_speed_nothing_waits() -> None:
    time = Time()
    assert sent_at(Pace(None, None, time.wait, lambda: time.now), time, chunk_of([None] * 5000)) == [0.0] * 5000
    assert not time.waited


@pytest.mark.parametrize(
    "options",
    [
        {"from_file": "a", "generate": 1},
        {"from_file": "a", "speed_up": 2.0},
        {"rate": 1.0, "speed_up": 2.0},
        {"generate": 1, "shares": Shares(late=0.6, malformed=0.6)},
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Request(**options)


class Fixed(RecordSource):
    """A source whose content is `version`."""

    identity = {"kind": "lines", "path": "/x"}  # noqa: RUF012

    def __init__(self, version: dict[str, Any], memory: dict[str, Any] | None = None) -> None:
        self.version, self.memory = version, memory or {"base": "now"}

    def chunks(self, start: int) -> Iterator[Chunk]:
        return iter(())


def topic(identifier: str) -> TopicState:
    return TopicState("t", identifier, {0: (0, 0)}, {})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def path(settings: Settings) -> Path:
    path = reporting.path_of(settings, "p", Fixed.identity)
    path.parent.mkdir(parents=True)
    book = reporting.start(path, "p", topic("A"), Fixed({"size": 1}, {"base": "then"}), restart=False)
    book.save(Progress(position=70, partitions={0: Delivered(60, 59)}))
    return path


def test_a_journal_goes_on_where_the_run_stopped(path: Path) -> None:
    source = Fixed({"size": 1})
    book = reporting.start(path, "p", topic("A"), source, restart=False)
    assert book.entry.position == 70
    assert source.memory == {"base": "then"}
    book.save(Progress(position=80, partitions={0: Delivered(1, 60)}))
    assert journal.read(path) == journal.Entry(
        "p",
        "t",
        "A",
        {"kind": "lines", "path": "/x"},
        {"size": 1},
        {"base": "then"},
        (80,),
        partitions={0: Delivered(61, 60)},
        updated=journal.read(path).updated,  # type: ignore[union-attr]
    )


def test_a_journal_of_several_workers_goes_on_where_the_slowest_stopped(path: Path) -> None:
    before = journal.read(path)
    assert before is not None
    path.write_text(replace(before, positions=(70, 90)).to_json())
    book = reporting.start(path, "p", topic("A"), Fixed({"size": 1}), restart=False)
    assert book.entry.position == 70


@pytest.mark.parametrize(("version", "restart"), [({"size": 2}, False), ({"size": 1}, True)])
def test_changed_content_or_restart_begin_anew_and_keep_what_was_acknowledged(
    path: Path, settings: Settings, version: dict[str, Any], restart: bool
) -> None:
    book = reporting.start(path, "p", topic("A"), Fixed(version), restart)
    assert book.entry.position == 0
    assert bool(book.note) is not restart
    book.save(Progress())
    assert journal.acknowledged(journal.entries(settings, "p"), "A") == {0: 59}


def test_offsets_of_a_topic_made_again_are_never_compared(path: Path, settings: Settings) -> None:
    with pytest.raises(TwofoldError, match="deleted and recreated"):
        reporting.start(path, "p", topic("B"), Fixed({"size": 1}), restart=False)
    book = reporting.start(path, "p", topic("B"), Fixed({"size": 1}), restart=True)
    book.save(Progress(position=5, partitions={1: Delivered(5, 4)}))
    assert journal.acknowledged(journal.entries(settings, "p"), "B") == {1: 4}
    assert journal.acknowledged(journal.entries(settings, "p"), "A") == {}


def test_two_producers_of_one_source_are_refused(path: Path) -> None:
    with reporting.lock(path), pytest.raises(Busy, match="another producer"), reporting.lock(path):
        pass


def test_a_spoilt_journal_is_named_and_not_overwritten(path: Path) -> None:
    path.write_text("{")
    with pytest.raises(TwofoldError, match="cannot be understood"):
        reporting.start(path, "p", topic("A"), Fixed({"size": 1}), restart=False)
    assert path.read_text() == "{"


def test_health_tells_200_or_503_and_where_it_listens(tmp_path: Path) -> None:
    state = {"healthy": True, "state": "sending"}
    with health.HealthServer(lambda: state) as server:
        server.announce(tmp_path / "run" / "x.json")
        place = json.loads((tmp_path / "run" / "x.json").read_text())
        url = f"http://127.0.0.1:{place['port']}/healthz"
        with urllib.request.urlopen(url) as answer:
            assert json.load(answer) == state
        state["healthy"] = False
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(url)
        with pytest.raises(TwofoldError, match="cannot be used"):
            health.HealthServer(lambda: state, server.port)
        assert health.ask(f"127.0.0.1:{server.port}") == state
    assert health.ask(f"127.0.0.1:{server.port}") == {}


OK, UNWELL, LENGTH = (
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.0 503 Service Unavailable\r\n",
    b"Content-Length: 99\r\n\r\n",
)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail ready\r\n",
        OK,
        OK + LENGTH,
        OK + LENGTH + b'{"state": "runn',
        UNWELL + LENGTH + b'{"state": "retr',
        OK + b'\r\n{"state": ',
        OK + b"\r\n\xff",
        OK + b'\r\n["state"]',
        OK + b"\r\n7",
        OK + b'\r\n{"status": "of another program"}',
        UNWELL + b"\r\n<html>away</html>",
        b'HTTP/1.0 404 Not Found\r\n\r\n{"error": "only /healthz is here"}',
    ],
)
def test_what_ends_or_is_another_program_does_not_answer(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as beside:

        def respond() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        done = beside.submit(respond)
        assert health.ask(f"127.0.0.1:{listening.getsockname()[1]}") == {}
        done.result()


def test_metrics_reach_the_exporter_under_their_names_and_never_stop_the_work() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exporter:
        exporter.bind(("127.0.0.1", 0))
        meter = Meter(Settings(statsd_port=exporter.getsockname()[1]), "flights")
        meter.count(metrics.PRODUCER_ACKED, 5)
        meter.gauge(metrics.PRODUCER_QUEUE, 7)
        assert {exporter.recv(100), exporter.recv(100)} == {
            b"twofold_producer_acked_total,pipeline=flights:5|c",
            b"twofold_producer_queue_records,pipeline=flights:7|g",
        }
    Meter(Settings(statsd_host="no-such-host.invalid"), "flights").gauge(metrics.PRODUCER_QUEUE, 1)


@pytest.mark.parametrize("lives", [True, False])
def test_a_run_beside_the_pipelines_own_producer_counts_and_does_not_speak_for_it(tmp_path: Path, lives: bool) -> None:
    settings = running.fresh_settings(tmp_path, tmp_path)
    path = reporting.path_of(settings, "p", Fixed.identity)
    screen = Screen("broker")
    with screen.live("t", 0, None), reporting.lock(path), overhear.statsd_lines(settings) as lines:
        book = reporting.start(path, "p", topic("A"), Fixed({"size": 1}), restart=False)
        Reporter(book, Meter(settings, "p"), screen, lives).take(Progress(sent=5, acked=5, done=True))
    told = {name.partition(",")[0]: value for name, _, value in (line.rpartition(":") for line in lines)}
    assert told[metrics.PRODUCER_ACKED.name] == "5|c"
    assert told.get(metrics.PRODUCER_RUNNING.name) == ("0|g" if lives else None)
    assert (metrics.PRODUCER_HEARTBEAT.name in told) is lives


def test_a_server_that_is_away_is_waited_for_and_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PAUSE_S", 0)
    said: list[str] = []
    away = iter([True, True, True, False])

    def ask() -> str:
        if next(away):
            raise NotRunning("no broker")
        return "here"

    assert sending.patiently(ask, Event(), said.append) == "here"
    assert said == ["no broker\n  waiting for it; Ctrl-C ends"]


def test_a_stopped_run_waits_no_longer() -> None:
    stop = Event()

    def ask() -> None:
        assert not stop.is_set()
        stop.set()
        raise NotRunning("no broker")

    with pytest.raises(NotRunning):
        sending.patiently(ask, stop, lambda _: None)
