"""Airflow in the embedded stack: who gets in, what is private, and what is left after kill -9."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import httpx
import pytest

from demo.airflow_rest import AirflowRest
from tests import running
from tests.at_work import all_healthy, eventually
from tests.conftest import DAGS, write_definition
from tests.prometheus import Prometheus
from tests.running import pids, status
from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.stack import processes, supervisor

ANSWERS_WITHIN_S = 120

PROCESSES = ["airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"]
MONITORING = ["statsd-exporter", "prometheus", "alertmanager", "alert-log"]


def test_status_shows_the_four_processes_healthy_and_where_the_pages_are(airflow: Settings) -> None:
    all_healthy(airflow)
    found = status(airflow)
    assert found["airflow_url"] == f"http://127.0.0.1:{airflow.airflow_port}"
    assert [program["name"] for program in found["programs"][3:]] == [*PROCESSES, *MONITORING]
    assert found["monitoring_urls"]["Prometheus"] == f"http://127.0.0.1:{airflow.prometheus_port}"
    assert httpx.get(found["airflow_url"], timeout=ANSWERS_WITHIN_S).status_code == 200


def test_nobody_gets_in_without_the_password(airflow: Settings) -> None:
    assert httpx.get(f"{airflow.airflow_url}/api/v2/dags", timeout=ANSWERS_WITHIN_S).status_code == 401
    wrong = airflow.model_copy(update={"airflow_password": type(airflow.airflow_password)("wrong")})
    with pytest.raises(TwofoldError, match="Invalid credentials"):
        AirflowRest(wrong)
    assert "dags" in AirflowRest(airflow).get("dags")


def test_secrets_are_in_private_files_only(airflow: Settings) -> None:
    # The embedded broker asks for no login: that one is empty.
    secrets = {value.get_secret_value() for _, value in airflow if hasattr(value, "get_secret_value")} - {""}
    assert len(secrets) > 5
    running_now = " ".join(itertools.chain(*running.of_each(airflow, lambda process: process.cmdline())))
    assert not [secret for secret in secrets if secret in running_now]
    for file in (file for file in airflow.home.rglob("*") if file.is_file() and file.stat().st_mode & 0o077):
        text = file.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in text], file


def test_everything_listens_on_loopback_only(airflow: Settings) -> None:
    assert running.hosts_listened_on(airflow) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_up_again_changes_nothing(airflow: Settings) -> None:
    all_healthy(airflow)
    before = pids(airflow)
    # Said where all are well at that very moment, too.
    eventually(lambda: "up already" in running.run(airflow, "up").stderr)
    assert pids(airflow) == before


def test_killed_processes_come_back_and_leave_nothing(airflow: Settings) -> None:
    before = pids(airflow)
    killed = [before["airflow-scheduler"], before["airflow-triggerer"]]
    family = [process for pid in killed for process in processes.family(pid)]
    assert len(family) > 6
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    all_healthy(airflow)
    assert not set(killed) & set(pids(airflow).values())
    assert not processes.wait_gone(family, patience_s=10)


def test_a_pipeline_file_added_or_changed_while_all_runs_is_followed(
    airflow: Settings, airflow_pipelines: Path
) -> None:
    name = write_definition(airflow_pipelines).name
    rest = AirflowRest(airflow)
    eventually(lambda: rest.get("dags", dag_id_pattern=name)["total_entries"] == DAGS)
    assert rest.get("importErrors")["total_entries"] == 0
    write_definition(airflow_pipelines, name=name, schedule={"batch": "7 7 7 7 *"})
    eventually(lambda: rest.get(f"dags/{name}_batch")["timetable_summary"] == "7 7 7 7 *")


def test_its_commands_run_in_its_environment(airflow: Settings) -> None:
    assert '"pool": "spark"' in running.run(airflow, "airflow", "pools", "list", "--output", "json").stdout
    assert "No data found" in running.run(airflow, "airflow", "dags", "list-import-errors").stdout


def test_without_airflow_the_rest_goes_on_and_a_killed_supervisor_leaves_nothing(airflow: Settings) -> None:
    supervisord = int((airflow.home / "supervisord.pid").read_text())
    family = processes.family(supervisord)
    assert len(family) > 12
    os.kill(supervisord, signal.SIGKILL)
    eventually(lambda: not supervisor.answers(airflow))
    running.run(airflow, "up", "--no-airflow")
    assert not processes.wait_gone(family, patience_s=10)
    before = pids(airflow)
    assert list(before) == ["postgres", "zookeeper", "kafka", *MONITORING]
    seen = Prometheus(airflow)
    eventually(lambda: seen.query("airflow_stopped == 1"))
    running.run(airflow, "up")
    eventually(lambda: seen.query("airflow_stopped == 0"))
    assert pids(airflow)["kafka"] == before["kafka"]
    all_healthy(airflow)
