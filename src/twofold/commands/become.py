"""A command that becomes another program: the same process, so signals and exit codes pass through."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from twofold.settings import Settings


def become(settings: Settings, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> NoReturn:
    """Replace this process by `python -m module …` with the same settings, and more `environment`."""
    become_program([sys.executable, "-m", module, *arguments], {**settings.environment(), **(environment or {})})


def become_program(command: Sequence[str], environment: Mapping[str, str] | None = None) -> NoReturn:
    """Replace this process by any program, with more `environment`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], list(command), {**os.environ, **(environment or {})})
