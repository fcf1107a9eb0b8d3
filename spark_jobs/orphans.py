"""Files that nothing refers to: left by commits that were cut short, and by copies into the landing folder."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyspark.sql import SparkSession

from twofold import catalog as catalogs
from twofold import landing, tables
from twofold.landing import LocalFolder
from twofold.settings import CATALOG, Settings
from twofold.upkeep import Upkeep


def of_table(spark: SparkSession, settings: Settings, pipeline: str, table: str, asked: Upkeep, now: datetime) -> int:
    """Remove files of a table's folder that no snapshot refers to, old enough not to be a commit in flight."""
    if not _has_older(settings, pipeline, table, now - asked.orphan_age):
        return 0
    moment = (now - asked.orphan_age).strftime("%Y-%m-%d %H:%M:%S")
    found = spark.sql(
        f"CALL {CATALOG}.system.remove_orphan_files(table => '{tables.qualified(pipeline, table)}', "
        f"older_than => TIMESTAMP '{moment}', dry_run => {str(asked.dry_run).lower()})"
    )
    return found.count()


def of_landing(settings: Settings, pipeline: str, asked: Upkeep, now: datetime) -> int:
    """Remove `.part` files: copies that `twofold land` was killed in. (An S3 upload leaves none.)"""
    folder = landing.folder(settings, pipeline)
    if not isinstance(folder, LocalFolder):
        return 0
    old = [path for path in folder.path.rglob(".*.part") if _is_older(path, now - asked.orphan_age)]
    for path in [] if asked.dry_run else old:
        path.unlink(missing_ok=True)
    return len(old)


def _has_older(settings: Settings, pipeline: str, table: str, moment: datetime) -> bool:
    """Whether the table's folder has a file that may be an orphan at all: a look that costs no Spark job."""
    found = catalogs.find(catalogs.load(settings), pipeline, table)
    if found is None:
        return False
    assert isinstance(found.io, PyArrowFileIO)
    scheme, bucket, path = PyArrowFileIO.parse_location(found.location())
    files = _files(found.io.fs_by_scheme(scheme, bucket), path)
    return any(file.mtime is not None and file.mtime < moment for file in files)


def _files(store: fs.FileSystem, folder: str) -> Iterator[fs.FileInfo]:
    listed = store.get_file_info(fs.FileSelector(folder.rstrip("/"), recursive=True, allow_not_found=True))
    return (info for info in listed if info.is_file)


def _is_older(path: Path, moment: datetime) -> bool:
    try:
        return path.stat().st_mtime < moment.timestamp()
    except FileNotFoundError:
        return False  # it was finished, and renamed
