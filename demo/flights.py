"""Real flights through both layers, run by Airflow, the streaming job killed midway, and the proof.

    January–June  ─► files ─► landing ─► DAG flights_batch ─────────────────────┐
                                                                               ├─► DAG flights_union ─► answer, proof
    May–December  ─► DAG flights_services: producer ─► Kafka ─► streaming job ──┘    (May and June come both ways)

No job runs outside Airflow: two DAGs are triggered, as the button in its pages does, where they would wait for their
schedules. Manually: `make demo`, or `STORE=minio make demo`. Its state is in .twofold of the checkout, recreated each
time.
"""

from __future__ import annotations

from twofold import shell

if __name__ == "__main__":
    shell.enter()

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import psutil
from rich.console import Console
from rich.table import Table

from demo.airflow_rest import AirflowRest
from producer import query_source
from twofold import kafka, table_state, tables
from twofold.definition.load import load_pipeline
from twofold.errors import TwofoldError, as_sentences
from twofold.lake import Lake
from twofold.services.controller import Controller
from twofold.services.record import PRODUCER, STREAM
from twofold.settings import Settings
from twofold.stack import programs

HERE = Path(__file__).resolve().parent.parent
HOME = HERE / ".twofold"
MARK = HOME / "made-by-demo"
PIPELINE = "flights"
GIVE_UP_S = 600.0
FORMATS = ("csv", "jsonl", "parquet", "csv.gz", "jsonl.gz", "parquet")
"""Of the files of January to June, as a batch source would hand them over."""

ANSWER = """
SELECT strftime(scheduled_at, '%Y-%m') AS month,
  count(*) FILTER (origin = 'EWR') AS EWR, round(avg(delay_min) FILTER (origin = 'EWR'), 1) AS EWR_delay,
  count(*) FILTER (origin = 'JFK') AS JFK, round(avg(delay_min) FILTER (origin = 'JFK'), 1) AS JFK_delay,
  count(*) FILTER (origin = 'LGA') AS LGA, round(avg(delay_min) FILTER (origin = 'LGA'), 1) AS LGA_delay,
  round(100.0 * count(*) FILTER (layer = 'batch') / count(*), 1) AS batch_pct,
  round(100.0 * count(*) FILTER (layer = 'stream') / count(*), 1) AS stream_pct
FROM flights.unified_events GROUP BY month ORDER BY month
"""

NEXT = """
What to try next (the stack keeps running; `make down` stops it):
  {url}   user {user}, password {password}: every run above, with its logs
{pages}  .venv/bin/twofold query "SELECT origin, count(*) FROM flights.unified_events GROUP BY origin"
  .venv/bin/twofold query "SELECT * FROM flights.unified_departures_by_origin ORDER BY window_start DESC LIMIT 5"
  .venv/bin/twofold status
  .venv/bin/twofold services
  your own events: `.venv/bin/twofold init NAME --from FILE`, and read pipelines/NAME.yaml (docs/definition.md)
"""

console = Console(stderr=True, highlight=False, soft_wrap=True)
started = time.monotonic()


def main() -> None:
    """Run the demonstration from an empty state; exit with the proof's exit code."""
    os.chdir(HERE)
    fresh()
    with as_sentences():
        code = demonstrate(os.environ.get("STORE", "local"))
    say("done" if code == 0 else "the proof FAILED")
    sys.exit(code)


def demonstrate(store: str) -> int:
    """Everything after an empty state; returns the proof's exit code."""
    say(f"1. the data services: PostgreSQL, ZooKeeper, Kafka{', MinIO' if store == 'minio' else ''}; and monitoring")
    watched = can_be_watched()
    twofold("up", "--store", store, "--no-airflow", "--monitoring" if watched else "--no-monitoring")
    say("2. January to June land as six files of three formats")
    twofold("land", PIPELINE, *map(str, monthly_files(HOME / "demo-files")))
    say("3. Airflow: flights_services starts the producer, May to December, and the streaming job;")
    say("   flights_batch takes the files, and sets off flights_union")
    twofold("up", "--store", store)
    settings = Settings()
    runs = DagRuns(settings)
    until("its DAGs exist", lambda: runs.there("services", "batch", "union"))
    for kind in ("services", "batch"):
        runs.start(kind)
    until("70,000 records are landed", lambda: landed(settings) > 70_000)
    kill(settings)
    until("the DAG of the batch layer has taken the files", lambda: runs.succeeded("batch"))
    until("the union that this started is done", lambda: runs.succeeded("union", by="asset_triggered"))
    until("all is sent and landed", lambda: sent_all(settings) and landed(settings) >= sent(settings))
    until("the services are found healthy", lambda: runs.succeeded("services"))
    console.print(runs.table())
    say("4. the answer: departures and mean delay by origin and month, and which layer each came from")
    twofold("query", ANSWER)
    say("5. the proof")
    code = twofold("prove", PIPELINE, check=False)
    password = settings.airflow_password.get_secret_value()
    watching = programs.pages(settings).items() if watched else ()
    pages = "".join(f"  {url}   {name}\n" for name, url in watching)
    text = NEXT.format(url=settings.airflow_url, user=settings.airflow_user, password=password, pages=pages)
    console.print(text, markup=False)
    return code


def monthly_files(folder: Path) -> list[Path]:
    """The packaged flights of the first months as files, each month in another format."""
    folder.mkdir()
    replay = load_pipeline(Settings(), PIPELINE).replay
    assert replay is not None
    files = []
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        archive = query_source.unpacked(query_source.locate(replay.source, folder), folder)
        query_source.relation(engine, archive, query_source.PACKAGED_NULLS).create_view("source")
        engine.execute(f"CREATE TABLE flights AS SELECT * EXCLUDE (send_at) FROM ({replay.query})")
        for month, kind in enumerate(FORMATS, start=1):
            path = folder / f"2013-{month:02}.{kind}"
            options = {"csv": "csv, header", "jsonl": "json", "parquet": "parquet"}[kind.split(".")[0]]
            packed = ", compression gzip" if kind.endswith(".gz") else ""
            rows = f"SELECT * FROM flights WHERE scheduled_at[:7] = '2013-{month:02}' ORDER BY scheduled_at"
            engine.execute(f"COPY ({rows}) TO '{path}' (FORMAT {options}{packed})")
            files.append(path)
    archive.unlink()
    return files


class DagRuns:
    """What Airflow did: the runs of this pipeline's DAGs, as its pages show them."""

    def __init__(self, settings: Settings) -> None:
        self._airflow, self._url = AirflowRest(settings), settings.airflow_url

    def there(self, *kinds: str) -> bool:
        """Whether Airflow has read these DAGs."""
        found = {dag["dag_id"] for dag in self._airflow.get("dags", limit=100)["dags"]}
        return found >= {f"{PIPELINE}_{kind}" for kind in kinds}

    def start(self, kind: str) -> None:
        """Start a run, as the button in the UI does, unless its schedule has."""
        if not self.of(kind):
            self._airflow.trigger(f"{PIPELINE}_{kind}")

    def all(self) -> list[dict[str, Any]]:
        """Every run, oldest first."""
        found = self._airflow.get("dags/~/dagRuns", limit=100, order_by="run_after")["dag_runs"]
        return [run for run in found if run["dag_id"].startswith(f"{PIPELINE}_")]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The runs of one DAG, oldest first."""
        return [run for run in self.all() if run["dag_id"] == f"{PIPELINE}_{kind}"]

    def succeeded(self, kind: str, by: str = "") -> bool:
        """Whether a run of a DAG succeeded, started `by` (default: any way); raises if the last one failed."""
        runs = [run for run in self.of(kind) if not by or run["run_type"] == by]
        if runs and runs[-1]["state"] == "failed":
            page = f"{self._url}/dags/{runs[-1]['dag_id']}/runs/{runs[-1]['dag_run_id']}"
            raise TwofoldError(f"a run of {runs[-1]['dag_id']} failed", f"see its log: {page}")
        return any(run["state"] == "success" for run in runs)

    def table(self) -> Table:
        """All runs, for the terminal."""
        table = Table("DAG", "started by", "state", box=None, title="DAG runs", title_justify="left")
        table.add_column("seconds", justify="right")
        for run in self.all():
            took = ""
            if run["start_date"] and run["end_date"]:
                first, last = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
                took = f"{(last - first).total_seconds():.0f}"
            table.add_row(run["dag_id"], run["run_type"], run["state"], took)
        return table


def can_be_watched() -> bool:
    """Whether Prometheus and Alertmanager are installed, or can be; if not, the script has printed the command."""
    command = [str(HERE / "scripts" / "prerequisites"), sys.executable, "monitoring"]
    return subprocess.run(command, check=False).returncode == 0


def fresh() -> None:
    """Take away what an earlier demonstration left; never anything else."""
    if HOME.exists() and not MARK.exists():
        console.print(f"error: {HOME} holds a stack that this demonstration did not make")
        console.print("  remedy: run `make down` and move it away, or clone the project into another folder")
        sys.exit(1)
    if HOME.exists():
        twofold("down")
        shutil.rmtree(HOME)
    HOME.mkdir()
    MARK.write_text("`make demo` may delete this folder\n")


def landed(settings: Settings) -> int:
    """Kafka records in stream_log, as recorded in its newest commit."""
    history = Lake(settings, load_pipeline(settings, PIPELINE)).history(tables.STREAM_LOG)
    return sum(table_state.landed(history, PIPELINE).offsets.values())


def sent(settings: Settings) -> int:
    """Records in the topic."""
    state = kafka.describe(settings, PIPELINE)
    return sum(state.ends.values()) if state else 0


def sent_all(settings: Settings) -> bool:
    """Whether the producer has come to its end."""
    return Controller(settings).state(PIPELINE, PRODUCER).record.finished


def kill(settings: Settings) -> None:
    """kill -9 the streaming job, as the out-of-memory killer would, and see its supervisor start it again."""
    controller = Controller(settings)
    until("it runs", lambda: controller.state(PIPELINE, STREAM).runs)
    pid = controller.state(PIPELINE, STREAM).pid
    psutil.Process(pid).kill()
    until("its supervisor has started it again", lambda: controller.state(PIPELINE, STREAM).pid not in (0, pid))
    say(f"   streaming job killed with -9 (pid {pid}); its supervisor started it again")


def twofold(*arguments: str, check: bool = True) -> int:
    """Run a command in the foreground; end the demonstration where it fails."""
    shown = " ".join("…" if "\n" in argument else argument for argument in arguments)
    console.print(f"[dim]$ twofold {shown if len(arguments) < 5 else ' '.join(arguments[:3]) + ' …'}[/dim]")
    code = subprocess.run([Path(sys.executable).with_name("twofold"), *arguments], check=False).returncode
    if check and code != 0:
        console.print(f"error: `twofold {arguments[0]}` ended with {code}; its messages are above")
        sys.exit(code)
    return code


def until(what: str, reached: Callable[[], bool]) -> None:
    """Wait for a condition, with a sign of life."""
    deadline = time.monotonic() + GIVE_UP_S
    with console.status(f"waiting until {what} …"):
        while not reached():
            if time.monotonic() > deadline:
                console.print(f"error: gave up waiting until {what}; see {HOME}/logs")
                sys.exit(1)
            time.sleep(0.5)
    say(f"   {what}")


def say(text: str) -> None:
    """A heading with the time since the start."""
    console.print(f"[bold][{time.monotonic() - started:5.0f} s] {text}[/bold]")


if __name__ == "__main__":
    main()
