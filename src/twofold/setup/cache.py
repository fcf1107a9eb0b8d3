"""The per-user cache as the set-up steps use it: one writer at a time, and nothing half-made in place."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the cache's lock for one thing, so that two set-ups at once fetch it once. The kernel frees it on a kill."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    """Move a whole folder into place; one that is there already (found damaged by the caller) goes first."""
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
