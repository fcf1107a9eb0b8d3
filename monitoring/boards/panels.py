"""What a dashboard is made of, as plain data, and the PromQL that several boards use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Literal

ALERT = "an alert fires"
FAILED_TASK = "a task has failed"
PROVED = "`twofold prove` has run"
MINIO = "the store is MinIO"
MINIO_FAILED = "a request to MinIO has failed"
"""When a panel has data that has none on a healthy stack under load."""

BLUE, GREEN, ORANGE, RED = "blue", "green", "orange", "red"
Thresholds = tuple[tuple[float | None, str], ...]
"""From each value on (ascending) this colour; None is the colour below the first value."""
PLAIN: Thresholds = ((None, BLUE),)


def upto(orange: float, red: float) -> Thresholds:
    """For what should be small: green, then orange and red from these values on."""
    return ((None, GREEN), (orange, ORANGE), (red, RED))


def atleast(orange: float, green: float) -> Thresholds:
    """For what should be large: red, then orange and green from these values on."""
    return ((None, RED), (orange, ORANGE), (green, GREEN))


def bad_from(red: float) -> Thresholds:
    """Green below this value, red from it on."""
    return ((None, GREEN), (red, RED))


def good_from(green: float) -> Thresholds:
    """Red below this value, green from it on."""
    return ((None, RED), (green, GREEN))


@dataclass(frozen=True)
class Panel:
    """One panel: `kind` is Grafana's panel type, `unit` one of its units, `width` in its 24 columns."""

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    """PromQL by legend; a legend names its series by labels in `{{…}}`."""
    thresholds: Thresholds = PLAIN
    kind: Literal["stat", "timeseries", "table", "state-timeline"] = "timeseries"
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
    only: str = ""
    """When it has data, if not always: one of the words above."""


stat = partial(Panel, kind="stat")
tile = partial(stat, width=4, height=5)


@dataclass(frozen=True)
class Board:
    """One dashboard: rows of panels, each under its heading."""

    uid: str
    title: str
    description: str
    rows: dict[str, tuple[Panel, ...]]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, as they are read."""
        return tuple(chain.from_iterable(self.rows.values()))


P = 'pipeline=~"$pipeline"'
"""The variable of every board."""
DAGS = 'dag_id=~"($pipeline)_.+"'
RATE = "$__rate_interval"
FIRING = 'ALERTS{alertstate="firing",pipeline=~"$pipeline|"}'
"""The chosen pipelines' alerts, and those of what they all stand on."""


def of(series: str) -> str:
    """The chosen pipelines' series of a metric.

    >>> of("x")
    'x{pipeline=~"$pipeline"}'
    """
    return f"{series}{{{P}}}"


def per_second(metric: str, *by: str) -> str:
    """A counter's rate.

    >>> per_second("x_total", "pipeline")
    'sum by (pipeline) (rate(x_total{pipeline=~"$pipeline"}[$__rate_interval]))'
    """
    return f"sum by ({', '.join(by)}) (rate({of(metric)}[{RATE}]))"


def gained(series: str, window: str, *by: str) -> str:
    """What counters have gained; unlike with increase(), the first value of a new series counts, too."""
    return f"sum by ({', '.join(by)}) (({series} - {series} offset {window}) >= 0 or {series})"


def last(metric: str, *by: str) -> str:
    """A job's gauge: sent when it ends, so the last value of a day and two hours counts."""
    return f"max by ({', '.join(('pipeline', *by))}) (last_over_time({of(metric)}[26h]))"


def quantile(share: float, metric: str, *by: str) -> str:
    """A histogram's quantile over what the board shows."""
    return f"histogram_quantile({share}, sum by ({', '.join((*by, 'le'))}) (rate({of(metric + '_bucket')}[$__range])))"
