"""A real embedded stack for tests: on ports and in a home folder of its own, whatever else runs on this machine."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twofold.settings import Settings
from twofold.stack.ports import IN_USE, is_free


def run(
    settings: Settings, *arguments: str, check: bool = True, timeout_s: float = 600, text_in: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one `twofold` command as a user would, with these settings; fails with its output if `check` and it fails."""
    outcome = subprocess.run(
        [sys.executable, "-m", "twofold.cli", *arguments],
        env={**os.environ, **settings.environment()},
        input=text_in,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and outcome.returncode:
        command = " ".join(arguments)
        raise AssertionError(f"twofold {command} exits {outcome.returncode}:\n{outcome.stderr}\n{outcome.stdout}")
    return outcome


def fresh_settings(home: Path, pipelines: Path) -> Settings:
    """Settings of a stack that never ran, every port free now and below the range of outgoing connections."""
    numbers: set[int] = set()
    while len(numbers) < len(IN_USE):
        number = random.randrange(20_000, 32_000)
        if is_free(number):
            numbers.add(number)
    ports = {f"{port.name}_port": number for port, number in zip(IN_USE, numbers, strict=True)}
    return Settings(home=home, pipelines=pipelines, kafka_bootstrap="", s3_endpoint="", **ports)  # type: ignore[arg-type]


@contextmanager
def home_folder() -> Iterator[Path]:
    """A home that an unprivileged PostgreSQL can reach too (pytest's own folders are closed), deleted at the end."""
    home = Path(tempfile.mkdtemp(prefix="twofold-test-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home)


@contextmanager
def running_stack(pipelines: Path, store: str) -> Iterator[Settings]:
    """A stack that is up; down at the end, however that comes."""
    with home_folder() as home:
        settings = fresh_settings(home, pipelines)
        try:
            run(settings, "up", "--store", store, timeout_s=900)
            # Anew: now with the store and the passwords that `up` wrote down.
            yield Settings(home=home, pipelines=pipelines)
        finally:
            run(settings, "down")
