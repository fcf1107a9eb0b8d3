"""How the JVM of a Spark job is started: the one place for whoever starts it, pyspark or spark-submit.

`twofold batch`  ─► python ─► spark_jobs.spark_session ─► JVM
Airflow          ─► spark-submit ─► JVM ─► python ─► spark_jobs.spark_session
                              both with `Launch.of(…)`
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from twofold import java
from twofold.errors import TwofoldError
from twofold.settings import Settings

WORKERS = "spark_jobs.python_workers"
"""The module that Spark starts for its Python workers."""
_COMPILED_LATE = " ".join(
    f"-XX:Tier4{name}={times}"
    for name, times in {
        "InvocationThreshold": 50_000,
        "MinInvocationThreshold": 20_000,
        "CompileThreshold": 200_000,
        "BackEdgeThreshold": 1_000_000,
    }.items()
)
"""The second compiler only for what runs ten times as often as it asks for by itself.

Most of what a batch of the stream runs is planning, so often never worth it: in its first minutes under load a job
spent more CPU on compiling (5.6 s per million events) than on anything else, and so 1.9 s.
"""


@dataclass(frozen=True)
class Launch:
    """What must be known before the JVM runs; nothing here is secret, as it stands on a command line."""

    master: str
    driver_memory: str
    class_path: str
    java_options: str
    worker_python: str
    """What runs Python tasks, by its path: what is called python3 on the PATH may be without our packages."""

    @classmethod
    def of(cls, settings: Settings, short_lived: bool) -> Launch:
        """`short_lived` leaves out the second compiler, which takes a third of the CPU of a job of a few seconds."""
        jars = settings.jars / "spark"
        java.find()
        if not any(jars.glob("*.jar")):
            raise TwofoldError(f"no Spark connectors in {jars}", "run `make setup`, or set TWOFOLD_JARS")
        java_options = _java_options(short_lived) + _classes(class_archive(settings))
        worker_python = settings.spark_python or sys.executable
        return cls(settings.spark_master, settings.spark_driver_memory, f"{jars}/*", java_options, worker_python)

    def configuration(self) -> dict[str, str]:
        """As Spark's own settings; those of a driver count only where they come before its start."""
        return {
            "spark.pyspark.python": self.worker_python,
            "spark.pyspark.driver.python": sys.executable,
            "spark.python.daemon.module": WORKERS,
            "spark.driver.memory": self.driver_memory,
            "spark.driver.extraClassPath": self.class_path,
            "spark.executor.extraClassPath": self.class_path,
            "spark.driver.extraJavaOptions": self.java_options,
            "spark.executor.extraJavaOptions": _java_options(short_lived=False),
        }


def jobs_folder() -> Path:
    """Where the programs of the Spark jobs lie; they are not imported, as that needs Spark."""
    return _package("spark_jobs")


def spark_home() -> Path:
    """The Spark that pyspark carries."""
    return _package("pyspark")


def class_archive(settings: Settings) -> Path:
    """Where `spark_jobs.class_archive` records the classes of this Java, this pyspark and these jars."""
    installed = (java.find().resolve(), _package("pyspark") / "jars", settings.jars)
    fits = [f"{path} {path.stat().st_mtime_ns if path.exists() else 0}" for path in installed]
    # In the environment that it fits, and no other: it goes where that goes, and nothing is left behind in a cache.
    return Path(sys.prefix) / "share" / "twofold" / f"{hashlib.sha256(repr(fits).encode()).hexdigest()[:16]}.jsa"


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise TwofoldError(f"the package {name} is not installed", "run `make setup`")
    return Path(found.submodule_search_locations[0])


def _classes(archive: Path) -> str:
    """An archive that does not fit, after an upgrade of Java for example, the JVM passes over without a word."""
    return f' "-XX:SharedArchiveFile={archive}" -Xlog:cds=off' if archive.exists() else ""


def _java_options(short_lived: bool) -> str:
    log4j = jobs_folder() / "log4j2.properties"
    compiler = "-XX:TieredStopAtLevel=1" if short_lived else _COMPILED_LATE
    # A number formatted in another language breaks StatsD lines and logs.
    zone = "-Duser.language=en -Duser.timezone=UTC"
    # Deep plans of a definition with many fields, in frames that are not compiled yet, outgrow the default of 1 MiB.
    return f"{zone} -Xss4m -Dlog4j2.configurationFile={log4j.as_uri()} -XX:+UseParallelGC {compiler}"
