"""The rival: the Structured Streaming job of every tutorial, over the same topic, with the same filter and window.

    Kafka ─► from_json ─► filter ─► Parquet files
    Kafka ─► from_json ─► filter ─► watermark ─► windowed aggregate ─► Parquet files

It keeps no rejected records, removes no duplicates, corrects nothing and serves no query: it is the floor of work.
Manually, in the environment of a stack: `python -m benchmarks.textbook bench --tuned`
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from twofold import tables
from twofold.definition.load import load_pipeline
from twofold.definition.model import Pipeline
from twofold.settings import Settings

_TUNED = {
    "spark.driver.extraJavaOptions": "-Duser.timezone=UTC -XX:+UseParallelGC",
    "spark.sql.shuffle.partitions": "2",
}
"""What a tutorial leaves at Spark's defaults (200 shuffle partitions, G1), as Twofold has it."""


@click.command()
@click.argument("pipeline")
@click.option("--tuned", is_flag=True, help="With the collector and the shuffle partitions of Twofold's session.")
def main(pipeline: str, tuned: bool) -> None:
    """Drain PIPELINE's topic by both queries at once, as a textbook starts them."""
    settings = Settings()
    declared, spark = load_pipeline(settings, pipeline), _session(settings, tuned)
    with tempfile.TemporaryDirectory(dir=settings.home, prefix="textbook-") as scratch:
        folder = Path(scratch)
        queries = [
            _to_files(_parsed(spark, settings, declared), folder, "records"),
            _to_files(_aggregated(_parsed(spark, settings, declared), declared), folder, "windows"),
        ]
        for query in queries:
            query.awaitTermination()
    spark.stop()


def _session(settings: Settings, tuned: bool) -> SparkSession:
    """Spark with Twofold's cores and memory, without the lake."""
    options = {
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.driver.extraClassPath": f"{settings.jars}/spark/*",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        **(_TUNED if tuned else {}),
    }
    builder = SparkSession.builder.appName("textbook").master(settings.spark_master)
    for key, value in options.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def _parsed(spark: SparkSession, settings: Settings, pipeline: Pipeline) -> DataFrame:
    schema = ", ".join(f"`{name}` {kind}" for name, kind in tables.event_columns(pipeline))
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", settings.kafka_bootstrap)
        .option("subscribe", pipeline.topic.name)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", pipeline.stream.max_offsets_per_trigger)
        .load()
    )
    events = records.select(F.from_json(F.col("value").cast("string"), schema).alias("event")).select("event.*")
    return events.where(pipeline.filter.declared) if pipeline.filter else events


def _aggregated(events: DataFrame, pipeline: Pipeline) -> DataFrame:
    (view,) = pipeline.views.values()
    window, every, lateness = (
        f"{int(length.total_seconds())} seconds" for length in (view.window, view.every, pipeline.lateness)
    )
    measures = [F.expr(measure.declared).alias(name) for name, measure in view.measures.items()]
    return (
        events.withWatermark(pipeline.event.time, lateness)
        .groupBy(F.window(pipeline.event.time, window, every), *view.by)
        .agg(*measures)
    )


def _to_files(rows: DataFrame, folder: Path, name: str) -> StreamingQuery:
    writer = rows.writeStream.queryName(name).format("parquet").outputMode("append")
    located = writer.option("path", str(folder / name)).option("checkpointLocation", str(folder / f"{name}-checkpoint"))
    return located.trigger(availableNow=True).start()


if __name__ == "__main__":
    main()
