"""docker-compose.yml as text: what must be so of every service, whatever is added to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from containers import broker, broker_access, secrets, store
from containers.container_settings import ContainerSettings
from twofold.errors import UsageError

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MIB = 1 << 20


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged"} & service.keys() and service.get("network_mode") != "host"
    assert "docker.sock" not in str(service)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "zookeeper" not in name or "ports" not in service


@pytest.mark.parametrize("name", [name for name in SERVICES if SERVICES[name].get("restart") == "unless-stopped"])
def test_every_running_service_tells_its_health(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert "curl" not in str(SERVICES[name]["healthcheck"])


def test_the_limits_sum_to_8_gib() -> None:
    running = [s for s in SERVICES.values() if s["restart"] == "unless-stopped"]
    assert sum(_mib(service["mem_limit"]) for service in running) <= 8192
    assert all("mem_limit" in service for service in SERVICES.values())


def test_the_page_has_every_limit() -> None:
    page = (ROOT / "docs/compose.md").read_text()
    told = dict(re.findall(r"^\| `([\w-]+)` \| (\d+) MiB \|", page, re.MULTILINE))
    running = {n: _mib(s["mem_limit"]) for n, s in SERVICES.items() if s["restart"] == "unless-stopped"}
    assert {name: int(limit) for name, limit in told.items()} == running


def test_the_example_names_every_setting() -> None:
    example = set(re.findall(r"^# (TWOFOLD_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    read = set(re.findall(r"\$\{(TWOFOLD_\w+)", TEXT)) | set(SERVICES["secrets"]["environment"])
    assert example == read


def test_each_role_mounts_its_own_secrets_and_no_other() -> None:
    mounts = {
        name: [str(v).split(":")[0] for v in service.get("volumes", []) if str(v).startswith("secrets")]
        for name, service in SERVICES.items()
    }
    assert mounts.pop("secrets") == ["secrets", *(f"secrets-{role}" for role in secrets.ROLES)]
    assert all(len(held) <= 1 and "secrets" not in held for held in mounts.values())
    assert mounts["producer"] == ["secrets-producer"]


def test_what_is_given_wins_and_a_wrong_secret_is_refused() -> None:
    made = secrets.chosen({}, {})
    assert len(set(made.values())) == len(secrets.NAMES)
    single = secrets.chosen({"s3_secret_key": "one-for-all", "s3_reader_secret_key": "another"}, made)
    assert (single["s3_stream_secret_key"], single["s3_reader_secret_key"]) == ("one-for-all", "another")
    assert single["kafka_admin_password"] == made["kafka_admin_password"]
    with pytest.raises(UsageError, match="TWOFOLD_AIRFLOW_PASSWORD"):
        secrets.chosen({"airflow_password": "abc"}, {})


def test_the_mode_of_kafka_is_kept_with_its_data(tmp_path: Path) -> None:
    broker.remember_mode(ContainerSettings(data=tmp_path, kafka_mode="zookeeper"))
    broker.remember_mode(ContainerSettings(data=tmp_path, kafka_mode="zookeeper"))
    with pytest.raises(UsageError, match="of the mode zookeeper"):
        broker.remember_mode(ContainerSettings(data=tmp_path, kafka_mode="kraft"))


def test_a_mode_that_a_kill_has_left_empty_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "mode").touch()
    broker.remember_mode(ContainerSettings(data=tmp_path, kafka_mode="zookeeper"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("mode", "zookeeper")]


def test_only_the_batch_writes_where_files_come_from_and_the_reader_writes_nothing() -> None:
    statements = {role: store.policy(role, "b")["Statement"] for role in store.ROLES}
    allowed = {
        role: {action for each in found if each["Effect"] == "Allow" for action in each["Action"]}
        for role, found in statements.items()
    }
    assert "s3:PutObject" in allowed["airflow"] and "s3:DeleteObject" in allowed["stream"]
    assert not {a for a in allowed["reader"] if "Put" in a or "Delete" in a}
    denied = [s for s in store.policy("stream", "b")["Statement"] if s["Effect"] == "Deny"]
    assert denied[0]["Resource"] == ["arn:aws:s3:::b/landing/*"]


def test_only_the_producer_writes_topics() -> None:
    writers = {acl.principal for acl in broker_access.rights() if acl.operation == AclOperation.WRITE}
    assert writers == {"User:producer"}


def _mib(limit: str) -> int:
    assert limit.endswith("m")
    return int(limit[:-1])
