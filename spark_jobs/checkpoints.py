"""A streaming query's checkpoint: the offsets of its micro-batches, as Spark wrote them before they began.

<checkpoint>/offsets/<batch id>:     v1 ⏎ metadata ⏎ one JSON line per source: where the batch ends
<checkpoint>/sources/0/offsets/0:    where the first batch begins (an Iceberg source's own file)
<checkpoint>.discarded:              the checkpoint is being deleted: nothing in it counts any more
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from spark_jobs.spark_session import Job, in_jvm, jvm

_BEGINNING = "sources/0/offsets/0"
_MARKER = ".discarded"
"""Beside the folder: its name is the checkpoint's, and this."""
PROVIDER = "spark.sql.streaming.stateStore.providerClass"
NO_SNAPSHOT = -1
"""What an Iceberg source says instead of a snapshot's id where its table has none yet."""
_STATE_PARTITIONS = "spark.sql.streaming.internal.stateStore.partitions"


@dataclass(frozen=True)
class Checkpoint:
    """The folder of one query, which may discard it while others read it."""

    spark: SparkSession
    path: str

    @classmethod
    def of(cls, job: Job, query: str) -> Checkpoint:
        """The checkpoint of a pipeline's query: `log`, or a view's name."""
        return cls(job.spark, job.settings.checkpoint(job.pipeline.name, query))

    def has_begun(self) -> bool:
        """Whether a query ever began a batch with this checkpoint."""
        return self._names("offsets") != []

    def offsets(self, batch_id: int) -> dict[str, Any] | None:
        """The offset JSON of the batch's only source, or None where there is no such batch (any more)."""
        return self._last_line(f"offsets/{batch_id}")

    def kafka_offsets(self, batch_id: int, topic: str) -> dict[int, int] | None:
        """End offset (exclusive) per partition of a batch read from Kafka."""
        found = self.offsets(batch_id)
        return None if found is None else {int(partition): end for partition, end in found[topic].items()}

    def done(self, topic: str) -> dict[int, int]:
        """End offset (exclusive) per partition of the newest batch from Kafka that was done; empty: none was."""
        batches = self._batches("commits")
        return (self.kafka_offsets(batches[-1], topic) or {}) if batches else {}

    def resumed_from(self) -> dict[str, Any] | None:
        """Where the newest batch begins, which a restart may have to read again; None where no batch ever began."""
        batches = self._batches("offsets")
        if self._is_discarded() or not batches:
            return None
        before = self.offsets(batches[-1] - 1)
        return self._last_line(_BEGINNING) if before is None else before

    def has_ended_a_batch(self) -> bool:
        """Whether a batch was ever done: before that there is no state to resume from."""
        return not self._is_discarded() and self._batches("commits") != []

    def state_provider(self) -> str | None:
        """Where the query keeps its state, by the newest batch; Spark keeps to it whatever the session says."""
        batches = self._batches("offsets")
        lines = self._lines(f"offsets/{batches[-1]}") if batches else []
        found = json.loads(lines[1])["conf"].get(PROVIDER) if lines else None
        return None if found is None else str(found)

    def begin_at(self, offset: dict[str, Any]) -> None:
        """Write where the first batch begins, whole or not at all."""
        folder, name = _BEGINNING.rsplit("/", 1)
        filesystem, location = self._open(folder)
        filesystem.mkdirs(location)
        manager = _checkpointing().CheckpointFileManager.create(location, self._hadoop())
        stream = manager.createAtomic(jvm().org.apache.hadoop.fs.Path(location, name), True)
        stream.write(bytearray(_compact(offset).encode()))
        stream.close()

    def end_first_batch_at(self, offset: dict[str, Any], now_ms: int, watermark_ms: int = 0) -> None:
        """Log the first batch, as Spark does before it runs one: a query that starts then runs exactly this batch."""
        java, classes = jvm(), _checkpointing()
        # A query's own session says its number of state partitions under another name.
        own = in_jvm(self.spark).cloneSession()
        own.conf().set(_STATE_PARTITIONS, own.conf().get("spark.sql.shuffle.partitions"))
        metadata = classes.OffsetSeqMetadata.apply(watermark_ms, now_ms, own.conf()).json()
        end = java.org.apache.spark.sql.execution.streaming.runtime.SerializedOffset(_compact(offset))
        ends = java.scala.jdk.javaapi.CollectionConverters.asScala(java.java.util.List.of(end)).toSeq()
        entry = classes.OffsetSeq.fill(java.scala.Option.apply(metadata), ends)
        classes.OffsetSeqLog(in_jvm(self.spark), f"{self.path}/offsets").add(0, entry)

    def discard(self) -> None:
        """Remove a whole checkpoint: a half-deleted one counts as gone, and the next start removes the rest."""
        filesystem, marker = self._open(_MARKER)
        filesystem.create(marker, True).close()
        self.settle()

    def settle(self) -> None:
        """Finish an interrupted `discard`."""
        for part in ("", _MARKER) if self._is_discarded() else ():
            filesystem, location = self._open(part)
            filesystem.delete(location, True)

    def _is_discarded(self) -> bool:
        filesystem, marker = self._open(_MARKER)
        return bool(filesystem.exists(marker))

    def _batches(self, folder: str) -> list[int]:
        return sorted(int(name) for name in self._names(folder) if name.isdigit())

    def _last_line(self, part: str) -> dict[str, Any] | None:
        lines = self._lines(part)
        found: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
        return found

    def _lines(self, part: str) -> list[str]:
        """The lines of a file; none where there is none."""

        def read(filesystem: JavaObject, location: JavaObject) -> list[str]:
            stream = filesystem.open(location)
            try:
                text: str = jvm().org.apache.commons.io.IOUtils.toString(stream, "UTF-8")
            finally:
                stream.close()
            return text.splitlines()

        return self._if_there(part, read)

    def _names(self, folder: str) -> list[str]:
        def read(filesystem: JavaObject, location: JavaObject) -> list[str]:
            return [status.getPath().getName() for status in filesystem.listStatus(location)]

        return self._if_there(folder, read)

    def _if_there(self, part: str, read: Callable[[JavaObject, JavaObject], list[str]]) -> list[str]:
        """What `read` finds; nothing where it found no such part, though by now a query may have made it."""
        filesystem, location = self._open(part)
        try:
            return read(filesystem, location)
        except Py4JJavaError as error:
            missing = error.java_exception.getClass().getName() == "java.io.FileNotFoundException"
            # A folder deleted in the middle of its listing is no such exception.
            if not missing and filesystem.exists(location):
                raise
            return []

    def _open(self, part: str) -> tuple[JavaObject, JavaObject]:
        """The file system and the path of a part of the checkpoint; "" is the folder itself."""
        path = self.path + (part if part == _MARKER else f"/{part}" if part else "")
        location = jvm().org.apache.hadoop.fs.Path(path)
        return location.getFileSystem(self._hadoop()), location

    def _hadoop(self) -> JavaObject:
        return in_jvm(self.spark).sessionState().newHadoopConf()


def _compact(offset: dict[str, Any]) -> str:
    return json.dumps(offset, separators=(",", ":"))


def _checkpointing() -> Any:  # noqa: ANN401 - a package of the JVM
    return jvm().org.apache.spark.sql.execution.streaming.checkpointing
