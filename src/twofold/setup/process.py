"""Runs one long set-up command with a progress line on stderr and its output in a log."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from twofold.setup.errors import SetupError

TERMINAL_REFRESH_S = 1.0
LOG_REFRESH_S = 30.0


def run(command: Sequence[str | Path], label: str, log: Path, remedy: str) -> None:
    """Run `command` until it ends, saying every now and then how long it has taken.

    Raises SetupError with the last lines of its output and `remedy` when it fails.
    """
    started = time.monotonic()
    try:
        code = _wait(command, label, log, started)
    except FileNotFoundError as error:
        raise SetupError(f"{label}: there is no program {command[0]}", remedy) from error
    _say(label, started, last=True)
    if code != 0:
        raise SetupError(f"{label} failed (exit {code}); the end of {log}:\n{tail(log)}", remedy)


def _wait(command: Sequence[str | Path], label: str, log: Path, started: float) -> int:
    refresh_s = TERMINAL_REFRESH_S if sys.stderr.isatty() else LOG_REFRESH_S
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        while True:
            _say(label, started)
            try:
                return process.wait(timeout=refresh_s)
            except subprocess.TimeoutExpired:
                continue


def _say(label: str, started: float, last: bool = False) -> None:
    """On a terminal one line that counts, elsewhere a new line each time."""
    terminal = sys.stderr.isatty()
    line = f"{label} … {time.monotonic() - started:.0f} s"
    sys.stderr.write(f"\r{line}" if terminal else f"{line}\n")
    if terminal and last:
        sys.stderr.write("\n")
    sys.stderr.flush()


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log, indented, without the lines of dots that downloads print."""
    text = log.read_text(errors="replace").splitlines()
    kept = [line for line in text if line.strip(" .\t")][-lines:]
    return "\n".join(f"    {line}" for line in kept)
