"""PyFlink SQL beside the streaming job: the same topic's shape, fields, filter and window, Parquet files on this disk.

    flink.sql ─► tables and inserts ─► flink_job.py under PyFlink's own Python ─► files/, windows/
                                                                  DuckDB over the records sent ─► equal?

It keeps no rejected records, has no lake and serves no query; removing duplicates is one step of its window's query.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
from kafka.admin import KafkaAdminClient
from kafka.errors import CoordinatorNotAvailableError

from benchmarks.figures import BenchFailure
from benchmarks.flink_setup import ensure_flink
from benchmarks.measure import Serving, serving
from twofold.settings import Settings

HEAP, ROCKSDB = "hashmap", "rocksdb"
"""Where its state is, in Flink's words."""
_SQL = Path(__file__).with_name("flink.sql")
_JOB = Path(__file__).with_name("flink_job.py")
_START_S = 180.0
_STATE_TTL = "2 h"
"""As long as the lateness; of the machine's clock, as Flink has it."""
_CONFIGURATION = {
    "execution.checkpointing.interval": "5 s",
    # With 2 s, a source that a busy machine kept waiting counted as idle, and lost a quarter of a burst as late.
    "table.exec.source.idle-timeout": "30 s",
    "table.exec.state.ttl": _STATE_TTL,
    "table.local-time-zone": "UTC",
    "rest.port": "0",
    "rest.bind-port": "0",
}

_SENT = """
CREATE TEMP VIEW sent AS SELECT event_id, scheduled_at, origin, delay_min
FROM read_json({files}, format = 'newline_delimited', columns = {{event_id: 'VARCHAR', scheduled_at: 'TIMESTAMPTZ',
  origin: 'VARCHAR', delay_min: 'BIGINT', cancelled: 'BOOLEAN'}})
WHERE NOT cancelled
"""
_FILES = """
SELECT (SELECT count(*) FROM sent), count(*) FROM read_parquet('{folder}/files/**/part-*', hive_partitioning = false)
"""
_EVERY_ROW = "SELECT * FROM sent"
_EVERY_ID = """SELECT event_id, any_value(scheduled_at) AS scheduled_at, any_value(origin) AS origin,
  any_value(delay_min) AS delay_min FROM sent GROUP BY event_id"""
_WINDOWS = """
WITH events AS ({events}),
  right_ones AS (
    SELECT time_bucket(INTERVAL 15 MINUTE, scheduled_at) - to_minutes(15 * step) AS window_start, origin,
      count(*) AS departures, avg(delay_min) AS mean_delay
    FROM events, range(4) AS steps(step) GROUP BY ALL),
  found AS (
    SELECT window_start::TIMESTAMPTZ AS window_start, origin, departures, mean_delay
    FROM read_parquet('{folder}/windows/**/part-*', hive_partitioning = false)),
  compared AS (
    SELECT found.departures, right_ones.departures AS right_departures,
      abs(found.mean_delay - right_ones.mean_delay) > 1e-9 AS other_mean
    FROM found LEFT JOIN right_ones USING (window_start, origin))
SELECT
  (SELECT count(*) FROM found),
  (SELECT count(*) FROM compared WHERE right_departures IS NULL OR departures > right_departures
    OR (departures = right_departures AND other_mean)),
  (SELECT coalesce(sum(right_departures - departures), 0) FROM compared),
  (SELECT coalesce(sum(right_departures), 0) FROM compared),
  (SELECT count(*) FROM right_ones ANTI JOIN found USING (window_start, origin)
    WHERE window_start + INTERVAL 1 HOUR <= (SELECT max(scheduled_at) FROM sent) - INTERVAL 2 HOUR - {slack})
"""
_SLACK = "INTERVAL 15 MINUTE"
"""Of event time: a watermark is that of the slowest partition."""


@dataclass
class PyFlink:
    """One job of it; `view` and `distinct` say what it does beside the files."""

    settings: Settings
    folder: Path
    """Where it writes; of its own."""
    name: str
    title: str
    view: bool = True
    distinct: bool = False
    state: str = HEAP

    def running(self) -> Iterator[Serving]:
        """Up and running once its job is submitted."""
        flink = ensure_flink()
        self.folder.mkdir(parents=True)
        job, said = self.folder / "job.json", self.folder / "said.log"
        job.write_text(json.dumps(self._job(flink.job_jars)))
        command, logs = [str(flink.python), str(_JOB), str(job)], {"FLINK_LOG_DIR": str(self.folder)}
        with serving(command, said, logs) as process:
            process.wait_for(job.with_suffix(".started"), f"{self.title}: the job", _START_S)
            yield process

    def _job(self, jars: Sequence[Path]) -> dict[str, object]:
        cores = self.settings.spark_master.removeprefix("local[").removesuffix("]")
        named = {
            "servers": self.settings.kafka_bootstrap,
            "topic": self.name,
            "group": self.name,
            "folder": str(self.folder),
            "source": "distinct_events" if self.distinct else "events",
        }
        asked = statements(named)
        inserts = [statement for statement in asked if statement.startswith("INSERT")]
        configuration = {
            **_CONFIGURATION,
            "parallelism.default": cores,
            "taskmanager.numberOfTaskSlots": cores,
            "state.backend.type": self.state,
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

    def written(self) -> None:
        """Its files are not counted."""
        return

    def check(self, sent: Sequence[Path]) -> str:
        """Every record once, and every window that has closed as DuckDB has it of the same records."""
        files = "[" + ", ".join(f"'{path}'" for path in sent) + "]"
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'").execute(_SENT.format(files=files))
            wanted, kept = _one_row(connection, _FILES.format(folder=self.folder))
            if wanted != kept:
                raise BenchFailure(f"{self.title}: {kept:,} rows in files of {wanted:,} that the filter lets through")
            if not self.view:
                return f"{kept:,} rows in files"
            events = _EVERY_ID if self.distinct else _EVERY_ROW
            query = _WINDOWS.format(events=events, folder=self.folder, slack=_SLACK)
            closed, wrong, lost, counted, missing = _one_row(connection, query)
        if wrong or missing:
            raise BenchFailure(f"{self.title}: of {closed:,} windows {wrong:,} are wrong, and {missing:,} are missing")
        late = f"but for {lost / counted:.2%} of events that came late by Flink's watermark" if lost else "all right"
        return f"{kept:,} rows in files; {closed:,} windows, {late}"


def _one_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def statements(named: Mapping[str, str]) -> list[str]:
    """Those of flink.sql, filled in, without the comments."""
    lines = "\n".join(line for line in _SQL.read_text().splitlines() if not line.startswith("--"))
    return [statement.strip().format(**named) for statement in (lines + "\n").split(";\n") if statement.strip()]
