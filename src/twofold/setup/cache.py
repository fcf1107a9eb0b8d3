"""The per-user cache as the set-up steps use it: long commands with a progress line, and nothing half-made in place."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from twofold.errors import TwofoldError
from twofold.local_files import locked

_TAIL_LINES = 8


class SetupError(TwofoldError):
    """Something this machine lacks, or could not fetch or build."""


def cache_lock(folder: Path, name: str) -> AbstractContextManager[None]:
    """Hold the cache's lock for one thing, so that two set-ups at once fetch it once."""
    return locked(folder / f".{name}.lock")


@contextmanager
def staging(folder: Path, name: str) -> Iterator[Path]:
    """An empty folder on the cache's own file system, so that what is whole can be moved out by a rename.

    Call it with the lock of the same name held: what a killed set-up left there is removed first.
    """
    stage = folder / f".{name}.stage"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def publish(made: Path, target: Path) -> None:
    """Move a whole folder into place; an existing one (found damaged by the caller) is removed first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    made.rename(target)


def point(link: Path, target: Path) -> None:
    """Make `link` point at `target` in one step: whoever looks sees the old target or the new one."""
    fresh = link.with_name(f".{link.name}.fresh")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target, target_is_directory=True)
    fresh.replace(link)


def run(command: Sequence[str | Path], label: str, log: Path, remedy: str) -> None:
    """Run one long command, saying on stderr how long it has taken, its output in a log.

    Raises SetupError with the last lines of its output and `remedy` when it fails.
    """
    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        # There progress is shown at its end only, which may be minutes away.
        console.print(f"{label} …")
    shown = Progress(TextColumn("{task.description} …"), TimeElapsedColumn(), console=console)
    with log.open("wb") as output, shown:
        shown.add_task(label)
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
            )
        except FileNotFoundError as error:
            raise SetupError(f"{label}: there is no program {command[0]}", remedy) from error
    if done.returncode != 0:
        raise SetupError(f"{label} failed (exit {done.returncode}); the end of {log}:\n{_tail(log)}", remedy)


def _tail(log: Path) -> str:
    """The last lines of a log, indented, without the lines of dots that downloads print."""
    kept = [line for line in log.read_text(errors="replace").splitlines() if line.strip(" .\t")]
    return "\n".join(f"    {line}" for line in kept[-_TAIL_LINES:])
