"""The stack's processes as the system sees them: which are ours, how much memory they take, how to end them.

A process is ours when its environment names our home folder: the supervisor puts that name there, children inherit
it, and it cannot be mistaken for another process after a pid was given out again.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from twofold.supervisord import HOME_MARK, PROGRAM_MARK

SUPERVISOR = "supervisord"


def ours(home: Path) -> dict[str, list[psutil.Process]]:
    """All live processes of the stack with this home, by program; never this process or one that it runs under."""
    own = psutil.Process()
    kin = {own.pid, *(parent.pid for parent in own.parents())}
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        if process.pid in kin:
            continue
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if environment.get(HOME_MARK) == str(home):
            found.setdefault(environment.get(PROGRAM_MARK, ""), []).append(process)
    return found


def end(processes: Sequence[psutil.Process], stop_signal: int, patience_s: float) -> None:
    """Stop processes: `stop_signal`, then after `patience_s` SIGKILL; returns when all are gone."""
    left = processes
    for number in (stop_signal, signal.SIGKILL):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        left = wait_gone(left, patience_s)


def wait_gone(processes: Sequence[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Wait until processes have ended; returns those still alive after `patience_s`.

    One that ended and that nobody reaps counts as gone: in a container, process 1 often reaps nothing.
    """
    deadline = time.monotonic() + patience_s
    while True:
        alive = [process for process in processes if _lives(process)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def pss_bytes(processes: Iterable[psutil.Process]) -> int:
    """Proportional set size of processes together, in bytes: shared pages are counted once."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty when it is gone."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
