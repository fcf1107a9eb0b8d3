"""What is known of one pipeline at one moment. Plain data; times are UTC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

SILENT = "silent"
"""State of a service that has answered once, and did not at this look."""


@dataclass(frozen=True)
class Extent:
    """From the first to the last event time of some rows, both inclusive."""

    first: datetime
    last: datetime


@dataclass(frozen=True)
class Log:
    """One table: how many rows, and over which event time."""

    rows: int = 0
    extent: Extent | None = None


@dataclass(frozen=True)
class Layers:
    """Both layers on one time line."""

    batch_log: Log
    stream_log: Log
    events: Log
    boundary: datetime | None
    """Highest event time among the unioned stream rows."""
    sealed_through: datetime | None
    """Windows up to here are final, in every view."""
    stream_past_boundary: int
    """Kafka records ingested and not yet unioned."""
    landings_past_boundary: int
    """Commits of files not yet unioned."""
    united_at: datetime | None
    """When the last union committed."""
    lost: int = 0
    """Kafka offsets that were accepted as lost: `twofold accept-loss`."""


@dataclass(frozen=True)
class Speed:
    """The progress of the speed layer."""

    offsets_behind: int | None
    """Records in Kafka and not ingested yet; None: not known."""
    rows_per_second: float
    """Ingested over the last minute."""
    watermark: datetime | None
    landed: tuple[tuple[datetime, int], ...]
    """Rows per `measures.BIN`, oldest first: (start, rows)."""


@dataclass(frozen=True)
class Rejected:
    """Records of one layer rejected for faults of one kind: a word of `twofold.contract.reasons`."""

    layer: str
    kind: str
    count: int


@dataclass(frozen=True)
class Outcomes:
    """What was rejected since `since`; what was late since the streaming job started."""

    since: datetime
    rejected: tuple[Rejected, ...] = ()
    set_aside: int = 0
    """Files that were not read at all."""
    late: int | None = None
    """Rows that a view of the speed layer dropped; None: the job does not answer."""
    late_by_view: Mapping[str, int] = field(default_factory=dict)
    healed: int | None = None
    """Late events that the last union brought into the windows; None: the layers were not compared yet."""
    difference: float | None = None
    """How far the layers' windows were apart before that, on average: 0 (equal) to 1."""
    compared_at: datetime | None = None


@dataclass(frozen=True)
class CheckedInvariant:
    """One invariant, as the last `prove` found it: `state` is holds, behind, not proved or violated."""

    id: str
    state: str
    text: str
    meaning: str = ""


@dataclass(frozen=True)
class Proved:
    """The last `prove`."""

    at: datetime
    checks: tuple[CheckedInvariant, ...]
    since: datetime | None = None
    """Only what changed since this proof was checked; None: everything was."""
    in_full_at: datetime | None = None
    """When everything was checked last, where it was not this time."""


@dataclass(frozen=True)
class ServiceStatus:
    """One long-running service: `state` in one word, `text` what it reports of itself."""

    name: str
    """`producer` or `stream`."""
    state: str
    running: bool = False
    healthy: bool = True
    """False: it should run and does not, or makes no progress."""
    text: str = ""
    runbook: str = ""
    """The page of the runbook for what is wrong."""
    restarts: int | None = None
    """Restarts that count against the budget now; None: it has no supervisor."""
    budget: int | None = None
    changes: int = 0
    """Restarts of the last hour for a changed definition, which do not count."""


@dataclass(frozen=True)
class Problem:
    """Something wrong, what to type, and the page of the runbook that has more."""

    severity: Literal["error", "warning", "note"]
    text: str
    command: str = ""
    runbook: str = ""
    """A page of the runbook, without its ending."""
    link: str = ""
    """A page of Airflow's UI, without the leading slash."""


@dataclass(frozen=True)
class Status:
    """All of it. A part that could not be had is None, and a problem says why."""

    pipeline: str
    at: datetime
    layers: Layers | None
    speed: Speed | None
    outcomes: Outcomes | None
    proved: Proved | None
    services: tuple[ServiceStatus, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON: times in ISO 8601."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=datetime.isoformat))
        return plain
