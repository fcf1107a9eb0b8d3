"""Gathers one pipeline's Status; keeps between two polls what does not change: no row of a table is read twice.

services' /healthz ───────┬─► Status        with the catalog or the bucket away services are still reported,
tables, results, Kafka ───┘                 and a problem says what is away and what to do
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import psycopg
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.types import TimestamptzType
from sqlalchemy.exc import SQLAlchemyError

from twofold import commits, comparison, database, evolution, health, table_state, tables, windows
from twofold.errors import TwofoldError, first_line
from twofold.lake import Lake
from twofold.proof import sent
from twofold.proof.findings import MEANINGS
from twofold.proof.sent import Sent
from twofold.reader import Reader
from twofold.reader.rejects import Rejects
from twofold.services.controller import Controller, services_of
from twofold.services.record import STREAM
from twofold.settings import CATALOG
from twofold.status import measures
from twofold.status.facts import (
    CheckedInvariant,
    Extent,
    Layers,
    Log,
    Outcomes,
    Problem,
    Proved,
    Rejected,
    ServiceStatus,
    Speed,
    Status,
)
from twofold.table_state import History, Landed

FRESH_S = 2.0
"""However many look at it, a pipeline is gathered no more often."""
KAFKA_EVERY_S = 30.0
"""While the streaming job is down, Kafka is asked through a process of its own: not often."""
REJECTED_DAYS = 7
"""Older rejected records have been dealt with, or never will be."""
LISTED_EVERY = timedelta(minutes=1)

_AWAY = (TwofoldError, OSError, psycopg.Error, SQLAlchemyError)
_LOGS = {tables.STREAM_LAYER: tables.STREAM_LOG, tables.BATCH_LAYER: tables.BATCH_LOG}
_LOCATIONS = "SELECT table_name, metadata_location FROM iceberg_tables WHERE catalog_name = %s AND table_namespace = %s"

Health = Mapping[str, Any]
"""The body of a service's `/healthz`; empty: it does not answer."""


@dataclass
class Gatherer:
    """Gathers the status of one pipeline, again and again; one thread at a time does, and the others do not wait."""

    lake: Lake
    _lock: Lock = field(default_factory=Lock)
    _last: tuple[float, Status] | None = None
    _asked_kafka: tuple[float, Sent | None] | None = None

    def __post_init__(self) -> None:
        self._tables = Tables(self.lake)
        self._rejected = RejectedSoFar(self.lake)
        self._set_aside: tuple[int | None, datetime, int] | None = None
        """The head of landed_files, when the inbox was listed, and how many of its files could not be read."""

    def status(self) -> Status:
        """The status now, or of a moment ago. Where the tables cannot be read, their parts are None."""
        # Only the first of all waits: threads that wait for something slow would be missing elsewhere.
        if self._last and self._lock.locked():
            return self._last[1]
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] >= FRESH_S:
                found = self._gather()
                self._last = (time.monotonic(), found)
            return self._last[1]

    def _gather(self) -> Status:
        name, now = self.lake.name, datetime.now(UTC)
        looks = {service: self._service(service) for service in services_of(self.lake.pipeline)}
        running, job = tuple(service for service, _ in looks.values()), looks[STREAM][1]
        try:
            self._tables.refresh()
            layers, speed = self._layers(), self._speed(job, now)
            outcomes, proved = self._outcomes(job, now), self._proved()
            known = self._tables.landed_of_stream()
        except _AWAY as error:
            return Status(name, now, None, None, None, None, running, (unreadable(error),))
        ignored = evolution.of_start(self.lake.pipeline.topic, known)
        found = measures.find_problems(name, now, layers, speed, outcomes, proved, running, ignored)
        return Status(name, now, layers, speed, outcomes, proved, running, tuple(measures.worst_first(found)))

    def _service(self, name: str) -> tuple[ServiceStatus, Health]:
        controller = Controller(self.lake.settings)
        try:
            state = controller.state(self.lake.name, name)
        except TwofoldError:  # no supervisor, or an older one: what runs was started manually
            state = None
        place = health.place_of(self.lake.settings.home, self.lake.name, name)
        answer = health.ask(state.health if state and state.runs else health.address(place))
        if state is None or (answer and not state.runs):
            return measures.unsupervised(name, answer), answer
        limits = controller.limits(self.lake.pipeline, good_samples=1)
        return measures.supervised(name, state, answer, limits), answer

    def _layers(self) -> Layers:
        logs = (tables.STREAM_LOG, tables.BATCH_LOG, tables.EVENTS)
        return measures.layers(
            self.lake.name,
            {log: self._tables.log(log, self.lake.pipeline.event.time) for log in logs},
            {log: self._tables.history(log) for log in logs},
            [self._tables.history(tables.batch_view_name(view)) for view in self.lake.pipeline.views],
        )

    def _speed(self, job: Health, now: datetime) -> Speed:
        log = self._tables.history(tables.STREAM_LOG)
        watermark = datetime.fromisoformat(job["watermark"]) if job.get("watermark") else None
        return Speed(self._behind(job), measures.rows_per_second(log, now), watermark, measures.landed(log, now))

    def _behind(self, job: Health) -> int | None:
        if job.get("offsets_behind") is not None:
            return int(job["offsets_behind"])
        if self._asked_kafka is None or time.monotonic() - self._asked_kafka[0] > KAFKA_EVERY_S:
            try:
                found = sent.read(self.lake)
            except TwofoldError:
                found = None
            self._asked_kafka = (time.monotonic(), found)
        kafka = self._asked_kafka[1]
        return kafka.offsets_behind(self._tables.landed_of_stream().offsets) if kafka else None

    def _outcomes(self, job: Health, now: datetime) -> Outcomes:
        self._rejected.refresh({name: self._tables.history(name).head for name in _LOGS.values()}, now)
        kept = database.latest_result(self.lake.settings, self.lake.name, comparison.KIND)
        compared = comparison.from_json(kept.body) if kept else None
        return Outcomes(
            self._rejected.since or now,
            tuple(Rejected(layer, kind, count) for (layer, kind), count in self._rejected.counts.most_common()),
            self._files_set_aside(now),
            late=job.get("late"),
            late_by_view=dict(job.get("late_by_view", {})),
            healed=compared.healed_late if compared else None,
            difference=compared.difference if compared else None,
            compared_at=kept.at if kept else None,
        )

    def _files_set_aside(self, now: datetime) -> int:
        """Listed again after an ingest, and now and then: no commit says that a file was removed."""
        head, seen = self._tables.history(tables.LANDED_FILES).head, self._set_aside
        if seen is None or seen[0] != head or now - seen[1] > LISTED_EVERY:
            count = len(self.lake.set_aside()) if head else 0
            seen = self._set_aside = (head, now, count)
        return seen[2]

    def _proved(self) -> Proved | None:
        result = database.latest_result(self.lake.settings, self.lake.name, database.PROOF)
        return proved(result) if result else None


@dataclass
class Tables:
    """The tables of one pipeline, loaded again only when a commit has moved them; each manifest is read once."""

    lake: Lake
    _loaded: dict[str, tuple[Table, History]] = field(default_factory=dict)
    _extents: dict[str, dict[str, Extent | None]] = field(default_factory=dict)
    """Table → path of a manifest → event time of the rows in its files. A manifest never changes."""

    def refresh(self) -> None:
        """Load what was committed since the last time; NotRunning where the catalog does not answer."""
        with database.session(self.lake.settings) as connection:
            locations: dict[str, str] = dict(connection.execute(_LOCATIONS, (CATALOG, self.lake.name)).fetchall())
        kept = {name: one for name, one in self._loaded.items() if one[0].metadata_location == locations.get(name)}
        moved = {name: self.lake.find(name) for name in locations.keys() - kept.keys()}
        self._loaded = kept | {name: (table, table_state.history_of(table)) for name, table in moved.items() if table}

    def history(self, name: str) -> History:
        """A table's snapshots; an empty history where there is no such table."""
        return self._loaded[name][1] if name in self._loaded else History({}, None)

    def landed_of_stream(self) -> Landed:
        """What `stream_log` holds, with or without rows."""
        properties = self._loaded[tables.STREAM_LOG][0].properties if tables.STREAM_LOG in self._loaded else {}
        return table_state.begun(table_state.landed(self.history(tables.STREAM_LOG), self.lake.name), properties)

    def log(self, name: str, time: str) -> Log:
        """Rows of a table and their event time (column `time`), from its metadata alone."""
        history = self.history(name)
        if history.head is None:
            return Log()
        return Log(history.snapshots[history.head].rows, self._extent(name, time))

    def _extent(self, name: str, time: str) -> Extent | None:
        table, known = self._loaded[name][0], self._extents.get(name, {})
        self._extents[name] = {
            one.manifest_path: known[one.manifest_path] if one.manifest_path in known else extent_of(table, one, time)
            for one in commits.manifests_of(table)
        }
        return measures.joined(self._extents[name].values())


def extent_of(table: Table, manifest: ManifestFile, time: str) -> Extent | None:
    """From the lowest to the highest value of `time` in the manifest's data files, by their statistics."""
    column = table.schema().find_field(time).field_id
    files = [entry.data_file for entry in manifest.fetch_manifest_entry(table.io)]
    bounds = [((file.lower_bounds or {}).get(column), (file.upper_bounds or {}).get(column)) for file in files]
    return measures.joined(Extent(_moment(low), _moment(high)) for low, high in bounds if low and high)


def _moment(bound: bytes) -> datetime:
    return windows.moment(int(from_bytes(TimestamptzType(), bound)))


@dataclass
class RejectedSoFar:
    """What was rejected and why, counted as it is ingested: by (layer, kind), up to a commit of each layer.

    first count, the first of each day, and after rows were judged again or erased: all of the last days
    else: what was ingested since
    """

    lake: Lake
    since: datetime | None = None
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _landed: dict[str, Landed] = field(default_factory=dict)
    _heads: dict[str, int | None] = field(default_factory=dict)

    def refresh(self, heads: dict[str, int | None], now: datetime) -> None:
        """Count what was ingested since the last time, where the heads of the logs have moved."""
        since = first_day(now)
        if since != self.since:
            self.since, self.counts, self._landed, self._heads = since, Counter(), {}, {}
        if heads != self._heads and any(heads.values()):
            with Reader(self.lake.settings, {self.lake.name: self.lake.pipeline}) as reader:
                # Pinned here and read below: records ingested meanwhile are counted the next time.
                pins = {layer: reader.pinned(self.lake.pipeline, log) for layer, log in _LOGS.items()}
                landed = {layer: table_state.landed(pin.history, self.lake.name) for layer, pin in pins.items()}
                if any(landed[layer].relanded != before.relanded for layer, before in self._landed.items()):
                    self.counts, self._landed = Counter(), {}
                after = {layer: before.landing for layer, before in self._landed.items()}
                self.counts.update(Rejects(reader, self.lake.pipeline, since=since, after=after).counts())
                self._landed = landed
        self._heads = heads


def first_day(now: datetime) -> datetime:
    """The midnight from which rejected records count: it moves once a day, so that a count can be added to.

    >>> first_day(datetime.fromisoformat("2024-05-09T13:00+00:00")).isoformat()
    '2024-05-02T00:00:00+00:00'
    """
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=REJECTED_DAYS)


def proved(kept: database.KeptResult) -> Proved:
    """What is shown of the last proof."""
    since, in_full_at = (
        # Version 0.2.0 kept neither.
        datetime.fromisoformat(at) if (at := kept.body.get(name)) else None
        for name in ("since", "in_full_at")
    )
    checks = tuple(
        CheckedInvariant(check["id"], check["state"], check["text"], MEANINGS.get(check["id"], ""))
        for check in kept.body["invariants"]
    )
    return Proved(kept.at, checks, since, in_full_at)


def unreadable(error: Exception) -> Problem:
    """Why the tables cannot be read."""
    if isinstance(error, TwofoldError):
        return Problem("error", str(error.message) + (f"; {error.remedy}" if error.remedy else ""), "twofold status")
    return Problem("error", f"the tables cannot be read: {first_line(error)}", "twofold status")
