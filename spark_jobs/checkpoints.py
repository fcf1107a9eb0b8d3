"""What a streaming checkpoint says: the offsets of a micro-batch, as Spark wrote them before it began.

<checkpoint>/offsets/<batch id>:  v1 ⏎ metadata ⏎ one JSON line per source
"""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import SparkSession


def exists(spark: SparkSession, checkpoint: str) -> bool:
    """Whether a query ever began a batch with this checkpoint."""
    return _names(spark, f"{checkpoint}/offsets") != []


def offsets(spark: SparkSession, checkpoint: str, batch_id: int) -> dict[str, Any] | None:
    """The offset JSON of the batch's only source, or None where there is no such batch (any more)."""
    path = f"{checkpoint}/offsets/{batch_id}"
    if str(batch_id) not in _names(spark, f"{checkpoint}/offsets"):
        return None
    filesystem, location = _open(spark, path)
    stream = filesystem.open(location)
    try:
        lines = spark._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8").splitlines()
    finally:
        stream.close()
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def kafka_offsets(spark: SparkSession, checkpoint: str, batch_id: int, topic: str) -> dict[int, int] | None:
    """End offset (exclusive) per partition of a batch read from Kafka."""
    found = offsets(spark, checkpoint, batch_id)
    return None if found is None else {int(partition): end for partition, end in found[topic].items()}


def delete(spark: SparkSession, checkpoint: str) -> None:
    """Remove a checkpoint whole."""
    filesystem, location = _open(spark, checkpoint)
    filesystem.delete(location, True)


def _names(spark: SparkSession, folder: str) -> list[str]:
    filesystem, location = _open(spark, folder)
    if not filesystem.exists(location):
        return []
    return [status.getPath().getName() for status in filesystem.listStatus(location)]


def _open(spark: SparkSession, path: str) -> tuple[Any, Any]:
    location = spark._jvm.org.apache.hadoop.fs.Path(path)
    return location.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), location
