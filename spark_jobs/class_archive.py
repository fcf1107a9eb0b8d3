"""Spark's classes, parsed and verified once: `make setup` records an archive that the JVM of every job maps.    a JVM
that does a little of everything ─► at its end, all classes it loaded ─► .venv/share/twofold/<key>.jsa

The archive saves a job some 9 CPU-seconds. The JVM itself checks whether an archive fits it and its class path, and
where it does not, or where there is none, loads the classes from their jars.

Run manually: `python -m spark_jobs.class_archive`
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pyarrow as pa
from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import spark_session
from twofold.errors import as_sentences
from twofold.launch import Launch, class_archive
from twofold.settings import CATALOG, Settings

_RECORDS = 1000
_END_WITHIN_S = 300
_LOG = f"{CATALOG}.classes.log"
_TABLE = f"CREATE TABLE {_LOG} (id STRING, at TIMESTAMP, n INT) USING iceberg PARTITIONED BY (days(at))"


@click.command()
def main() -> None:
    """Record the archive, unless it exists."""
    with as_sentences():
        settings = Settings()
        target = class_archive(settings)
        if not target.exists():
            click.echo("Recording Spark's classes, so that jobs start faster", err=True)
            record(settings, target)


def record(settings: Settings, target: Path) -> None:
    """Run a JVM through what the jobs do, and keep the classes that it loaded."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        spark = _session(settings, Path(folder), made)
        _exercise(spark, folder)
        spark.stop()
        _end_jvm()
        for outgrown in target.parent.glob("*.jsa"):
            outgrown.unlink()
        made.replace(target)


def _session(settings: Settings, folder: Path, made: Path) -> SparkSession:
    """As a job's, but for a catalog that needs no server."""
    jvm, options = Launch.of(settings, short_lived=False).configuration(), spark_session.configuration(settings)
    recording = f'"-XX:ArchiveClassesAtExit={made}" -Xlog:cds=off -Xlog:cds+dynamic=off'
    jvm["spark.driver.extraJavaOptions"] += f" {recording}"
    options |= {f"spark.sql.catalog.{CATALOG}.type": "hadoop", f"spark.sql.catalog.{CATALOG}.warehouse": str(folder)}
    spark = spark_session.started("classes", "local[2]", jvm, options)
    # Warnings about discarded data do not concern the user who installs.
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _exercise(spark: SparkSession, folder: str) -> None:
    spark.sql(_TABLE)
    for _ in range(2):
        _records(spark).writeTo(_LOG).append()
        _stream(spark, f"{folder}/checkpoint")
    spark.sql(f"SELECT * FROM {_LOG} WHERE at >= TIMESTAMP '2013-01-01' ORDER BY 1").collect()


def _records(spark: SparkSession) -> DataFrame:
    values = spark.range(_RECORDS).select(F.col("id").cast("string").cast("binary").alias("value"))
    # As the streaming job does: bytes to Python's workers, and a little back.
    rows = values.coalesce(1).mapInArrow(_same, "value binary").selectExpr("CAST(value AS STRING) AS id")
    ranked = rows.withColumn("place", F.expr("row_number() OVER (PARTITION BY id ORDER BY id)")).where("place = 1")
    return ranked.selectExpr("id", "TIMESTAMP '2013-01-02 03:04:05' AS at", "CAST(id AS INT) AS n")


def _same(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches


def _stream(spark: SparkSession, checkpoint: str) -> None:
    log = spark.readStream.format("iceberg").load(_LOG).withWatermark("at", "1 hour")
    windows = log.dropDuplicatesWithinWatermark(["id"]).groupBy(F.window("at", "1 hour", "15 minutes")).agg(F.sum("n"))
    updates = windows.toDF("window", "total").select(F.col("window.start").alias("window_start"), "total")
    writer = updates.writeStream.outputMode("update").option("checkpointLocation", checkpoint)
    writer.foreachBatch(_write).trigger(availableNow=True).start().awaitTermination()


def _write(updates: DataFrame, _batch_id: int) -> None:
    updates.mapInArrow(_same, "window_start TIMESTAMP, total BIGINT").collect()


def _end_jvm() -> None:
    """Wait for the JVM, which writes the archive on its way out."""
    gateway = SparkContext._gateway  # pyspark hands out its JVM's process nowhere else
    assert gateway is not None
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(_END_WITHIN_S)


if __name__ == "__main__":
    main()
