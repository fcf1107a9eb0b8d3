"""PyFlink's environment, made on demand in the user's cache: it cannot share ours, as it wants an older pyarrow.

    flink_ivy.xml ─► Ivy ─► jar-sets/<key>/{job,lib}
    uv venv ─► apache-flink ─► + lib/*.jar, + Hadoop's client jars as pyspark ships them ─► <cache>/flink/<key>

Manually: `python -m benchmarks.flink_setup` prints where its Python is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import BenchFailure
from twofold.settings import cache_folder
from twofold.setup import jars
from twofold.setup.cache import SetupError, cache_lock, publish, run, staging

REQUIREMENT = "apache-flink==2.2.1"
_HADOOP = "hadoop-client-*.jar"
LIST = Path(__file__).with_name("flink_ivy.xml")
_REMEDY = "check the network and run `make bench PARTS=live` again; nothing half-made is kept"


@dataclass(frozen=True)
class Flink:
    """A Python with PyFlink, and the jars that a job names itself."""

    python: Path
    job_jars: tuple[Path, ...]


def ensure_flink() -> Flink:
    """Have PyFlink in the cache, whole; BenchFailure where it cannot be had."""
    try:
        return _ensured()
    except SetupError as error:
        raise BenchFailure(f"PyFlink's environment cannot be made: {error}") from error


def _ensured() -> Flink:
    cache = cache_folder()
    with cache_lock(cache, "jars"):
        found = jars.have(LIST, cache)
    hadoop = _hadoop_jars()
    made_of = "\n".join([REQUIREMENT, sys.version, found.name, *(jar.name for jar in hadoop)])
    target = cache / "flink" / hashlib.sha256(made_of.encode()).hexdigest()[:16]
    with cache_lock(cache, "flink"):
        if not target.exists():
            _make(cache, target, [*sorted((found / "lib").glob("*.jar")), *hadoop])
    return Flink(target / "bin" / "python", tuple(sorted((found / "job").glob("*.jar"))))


def _make(cache: Path, target: Path, lib: list[Path]) -> None:
    """Only `bin/python` is used, which finds its packages wherever the folder is moved."""
    with staging(cache, "flink") as stage:
        made, log, uv = stage / "venv", cache / "flink.log", Path(sys.executable).with_name("uv")
        shared = {"UV_CACHE_DIR": str(cache / "uv"), "UV_PYTHON_DOWNLOADS": "never"}
        uv_command: list[str | Path] = ["env", *(f"{name}={value}" for name, value in shared.items()), uv]
        run([*uv_command, "venv", "--python", sys.executable, made], "making PyFlink's environment", log, _REMEDY)
        install = [*uv_command, "pip", "install", "--python", made / "bin" / "python", REQUIREMENT]
        run(install, f"installing {REQUIREMENT} (350 MB)", log, _REMEDY)
        (folder,) = made.glob("lib/python*/site-packages/pyflink/lib")
        for jar in lib:
            _share(jar, folder / jar.name)
        publish(made, target)


def _share(jar: Path, target: Path) -> None:
    try:
        os.link(jar, target)
    except OSError:  # another file system
        shutil.copyfile(jar, target)


def _hadoop_jars() -> list[Path]:
    """Found without importing pyspark."""
    spec = importlib.util.find_spec("pyspark")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    return sorted(jar for folder in folders for jar in Path(folder).glob(f"jars/{_HADOOP}"))


if __name__ == "__main__":
    print(ensure_flink().python)
