"""The rules of the services: who may start what, what a restart costs, and which looks make a service healthy."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from xmlrpc.server import SimpleXMLRPCServer

import pytest

from tests import overhear
from tests.conftest import write_definition
from twofold import database
from twofold.database import KeptResult
from twofold.definition.model import Pipeline
from twofold.errors import TwofoldError
from twofold.services import controller as report
from twofold.services import removed
from twofold.services.controller import RUNBOOKS, State
from twofold.services.record import (
    AWAY,
    BUDGET_S,
    CHANGED,
    CHANGES_PER_HOUR,
    PRODUCER,
    STREAM,
    End,
    Record,
    ended,
    restart,
    start,
    stop,
)
from twofold.services.verdict import HealthLimits, Kind, Look, Verdict, judge
from twofold.settings import Settings
from twofold.stack import status as stack_status
from twofold.stack import supervisor
from twofold.stack.supervisor import ProgramState

ROOT = Path(__file__).parents[2]
LIMITS = HealthLimits(good_samples=3, stalled_after_s=60, silent_after_s=60)


def crashed(record: Record, at: float, code: int = -9, service: str = STREAM) -> Record:
    return ended(record, End(at, code, asked=False, ran_s=5), service, per_hour=3)


def test_crashes_are_restarted_within_the_budget_and_then_the_service_is_left_down() -> None:
    record = Record()
    for at in (100.0, 200.0, 300.0):
        record = crashed(record, at)
        assert record.again
        record = Record.from_dict(json.loads(record.to_json()))
    left = crashed(Record(restarts=record.restarts, ends=record.ends), 400.0)
    assert not left.again
    assert "restarted 3 times within an hour" in left.left_down
    assert "signal 9 (SIGKILL)" in left.left_down
    assert start(left, 500, by_hand=False, alive=False) == (left, "left down")
    cleared, did = start(left, 500, by_hand=True, alive=False)
    assert (did, cleared.again, cleared.left_down, cleared.spent(501)) == ("started", True, "", 0)


def test_crashes_and_restarts_of_the_stuck_count_together_and_for_an_hour() -> None:
    record = crashed(crashed(Record(), 100.0), 200.0)
    record, did = restart(record, 300.0, 3, by_hand=False, why="stuck")
    assert (did, record.spent(301)) == ("started", 3)
    over, did = restart(record, 400.0, 3, by_hand=False, why="stuck")
    assert (did, over.again) == ("left down", False)
    later, did = restart(record, 100 + BUDGET_S, 3, by_hand=False, why="stuck")
    assert (did, later.spent(100 + BUDGET_S)) == ("started", 3)


def test_what_was_stopped_by_hand_stays_down_until_started_by_hand() -> None:
    stopped = stop(Record(again=True), 50.0)
    after = ended(stopped, End(51, -15, asked=True, ran_s=5), STREAM, 3)
    assert not after.again
    assert start(after, 100, by_hand=False, alive=False) == (after, "stopped")
    assert restart(after, 100, 3, by_hand=False, why="stuck") == (after, "stopped")
    assert start(after, 100, by_hand=True, alive=False)[1] == "started"


def test_a_replay_that_ends_is_finished_a_streaming_job_that_ends_has_crashed() -> None:
    finished = crashed(Record(), 10.0, code=0, service=PRODUCER)
    assert (finished.finished, finished.again, finished.restarts) == (True, False, ())
    assert start(finished, 20, by_hand=False, alive=False) == (finished, "finished")
    assert start(finished, 20, by_hand=True, alive=False)[0].again
    assert crashed(Record(), 10.0, code=0, service=STREAM).again


def test_giving_up_on_a_broker_that_is_away_costs_nothing_and_the_next_schedule_starts_it() -> None:
    record = crashed(Record(), 10.0, code=AWAY)
    assert (record.again, record.restarts) == (False, ())
    assert start(record, 70, by_hand=False, alive=False)[1] == "started"


def test_a_changed_definition_is_started_with_at_once_and_costs_nothing() -> None:
    record = crashed(Record(), 50.0)
    for at in (100.0, 200.0, 300.0, 400.0, 500.0):
        record = crashed(replace(record, again=False), at, code=CHANGED)
        assert record.again
        record = Record.from_dict(json.loads(record.to_json()))
    assert (record.spent(501), record.changed(501), record.left_down) == (1, 5, "")
    assert record.last_restart is not None
    assert (record.last_restart.at, record.last_restart.why) == (500, "the definition changed")
    assert str(record.ends[-1]) == "exit code 76 (the definition changed) after 5 s"
    assert record.changed(100 + BUDGET_S) == 4
    # The new definition cannot be started with: those are crashes, and there are two left.
    for at in (510.0, 520.0, 530.0):
        record = crashed(record, at, code=1)
    assert "restarted 3 times within an hour already, and then: ended with exit code 1" in record.left_down


def test_a_changed_definition_without_end_is_a_fault_and_counts() -> None:
    record = Record()
    for number in range(CHANGES_PER_HOUR + 3):
        record = crashed(record, 100.0 + number, code=CHANGED)
        assert record.again
    record = crashed(record, 200.0, code=CHANGED)
    assert "ended with exit code 76 (the definition changed)" in record.left_down


def test_a_stop_by_hand_holds_against_a_changed_definition() -> None:
    stopped = ended(stop(Record(), 50.0), End(51, CHANGED, asked=True, ran_s=5), STREAM, 3)
    assert (stopped.again, stopped.changes) == (False, ())


def test_restarts_for_a_changed_definition_are_told_beside_the_budget() -> None:
    record = crashed(crashed(Record(), 10.0), 20.0, code=CHANGED)
    state = State("p", STREAM, "RUNNING", 7, 1.0, "", spent=1, per_hour=3, record=record, changes=1)
    assert report.budget(state) == "1 of 3/h, 1 for a changed definition"
    assert report.restarts(state)[2:] == [
        "and 1 for a changed definition, which do not count",
        "  1970-01-01 00:00:20 UTC: the definition changed",
    ]
    told = report.as_dict(state, Verdict("healthy", ""), {})
    assert (told["restarts"], told["definition_restarts"]) == (1, 1)
    assert told["last_restart"] == {"at": 20.0, "why": "the definition changed", "counts": False}
    assert report.budget(replace(state, changes=0)) == "1 of 3/h"


def test_a_start_of_what_runs_changes_nothing_but_the_budget_by_hand() -> None:
    record = crashed(Record(), 10.0)
    assert start(record, 20, by_hand=False, alive=True) == (record, "running")
    assert start(record, 20, by_hand=True, alive=True)[0].spent(21) == 0


# ---- verdicts ----


def streaming(at: float, batch: int | None, behind: int | None, age_s: float = 1, pid: int = 7, **told: Any) -> Look:  # noqa: ANN401
    health = {"state": "running", "batch": batch, "offsets_behind": behind, "last_batch_age_s": age_s, "idle": False}
    missing = told.pop("missing", "")
    return Look(pid, "RUNNING", uptime_s=500, health={**health, **told}, missing=missing)


def producing(at: float, acked: int, in_flight: int, **told: Any) -> Look:  # noqa: ANN401
    health = {"state": "sending", "acked": acked, "in_flight": in_flight, "waiting_s": 0, "rate_per_s": 10}
    return Look(7, "RUNNING", uptime_s=500, health={**health, **told})


def silent(uptime_s: float, pid: int = 7) -> Look:
    """One that has answered, within these looks or before them."""
    return Look(pid, "RUNNING", uptime_s=uptime_s, announced=True)


DOWN = Look(0, "EXITED", record=Record(ends=(End(1, 1, asked=False, ran_s=2),)))
KAFKA = "Kafka at k:9092 does not answer"

VERDICTS: dict[str, tuple[str, list[Look], Kind, str]] = {
    "advancing": (STREAM, [streaming(i, i, 10) for i in range(4)], "healthy", "the batch advances"),
    "one look too few": (STREAM, [streaming(i, i, 10) for i in range(3)], "not yet", "the batch advances"),
    "idle": (STREAM, [streaming(i, 3, 5, idle=True) for i in range(3)], "healthy", "nothing to read"),
    "nothing behind": (STREAM, [streaming(i, 3, 0) for i in range(3)], "healthy", "nothing to read"),
    "idle, its next word delayed": (STREAM, [streaming(i, 3, 5, age_s=25, idle=True) for i in range(3)], "healthy", ""),
    "idle long ago": (
        STREAM,
        [streaming(i, 3, 5, age_s=26, idle=True) for i in range(9)],
        "not yet",
        "had nothing to read, and no word since; batch 3, 5 offsets behind, last progress 26 s ago",
    ),
    "nothing behind long ago": (STREAM, [streaming(i, 3, 0, age_s=26) for i in range(9)], "not yet", "no word since"),
    "idle between slow triggers": (
        STREAM,
        [streaming(i, 3, 0, age_s=50, trigger_s=60, idle=True) for i in range(3)],
        "healthy",
        "nothing to read",
    ),
    "idle, then a batch": (
        STREAM,
        [streaming(1, 3, 0), streaming(2, 3, 0), streaming(3, 3, 0, age_s=40), streaming(4, 4, 0)],
        "healthy",
        "nothing to read",
    ),
    "a long batch": (STREAM, [streaming(i, 3, 10, age_s=50) for i in range(9)], "not yet", "at work"),
    "a long batch between": (
        STREAM,
        [streaming(i, b, 10) for i, b in enumerate((1, 2, 2, 2, 3, 4))],
        "healthy",
        "the batch advances",
    ),
    "falling behind": (
        STREAM,
        [streaming(i, i, 100 * i) for i in range(1, 5)],
        "not yet",
        "falls behind: 200 → 300 → 400 offsets",
    ),
    "stuck": (STREAM, [streaming(1, 3, 10, age_s=61)], "stuck", "no progress for 61 s"),
    "a slow first batch": (STREAM, [streaming(1, None, None, age_s=100)], "not yet", "at work"),
    "a first batch that never comes": (STREAM, [streaming(1, None, None, age_s=181)], "stuck", "no progress for 181 s"),
    "the broker is away": (STREAM, [streaming(1, 3, 0, age_s=61, missing=KAFKA)], "not yet", KAFKA),
    "no idle look counts while the broker is away": (
        STREAM,
        [streaming(i, 3, 0, missing=KAFKA) for i in range(5)],
        "not yet",
        KAFKA,
    ),
    "retrying": (STREAM, [streaming(1, 3, 5, state="retrying", problem="boom")], "not yet", "retrying; boom"),
    "a bad look between": (
        STREAM,
        [streaming(1, 1, 0), streaming(2, 1, 0), streaming(3, 1, 0, state="retrying"), streaming(4, 1, 0)],
        "not yet",
        "nothing to read",
    ),
    "started again": (
        STREAM,
        [streaming(1, 1, 0), streaming(2, 1, 0), streaming(3, 1, 0, pid=8)],
        "not yet",
        "nothing to read",
    ),
    "down": (STREAM, [DOWN], "not yet", "does not run (EXITED); last ended with exit code 1"),
    "silent": (STREAM, [Look(7, "RUNNING", uptime_s=30)], "not yet", "runs for 30 s and does not answer yet"),
    "silent for ever": (STREAM, [Look(7, "RUNNING", uptime_s=200)], "stuck", "runs for 200 s"),
    "silent at one look": (STREAM, [silent(5000)], "not yet", "runs for 5000 s and does not answer"),
    "silent at one look after good ones": (
        STREAM,
        [*(streaming(i, i, 0) for i in range(3)), replace(silent(560), announced=False)],
        "not yet",
        "does not answer",
    ),
    "silent since a good one": (
        STREAM,
        [streaming(1, 1, 0), silent(540), silent(561)],
        "stuck",
        "runs for 561 s and has not answered for 61 s",
    ),
    "silent at each look": (PRODUCER, [silent(5000 + 8 * i) for i in range(9)], "stuck", "has not answered for 64 s"),
    "silent at times": (
        STREAM,
        [silent(440), streaming(1, 1, 0), silent(510), replace(streaming(1, 1, 0), uptime_s=520), silent(570)],
        "not yet",
        "does not answer",
    ),
    "silent while it starts": (STREAM, [silent(100), silent(170)], "not yet", "does not answer"),
    "silent, of another process": (STREAM, [silent(5000), silent(200, pid=8)], "not yet", "runs for 200 s"),
    "silent, the broker away": (
        STREAM,
        [silent(5000), replace(silent(5100), missing=KAFKA)],
        "not yet",
        f"for 100 s; {KAFKA}",
    ),
    "left down": (STREAM, [Look(0, "EXITED", record=Record(left_down="3 times"))], "left down", "3 times"),
    "stopped": (STREAM, [Look(0, "STOPPED", record=Record(stopped_at=1.0))], "stopped", "1970-01-01 00:00:01 UTC"),
    "sending": (PRODUCER, [producing(i, i * 10, 5) for i in range(4)], "healthy", "30 records acknowledged"),
    "nothing due": (PRODUCER, [producing(i, 10, 0) for i in range(3)], "healthy", "nothing is due"),
    "not acknowledged": (PRODUCER, [producing(i, 10, 5) for i in range(9)], "not yet", "5 in flight"),
    "waiting for the broker": (
        PRODUCER,
        [producing(1, 10, 5, state="waiting_for_broker", waiting_s=9)],
        "not yet",
        "waits for the broker since 9 s",
    ),
    "between end and start": (STREAM, [Look(0, "STOPPED")], "not yet", "does not run (STOPPED)"),
    "lost": (STREAM, [Look(0, "STOPPED"), Look(0, "STOPPED")], "lost", "has not started it"),
    "lost, but stopped manually": (
        STREAM,
        [Look(0, "STOPPED", record=Record(stopped_at=1.0))] * 2,
        "stopped",
        "stopped manually",
    ),
    "finished": (PRODUCER, [Look(0, "EXITED", record=Record(finished=True))], "finished", "all is sent"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(name: str) -> None:
    service, looks, kind, reason = VERDICTS[name]
    verdict = judge(service, looks, LIMITS)
    assert verdict.kind == kind, verdict
    assert reason in verdict.reason


# ---- the trigger ----


def test_the_trigger_is_made_again_by_its_class_path_and_tells_what_it_saw_when_its_time_is_up(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "PYTHONPATH": f"{ROOT / 'plugins'}{os.pathsep}{ROOT}",
        "TWOFOLD_HOME": str(tmp_path),
        "TWOFOLD_PIPELINES": str(ROOT / "tests" / "pipelines"),
        "TWOFOLD_SUPERVISOR_PORT": "1",
    }
    command = [sys.executable, str(ROOT / "tests" / "airflow_trigger.py"), "payments", "stream", "0"]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in outcome.stdout.splitlines() if line.startswith("EVENT ")]
    assert lines, outcome.stderr
    event = json.loads(lines[0].removeprefix("EVENT "))
    assert (event["kind"], event["payload"]["kind"]) == ("TriggerEvent", "not yet")
    assert "does not answer at 127.0.0.1:1" in event["payload"]["reason"]


def test_every_verdict_that_fails_has_its_page_of_the_runbook() -> None:
    folder = ROOT / "docs" / "runbooks"
    assert not [page for page in RUNBOOKS.values() if not (folder / f"{page}.md").is_file()]


class Supervisor:
    """Answers as the supervisor of the producers does, of which one runs."""

    def __init__(self, running: str) -> None:
        self.pid = {running: 7}

    def _dispatch(self, method: str, arguments: tuple[Any, ...]) -> object:
        match method, arguments:
            case "supervisor.getProcessInfo", (name,) if name in self.pid:
                return {"pid": self.pid[name]}
            case "twofold.status", (pipeline, service):
                numbers = dict.fromkeys(("uptime_s", "spent", "per_hour", "changes", "health_port"), 0)
                pid, record = self.pid[f"{pipeline}-{service}"], json.loads(Record().to_json())
                return json.dumps({"state": "?", "pid": pid, **numbers, "record": record})
            case "twofold.stop", (pipeline, service):
                self.pid[f"{pipeline}-{service}"] = 0
                return True
            case (("twofold.start" | "twofold.restart"), _):
                return "started"
        raise xmlrpc.client.Fault(10, "BAD_NAME")


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Settings]:
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False) as server:
        server.register_instance(Supervisor("p-producer"))
        named = f"127.0.0.1:{server.server_address[1]}"
        settings = Settings(home=tmp_path, producer_supervisor=named, statsd_port=port)
        taker = Thread(target=server.serve_forever, args=(0.01,))
        taker.start()
        yield settings
        server.shutdown()
        taker.join()


def test_the_status_tells_of_a_service_whose_supervisor_is_away(tmp_path: Path) -> None:
    """The settings may name another one than the stack's own, which answers."""
    settings = Settings(home=tmp_path, producer_supervisor="127.0.0.1:1")
    row = stack_status._service(settings, ProgramState("p-producer", "RUNNING", 0, 5), left=False)
    assert not row.healthy and "does not answer at 127.0.0.1:1" in row.health


def test_a_supervisor_that_has_ended_is_told_without_a_trace(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, supervisor_port=1)
    assert supervisor.states(settings) == {}
    with pytest.raises(TwofoldError, match=r"kafka cannot be started: .*refused"):
        supervisor.start_programs(settings, ["kafka"])


@pytest.mark.parametrize("did", ["stop", "start", "restart"])
def test_what_a_person_starts_or_stops_is_not_left_down(supervised: Settings, did: str) -> None:
    """Nobody may judge it any more: the gauge would be served for a month."""
    controller, by_hand = report.Controller(supervised), {} if did == "stop" else {"by_hand": True}
    with overhear.statsd_lines(supervised) as lines:
        getattr(controller, did)("p", PRODUCER, **by_hand)
    assert "twofold_service_left_down,pipeline=p,service=producer:0|g" in lines


def test_a_producer_that_is_declared_no_more_is_stopped(
    supervised: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = {"generate": 0, "rate": 5}
    sends, silent, other = (
        write_definition(tmp_path, name=name, **more)
        for name, more in (("p", {"replay": replay}), ("p", {}), ("q", {}))
    )
    kept: dict[tuple[str, str], KeptResult] = {}
    now = datetime.now(UTC)

    def save(_: Settings, pipeline: str, kind: str, body: Mapping[str, Any]) -> None:
        kept[pipeline, kind] = KeptResult(now, body)

    monkeypatch.setattr(database, "save_result", save)
    monkeypatch.setattr(
        database, "kept_since", lambda _, kind: {name: one.at for (name, of), one in kept.items() if of == kind}
    )
    monkeypatch.setattr(database, "forget_result", lambda _, pipeline, kind: kept.pop((pipeline, kind)))

    def stopped(pipeline: Pipeline, minutes: int) -> list[str]:
        return list(removed.undeclared(supervised, pipeline, now + timedelta(minutes=minutes)))

    with overhear.statsd_lines(supervised) as lines:
        assert [stopped(one, 0) for one in (sends, other, silent)] == [[], [], []]
        assert stopped(silent, 9) == [], "an editor may take it away for a moment"
        assert stopped(sends, 10) == stopped(silent, 11) == [], "it was there again"
        assert stopped(silent, 22) == ["p-producer was stopped: its pipeline does not declare it any more"]
        assert stopped(silent, 23) == []
    assert "twofold_producer_running,pipeline=p:0|g" in lines
    # Its restarts used up: that is over, too.
    assert "twofold_service_left_down,pipeline=p,service=producer:0|g" in lines
