"""What users hit first, each told before anything starts, all at once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from docker import preflight

ROOT = Path(__file__).parents[2]
RUNNING = {"restart": "unless-stopped", "mem_limit": str(4 * preflight.GIB)}


def test_too_little_memory_is_told_with_both_numbers() -> None:
    config = {"services": {"kafka": RUNNING, "spark": RUNNING, "init": {"restart": "no", "mem_limit": "1" + "0" * 12}}}
    (fault,) = preflight.memory_fault(config, 4 * preflight.GIB)
    assert "4.0 GiB" in fault and "8.0" in fault
    assert list(preflight.memory_fault(config, 8 * preflight.GIB)) == []


def test_a_taken_port_is_told_unless_it_is_our_own() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        port = {"published": str(number), "host_ip": "127.0.0.1"}
        config = {"services": {"kafka": {"ports": [port]}}}
        (fault,) = preflight.port_faults(config, ours=())
        assert str(number) in fault and "kafka" in fault
        assert list(preflight.port_faults(config, ours=[number])) == []


def test_a_port_that_nobody_chose_is_nobodys() -> None:
    """As Compose tells a port of a user's own file without a number on the host, or with a range."""
    ports = [{"target": 80}, {"target": 80, "published": "8000-8001"}]
    assert list(preflight.port_faults({"services": {"mine": {"ports": ports}}}, ours=())) == []


def test_what_another_store_needs_is_asked_for() -> None:
    values = {"TWOFOLD_STORE_KIND": "other", "TWOFOLD_STORE_ROOT_USER": "me"}
    (fault,) = preflight.value_faults(values, known=[*values])
    assert "TWOFOLD_STORE_ROOT_PASSWORD" in fault


def test_volumes_of_another_layout_are_refused() -> None:
    volumes: list[dict[str, Any]] = [
        {"Name": "twofold_kafka-data", "Labels": {"twofold.layout": "0"}},
        {"Name": "twofold_old", "Labels": None},
        {"Name": "twofold_store-data", "Labels": {"twofold.layout": preflight.LAYOUT}},
    ]
    assert [fault.split()[2] for fault in preflight.volume_faults(volumes)] == ["twofold_kafka-data", "twofold_old"]


def run(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docker/preflight.py")]
    environment = {**os.environ, "PATH": str(folder), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_machine_without_docker_is_told_what_to_install(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("error: ") == 1 and "install Docker" in done.stderr


def test_an_engine_that_does_not_answer_and_a_missing_plugin_are_told_apart(tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text('#!/bin/sh\necho "Cannot connect to the Docker daemon" >&2; exit 1\n')
    client.chmod(0o755)
    assert "no Docker engine answers" in run(tmp_path).stderr
    client.write_text('#!/bin/sh\n[ "$1" = version ]\n')
    assert "no Compose plugin" in run(tmp_path).stderr


def test_what_fails_without_a_word_is_told_without_a_trace(tmp_path: Path) -> None:
    client = tmp_path / "docker"
    later = """case "$1 $2" in "info --format") exit 1 ;; "compose config") echo '{"services": {}}' ;; esac"""
    for script, said in (
        ("exit 1", "no Docker engine answers: start it, or join its group (it does not say why)"),
        (later, "`docker info --format {{.MemTotal}}` fails: it does not say why"),
    ):
        client.write_text(f"#!/bin/sh\n{script}\n")
        client.chmod(0o755)
        done = run(tmp_path)
        assert (done.returncode, done.stderr.count("error: ")) == (1, 1)
        assert said in done.stderr and "Traceback" not in done.stderr


def test_the_layout_is_the_one_that_the_volumes_are_labelled_with() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert f"twofold.layout: {json.dumps(preflight.LAYOUT)}" in text
