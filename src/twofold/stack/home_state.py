"""What the stack remembers in its home folder, and the lock that lets one command at a time change it.

<home>/stack.env    settings for every other command, with the generated passwords (mode 600)
<home>/stack.json   the store chosen at the first start, PostgreSQL's folder, whether Airflow and monitoring are wanted
<home>/logs/        one log per program
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import SecretStr

from twofold.local_files import locked, write_whole
from twofold.settings import GENERATED, KEPT, Settings, Use

Say = Callable[[str], None]
"""Where progress goes, a line at a time."""


@dataclass(frozen=True)
class HomeState:
    """What commands must know of this home, whatever the settings say."""

    store: str
    postgres_folder: str
    """Where PostgreSQL's data (and, where needed, a copy of its binaries) are; outside home if it must be."""
    airflow: bool = False
    """Whether the last `up` was with Airflow."""
    monitoring: bool = False
    """The same for monitoring."""

    def write(self, home: Path) -> None:
        """Put the state in place at once."""
        write_whole(home / "stack.json", json.dumps(asdict(self), indent=2) + "\n", 0o600)


def read_state(home: Path) -> HomeState | None:
    """The state of a home, or None where no stack was ever started."""
    try:
        return HomeState(**json.loads((home / "stack.json").read_text()))
    except FileNotFoundError:
        return None


def with_secrets(settings: Settings) -> Settings:
    """The settings with a generated value for every password that has none yet."""
    marked = [name for name, field in Settings.model_fields.items() if GENERATED in field.metadata]
    missing = [name for name in marked if not getattr(settings, name).get_secret_value()]
    return settings.model_copy(update={name: SecretStr(secrets.token_hex(16)) for name in missing})


def environment_file(settings: Settings) -> str:
    """Text of `stack.env`: the settings that are marked to be kept, and the ports."""
    environment = settings.environment()
    names = [
        f"TWOFOLD_{name.upper()}"
        for name, field in Settings.model_fields.items()
        if KEPT in field.metadata or any(isinstance(mark, Use) for mark in field.metadata)
    ]
    return "".join(f"{name}={shlex.quote(environment[name])}\n" for name in names)


def lock(home: Path, say: Say) -> AbstractContextManager[None]:
    """Hold the stack's lock; says so where another command has it."""
    return locked(home / "lock", lambda: say("another command changes this stack: waiting for it"))
