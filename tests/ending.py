"""supervisord's extension with a program that ends as it is told, in the place of those that take long to start.

<home>/<pipeline>-<service>.codes: exit codes, one taken by each life; a life that finds none runs on, and
<home>/<pipeline>-<service>.waits: is its number
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from twofold.services.inside import Services


class Ending(Services):
    """Services that end with the codes of a file."""

    def command(self, pipeline: str, service: str) -> list[str]:
        """In the place of the real program."""
        return [sys.executable, __file__, str(codes(self.home, f"{pipeline}-{service}"))]


def codes(home: Path, program: str) -> Path:
    """Where a program finds how to end."""
    return home / f"{program}.codes"


def waits(file: Path, pid: int) -> bool:
    """Whether this life has found no code, and runs on."""
    told = file.with_suffix(".waits")
    return told.exists() and told.read_text() == str(pid)


def make(supervisord: Any, home: str, restarts_per_hour: str) -> Ending:  # noqa: ANN401
    """What supervisord's configuration names."""
    return Ending(supervisord, Path(home), int(restarts_per_hour))


def main(file: Path) -> None:
    """One life."""
    left = file.read_text().split() if file.exists() else []
    if not left:
        file.with_suffix(".waits").write_text(str(os.getpid()))
        signal.pause()
    file.write_text(" ".join(left[1:]))
    sys.exit(int(left[0]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
