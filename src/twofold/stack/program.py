"""One supervised program, as data: what to run, as whom, how to stop it, how to tell that it is healthy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from twofold.stack.ports import Port

Check = Callable[[], str]
"""A real request to the service; returns why it is not healthy, or an empty string. Never raises for a dead service."""


@dataclass(frozen=True)
class Program:
    """A program that supervisord keeps running.

    `start_order`: programs start in ascending order and stop in descending order, each group stopped before the next,
    so what others write to comes first here and goes last.
    """

    name: str
    command: tuple[str, ...]
    check: Check
    start_order: int
    ports: tuple[Port, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    """Account to run as; empty: the supervisor's own."""
    directory: Path = Path("/")
    stop_signal: str = "TERM"
    stop_wait_seconds: int = 30
    """After this long without an end, the supervisor kills."""
