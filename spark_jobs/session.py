"""One way to make a Spark session: the catalog, the bucket and the settings that exactness needs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from twofold import shell
from twofold.launch import Launch
from twofold.settings import CATALOG, Settings

_S3_CHECKPOINTS = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"
DRIVER_GAUGES = (
    r".*\.(jvm\.(heap|non-heap)\.(used|committed)|jvm\.heap\.max|jvm\.PS-\w+\.(count|time)"
    r"|BlockManager\.(memory\.(memUsed|remainingMem)|disk\.diskSpaceUsed)_MB"
    r"|DAGScheduler\.(job\.activeJobs|stage\.(failed|running|waiting)Stages)"
    r"|LiveListenerBus\.queue\.\w+\.size|executor\.threadpool\.activeTasks)"
)
"""What is sent of the driver's own metrics: gauges that are never negative.

The sink sends cumulative counts as increments, and StatsD takes a negative gauge for a decrement.
"""


def build(settings: Settings, app_name: str, short_lived: bool = False) -> SparkSession:
    """A session whose catalog `twofold` is the JDBC catalog on PostgreSQL, and whose zone is UTC.

    `short_lived` leaves out the second compiler, which takes a third of the CPU of a job of a few seconds.
    """
    launch = Launch.of(settings, short_lived)
    options = {**configuration(settings), **_statsd(settings, app_name)}
    return started(app_name, launch.master, launch.configuration(), options)


def started(app_name: str, master: str, jvm: Mapping[str, str], options: Mapping[str, str]) -> SparkSession:
    """A session with these options; those of the JVM's start are put on its command line, where all can read them."""
    # The JVM, and the Python workers that it starts, are born into this environment.
    shell.clean()
    # pyspark takes it from nowhere else; its own default is whatever is called python3.
    os.environ["PYSPARK_PYTHON"] = jvm["spark.pyspark.python"]
    # Left to the builder, the JVM would be started with all options there, the passwords too.
    SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(list(jvm.items())))
    builder = SparkSession.builder.appName(app_name)
    if master:
        builder = builder.master(master)
    for key, value in {**jvm, **options}.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def close(spark: SparkSession) -> None:
    """Stop the session and whatever of its gateway still runs in this process, as a program does at its very end.

    Threads that wait for calls from the JVM keep what they refer to past the end of Python, and libraries tell of that,
    at length.
    """
    spark.stop()
    gateway = SparkContext._gateway
    if gateway is not None:
        gateway.shutdown()
        SparkContext._gateway = SparkContext._jvm = None


def jvm(spark: SparkSession) -> Any:  # noqa: ANN401 - whatever the JVM has
    """The JVM's classes and objects."""
    assert spark._jvm is not None
    return spark._jvm


def configuration(settings: Settings) -> dict[str, str]:
    """The options that do not concern the start of the JVM."""
    catalog = f"spark.sql.catalog.{CATALOG}"
    return {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Of every query Spark writes down the plan, which nobody sees.
        "spark.sql.ui.explainMode": "simple",
        "spark.driver.host": settings.spark_driver_host,
        "spark.driver.bindAddress": settings.spark_driver_host,
        # Of a cluster; a local master knows none of them.
        "spark.cores.max": str(settings.spark_cores_max),
        "spark.executor.memory": settings.spark_executor_memory,
        "spark.sql.session.timeZone": "UTC",
        # A call of the contract for so many records; more would only hold more memory.
        "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
        "spark.sql.shuffle.partitions": "2",
        # The JVM only interprets longer methods; past this, Spark splits them into ones that it compiles.
        "spark.sql.codegen.hugeMethodLimit": "8000",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        catalog: "org.apache.iceberg.spark.SparkCatalog",
        f"{catalog}.type": "jdbc",
        f"{catalog}.uri": settings.jdbc_url,
        f"{catalog}.jdbc.user": settings.postgres_user,
        f"{catalog}.jdbc.password": settings.postgres_password.get_secret_value(),
        f"{catalog}.jdbc.schema-version": "V1",
        # By this name PostgreSQL knows the connections of this JVM: see `spark_jobs.locks`.
        f"{catalog}.jdbc.ApplicationName": f"twofold-{secrets.token_hex(8)}",
        f"{catalog}.warehouse": settings.tables,
        # With the cache, an outer session reads 0 rows from tables written inside foreachBatch.
        f"{catalog}.cache-enabled": "false",
        # Its extra job costs more than it prunes here: every condition names the days already.
        "spark.sql.optimizer.runtime.rowLevelOperationGroupFilter.enabled": "false",
        # They would only let go of old state, which the next batch does as well: an update is never theirs.
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        # The queries of views say where their state is; to count its rows, RocksDB reads before it writes.
        "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "false",
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        **(_s3(settings) if settings.store == "minio" else {}),
    }


def _statsd(settings: Settings, app_name: str) -> dict[str, str]:
    """The driver's memory, garbage collection and queues to the StatsD exporter, named after the job."""
    sink = "spark.metrics.conf.driver.sink.statsd"
    return {
        "spark.metrics.namespace": app_name,
        "spark.metrics.conf.driver.source.jvm.class": "org.apache.spark.metrics.source.JvmSource",
        f"{sink}.class": "org.apache.spark.metrics.sink.StatsdSink",
        f"{sink}.host": settings.statsd_host,
        f"{sink}.port": str(settings.statsd_port),
        f"{sink}.prefix": "spark",
        f"{sink}.regex": DRIVER_GAUGES,
    }


def _s3(settings: Settings) -> dict[str, str]:
    return {
        "spark.hadoop.fs.s3a.endpoint": settings.s3_endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": settings.s3_region,
        "spark.hadoop.fs.s3a.access.key": settings.s3_access_key,
        "spark.hadoop.fs.s3a.secret.key": settings.s3_secret_key.get_secret_value(),
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": str(settings.s3_endpoint.startswith("https")).lower(),
        # A rename is a copy on S3, so a checkpoint file is written whole or aborted.
        "spark.sql.streaming.checkpointFileManagerClass": _S3_CHECKPOINTS,
    }
