"""`docker/backup` on a project of two small services, one of whose images has files where a volume is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compose.conftest import ROOT, Stack

DOCKERFILE = """
FROM debian:bookworm-slim AS plain
FROM plain AS filled
RUN mkdir -p /kept/plugins && echo image > /kept/plugins/file
"""
PROJECT = """
services:
  secrets: {image: "twofold-backup/plain:local", build: {context: ., target: plain}, volumes: ["secrets-all:/secrets"]}
  store:
    image: twofold-backup/filled:local
    build: {context: ., target: filled}
    command: [sleep, infinity]
    init: true
    volumes: ["first:/first", "kept:/kept"]
volumes: {first: {}, kept: {}, secrets-all: {}}
"""


def test_what_was_saved_is_loaded_also_where_an_image_has_files(tmp_path: Path) -> None:
    """As Grafana's image has: `load` found its volume not empty, and left the others loaded, so a second try failed."""
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "compose.yml").write_text(PROJECT)
    file, backup = str(tmp_path / "compose.yml"), [str(ROOT / "docker/backup")]
    name = f"twofold-backup-{tmp_path.parent.name}"
    stack = Stack(name, {"COMPOSE_FILE": file, "COMPOSE_PROJECT_NAME": name})

    def inside(command: str) -> str:
        return stack.compose("exec", "-T", "store", "sh", "-c", command).stdout

    try:
        stack.compose("up", "--detach", "--build")
        inside("echo one > /first/file; echo two > /kept/file")
        stack.run(*backup, "save", str(tmp_path / "saved"))
        stack.compose("down", "--volumes")
        stack.run(*backup, "load", str(tmp_path / "saved"))
        with pytest.raises(AssertionError, match="is not empty"):
            stack.run(*backup, "load", str(tmp_path / "saved"))
        stack.compose("up", "--detach")
        assert inside("cat /first/file /kept/file /kept/plugins/file").split() == ["one", "two", "image"]
    finally:
        stack.compose("down", "--volumes", "--rmi", "all", check=False)
