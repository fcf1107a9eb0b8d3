"""The dashboards, as data; `python -m monitoring.boards` makes Grafana's files of them.

overview, speed, batch, airflow, storage, quality ─► BOARDS ─► render ─► monitoring/grafana/dashboards/*.json
                                                       └─► panel_queries: every query, for a test to run
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from monitoring.boards import airflow, batch, overview, quality, speed, storage
from monitoring.boards.model import Board

BOARDS: tuple[Board, ...] = (
    overview.BOARD,
    speed.BOARD,
    batch.BOARD,
    airflow.BOARD,
    storage.BOARD,
    quality.BOARD,
)


class PanelQuery(NamedTuple):
    """One query of one panel, ready to be run."""

    board: str
    panel: str
    expr: str
    only: str
    """When it has data, if not always under load; empty otherwise."""


def panel_queries(pipeline: str = ".+", rate: str = "20s", span: str = "15m") -> Iterator[PanelQuery]:
    """Every query with its variables filled in: `pipeline` a name or pattern, `rate` and `span` Prometheus durations.

    >>> next(panel_queries("flights")).expr
    'count(ALERTS{alertstate="firing",pipeline=~"flights|"}) or vector(0)'
    """
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                yield PanelQuery(board.uid, panel.title, filled_in(query.expr, pipeline, rate, span), query.only)


def filled_in(expr: str, pipeline: str, rate: str, span: str) -> str:
    """A query as Grafana sends it."""
    return expr.replace("$__rate_interval", rate).replace("$__range", span).replace("$pipeline", pipeline)
