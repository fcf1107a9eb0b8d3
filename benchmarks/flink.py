"""PyFlink SQL beside the streaming job: the same topic's shape, fields, filter and window, Parquet files on this disk.

    flink_ivy.xml ─► Ivy ─► jar-sets/<key>/{job,lib} ─┐
    uv venv ─► apache-flink, Hadoop's client jars ────┴─► <cache>/flink/<key>: on demand, apart, for an older pyarrow
    flink.sql ─► tables and inserts ─► flink_job.py under that Python ─► files/, windows/

It keeps no rejected records, has no lake and serves no query; removing duplicates is one step of its window's query.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
from kafka.admin import KafkaAdminClient
from kafka.errors import CoordinatorNotAvailableError

from benchmarks.measure import BenchFailure, Serving, serving
from twofold.launch import spark_home
from twofold.settings import Settings, cache_folder
from twofold.setup import jars
from twofold.setup.cache import SetupError, cache_lock, publish, run, staging

REQUIREMENT = "apache-flink==2.2.1"
LIST = Path(__file__).with_name("flink_ivy.xml")
_HADOOP = "hadoop-client-*.jar"
_REMEDY = "check the network and run `make bench PARTS=live` again; nothing half-made is kept"
_SQL = Path(__file__).with_name("flink.sql")
_JOB = Path(__file__).with_name("flink_job.py")
_START_S = 180.0
_CONFIGURATION = {
    "execution.checkpointing.interval": "5 s",
    # With 2 s, a source that a busy machine kept waiting counted as idle, and lost a quarter of a burst as late.
    "table.exec.source.idle-timeout": "30 s",
    # As long as the lateness; of the machine's clock, as Flink has it.
    "table.exec.state.ttl": "2 h",
    "table.local-time-zone": "UTC",
    "rest.port": "0",
    "rest.bind-port": "0",
}

_FILES = """
SELECT (SELECT count(*) FROM read_json({sent}, columns = {{cancelled: 'BOOLEAN'}}) WHERE NOT cancelled),
  (SELECT count(*) FROM read_parquet('{folder}/files/**/part-*', hive_partitioning = false))
"""
_WINDOWS = """
SELECT count(*), coalesce(sum(departures), 0) FROM read_parquet('{folder}/windows/**/part-*', hive_partitioning = false)
"""


@dataclass
class PyFlink:
    """One job of it: files alone, or with the window over distinct events, its state on the heap."""

    settings: Settings
    folder: Path
    """Where it writes; of its own."""
    name: str
    title: str
    view: bool

    def running(self) -> Iterator[Serving]:
        """Up and running once its job is submitted."""
        try:
            flink = ensure_flink()
        except SetupError as error:
            raise BenchFailure(f"PyFlink's environment cannot be made: {error}") from error
        self.folder.mkdir(parents=True)
        job, said = self.folder / "job.json", self.folder / "said.log"
        job.write_text(json.dumps(self._job(flink.job_jars)))
        command, logs = [str(flink.python), str(_JOB), str(job)], {"FLINK_LOG_DIR": str(self.folder)}
        with serving(command, said, logs) as process:
            process.until(job.with_suffix(".started").exists, f"{self.title}: the job", _START_S)
            yield process

    def _job(self, jars: Sequence[Path]) -> dict[str, object]:
        cores = self.settings.spark_master.removeprefix("local[").removesuffix("]")
        named = {
            "servers": self.settings.kafka_bootstrap,
            "topic": self.name,
            "group": self.name,
            "folder": str(self.folder),
        }
        asked = statements(named)
        inserts = [statement for statement in asked if statement.startswith("INSERT")]
        configuration = {
            **_CONFIGURATION,
            "parallelism.default": cores,
            "taskmanager.numberOfTaskSlots": cores,
            "execution.checkpointing.dir": f"file://{self.folder}/checkpoints",
            "pipeline.jars": ";".join(f"file://{jar}" for jar in jars),
        }
        return {
            "configuration": configuration,
            "tables": [statement for statement in asked if statement not in inserts],
            "inserts": inserts if self.view else inserts[:1],
        }

    def caught_up(self, ends: Mapping[int, int]) -> bool:
        """Flink commits its group's offsets once a checkpoint holds them, and with them its files."""
        client = KafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap)
        try:
            found = client.list_group_offsets(self.name)[self.name]
        except CoordinatorNotAvailableError:  # the broker only now makes the topic in which groups are
            return False
        finally:
            client.close()
        held = {one.partition: at.offset for one, at in found.items()}
        return all(held.get(partition, 0) >= end for partition, end in ends.items())

    def check(self, sent: Sequence[Path]) -> str:
        """Every record that the filter lets through in the files; how many windows closed, and what they count.

        An event counts in four windows. Those of the last hours are open in the end; a duplicate, and what comes late
        by Flink's watermark, as past its idle timeout on a busy machine, is in none.
        """
        with duckdb.connect() as connection:
            files = _FILES.format(sent=list(map(str, sent)), folder=self.folder)
            [(wanted, kept)] = connection.execute(files).fetchall()
            if wanted != kept:
                raise BenchFailure(f"{self.title}: {kept:,} rows in files of {wanted:,} that the filter lets through")
            if not self.view:
                return f"{kept:,} rows in files"
            [(closed, counted)] = connection.execute(_WINDOWS.format(folder=self.folder)).fetchall()
        return f"{kept:,} rows in files; {closed:,} windows, of {counted / kept:.2f} of the 4 that each event is in"


def statements(named: Mapping[str, str]) -> list[str]:
    """Those of flink.sql, filled in, without the comments."""
    lines = "\n".join(line for line in _SQL.read_text().splitlines() if not line.startswith("--"))
    return [statement.strip().format(**named) for statement in (lines + "\n").split(";\n") if statement.strip()]


# ---- its environment ----


@dataclass(frozen=True)
class Flink:
    """A Python with PyFlink, and the jars that a job names itself."""

    python: Path
    job_jars: tuple[Path, ...]


def ensure_flink() -> Flink:
    """Have PyFlink in the cache, whole; SetupError where it cannot be had."""
    cache = cache_folder()
    with cache_lock(cache, "jars"):
        found = jars.have(LIST, cache)
    hadoop = sorted((spark_home() / "jars").glob(_HADOOP))
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
            shutil.copyfile(jar, folder / jar.name)
        publish(made, target)
