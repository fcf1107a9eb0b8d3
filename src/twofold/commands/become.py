"""A command that becomes another program: the same process, so signals and exit codes pass through."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NoReturn

from twofold.settings import Settings


def become(settings: Settings, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> NoReturn:
    """Replace this process by `python -m module …` with the same settings, and more `environment`."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", module, *arguments]
    os.execve(sys.executable, command, {**os.environ, **settings.environment(), **(environment or {})})
