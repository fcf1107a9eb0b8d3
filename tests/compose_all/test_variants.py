"""The stack in its other forms, each brought up from nothing: flights land, the union runs, the proof holds."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.at_work import eventually
from tests.compose.conftest import ROOT, Stack, patiently, running
from tests.compose.test_flow import rows

FILES = "docker-compose.yml:docker/compose.test.yml"


def flows_and_holds(stack: Stack) -> None:
    patiently(lambda: rows(stack, "stream_log") > 0)
    patiently(lambda: rows(stack, "events") > 0)
    assert stack.prove()["ok"]


def test_kafka_without_zookeeper(tmp_path: Path) -> None:
    with running(tmp_path, TWOFOLD_KAFKA_MODE="kraft") as stack:
        flows_and_holds(stack)
        stack.crash("kafka")
        before = rows(stack, "stream_log")
        patiently(lambda: rows(stack, "stream_log") > before)
        assert stack.prove()["ok"]
        stack.environment["TWOFOLD_KAFKA_MODE"] = "zookeeper"
        stack.compose("up", "--detach", "--no-deps", "kafka")
        refused = "this broker's data are of the mode kraft"
        eventually(lambda: refused in stack.compose("logs", "kafka").stdout, within_s=60.0, every_s=2.0)


def test_another_store_with_one_key_pair(tmp_path: Path) -> None:
    secret = secrets.token_hex(16)
    variables = {
        "COMPOSE_FILE": f"{FILES}:docker/compose.versitygw.yml",
        "TWOFOLD_STORE_KIND": "other",
        "TWOFOLD_STORE_ROOT_USER": "one",
        "TWOFOLD_STORE_ROOT_PASSWORD": secret,
        "TWOFOLD_S3_ACCESS_KEY": "one",
        "TWOFOLD_S3_SECRET_KEY": secret,
    }
    with running(tmp_path, 1, **variables) as stack:
        flows_and_holds(stack)


@pytest.mark.parametrize("mode", ["zookeeper", "kraft"])
def test_one_broker_of_three_is_lost(tmp_path: Path, mode: str) -> None:
    variables = {
        "COMPOSE_FILE": f"{FILES}:docker/compose.brokers.yml",
        "TWOFOLD_KAFKA_MODE": mode,
        "TWOFOLD_KAFKA_2_PORT": "32001",
        "TWOFOLD_KAFKA_3_PORT": "32002",
    }
    with running(tmp_path, replication=3, **variables) as stack:
        flows_and_holds(stack)
        stack.compose("kill", "kafka-2")
        before = rows(stack, "stream_log")
        patiently(lambda: rows(stack, "stream_log") > before)
        assert stack.prove()["ok"]


CHANGED = (
    "AIRFLOW_PASSWORD",
    "AIRFLOW_DATABASE_PASSWORD",
    "KAFKA_ADMIN_PASSWORD",
    "KAFKA_STREAM_PASSWORD",
    "POSTGRES_PASSWORD",
    "S3_STREAM_SECRET_KEY",
    "STORE_ROOT_PASSWORD",
    "SUPERVISOR_PASSWORD",
    "ZOOKEEPER_PASSWORD",
)


def test_new_containers_new_secrets_and_a_restore_keep_the_data(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with running(tmp_path) as stack:
        flows_and_holds(stack)
        stack.run(str(ROOT / "docker/backup"), "save", str(backup))
        stack.environment.update({f"TWOFOLD_{name}": secrets.token_hex(16) for name in CHANGED})
        stack.compose("up", "--detach", "--wait", "--force-recreate")
        assert stack.secret("airflow_password") == stack.environment["TWOFOLD_AIRFLOW_PASSWORD"]
        stack.airflow()
        before = rows(stack, "stream_log")
        patiently(lambda: rows(stack, "stream_log") > before)
        assert stack.prove()["ok"]
        stack.compose("down", "--volumes")
        stack.run(str(ROOT / "docker/backup"), "load", str(backup))
        stack.compose("up", "--detach", "--wait")
        patiently(lambda: rows(stack, "stream_log") > 0)
        assert stack.prove()["ok"]
