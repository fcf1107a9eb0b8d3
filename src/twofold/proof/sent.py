"""What was sent: the topic as Kafka describes it, and what the producers' journals say was acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from twofold import journal, kafka, table_state, tables
from twofold.lake import Lake


@dataclass(frozen=True)
class Sent:
    """Read before any table: what is recorded here must be in the tables."""

    pipeline: str
    topic_id: str | None
    """None: Kafka has no such topic."""
    begins: Mapping[int, int] = field(default_factory=dict)
    """Partition → first offset that Kafka still has."""
    ends: Mapping[int, int] = field(default_factory=dict)
    """Partition → end offset, exclusive: what was given out."""
    stable_ends: Mapping[int, int] = field(default_factory=dict)
    """Partition → last stable offset: up to it transactions have ended, and all that was committed must be ingested."""
    acknowledged: Mapping[int, int] = field(default_factory=dict)
    """Partition → highest offset acknowledged to any producer of this topic id."""
    acknowledged_records: int = 0
    foreign_journals: int = 0
    """Journals of another topic id."""

    def offsets_behind(self, landed: Mapping[int, int]) -> int:
        """How many of Kafka's offsets that can be ingested are not ingested yet."""
        return sum(max(0, end - max(landed.get(p, 0), self.begins.get(p, 0))) for p, end in self.stable_ends.items())

    @property
    def offsets_open(self) -> int:
        """How many offsets wait for the end of a transaction."""
        return sum(max(0, end - self.stable_ends.get(p, end)) for p, end in self.ends.items())


def read(lake: Lake) -> Sent:
    """Ask the journals, then Kafka: what was acknowledged before is in Kafka after."""
    entries, topic = journal.entries(lake.settings, lake.name), lake.pipeline.topic.name
    state = kafka.describe(lake.settings, topic, at_once=True)
    if state is None:
        log = lake.find(tables.STREAM_LOG)
        # Nobody misses a topic to which nothing was sent, and of which nothing has landed.
        if entries or (log and table_state.streamed(log, lake.name).topic_id):
            state = kafka.describe(lake.settings, topic)
    if state is None:
        return Sent(lake.name, None, foreign_journals=len(entries))
    ours = [entry for entry in entries if entry.topic_id == state.topic_id]
    return Sent(
        lake.name,
        state.topic_id,
        begins={partition: begin for partition, (begin, _) in state.partitions.items()},
        ends=state.ends,
        stable_ends=state.stable_ends,
        acknowledged=journal.acknowledged(ours, state.topic_id),
        acknowledged_records=sum(part.acked for entry in ours for part in entry.partitions.values()),
        foreign_journals=len(entries) - len(ours),
    )
