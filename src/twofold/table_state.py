"""The state that a table's snapshots carry: the commit that moves the data moves these too, in its summary.

    stream_log, batch_log   twofold.landed    what the log holds: Kafka offsets, or the last landing
    events                  twofold.boundary  what `events` covers of both logs, and the days its commit touched
    batch_<view>            twofold.folded    which `events` snapshot it is folded from, and sealed_through
    stream_<view>           twofold.folded    which `stream_log` snapshot it has read up to

Compaction's commits carry none of these: the state in force is the nearest ancestor's that does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from twofold.errors import BoundaryError
from twofold.windows import earlier

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from twofold.definition.model import Topic


EARLIEST = "earliest"


@dataclass(frozen=True)
class Snapshot:
    """The part of an Iceberg snapshot that matters here."""

    id: int
    parent: int | None
    summary: Mapping[str, str]
    timestamp_ms: int = 0

    @property
    def at(self) -> datetime:
        """When it was committed, UTC."""
        return datetime.fromtimestamp(self.timestamp_ms / 1000, UTC)

    @property
    def rows(self) -> int:
        """Rows of the table as of it."""
        return int(self.summary.get("total-records", 0))


@dataclass(frozen=True)
class History:
    """A table's snapshots by id, and its head (None: no snapshot yet)."""

    snapshots: Mapping[int, Snapshot]
    head: int | None

    def ancestors(self) -> Iterator[Snapshot]:
        """From the head back, as far as expiry has left them."""
        current = self.head
        while current is not None and current in self.snapshots:
            yield self.snapshots[current]
            current = self.snapshots[current].parent

    def nearest(self, key: str) -> Snapshot | None:
        """The nearest ancestor whose summary has `key`."""
        return next((snapshot for snapshot in self.ancestors() if key in snapshot.summary), None)

    def since(self, snapshot_id: int) -> list[Snapshot] | None:
        """Ancestors newer than `snapshot_id`, newest first; None where the chain does not reach it."""
        newer: list[Snapshot] = []
        for snapshot in self.ancestors():
            if snapshot.id == snapshot_id:
                return newer
            newer.append(snapshot)
        return None


def history_of(table: Table | None) -> History:
    """The table's snapshots as plain data; an empty history where there is no table."""
    if table is None:
        return History({}, None)
    snapshots = {
        snapshot.snapshot_id: Snapshot(
            snapshot.snapshot_id,
            snapshot.parent_snapshot_id,
            dict(snapshot.summary.additional_properties) if snapshot.summary else {},
            snapshot.timestamp_ms,
        )
        for snapshot in table.metadata.snapshots
    }
    return History(snapshots, table.metadata.current_snapshot_id)


@dataclass(frozen=True)
class Lost:
    """Offsets of one partition, [start, end), that Kafka deleted before they landed, and that were accepted as lost."""

    partition: int
    start: int
    end: int
    accepted_at: datetime
    after: datetime | None = None
    """Kafka's time stamp of the last record landed before them."""
    before: datetime | None = None
    """Kafka's time stamp of the first record that it still had after them."""


@dataclass(frozen=True)
class Landed:
    """What a log holds: per Kafka partition the end offset (exclusive), or the last landing of files."""

    KEY = "twofold.landed"

    pipeline: str
    landing: int = 0
    topic_id: str | None = None
    offsets: dict[int, int] = field(default_factory=dict)
    files: tuple[dict[str, Any], ...] = ()
    """Batch log only: the files of this landing, until `landed_files` has them."""
    relanded: int = 0
    """How many times rows that were there already were judged again, and replaced."""
    start: dict[int, int] = field(default_factory=dict)
    """Stream log only: partition → where the first start began, for good; a partition not named begins at 0."""
    declared_start: str = EARLIEST
    """What `start` was found from: `topic.start` as it was declared then."""
    lost: tuple[Lost, ...] = ()
    """Stream log only: what `twofold accept-loss` accepted, for good; no row is of it, though `offsets` are past it."""

    @property
    def lost_offsets(self) -> int:
        """How many offsets were accepted as lost."""
        return sum(one.end - one.start for one in self.lost)


@dataclass(frozen=True)
class Boundary:
    """What `events` covers. A partition not named starts at offset 0."""

    KEY = "twofold.boundary"

    pipeline: str
    topic_id: str | None = None
    offsets: dict[int, int] = field(default_factory=dict)
    landing: int = 0
    max_event_time: datetime | None = None
    """Highest event time among the unioned stream rows; it never moves back."""
    touched_days: tuple[date, ...] = ()
    """Days of event time that this commit changed."""
    rebuilt: bool = False
    """This commit recreated everything: all days count as changed."""
    seen: datetime | None = None
    """Of the earlier of event time and Kafka time stamp the highest among the unioned stream rows; never moves back."""
    relanded: tuple[int, int] = (0, 0)
    """`Landed.relanded` of stream_log and of batch_log, as they were united."""

    def is_of(self, stream: Landed, batch: Landed) -> bool:
        """Whether `events` was made of the rows that these logs have: if not, it says nothing about them."""
        return self.relanded == (stream.relanded, batch.relanded)

    def covers(self, stream: Landed, batch: Landed) -> bool:
        """Whether these logs have nothing past it."""
        past = any(end > self.offsets.get(partition, 0) for partition, end in stream.offsets.items())
        return not past and batch.landing <= self.landing


@dataclass(frozen=True)
class Folded:
    """What a view was computed from."""

    KEY = "twofold.folded"

    snapshot: int | None
    definition: str
    """Fingerprint of the view's declaration."""
    sealed_through: datetime | None = None
    version: int | None = None
    """Speed layer only: the highest version of its rows, which says how far it has read to the file."""
    state: str | None = None
    """Speed layer only: what its query keeps, and how; one that keeps something else starts again."""
    types: str | None = None
    """Fingerprint of the types of the fields that it reads; None: a version that did not keep it."""

    def has_types(self, types: str) -> bool:
        """Whether the fields had these types, as far as is known."""
        return self.types in (None, types)


_State = TypeVar("_State", Landed, Boundary, Folded)


def encode(state: Landed | Boundary | Folded) -> dict[str, str]:
    """As snapshot properties.

    >>> print(encode(Folded(7, "ab"))["twofold.folded"])
    {"snapshot": 7, "definition": "ab", "sealed_through": null, "version": null, "state": null, "types": null}
    """
    return {state.KEY: json.dumps(asdict(state), default=lambda moment: moment.isoformat())}


def _state(snapshot: Snapshot, kind: type[_State]) -> _State:
    """The state in a snapshot's summary."""
    return msgspec.json.decode(snapshot.summary[kind.KEY], type=kind)


def landed(history: History, pipeline: str, topic_id: str | None = None) -> Landed:
    """The log's state in force; refuse another pipeline's, or (where asked) another topic id's."""
    return _in_force(history, Landed(pipeline), topic_id, "stream_log")


START = "twofold.start"
"""Property of `stream_log`: its state before a row has landed, where the stream does not begin at 0, or where all that
it has read so far was aborted."""


def begun(state: Landed, properties: Mapping[str, str]) -> Landed:
    """The state of `stream_log`; where no row has landed yet, the one that its property has.

    >>> begun(Landed("p"), {START: as_property(Landed("p", offsets={0: 5}, start={0: 5}))[START]}).start
    {0: 5}
    """
    found = None if state.offsets else properties.get(START)
    return state if found is None else msgspec.json.decode(found, type=Landed)


def streamed(log: Table, pipeline: str) -> Landed:
    """The state of `stream_log` in force, also where no row has landed yet; refuse another pipeline's."""
    return begun(landed(history_of(log), pipeline), log.properties)


def as_property(first: Landed) -> dict[str, str]:
    """The state of a log without rows, as the table's property."""
    return {START: encode(first)[Landed.KEY]}


def start_text(topic: Topic) -> str:
    """`topic.start` as text."""
    return topic.start if isinstance(topic.start, str) else topic.start.isoformat()


def boundary(history: History, pipeline: str, topic_id: str | None = None) -> Boundary:
    """The boundary in force; refuse another pipeline's, or (where asked) another topic id's."""
    return _in_force(history, Boundary(pipeline), topic_id, "events")


_Owned = TypeVar("_Owned", Landed, Boundary)


def _in_force(history: History, none_yet: _Owned, topic_id: str | None, table: str) -> _Owned:
    pipeline, snapshot = none_yet.pipeline, history.nearest(none_yet.KEY)
    if snapshot is None:
        return none_yet
    state = _state(snapshot, type(none_yet))
    if state.pipeline != pipeline:
        raise BoundaryError(
            f"snapshot {snapshot.id} carries the state of pipeline {state.pipeline!r}, not of {pipeline!r}",
            f"the tables of {pipeline!r} were replaced by another pipeline's: restore them, or `twofold rebuild`",
        )
    refuse_other_topic(state, topic_id, table)
    return state


def refuse_other_topic(state: Landed | Boundary, topic_id: str | None, table: str) -> None:
    """BoundaryError where a table's state is of another topic id than this one, as far as both are known."""
    if None not in (state.topic_id, topic_id) and state.topic_id != topic_id:
        raise BoundaryError(
            f"{state.pipeline}.{table} was filled from Kafka topic id {state.topic_id}, but the topic's id is now "
            f"{topic_id}: the topic was deleted and created again, and its offsets start from 0 again",
            "declare the new stream under a new pipeline name (the old tables stay readable), or restore the old topic",
        )


def folded(history: History) -> Folded | None:
    """What the view was computed from; None where it never was."""
    snapshot = history.nearest(Folded.KEY)
    return _state(snapshot, Folded) if snapshot else None


def sealed_through(edge: Boundary, lateness: timedelta) -> datetime | None:
    """Windows that end up to here get no row on time any more; None where that is not known.

    A stream's watermark goes by the same moment. A record that is ahead seals nothing: not even when a later one, of
    whatever time, has arrived since.
    """
    return None if edge.seen is None else earlier(edge.seen, lateness)


def covered(log: History, edge: Boundary) -> Snapshot | None:
    """The newest snapshot of a log all of whose rows lie behind the boundary; None where expiry left none."""
    for snapshot in log.ancestors():
        if Landed.KEY in snapshot.summary:
            state = _state(snapshot, Landed)
            ends = state.offsets.items()
            # A batch log has no offsets; a stream log numbers its commits too, but its boundary is the offsets.
            if all(end <= edge.offsets.get(p, 0) for p, end in ends) if ends else state.landing <= edge.landing:
                return snapshot
    return None


def touched_since(history: History, snapshot_id: int | None) -> set[date] | None:
    """Days changed by the commits after `snapshot_id`; None: not known, so everything counts as touched.

    So it is where `events` was rebuilt since, or where `snapshot_id` was expired. A table without snapshots has none.

    >>> touched_since(History({}, None), None)
    set()
    """
    if snapshot_id is None and history.head is None:
        return set()
    newer = None if snapshot_id is None else history.since(snapshot_id)
    if newer is None:
        return None
    states = [_state(snapshot, Boundary) for snapshot in newer if Boundary.KEY in snapshot.summary]
    if any(state.rebuilt for state in states):
        return None
    return {day for state in states for day in state.touched_days}


RETAINED_FROM = "twofold.retained-from"
"""Property of `stream_log`: the offsets before which retention deletes. Raised first, then rows are deleted."""


def retained_from(properties: Mapping[str, str]) -> dict[int, int]:
    """Partition → first offset that retention leaves in `stream_log`; a partition not named is kept whole.

    >>> retained_from({"twofold.retained-from": '{"0": 12}'}), retained_from({})
    ({0: 12}, {})
    """
    return {int(partition): end for partition, end in json.loads(properties.get(RETAINED_FROM, "{}")).items()}


DEFINED_SINCE = "twofold.defined-since"
"""Property of both logs: the first landing under the definition of today. Earlier rows were judged by another one."""


def defined_since(properties: Mapping[str, str]) -> int:
    """The first landing of a log under the definition that it is written under.

    >>> defined_since({"twofold.defined-since": "3"})
    3
    """
    return int(properties[DEFINED_SINCE])
