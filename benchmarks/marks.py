"""Moments of a streaming run, each with the CPU used so far, and the stages made of them.

start-up     until the first query starts
first batch  while a query that will have several batches has finished none
steady       the rest
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

STARTED, BATCH, END = "started", "batch", "end"
START_UP, FIRST_BATCH, STEADY = "start-up", "first batch", "steady"


@dataclass(frozen=True)
class Mark:
    """Something happened; `wall_s` and `cpu_s` count from the start of the process."""

    kind: str
    wall_s: float
    cpu_s: float
    query: str = ""
    rows: int = 0


@dataclass
class Stage:
    """What one stage took; `events` counts one for each event that ALL queries have processed."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    events: float = 0.0

    @property
    def per_cpu_s(self) -> float:
        """Events; 0 where it took nothing."""
        return self.events / self.cpu_s if self.cpu_s else 0.0


class Marks(StreamingQueryListener):
    """Collects the marks of this process, its JVM included."""

    def __init__(self) -> None:
        self.found: list[Mark] = []
        self._process = psutil.Process()

    def mark(self, kind: str, query: str = "", rows: int = 0) -> None:
        """Note this moment."""
        wall_s = time.time() - self._process.create_time()
        self.found.append(Mark(kind, wall_s, self._cpu_s(), query, rows))

    def _cpu_s(self) -> float:
        times = [one.cpu_times() for one in (self._process, *self._process.children(recursive=True))]
        return sum(t.user + t.system for t in times)

    def onQueryStarted(self, event: QueryStartedEvent) -> None:
        """A query's first batch begins."""
        self.mark(STARTED, event.name or "")

    def onQueryProgress(self, event: QueryProgressEvent) -> None:
        """A batch is done. Batches without rows only move a watermark."""
        if event.progress.numInputRows:
            self.mark(BATCH, event.progress.name or "", event.progress.numInputRows)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:
        """Nothing to note."""

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:
        """Nothing to note."""


def stages(marks: Sequence[Mark], events: int) -> dict[str, Stage]:
    """Sum up the time between marks by stage.

    >>> run = [Mark("started", 5, 8, "q"), Mark("batch", 7, 11, "q", 10), Mark("batch", 8, 12, "q", 10)]
    >>> found = stages([*run, Mark("end", 8.5, 12.5)], 20)
    >>> found["start-up"].cpu_s, found["first batch"].cpu_s, found["steady"].cpu_s, found["steady"].events
    (8.0, 3.0, 1.5, 10.0)
    """
    batches = Counter(mark.query for mark in marks if mark.kind == BATCH)
    rows: Counter[str] = Counter()
    """Per query: one that reads its source twice for one batch reports them twice."""
    for mark in marks:
        if mark.kind == BATCH:
            rows[mark.query] += mark.rows
    made = {name: Stage() for name in (START_UP, FIRST_BATCH, STEADY)}
    warming: set[str] = set()
    before, begun = Mark("process", 0.0, 0.0), False
    for mark in marks:
        stage = made[START_UP if not begun else FIRST_BATCH if warming else STEADY]
        stage.wall_s += mark.wall_s - before.wall_s
        stage.cpu_s += mark.cpu_s - before.cpu_s
        if mark.kind == BATCH:
            stage.events += mark.rows / rows[mark.query] * events / len(rows)
            warming.discard(mark.query)
        elif mark.kind == STARTED:
            begun = True
            warming |= {mark.query} if batches[mark.query] > 1 else set()
        before = mark
    return made
