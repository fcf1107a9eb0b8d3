"""Writing a source's journal: one writer at a time, replaced in one step, so that kill -9 costs a quarter second.

    open ─► lock ─► decide where to start ─► save(progress) … ─► close

What is in the file is explained in `twofold.journal`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from producer.progress import Progress, merged
from producer.sources import Source
from twofold import journal
from twofold.errors import Busy, TwofoldError
from twofold.journal import Entry
from twofold.settings import Settings
from twofold.topic import TopicState


class Journal:
    """The journal of one source, locked by this process until it ends."""

    def __init__(self, path: Path, entry: Entry, note: str = "") -> None:
        self._path, self._base, self.entry, self.note = path, entry, entry, note
        self._saved: Entry | None = None

    @property
    def aside(self) -> Path:
        """Where records too large for the broker are kept, one per line, byte for byte."""
        return self._path.with_suffix(".too_large.jsonl")

    def starts(self, workers: int) -> list[int]:
        """Where each worker starts: where it stopped, or, with another number of workers, where the slowest did."""
        positions = self._base.positions
        return list(positions) if len(positions) == workers else [self._base.position] * workers

    def save(self, workers: Sequence[Progress]) -> None:
        """Write down how far the workers are; nothing is written if nothing has changed."""
        self.entry = replace(
            self._base,
            positions=tuple(worker.position for worker in workers),
            exhausted=all(worker.exhausted for worker in workers),
            partitions=merged([self._base.partitions, *(worker.partitions for worker in workers)]),
            too_large=self._base.too_large + sum(worker.too_large for worker in workers),
        )
        if self.entry != self._saved:
            self._saved = self.entry
            _replace(self._path, replace(self.entry, updated=datetime.now(UTC).isoformat(timespec="seconds")))


def path_of(settings: Settings, pipeline: str, identity: Mapping[str, Any]) -> Path:
    """The journal of a source, whatever its present content."""
    name = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:16]
    return journal.folder(settings, pipeline) / f"{identity['kind']}-{name}.json"


def lock(path: Path) -> int:
    """Lock a journal until this process ends, however it ends; raise Busy if another one has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Busy(
            f"another producer is sending this source (it holds {path.with_suffix('.lock')})",
            "wait for it or stop it; two at once would send every record twice",
        ) from error
    return descriptor


def start(path: Path, pipeline: str, topic: TopicState, source: Source, restart: bool) -> Journal:
    """Decide where to go on: where the last run stopped, or at the start; the source is told what it must remember."""
    before = journal.read(path)
    fresh = Entry(pipeline, topic.name, topic.topic_id, source.identity, source.version, source.memory)
    if before is None:
        return Journal(path, fresh)
    if before.topic_id == topic.topic_id:
        fresh = replace(fresh, partitions=before.partitions)
    if restart:
        return Journal(path, fresh)
    if dict(before.version) != dict(source.version):
        return Journal(path, fresh, "" if source.identity["kind"] == "stdin" else "the source has changed since then")
    refuse_other_topic(before, topic)
    source.remember(before.memory)
    return Journal(path, before)


def refuse_other_topic(before: Entry, topic: TopicState) -> None:
    """Going on halfway would leave the new topic without the first half, in silence."""
    if before.topic_id != topic.topic_id:
        raise TwofoldError(
            f"topic {topic.name} was deleted and made again (id {before.topic_id}, now {topic.topic_id})"
            f" since {before.position} records of this source were sent",
            "send the source again from its start with --restart; a streaming job that has landed of the old topic"
            " refuses the new one: then declare the stream under a new pipeline name",
        )


def _replace(path: Path, entry: Entry) -> None:
    draft = path.with_suffix(".tmp")
    try:
        with draft.open("w") as file:
            file.write(entry.to_json())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise TwofoldError(f"the journal {path} cannot be written: {error.strerror}", "make room for it") from error
