"""Services under a real supervisord: progress seen, crashes healed, budgets kept, nothing started twice or orphaned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest

from tests import ending, overhear, running, small_world
from tests.at_work import Work, crash, eventually
from twofold import catalog as catalogs
from twofold import job_metrics, schemas
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.services import due, removed
from twofold.services.controller import Controller, State, budget
from twofold.services.record import CHANGED
from twofold.services.verdict import Look, Verdict, judge
from twofold.settings import Settings
from twofold.stack import lifecycle, processes, supervisor
from twofold.stack.programs import Program
from twofold.stack.status import status
from twofold.supervisord import marks

Define = Callable[..., Pipeline]


class Watched:
    """One service and the looks at it so far."""

    def __init__(self, settings: Settings, pipeline: Pipeline, service: str) -> None:
        self.settings, self.pipeline, self.service = settings, pipeline, service
        self.controller = Controller(settings)

    def start(self, *, by_hand: bool = False) -> str:
        return self.controller.start(self.pipeline.name, self.service, by_hand=by_hand)

    def state(self) -> State:
        return self.controller.state(self.pipeline.name, self.service)

    def becomes(self, kind: str, reason: str = "") -> Verdict:
        """Look until the verdict is this one."""
        looks: list[Look] = []
        found: list[Verdict] = []

        def reached() -> bool:
            looks.append(self.controller.look(self.pipeline, self.state()))
            found.append(judge(self.service, looks, Controller(self.settings).limits(self.pipeline)))
            return found[-1].kind == kind and reason in found[-1].reason

        eventually(reached)
        return found[-1]

    def crash(self) -> int:
        return crash(self.controller, self.pipeline.name, self.service)

    def family(self) -> list[psutil.Process]:
        """Every live process of the service."""
        name = f"{self.pipeline.name}-{self.service}"
        return processes.ours(self.settings.home).get(name, [])


def test_a_streaming_job_is_started_once_healed_left_down_and_stopped(stack: Settings, define: Define) -> None:
    work = Work(None, stack, define(stream={"trigger": "1 second"}))
    stream = Watched(stack, work.pipeline, "stream")
    with ThreadPoolExecutor(4) as callers:
        assert sorted(callers.map(lambda _: stream.start(), range(4))) == ["running", "running", "running", "started"]
    work.send(*(small_world.event(f"a{number}", number) for number in range(50)))
    stream.becomes("healthy", "nothing to read")
    assert work.landed() == 50

    jvm = next(child for child in stream.family() if child.name() == "java")
    assert stack.postgres_password.get_secret_value() not in " ".join(jvm.cmdline())
    before = stream.crash()
    assert not processes.wait_gone([jvm], patience_s=20)
    work.send(*(small_world.event(f"b{number}", number) for number in range(50)))
    stream.becomes("healthy", "nothing to read")
    assert work.landed() == 100
    state = stream.state()
    assert (state.spent, state.record.ends[-1].code, state.pid != before) == (1, -signal.SIGKILL, True)

    broker = supervisor.states(stack)["kafka"].pid
    with running.frozen(broker):
        stream.becomes("not yet", f"Kafka at {stack.kafka_bootstrap} does not answer")
    stream.becomes("healthy")

    jvm = next(child for child in stream.family() if child.name() == "java")
    held = stream.state().pid
    stream.settings = stack.model_copy(update={"service_stalled_after_s": 1.0})
    with running.frozen(jvm.pid):
        stuck = stream.becomes("stuck", "no progress for")
        assert stream.controller.restart(work.pipeline.name, "stream", by_hand=False, why=stuck.reason) == "started"
        assert not processes.wait_gone([jvm], patience_s=60)
    stream.settings = stack
    # Its driver was asked to end: to kill that one, while it is still seen, would be no crash.
    eventually(lambda: stream.state().pid != held)

    for _ in range(2):
        stream.crash()
    verdict = stream.becomes("left down", "restarted 3 times within an hour")
    # The last driver was killed: its JVM notices, and ends with its workers.
    eventually(lambda: not stream.family())
    assert stream.start() == "left down"
    assert not stream.state().runs
    said = str(stream.controller.unhealthy(work.pipeline.name, "stream", verdict))
    assert "3 of 3 restarts within the last hour" in said
    assert "no progress for" in said
    assert "signal 9 (SIGKILL)" in said
    assert stream.controller.log_tail(work.pipeline.name, "stream")[-1] in said
    assert "docs/runbooks/service-left-down.md" in said

    assert stream.start(by_hand=True) == "started"
    assert stream.state().spent == 0
    stream.becomes("healthy")
    stream.settings = stack.model_copy(update={"service_stalled_after_s": 1.0})
    with running.frozen(stream.state().pid):
        stream.becomes("stuck", "and has not answered for")
    stopped = stream.controller.stop(work.pipeline.name, "stream")
    assert not stopped.runs
    eventually(lambda: not stream.family())
    assert stream.start() == "stopped"
    stream.becomes("stopped")

    # One that was killed has left word that it runs; only the manual stop is there to take that back.
    with overhear.statsd_lines(stack) as lines:
        stream.controller.stop(work.pipeline.name, "stream")
        eventually(lambda: f"twofold_stream_running,pipeline={work.pipeline.name}:0|g" in lines)
    work.holds(behind=True)


HANGS = """
import threading
from spark_jobs import spark_session
from twofold.settings import Settings

spark, stop = spark_session.build(Settings(), "hangs"), threading.Event()
spark_session.end_jvm_after(stop, 0)
java = spark_session.jvm().java
waiting = threading.Thread(target=lambda: java.util.concurrent.Exchanger().exchange("nobody comes"), daemon=True)
waiting.start()
threads = java.lang.management.ManagementFactory.getThreadMXBean()
while not any("Exchanger" in one.toString() for one in threads.dumpAllThreads(False, False)):
    pass
stop.set()
waiting.join()
spark_session.close(spark)
print("closed")
"""


def test_a_driver_whose_jvm_does_not_end_says_where_it_hangs_and_ends(stack: Settings) -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", HANGS],
        env={**os.environ, **stack.environment()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (outcome.returncode, outcome.stdout[-len("closed\n") :]) == (0, "closed\n"), outcome.stderr
    assert "warning: not at its end after 0 s, so its JVM is ended" in outcome.stderr
    assert "Full thread dump" in outcome.stdout
    assert "java.util.concurrent.Exchanger.exchange" in outcome.stdout


def test_a_stream_follows_its_definition_at_no_cost(
    stack: Settings, define: Define, twofold: Callable[..., CompletedProcess[str]]
) -> None:
    trigger = {"trigger": "1 second"}
    work = Work(None, stack, define(stream=trigger))
    name, stream = work.pipeline.name, Watched(stack, work.pipeline, "stream")
    log = stack.home / "logs" / f"{name}-stream.log"
    same = {"name": name, "topic": {"name": name}, "stream": trigger}

    def land(event: small_world.Row) -> None:
        landed = work.landed()
        work.send(event)
        eventually(lambda: work.landed() == landed + 1)

    stream.start(by_hand=True)
    land(small_world.event("a", 1))
    fields: dict[str, Any] = {}
    with overhear.statsd_lines(stack) as lines:
        for field in ("gate", "door"):
            fields[field] = {"type": "string"}
            work.pipeline = define(**same, event={"fields": fields})
            # As another job of the pipeline does: from now on the table has the column.
            schemas.ensure_tables(catalogs.load(stack), work.pipeline)
            land({**small_world.event(field, 2), field: f"{field} 7"})
            state = stream.state()
            assert (state.spent, state.changes, state.record.ends[-1].code) == (0, len(fields), CHANGED)
            # Of what changed it knows nothing where the change came while it started: the table tells it then.
            said = f"error: the definition of {name} changed while its stream ran: "
            assert log.read_text().count(said) == len(fields)
    assert overhear.counted(lines)[f"twofold_stream_definition_changes_total,pipeline={name}"] == 2
    landed = work.query("SELECT id, gate, door FROM stream_log ORDER BY kafka_timestamp")
    assert landed == [("a", None, None), ("gate", "gate 7", None), ("door", None, "door 7")]

    stream.becomes("healthy")
    (told,) = json.loads(twofold("services", name, "stream", "--json").stdout)
    assert (told["restarts"], told["definition_restarts"]) == (0, 2)
    assert (told["last_restart"]["why"], told["last_restart"]["counts"]) == ("the definition changed", False)

    # Neither another view nor a file at fault is a change of the event.
    held, path = stream.state().pid, Path(work.pipeline.source_file)
    work.pipeline = define(**same, event={"fields": fields}, views={"by_kind": {"window": "30 minutes"}})
    land(small_world.event("d", 4))
    sound = path.read_text()
    path.write_text(sound.replace("timestamp", "moment"))
    land(small_world.event("e", 5))
    path.write_text(sound)
    eventually(lambda: f"{name} continues with the definition of its start" in log.read_text())
    assert stream.state().pid == held

    # A file that is away for a moment ends nothing; one that was removed ends the service.
    other = define().name
    removed.retire(stack, other)  # as its services DAG does every minute: it has seen the pipeline
    path.unlink()
    removed.retire(stack, other)
    assert stream.state().pid == held
    # Nobody may be there to see it: `twofold status` says so, and the command ends what it names.
    (row,) = [one for one in status(stack).services if one.name == f"{name}-stream"]
    assert (row.healthy, f"declares its pipeline: `twofold services {name} --stop`" in row.health) == (False, True)
    assert "nothing of it ran" in twofold("services", name, "producer", "--stop").stderr
    assert stream.state().pid == held
    gauge = f"twofold_pipeline_removed,pipeline={name}"
    with overhear.statsd_lines(stack) as lines:
        done = removed.retire(stack, other, datetime.now(UTC) + timedelta(minutes=11))
        assert f"{name}-stream was stopped: the file of its pipeline was removed" in done
        eventually(lambda: f"{gauge}:1|g" in lines)
    assert not stream.state().runs
    eventually(lambda: not stream.family())
    with overhear.statsd_lines(stack) as lines:
        assert "nothing of it ran" in twofold("services", name, "--stop").stderr
        eventually(lambda: f"{gauge}:1|g" in lines)
    path.write_text(sound)
    with overhear.statsd_lines(stack) as lines:
        removed.retire(stack, other, datetime.now(UTC) + timedelta(minutes=11))
        eventually(lambda: f"{gauge}:0|g" in lines)


def test_a_schedule_that_changed_is_told_without_a_run_by_it(stack: Settings, define: Define) -> None:
    once = "0 0 1 1 *"
    pipeline = define(schedule={"batch": "* * * * *", "union": "* * * * *", "maintenance": "* * * * *", "proof": once})
    for kind in ("batch", "union"):
        with job_metrics.measured(Lake(stack, pipeline), kind):
            pass
    with pytest.raises(ZeroDivisionError), job_metrics.measured(Lake(stack, pipeline), "maintenance"):
        raise ZeroDivisionError
    changed = define(name=pipeline.name, schedule={"union": once, "maintenance": once, "proof": "none"})
    with overhear.statsd_lines(stack) as lines:
        due.resend(stack, changed)
    line = f"twofold_run_due_timestamp_seconds,pipeline={pipeline.name},kind="
    told = {line_.removeprefix(line).partition(":")[0]: line_ for line_ in lines if line_.startswith(line)}
    assert told.keys() == {"batch", "union", "prove"}, "the due time of one that failed stays"
    assert told["batch"].endswith(":0|g") and told["prove"].endswith(":0|g")
    next_s = float(told["union"].rpartition(":")[2].removesuffix("|g"))
    assert datetime.fromtimestamp(next_s, UTC) == datetime(datetime.now(UTC).year + 1, 1, 1, tzinfo=UTC)


def test_a_finished_replay_is_a_healthy_end_and_a_broker_away_is_said(stack: Settings, define: Define) -> None:
    pipeline = define(replay={"generate": 3000, "rate": 200})
    producer = Watched(stack, pipeline, "producer")
    broker = supervisor.states(stack)["kafka"].pid
    assert producer.start() == "started"
    producer.becomes("healthy")
    with running.frozen(broker):
        producer.becomes("not yet", "waits for the broker")
    producer.becomes("finished", "all is sent")
    assert (producer.start(), producer.state().spent) == ("finished", 0)
    eventually(lambda: not producer.family())


def test_the_command_shows_starts_and_stops(
    stack: Settings, define: Define, twofold: Callable[..., CompletedProcess[str]]
) -> None:
    pipeline = define(replay={"generate": 0, "rate": 5})
    assert "started" in twofold("services", pipeline.name, "producer", "--start").stderr
    assert "runs already" in twofold("services", pipeline.name, "producer", "--start").stderr
    producer = Watched(stack, pipeline, "producer")
    first = producer.state().pid
    twofold("services", pipeline.name, "producer", "--restart")
    eventually(lambda: producer.state().pid not in (0, first))
    shown = twofold("services", pipeline.name, "--stop").stdout
    assert "stopped manually" in shown
    eventually(lambda: not producer.family())


def test_a_producer_that_is_declared_no_more_is_stopped(
    stack: Settings, define: Define, twofold: Callable[..., CompletedProcess[str]]
) -> None:
    pipeline = define(replay={"generate": 0, "rate": 5})
    same: dict[str, Any] = {"name": pipeline.name, "topic": {"name": pipeline.name}}
    controller = Controller(stack)
    said = f"{pipeline.name}-producer was stopped: its pipeline does not declare it any more"
    later = timedelta(minutes=11)
    ways: tuple[Callable[[], str], ...] = (
        lambda: twofold("services", pipeline.name, "--stop").stderr,
        # As its services DAG does every minute.
        lambda: "".join(removed.retire(stack, pipeline.name, datetime.now(UTC) + later)),
    )
    for ended in ways:
        define(**same, replay={"generate": 0, "rate": 5})
        controller.start(pipeline.name, "producer", by_hand=True)
        define(**same)
        assert removed.retire(stack, pipeline.name) == [], "an editor may take it away for a moment"
        assert controller.runs(pipeline.name, "producer")
        assert said in ended()
        assert not controller.runs(pipeline.name, "producer")
        assert said not in ended()
    # A pipeline that never had one has none in `twofold status` for being asked.
    other = define().name
    assert not controller.runs(other, "producer")
    assert [one.name for one in status(stack).services if one.name == f"{other}-producer"] == []


@pytest.fixture
def bare(pipelines_folder: Path) -> Iterator[Settings]:
    """A supervisord alone, that can be stopped and started at will."""
    with running.home_folder() as home:
        settings = running.fresh_settings(home, pipelines_folder)
        supervisor.start(settings, ())
        yield settings
        stop(settings)


def start_ending(settings: Settings) -> None:
    """A supervisord with the extension of `tests.ending` in the place of its own."""
    (settings.home / "logs").mkdir()
    config = settings.home / "supervisord.conf"
    config.write_text(supervisor.render(settings, ()).replace("twofold.services.inside:make", "tests.ending:make"))
    marked = marks(settings.home, processes.SUPERVISOR)
    environment = {**os.environ, **settings.environment(), **marked, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-m", "supervisor.supervisord", "-c", str(config)], env=environment, check=True)
    eventually(lambda: supervisor.answers(settings))


def stop(settings: Settings) -> None:
    daemon = processes.ours(settings.home)[processes.SUPERVISOR]
    supervisor.rpc(settings).shutdown()
    processes.wait_gone(daemon, patience_s=30)


def test_ends_for_a_changed_definition_are_followed_by_a_start_and_leave_the_budget_whole(
    pipelines_folder: Path, define: Define
) -> None:
    with running.home_folder() as home:
        settings = running.fresh_settings(home, pipelines_folder)
        stream = Watched(settings, define(), "stream")
        told = ending.codes(home, f"{stream.pipeline.name}-stream")

        def ends_with(*codes: int) -> State:
            before = len(stream.state().record.ends)
            # A life that still reads how to end would take the first of them.
            eventually(lambda: not stream.state().runs or ending.waits(told, stream.state().pid))
            told.write_text(" ".join(map(str, codes)))
            if not stream.state().runs:
                assert stream.start() == "started"
            else:
                stream.crash()
            ends = before + len(codes) + bool(before)
            eventually(lambda: len(stream.state().record.ends) == ends)
            return stream.state()

        start_ending(settings)
        try:
            followed = ends_with(CHANGED, CHANGED, 1, CHANGED, CHANGED, CHANGED)
            assert (followed.spent, followed.changes, followed.record.left_down) == (1, 5, "")
            eventually(lambda: stream.state().runs)
            assert budget(stream.state()) == "1 of 3/h, 5 for a changed definition"
            # A crash, then a definition that the job cannot start with: the budget is what it always is.
            left = ends_with(CHANGED, 1, 1)
            assert (left.spent, left.changes, left.runs) == (3, 6, False)
            assert "restarted 3 times within an hour already, and then: ended with exit code 1" in left.record.left_down
            assert stream.start() == "left down"
        finally:
            stop(settings)


def test_a_refused_definition_is_not_tried_for_ever_and_supervisord_may_be_restarted(
    bare: Settings, define: Define
) -> None:
    refused = Watched(bare, define(replay={"source": "gone.csv", "query": "SELECT 1 AS id FROM source"}), "producer")
    other = Watched(bare, define(replay={"generate": 0}), "producer")
    refused.start()
    refused.becomes("left down", "restarted 3 times within an hour already, and then: ended with exit code 1")
    assert "replay source gone.csv not found" in "\n".join(
        refused.controller.log_tail(refused.pipeline.name, "producer")
    )
    other.start()
    other.controller.stop(other.pipeline.name, "producer")
    stop(bare)
    supervisor.start(bare, ())
    assert (refused.start(), other.start()) == ("left down", "stopped")
    refused.becomes("left down")
    assert [restart.why for restart in refused.state().record.restarts] != []


def test_a_program_that_was_installed_since_supervisord_started_is_started_by_up(
    bare: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Grafana is; services, which no configuration has, stay."""
    late = Program("late", "monitoring", ("sleep", "600"), check=str, start_order=1)
    monkeypatch.setattr(lifecycle, "possible", lambda *_: (late,))
    monkeypatch.setattr(lifecycle, "_finish", lambda _: None)
    controller = Controller(bare)
    controller.stop("p", "producer")
    for _ in range(2):
        lifecycle._repair(bare, lifecycle.HomeState("local", "", monitoring=True), lambda _: None)
    eventually(lambda: supervisor.states(bare)["late"].state == supervisor.RUNNING)
    assert "p-producer" in supervisor.states(bare)
