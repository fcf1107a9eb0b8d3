"""Files that nothing refers to: left by commits that were cut short, and by copies into the landing folder."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession

from spark_jobs.checkpoints import hadoop_filesystem
from twofold import catalog as catalogs
from twofold.settings import CATALOG, Settings
from twofold.upkeep import Upkeep


def of_table(spark: SparkSession, settings: Settings, pipeline: str, table: str, asked: Upkeep, now: datetime) -> int:
    """Remove files of a table's folder that no snapshot refers to, old enough not to be a commit in flight."""
    if not _has_older(spark, settings, pipeline, table, now - asked.orphan_age):
        return 0
    moment = (now - asked.orphan_age).strftime("%Y-%m-%d %H:%M:%S")
    found = spark.sql(
        f"CALL {CATALOG}.system.remove_orphan_files(table => '{CATALOG}.{pipeline}.{table}', "
        f"older_than => TIMESTAMP '{moment}', dry_run => {str(asked.dry_run).lower()})"
    )
    return found.count()


def of_landing(spark: SparkSession, settings: Settings, pipeline: str, asked: Upkeep, now: datetime) -> int:
    """Remove `.part` files: copies that `twofold land` was killed in. (An S3 upload leaves none.)"""
    filesystem, folder = hadoop_filesystem(spark, settings.landing(pipeline))
    if not filesystem.exists(folder):
        return 0
    old = [
        status.getPath()
        for status in _files(filesystem, folder)
        if status.getPath().getName().startswith(".")
        and status.getPath().getName().endswith(".part")
        and _is_older(status, now - asked.orphan_age)
    ]
    for path in [] if asked.dry_run else old:
        filesystem.delete(path, False)
    return len(old)


def _has_older(spark: SparkSession, settings: Settings, pipeline: str, table: str, moment: datetime) -> bool:
    """Whether the table's folder has a file that may be an orphan at all: a look that costs no Spark job."""
    found = catalogs.find(catalogs.load(settings), pipeline, table)
    if found is None:
        return False
    filesystem, folder = hadoop_filesystem(spark, found.location())
    return filesystem.exists(folder) and any(_is_older(status, moment) for status in _files(filesystem, folder))


def _files(filesystem: JavaObject, folder: JavaObject) -> Iterator[JavaObject]:
    listed = filesystem.listFiles(folder, True)
    while listed.hasNext():
        yield listed.next()


def _is_older(status: JavaObject, moment: datetime) -> bool:
    return bool(status.getModificationTime() < moment.timestamp() * 1000)
