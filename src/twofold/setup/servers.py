"""Servers that are built from their Go modules, once per user and version, when something first needs them.

    servers.txt ─► go-server (the same script builds images) ─► stage/<name> ─► <cache>/bin/<name>-<version>

Run manually: `python -m twofold.setup minio` (5 to 8 minutes on two cores the first time, then at once).
"""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import rmtree

from twofold.settings import cache_folder
from twofold.setup.cache import cache_lock, run, staging

_HERE = Path(__file__).parent
_REMEDY = "check the network and run the same command again; it continues where it stopped"


def ensure(name: str) -> Path:
    """The binary of a server of servers.txt, built if it is not in the cache yet; SetupError when it cannot be built.

    Sources and half-done work stay in `<cache>/go` until the build has succeeded, so a second try is short.
    """
    cache, binary = cache_folder(), binary_path(name)
    with cache_lock(cache, "go"):
        if not binary.exists():
            with staging(cache, "go") as stage:
                work = cache / "go" / name
                command: list[str | Path] = ["sh", _HERE / "go-server", name, stage, work, sys.executable]
                run(command, f"building {name} (once, minutes)", cache / f"{name}.log", _REMEDY)
                binary.parent.mkdir(parents=True, exist_ok=True)
                (stage / name).replace(binary)
            rmtree(work, ignore_errors=True)
    return binary


def binary_path(name: str) -> Path:
    """Where a server's binary is, or will be once built."""
    lines = [line.split() for line in (_HERE / "servers.txt").read_text().splitlines() if not line.startswith("#")]
    (version,) = [line[2] for line in lines if line[0] == name]
    return cache_folder() / "bin" / f"{name}-{version}"
