"""What was rejected and why, counted as it lands: a poll reads the rows of new landings only.

first count, and the first of each day: everything of the last DAYS ─┐
later: what landed since ────────────────────────────────────────────┴─► (layer, kind) → count
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from twofold import table_state, tables
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.reader import Reader
from twofold.reader.rejects import Rejects
from twofold.settings import Settings
from twofold.status.model import Rejected
from twofold.status.tables import Tables

DAYS = 7
"""What was rejected longer ago has been seen to, or never will be."""
LISTED_EVERY = timedelta(minutes=1)
_LOGS = {tables.STREAM_LAYER: tables.STREAM_LOG, tables.BATCH_LAYER: tables.BATCH_LOG}


@dataclass
class RejectedSoFar:
    """The count of one pipeline, and up to which landing of each layer it goes."""

    settings: Settings
    pipeline: Pipeline
    since: datetime | None = None
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _landings: dict[str, int] = field(default_factory=dict)
    _heads: dict[str, int | None] = field(default_factory=dict)

    def refresh(self, now_there: Tables, now: datetime) -> None:
        """Count what landed since the last time; nothing is read where nothing has."""
        since = first_day(now)
        heads = {name: now_there.history(name).head for name in _LOGS.values()}
        if since != self.since:
            self.since, self._counts, self._landings, self._heads = since, Counter(), {}, {}
        if heads != self._heads and any(heads.values()):
            self._read(since)
        self._heads = heads

    def counts(self) -> tuple[Rejected, ...]:
        """By falling count."""
        return tuple(Rejected(layer, kind, count) for (layer, kind), count in self._counts.most_common())

    def _read(self, since: datetime) -> None:
        with Reader(self.settings, {self.pipeline.name: self.pipeline}) as reader:
            found = Rejects(reader, self.pipeline, since=since, after=self._landings)
            # Pinned here and read below: what lands meanwhile is counted the next time.
            landings = {layer: self._landing(reader, log) for layer, log in _LOGS.items()}
            self._counts.update(found.counts())
            self._landings = landings

    def _landing(self, reader: Reader, log: str) -> int:
        return table_state.landed(reader.pinned(self.pipeline, log).history, self.pipeline.name).landing


def first_day(now: datetime) -> datetime:
    """The midnight from which rejected records count: it moves once a day, so that a count can be added to.

    >>> first_day(datetime.fromisoformat("2024-05-09T13:00+00:00")).isoformat()
    '2024-05-02T00:00:00+00:00'
    """
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS)


@dataclass
class SetAside:
    """How many files lie in the inbox that could not be read; not at every poll, since a look lists it."""

    lake: Lake
    count: int = 0
    _seen: tuple[int | None, datetime] | None = None
    """The last landing's snapshot, and when the folder was listed."""

    def refresh(self, now_there: Tables, now: datetime) -> None:
        """Look again after a landing, and now and then: no commit tells that a file was taken away."""
        head = now_there.history(tables.LANDED_FILES).head
        if self._seen is None or self._seen[0] != head or now - self._seen[1] > LISTED_EVERY:
            self.count = len(self.lake.set_aside()) if head else 0
            self._seen = (head, now)
