"""What a dashboard is made of. Plain data; `render` makes Grafana's JSON of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ALERT = "an alert fires"
FAILED_TASK = "a task has failed"
PROVED = "`twofold prove` has run"
MINIO = "the store is MinIO"
MINIO_FAILED = "a request to MinIO has failed"
"""When a query has data that has none on a healthy stack under load."""

Kind = Literal["stat", "timeseries", "table", "state-timeline"]

BLUE, GREEN, ORANGE, RED = "blue", "green", "orange", "red"
Steps = tuple[tuple[float, str], ...]
"""From each value on (ascending) this colour; below the first, the base colour."""


@dataclass(frozen=True)
class Query:
    """One PromQL expression; `legend` names its series, by labels in `{{…}}`."""

    expr: str
    legend: str = ""
    only: str = ""
    """When it has data, if not always: one of the words above."""


@dataclass(frozen=True)
class Panel:
    """One panel: `kind` is Grafana's panel type, `unit` one of its units, `width` in its 24 columns."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    steps: Steps = ()
    base: str = BLUE
    width: int = 8
    height: int = 7
    stacked: bool = False
    decimals: int | None = None
    words: tuple[tuple[float, str], ...] = ()
    """What a value is shown as, such as ((0, "down"), (1, "up"))."""
    no_value: str = ""
    """What is shown where there are no data."""
    runbook: str = ""
    """The page that says what to do about a bad value."""


@dataclass(frozen=True)
class Row:
    """Panels under a heading, from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, as they are read."""
        return tuple(panel for row in self.rows for panel in row.panels)


def upto(orange: float, red: float) -> Steps:
    """Green, then orange and red from these values on; for what should be small."""
    return ((orange, ORANGE), (red, RED))


def atleast(orange: float, green: float) -> Steps:
    """Red below the first value, orange below the second; for what should be large (with base RED)."""
    return ((orange, ORANGE), (green, GREEN))
