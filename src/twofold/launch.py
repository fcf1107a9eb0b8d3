"""How Twofold's JVMs are started: which Java, and what a Spark job's JVM needs before it runs.

`twofold batch`  ─► python ─► spark_jobs.spark_session ─► JVM
Airflow          ─► spark-submit ─► JVM ─► python ─► spark_jobs.spark_session
                              both with `configuration(…)`
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from twofold.errors import TwofoldError
from twofold.settings import Settings

OLDEST_JAVA = 17
FETCH_JARS = "run `make setup` in the checkout, or `python -m twofold.setup jars`; or set TWOFOLD_JARS"
"""The remedy where jars are missing."""
_RELEASE = re.compile(r'^JAVA_VERSION="?(?:1\.)?(\d+)', re.MULTILINE)
_SAID = re.compile(r' version "(?:1\.)?(\d+)')
DRIVER_OPTIONS = "spark.driver.extraJavaOptions"
WORKERS = "spark_jobs.python_workers"
"""The module that Spark starts for its Python workers."""
_COMPILED_LATE = (
    "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=20000 "
    "-XX:Tier4CompileThreshold=200000 -XX:Tier4BackEdgeThreshold=1000000"
)
"""The second compiler only for code that runs ten times as often as its default threshold.

Most of what a batch of the stream runs is planning, so often never worth it: in its first minutes under load a job
spent more CPU on compiling (5.6 s per million events) than on anything else, and so 1.9 s.
"""


def find_java(environment: Mapping[str, str] | None = None) -> Path:
    """The one `java` that everything runs on, found as Spark's own scripts look for it: JAVA_HOME, else PATH.

    TwofoldError naming the variable where there is none, or one that is too old.
    """
    given = os.environ if environment is None else environment
    home = given.get("JAVA_HOME", "")
    if home:
        return _checked(Path(home, "bin", "java"), f"JAVA_HOME is {home}", "unset it or point it to a Java 17")
    found = shutil.which("java", path=given.get("PATH", os.defpath))
    if found is None:
        raise TwofoldError(
            "there is no `java` in a folder of PATH", "install a Java 17 (`make setup` does), or point JAVA_HOME to one"
        )
    return _checked(Path(found), f"PATH leads to {found}", "put a Java 17 first, or point JAVA_HOME to one")


def _checked(program: Path, where: str, remedy: str) -> Path:
    if not os.access(program, os.X_OK):
        raise TwofoldError(f"{where}, which has no bin/java", remedy)
    version = _version(program.resolve())
    if version < OLDEST_JAVA:
        raise TwofoldError(f"{where}, which is a Java {version}" if version else f"{where}, which is no Java", remedy)
    return program


@cache
def _version(program: Path) -> int:
    """Its feature number, 0 where there is none. Every JDK and JRE has it in a file, which is quicker than to ask."""
    release = program.parents[1] / "release"
    if release.is_file() and (found := _RELEASE.search(release.read_text(errors="replace"))):
        return int(found[1])
    try:
        asked = subprocess.run([program, "-version"], capture_output=True, text=True, errors="replace", check=False)
    except OSError:  # not for this machine, or no program at all
        return 0
    found = _SAID.search(asked.stderr)
    return int(found[1]) if found else 0


def configuration(settings: Settings, short_lived: bool) -> dict[str, str]:
    """What a Spark job's JVM must know before it runs, as Spark's own settings: of a driver they count only then.

    Nothing here is secret, as it stands on a command line. `short_lived` leaves out the second compiler, which takes a
    third of the CPU of a job of a few seconds.
    """
    jars = settings.jars / "spark"
    find_java()
    if not any(jars.glob("*.jar")):
        raise TwofoldError(f"no Spark connectors in {jars}", FETCH_JARS)
    java_options, archive = _java_options(short_lived), class_archive(settings)
    if archive.exists():
        # One that does not fit, after an upgrade of Java for example, the JVM ignores silently.
        java_options += f' "-XX:SharedArchiveFile={archive}" -Xlog:cds=off'
    return {
        # By its path: what is called python3 on the PATH may be without our packages.
        "spark.pyspark.python": settings.spark_python or sys.executable,
        "spark.pyspark.driver.python": sys.executable,
        "spark.python.daemon.module": WORKERS,
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.driver.extraClassPath": f"{jars}/*",
        "spark.executor.extraClassPath": f"{jars}/*",
        DRIVER_OPTIONS: java_options,
        "spark.executor.extraJavaOptions": _java_options(short_lived=False),
    }


def jobs_folder() -> Path:
    """Where the programs of the Spark jobs lie; they are not imported, as that needs Spark."""
    return package_folder("spark_jobs")


def spark_home() -> Path:
    """The Spark that pyspark carries."""
    return package_folder("pyspark")


def class_archive(settings: Settings) -> Path:
    """Where `spark_jobs.class_archive` records the classes of this Java, this pyspark and these jars."""
    installed = (find_java().resolve(), package_folder("pyspark") / "jars", settings.jars)
    fits = [f"{path} {path.stat().st_mtime_ns if path.exists() else 0}" for path in installed]
    # In the environment that it fits, and no other: it goes where that goes, and nothing is left behind in a cache.
    return Path(sys.prefix) / "share" / "twofold" / f"{hashlib.sha256(repr(fits).encode()).hexdigest()[:16]}.jsa"


def _java_options(short_lived: bool) -> str:
    log4j = jobs_folder() / "log4j2.properties"
    compiler = "-XX:TieredStopAtLevel=1" if short_lived else _COMPILED_LATE
    # A number formatted in another language breaks StatsD lines and logs.
    zone = "-Duser.language=en -Duser.timezone=UTC"
    # Deep plans of a definition with many fields, in frames that are not compiled yet, outgrow the default of 1 MiB.
    return f"{zone} -Xss4m -Dlog4j2.configurationFile={log4j.as_uri()} -XX:+UseParallelGC {compiler}"


def package_folder(name: str) -> Path:
    """A package's folder, found without importing it: its import may act already."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise TwofoldError(f"the package {name} is not installed", "run `make setup`")
    return Path(found.submodule_search_locations[0])
