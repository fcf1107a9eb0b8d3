"""Spark's classes, parsed and verified once: `make setup` records an archive that the JVM of every job maps.

a JVM writes a table, and reads it as a stream ─► at its end, all classes it loaded ─► .venv/share/twofold/<key>.jsa

The archive saves a union 2.5 CPU-seconds, and the start of a stream 4. The JVM itself checks whether an archive fits it
and its class path, and where it does not, or where there is none, loads the classes from their jars.

Run manually: `python -m spark_jobs.class_archive`
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from pyspark.sql import DataFrame, SparkSession

from spark_jobs import spark_session
from twofold import launch
from twofold.errors import as_sentences
from twofold.settings import CATALOG, Settings

_END_WITHIN_S = 300
_LOG = f"{CATALOG}.classes.log"


@click.command()
def main() -> None:
    """Record the archive, unless it exists."""
    with as_sentences():
        settings = Settings()
        target = launch.class_archive(settings)
        if not target.exists():
            click.echo("Recording Spark's classes, so that jobs start faster", err=True)
            record(settings, target)


def record(settings: Settings, target: Path) -> None:
    """Run a JVM as a job's, but with a catalog that needs no server, and keep the classes that it loaded."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made, at_start = Path(folder) / target.name, launch.configuration(settings, short_lived=False)
        recording = f'"-XX:ArchiveClassesAtExit={made}" -Xlog:cds=off -Xlog:cds+dynamic=off'
        at_start[launch.DRIVER_OPTIONS] += f" {recording}"
        options = spark_session.configuration(settings)
        options |= {f"spark.sql.catalog.{CATALOG}.type": "hadoop", f"spark.sql.catalog.{CATALOG}.warehouse": folder}
        spark = spark_session.started("classes", "local[2]", at_start, options)
        # Warnings about discarded data do not concern the user who installs.
        spark.sparkContext.setLogLevel("ERROR")
        _work(spark, folder)
        jvm = spark_session.jvm_process()
        spark_session.close(spark)
        # It writes the archive on its way out.
        assert jvm.stdin is not None
        jvm.stdin.close()
        jvm.wait(_END_WITHIN_S)
        for outgrown in target.parent.glob("*.jsa"):
            outgrown.unlink()
        made.replace(target)


def _work(spark: SparkSession, folder: str) -> None:
    """Bytes to Python's workers and a little back, a table, and a stream with state."""
    spark.sql(f"CREATE TABLE {_LOG} (id BIGINT) USING iceberg")
    spark.range(10).mapInArrow(lambda batches: batches, "id BIGINT").writeTo(_LOG).append()
    counts = spark.readStream.format("iceberg").load(_LOG).groupBy("id").count()
    writer = counts.writeStream.outputMode("update").option("checkpointLocation", f"{folder}/checkpoint")
    writer.foreachBatch(_collect).trigger(availableNow=True).start().awaitTermination()


def _collect(rows: DataFrame, _batch_id: int) -> None:
    rows.collect()


if __name__ == "__main__":
    main()
