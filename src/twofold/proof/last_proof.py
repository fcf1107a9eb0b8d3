"""What the last proof had seen in which nothing was violated: the next one may build on it.

    prove ─► LastProof ─► `twofold.database` ─► prove --since-last: what changed since, and nothing else

Snapshots of Iceberg and their files never change, so what was proved of a snapshot stays proved. Of the logs, whose
snapshots expire within the hour, a count and a sum of the rows of every block are kept in place of a snapshot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import msgspec

from twofold import __version__, database
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.topic import Range

KIND = "last proof"
"""Kind of the kept result in `twofold.database`."""
_RECORDS = "records seen"

FULL_EVERY = timedelta(days=6, hours=12)
"""Once a week, by a schedule that runs daily, everything is checked."""
Sum = tuple[int, int, int]
"""How many rows, the sum of their hashes, and the lowest offset; of files 0."""
Block = tuple[int, int, int]
"""Partition, number of a block of offsets, and day of arrival since 1970; or 0, a landing of files, and 0."""


@dataclass(frozen=True)
class LastProof:
    """What a proof had seen. `offsets` and `landing` are those of the boundary of `events`: all before it is proved."""

    at: datetime
    in_full_at: datetime
    """When the last proof was made that looked at everything."""
    rules: str
    """What the checks and the sums depend on."""
    topic_id: str | None
    snapshots: dict[str, int | None]
    """`events` and `batch_<view>` → the snapshot."""
    sequences: dict[str, int]
    """Log → the sequence number of its snapshot: files with a higher one were added later."""
    offsets: dict[int, int]
    landing: int
    first_landing: int
    """Of stream_log, the first landing that has rows past the boundary."""
    relanded: tuple[int, int]
    properties: dict[str, dict[str, str]]
    """Log → what decides of its rows: definition, rules, what was erased."""
    sums: dict[str, list[tuple[Block, Sum]]]
    """Log, and `landed_files` → the rows before the boundary, by block."""
    unproved: tuple[str, ...] = ()
    """Invariants that it, or a proof that it builds on, could not check wholly."""


def rules(pipeline: Pipeline, erased: Collection[str]) -> str:
    """What the checks and the sums depend on, besides the tables: where it changes, everything is checked again."""
    declared = [fingerprint.event(pipeline), *(fingerprint.view(pipeline, view) for view in pipeline.views.values())]
    ledger = hashlib.sha256(" ".join(sorted(erased)).encode()).hexdigest()
    return " ".join([__version__, duckdb.__version__, ledger, *declared])


def is_due_in_full(last: LastProof | None, now: datetime) -> bool:
    """Whether it is time to check everything again."""
    return last is None or now - last.in_full_at > FULL_EVERY


def load(lake: Lake) -> LastProof | None:
    """The last one kept; None where none is that can be built on."""
    kept = database.latest_result(lake.settings, lake.name, KIND)
    return None if kept is None else read(kept.body)


def read(body: Mapping[str, object]) -> LastProof | None:
    """What `as_json` wrote; None where it was another release's."""
    try:
        return msgspec.convert(body, LastProof, strict=False)
    except msgspec.ValidationError:
        return None


def save(lake: Lake, seen: LastProof) -> None:
    """Keep it, in place of the one before."""
    database.save_result(lake.settings, lake.name, KIND, as_json(seen))


def load_records(lake: Lake, topic_id: str | None) -> dict[int, list[Range]]:
    """Partition → offsets of this topic at which proofs saw a record; also those that found something violated."""
    kept = database.latest_result(lake.settings, lake.name, _RECORDS)
    if kept is None or topic_id is None or kept.body["topic_id"] != topic_id:
        return {}
    return msgspec.convert(kept.body["offsets"], dict[int, list[Range]], strict=False)


def save_records(lake: Lake, topic_id: str | None, offsets: Mapping[int, list[Range]]) -> None:
    """Keep them, in place of those before."""
    database.save_result(lake.settings, lake.name, _RECORDS, {"topic_id": topic_id, "offsets": offsets})


def as_json(seen: LastProof) -> dict[str, object]:
    """As plain JSON."""
    plain: dict[str, object] = msgspec.to_builtins(seen, str_keys=True)
    return plain
