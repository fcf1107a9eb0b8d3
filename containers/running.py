"""Becoming the program that a container is for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import click

from twofold.errors import TwofoldError


def become(command: Sequence[str], environment: Mapping[str, str] | None = None) -> NoReturn:
    """Replace this process, so that signals and exit codes pass through."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], list(command), {**os.environ, **(environment or {})})


def private_file(path: Path, text: str) -> Path:
    """Write a file that only this user can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def main(start: Callable[[Sequence[str]], None]) -> None:
    """Run an entry point with the arguments of the command line; a known fault is one sentence."""
    try:
        start(sys.argv[1:])
    except TwofoldError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
