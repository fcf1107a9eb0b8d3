"""The embedded stack, by its commands: a user's mistakes, and what is left after kill -9."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO

from monitoring.dashboards import panel_queries
from tests import running
from tests.at_work import all_healthy, eventually
from tests.prometheus import Prometheus
from tests.running import pids, status
from twofold import catalog, probes
from twofold.settings import Settings
from twofold.stack import lifecycle, postgres, processes, supervisor


@pytest.fixture(scope="module")
def own_stack(pipelines_folder: Path) -> Iterator[Settings]:
    """A stack that only this module uses, since its programs are killed here."""
    with running.running_stack(pipelines_folder, "local") as settings:
        yield settings


def test_status_tells_state_health_port_and_memory(own_stack: Settings) -> None:
    all_healthy(own_stack)
    found = status(own_stack)
    assert found["healthy"]
    assert found["store"] == "local"
    assert [program["name"] for program in found["programs"]] == ["postgres", "zookeeper", "kafka"]
    for program in found["programs"]:
        assert program["state"] == supervisor.RUNNING
        assert program["healthy"]
        assert program["pss_bytes"] > 1_000_000
        assert program["pid"]
    assert found["programs"][2]["ports"] == [own_stack.kafka_port, own_stack.kafka_metrics_port]


def test_everything_listens_on_loopback_only_and_postgres_not_as_root(own_stack: Settings) -> None:
    # A Java server socket on 127.0.0.1 may be a mapped IPv6 one. JMX and random ports would show here.
    assert running.hosts_listened_on(own_stack) <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert psutil.Process(pids(own_stack)["postgres"]).uids().effective != 0


def test_passwords_are_private_and_needed(own_stack: Settings) -> None:
    for name in ("stack.env", "supervisord.conf", "stack.json"):
        assert (own_stack.home / name).stat().st_mode & 0o077 == 0
    wrong = own_stack.model_copy(update={"postgres_password": type(own_stack.postgres_password)("wrong")})
    assert "password authentication failed" in postgres.check(wrong)


def test_up_again_even_twice_at_once_changes_nothing(own_stack: Settings) -> None:
    all_healthy(own_stack)
    before = pids(own_stack)

    def twice() -> bool:
        with ThreadPoolExecutor() as pool:
            outcomes = list(pool.map(lambda _: running.run(own_stack, "up", "--no-airflow"), range(2)))
        return all("up already" in outcome.stderr for outcome in outcomes)

    # Said where all are well at that very moment, too.
    eventually(twice)
    assert pids(own_stack) == before


def test_another_store_and_a_moved_port_are_refused_while_running(own_stack: Settings) -> None:
    refused = running.run(own_stack, "up", "--no-airflow", "--store", "minio", check=False)
    assert (refused.returncode, "--store local" in refused.stderr) == (2, True)
    moved = own_stack.model_copy(update={"kafka_port": own_stack.kafka_port + 1})
    refused = running.run(moved, "up", "--no-airflow", check=False)
    assert (refused.returncode, "TWOFOLD_KAFKA_PORT" in refused.stderr) == (2, True)
    all_healthy(own_stack)


def test_taken_ports_are_all_named_with_the_settings_that_move_them(pipelines_folder: Path) -> None:
    with running.home_folder() as home, socket.socket() as first, socket.socket() as second:
        settings = running.fresh_settings(home, pipelines_folder)
        for taken, port in ((first, settings.kafka_port), (second, settings.postgres_port)):
            taken.bind(("127.0.0.1", port))
            taken.listen()
        outcome = running.run(settings, "up", "--no-airflow", check=False)
        assert outcome.returncode == 1
        assert f"port {settings.kafka_port} (kafka) is taken by {psutil.Process().name()}" in outcome.stderr
        assert f"(pid {os.getpid()})" in outcome.stderr
        assert "TWOFOLD_KAFKA_PORT" in outcome.stderr
        assert "TWOFOLD_POSTGRES_PORT" in outcome.stderr
        assert not processes.ours(home)


def test_a_killed_broker_comes_back_by_itself(own_stack: Settings) -> None:
    killed = pids(own_stack)["kafka"]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: supervisor.states(own_stack)["kafka"].pid not in (0, killed))
    eventually(lambda: not probes.kafka("127.0.0.1", own_stack.kafka_port))


def test_up_replaces_what_a_killed_supervisor_leaves(own_stack: Settings) -> None:
    # By more than their numbers, which the system gives to others in minutes.
    before = [psutil.Process(pid) for pid in pids(own_stack).values()]
    os.kill(int((own_stack.home / "supervisord.pid").read_text()), signal.SIGKILL)
    eventually(lambda: not supervisor.answers(own_stack))
    found = status(own_stack)
    assert not found["healthy"]
    assert {program["state"] for program in found["programs"]} == {"ORPHANED"}
    running.run(own_stack, "up", "--no-airflow")
    assert not processes.wait_gone(before, patience_s=10)


def test_down_after_a_killed_supervisor_leaves_nothing(own_stack: Settings) -> None:
    os.kill(int((own_stack.home / "supervisord.pid").read_text()), signal.SIGKILL)
    running.run(own_stack, "down")
    assert not processes.ours(own_stack.home)
    assert {program["state"] for program in status(own_stack)["programs"]} == {"STOPPED"}


def test_a_program_that_cannot_start_is_named_with_its_log_and_nothing_stays(own_stack: Settings) -> None:
    meta = own_stack.home / "kafka" / "data" / "meta.properties"
    whole = meta.read_text()
    meta.write_text(whole.replace("cluster.id=", "cluster.id=not-"))
    outcome = running.run(own_stack, "up", "--no-airflow", check=False)
    assert outcome.returncode == 1
    assert "Invalid cluster.id" in outcome.stderr
    assert "remedy: bring back the one that was lost" in outcome.stderr
    assert not processes.ours(own_stack.home)
    # The stack is down, and its status tells why.
    assert "of another cluster than ZooKeeper's" in status(own_stack)["programs"][2]["health"]
    meta.write_text(whole)
    known = lifecycle.read_state(own_stack.home)
    assert known
    shutil.rmtree(known.postgres_folder)
    gone = running.run(own_stack, "up", "--no-airflow", check=False).stderr
    assert "twofold recatalog" in gone
    # As `up` with Airflow leaves it: by this it would take Airflow's database in the new PostgreSQL for made.
    airflow_is_set_up = own_stack.home / "airflow" / "set-up"
    airflow_is_set_up.parent.mkdir(exist_ok=True)
    airflow_is_set_up.touch()
    running.run(own_stack, "up", "--no-airflow", "--new-postgres")
    assert not airflow_is_set_up.exists()
    all_healthy(own_stack)
    assert "another cluster" not in str(status(own_stack))


def test_the_bucket_of_a_minio_stack_takes_an_object(minio_stack: Settings) -> None:
    bucket = catalog.file_io(minio_stack)
    store = PyArrowFileIO(bucket)
    with store.new_output(f"{minio_stack.warehouse}/probe").create() as file:
        file.write(b"seen")
    with store.new_input(f"{minio_stack.warehouse}/probe").open() as file:
        assert file.read() == b"seen"
    assert [program["name"] for program in status(minio_stack)["programs"]] == [
        "postgres",
        "minio",
        "zookeeper",
        "kafka",
        "statsd-exporter",
        "prometheus",
        "alertmanager",
        "alert-log",
    ]
    # A request that MinIO refuses, for the panels of faults.
    with pytest.raises(FileNotFoundError):
        store.new_input(f"{minio_stack.warehouse}/nothing").open()
    seen = Prometheus(minio_stack)
    panels = [query.expr for query in panel_queries(span="1m") if "minio" in query.expr]
    assert len(panels) == 4
    eventually(lambda: all(map(seen.query, panels)))
