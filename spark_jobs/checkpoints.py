"""What a streaming checkpoint says: the offsets of a micro-batch, as Spark wrote them before it began.

<checkpoint>/offsets/<batch id>:     v1 ⏎ metadata ⏎ one JSON line per source: where the batch ends
<checkpoint>/sources/0/offsets/0:    where the first batch begins (an Iceberg source's own file)
<checkpoint>.discarded:              the checkpoint is being deleted: nothing in it counts any more
"""

from __future__ import annotations

import json
from typing import Any

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession

from spark_jobs import session

_PARTS = ("offsets", "commits", "sources", "state", "metadata")
"""All that Spark keeps in a checkpoint's folder."""
PROVIDER = "spark.sql.streaming.stateStore.providerClass"
NO_SNAPSHOT = -1
"""What an Iceberg source says instead of a snapshot's id where its table has none yet."""
_STATE_PARTITIONS = "spark.sql.streaming.internal.stateStore.partitions"


def exists(spark: SparkSession, checkpoint: str) -> bool:
    """Whether a query ever began a batch with this checkpoint."""
    return _names(spark, f"{checkpoint}/offsets") != []


def offsets(spark: SparkSession, checkpoint: str, batch_id: int) -> dict[str, Any] | None:
    """The offset JSON of the batch's only source, or None where there is no such batch (any more)."""
    if str(batch_id) not in _names(spark, f"{checkpoint}/offsets"):
        return None
    return _last_line(spark, f"{checkpoint}/offsets/{batch_id}")


def kafka_offsets(spark: SparkSession, checkpoint: str, batch_id: int, topic: str) -> dict[int, int] | None:
    """End offset (exclusive) per partition of a batch read from Kafka."""
    found = offsets(spark, checkpoint, batch_id)
    return None if found is None else {int(partition): end for partition, end in found[topic].items()}


def resumed_from(spark: SparkSession, checkpoint: str) -> dict[str, Any] | None:
    """Where the newest batch begins, which a restart may have to read again; None where no batch ever began."""
    if _exists(spark, _marker(checkpoint)):
        return None
    batches = _batches(spark, f"{checkpoint}/offsets")
    if not batches:
        return None
    before = offsets(spark, checkpoint, batches[-1] - 1)
    return before or beginning(spark, checkpoint)


def committed(spark: SparkSession, checkpoint: str) -> bool:
    """Whether a batch was ever done: before that there is no state to go on from."""
    return not _exists(spark, _marker(checkpoint)) and _batches(spark, f"{checkpoint}/commits") != []


def state_provider(spark: SparkSession, checkpoint: str) -> str | None:
    """Where the query keeps its state, by the newest batch; Spark keeps to it whatever the session says."""
    batches = _batches(spark, f"{checkpoint}/offsets")
    if not batches:
        return None
    metadata = json.loads(_lines(spark, f"{checkpoint}/offsets/{batches[-1]}")[1])
    found = metadata["conf"].get(PROVIDER)
    return None if found is None else str(found)


def beginning(spark: SparkSession, checkpoint: str) -> dict[str, Any] | None:
    """Where the first batch begins, in a checkpoint of an Iceberg source."""
    path = f"{checkpoint}/sources/0/offsets/0"
    return _last_line(spark, path) if _exists(spark, path) else None


def begin_at(spark: SparkSession, checkpoint: str, offset: dict[str, Any]) -> None:
    """Write where the first batch begins, whole or not at all."""
    path = f"{checkpoint}/sources/0/offsets/0"
    folder, name = path.rsplit("/", 1)
    filesystem, location = _open(spark, folder)
    filesystem.mkdirs(location)
    manager = _checkpointing(spark).CheckpointFileManager.create(location, _hadoop(spark))
    stream = manager.createAtomic(session.jvm(spark).org.apache.hadoop.fs.Path(location, name), True)
    stream.write(bytearray(json.dumps(offset, separators=(",", ":")).encode()))
    stream.close()


def end_first_batch_at(
    spark: SparkSession, checkpoint: str, offset: dict[str, Any], now_ms: int, watermark_ms: int = 0
) -> None:
    """Log the first batch, as Spark does before it runs one: a query that starts then runs exactly this batch."""
    jvm, classes = session.jvm(spark), _checkpointing(spark)
    # A query's own session says its number of state partitions under another name.
    own = spark._jsparkSession.cloneSession()
    own.conf().set(_STATE_PARTITIONS, own.conf().get("spark.sql.shuffle.partitions"))
    metadata = classes.OffsetSeqMetadata.apply(watermark_ms, now_ms, own.conf()).json()
    end = jvm.org.apache.spark.sql.execution.streaming.runtime.SerializedOffset(
        json.dumps(offset, separators=(",", ":"))
    )
    ends = jvm.scala.jdk.javaapi.CollectionConverters.asScala(jvm.java.util.List.of(end)).toSeq()
    entry = classes.OffsetSeq.fill(jvm.scala.Option.apply(metadata), ends)
    classes.OffsetSeqLog(spark._jsparkSession, f"{checkpoint}/offsets").add(0, entry)


def discard(spark: SparkSession, checkpoint: str) -> None:
    """Remove a checkpoint whole: one half deleted counts as gone, and the next start removes the rest."""
    filesystem, marker = _open(spark, _marker(checkpoint))
    filesystem.create(marker, True).close()
    _finish_discarding(spark, checkpoint)


def settle(spark: SparkSession, checkpoint: str) -> None:
    """Finish what a `discard` cut short left."""
    if _exists(spark, _marker(checkpoint)):
        _finish_discarding(spark, checkpoint)


def _finish_discarding(spark: SparkSession, checkpoint: str) -> None:
    # Part by part: a table `checkpoints.<p>` of an earlier release has its data in the folder of a query named `data`.
    for part in _PARTS:
        _delete(spark, f"{checkpoint}/{part}")
    if not _names(spark, checkpoint):
        _delete(spark, checkpoint)
    _delete(spark, _marker(checkpoint))


def _delete(spark: SparkSession, path: str) -> None:
    filesystem, location = _open(spark, path)
    filesystem.delete(location, True)


def _marker(checkpoint: str) -> str:
    return f"{checkpoint}.discarded"


def _last_line(spark: SparkSession, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_lines(spark, path)[-1])
    return found


def _lines(spark: SparkSession, path: str) -> list[str]:
    filesystem, location = _open(spark, path)
    stream = filesystem.open(location)
    try:
        text: str = session.jvm(spark).org.apache.commons.io.IOUtils.toString(stream, "UTF-8")
    finally:
        stream.close()
    return text.splitlines()


def _batches(spark: SparkSession, folder: str) -> list[int]:
    return sorted(int(name) for name in _names(spark, folder) if name.isdigit())


def _names(spark: SparkSession, folder: str) -> list[str]:
    filesystem, location = _open(spark, folder)
    if not filesystem.exists(location):
        return []
    return [status.getPath().getName() for status in filesystem.listStatus(location)]


def _exists(spark: SparkSession, path: str) -> bool:
    filesystem, location = _open(spark, path)
    return bool(filesystem.exists(location))


def _open(spark: SparkSession, path: str) -> tuple[Any, Any]:
    location = session.jvm(spark).org.apache.hadoop.fs.Path(path)
    return location.getFileSystem(_hadoop(spark)), location


def _hadoop(spark: SparkSession) -> JavaObject:
    return spark._jsparkSession.sessionState().newHadoopConf()


def _checkpointing(spark: SparkSession) -> Any:  # noqa: ANN401 - a package of the JVM
    return session.jvm(spark).org.apache.spark.sql.execution.streaming.checkpointing
