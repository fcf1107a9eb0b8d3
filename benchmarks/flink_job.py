"""The rival's process: runs under PyFlink's own Python, which has nothing of ours, until SIGTERM.

Manually: `<flink python> flink_job.py job.json`, with `{"configuration": {…}, "tables": […], "inserts": […]}`.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from pyflink.common import Configuration  # type: ignore[import-not-found]
from pyflink.table import EnvironmentSettings, TableEnvironment  # type: ignore[import-not-found]


def main(job: Path) -> None:
    """Start all inserts as one job, so that they share the source, and wait to be stopped."""
    asked, stop = json.loads(job.read_text()), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    configuration = Configuration()
    for name, value in asked["configuration"].items():
        configuration.set_string(name, value)
    settings = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    environment = TableEnvironment.create(settings)
    for statement in asked["tables"]:
        environment.execute_sql(statement)
    inserts = environment.create_statement_set()
    for statement in asked["inserts"]:
        inserts.add_insert_sql(statement)
    running = inserts.execute().get_job_client()
    job.with_suffix(".started").touch()
    # Not a bare wait: Python sees a signal only between two calls.
    while not stop.wait(1.0):
        pass
    running.cancel().result()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
