"""Expressions that several boards use. Pure."""

from __future__ import annotations

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
    """A job's gauge: sent when it ends, so the last word of a day and two hours counts."""
    return f"max by ({', '.join(('pipeline', *by))}) (last_over_time({of(metric)}[26h]))"


def quantile(share: float, metric: str, *by: str) -> str:
    """A histogram's quantile over what the board shows."""
    return f"histogram_quantile({share}, sum by ({', '.join((*by, 'le'))}) (rate({of(metric + '_bucket')}[$__range])))"
