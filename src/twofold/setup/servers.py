"""Servers that are built from their Go modules, once per user and version, when something first needs them.

    Go module proxy ─► go install ─► stage/<name> ─► <cache>/bin/<name>-<version>

By hand: `python -m twofold.setup minio` (5 to 8 minutes on two cores the first time, then at once).
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from shutil import rmtree

from twofold.settings import cache_folder
from twofold.setup.cache import locked, publish, staging
from twofold.setup.process import run

# Go writes its telemetry counters below XDG_CONFIG_HOME, so that moves into the cache ($0); GOENV keeps what the user
# has set with `go env -w`, a proxy for one.
_INDOORS = 'export GOENV="${GOENV:-${XDG_CONFIG_HOME:-$HOME/.config}/go/env}" XDG_CONFIG_HOME="$0"; exec "$@"'
_REMEDY = "check the network and run the same command again; it goes on where it stopped"


@dataclass(frozen=True)
class Server:
    """One program of a Go module; `go` is the oldest Go (major, minor) that its go.mod allows."""

    name: str
    module: str
    version: str
    go: tuple[int, int]


def parse_list(text: str) -> dict[str, Server]:
    """Read servers.txt, which image builds read too.

    >>> parse_list("# a comment\\nminio example.org/minio v1.2.0 1.24\\n")["minio"].go
    (1, 24)
    """
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {name: Server(name, module, version, go_version(f"go{go}")) for name, module, version, go in lines}


def go_version(said: str) -> tuple[int, int]:
    """(major, minor) of what `go env GOVERSION` says; (0, 0) where that is no release.

    >>> go_version("go1.26.8\\n"), go_version("go1.25rc1"), go_version("devel +abc")
    ((1, 26), (1, 25), (0, 0))
    """
    match = re.match(r"go(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


_LIST = parse_list(resources.files("twofold.setup").joinpath("servers.txt").read_text())
MINIO, STATSD_EXPORTER = _LIST["minio"], _LIST["statsd_exporter"]


def ensure_minio() -> Path:
    """MinIO's binary, built if it is not in the cache yet."""
    return ensure(MINIO)


def ensure_statsd_exporter() -> Path:
    """statsd_exporter's binary, built if it is not in the cache yet."""
    return ensure(STATSD_EXPORTER)


def ensure(server: Server) -> Path:
    """One server's binary in the cache; raises SetupError when it cannot be built."""
    cache, binary = cache_folder(), binary_path(server)
    with locked(cache, server.name):
        if not binary.exists():
            _build(server, cache, binary)
    return binary


def binary_path(server: Server) -> Path:
    """Where one server's binary is, or will be once built."""
    return cache_folder() / "bin" / f"{server.name}-{server.version}"


def _build(server: Server, cache: Path, binary: Path) -> None:
    """Sources and half-done work stay in `<cache>/go` until the build has succeeded, so a second try is short."""
    work = cache / "go" / server.name
    with staging(cache, server.name) as stage:
        go = _toolchain(server, cache)
        command = [*_indoors(cache), *_environment(work, stage), go, "install", "-modcacherw", "-trimpath"]
        source = f"{server.module}@{server.version}"
        log = cache / f"{server.name}.log"
        run([*command, "-ldflags=-s -w", source], f"building {server.name} (once, minutes)", log, _REMEDY)
        binary.parent.mkdir(parents=True, exist_ok=True)
        (stage / server.name).replace(binary)
    rmtree(work, ignore_errors=True)


def _indoors(cache: Path) -> list[str]:
    return ["sh", "-c", _INDOORS, str(cache / "go" / "config")]


def _environment(work: Path, stage: Path) -> list[str]:
    """Go's own caches inside ours, and no other toolchain than the one chosen here."""
    values = {
        "GOPATH": work / "path",
        "GOMODCACHE": work / "path" / "pkg" / "mod",
        "GOCACHE": work / "build",
        "GOBIN": stage,
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    return ["env", *(f"{name}={value}" for name, value in values.items())]


def _toolchain(server: Server, cache: Path) -> str:
    """The machine's `go` if it is new enough, else one from a wheel."""
    ask = [*_indoors(cache), "env", "GOTOOLCHAIN=local", "go", "env", "GOVERSION"]
    said = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
    return "go" if go_version(said) >= server.go else str(_wheel_toolchain(cache))


def _wheel_toolchain(cache: Path) -> Path:
    lock = resources.files("twofold.setup").joinpath("go.txt").read_text()
    target = cache / "go" / "toolchain"
    go = target / "go" / "bin" / "go"
    with locked(cache, "go"):
        if not go.exists():
            _fetch_toolchain(lock, cache, target)
    return go


def _fetch_toolchain(lock: str, cache: Path, target: Path) -> None:
    with staging(cache, "go") as stage:
        requirements, made = stage / "go.txt", stage / "toolchain"
        requirements.write_text(lock)
        install: list[str | Path] = [sys.executable, "-m", "uv", "pip", "install", "--cache-dir", cache / "uv"]
        wanted: list[str | Path] = ["--target", made, "--require-hashes", "-r", requirements]
        run([*install, *wanted], "fetching a Go toolchain", cache / "go.log", _REMEDY)
        publish(made, target)
