"""Grafana's dashboards as data; `make docs` writes monitoring/grafana/dashboards/*.json from them.

pipeline_boards, service_boards, storage_board ─► BOARDS ─► grafana.dashboard ─► monitoring/grafana/dashboards/*.json
                                                    └─► panel_queries: every query, for a test to run
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from monitoring.boards.pipeline_boards import BATCH, OVERVIEW, QUALITY
from monitoring.boards.service_boards import AIRFLOW, SPEED
from monitoring.boards.storage_board import STORAGE

BOARDS = (OVERVIEW, SPEED, BATCH, AIRFLOW, STORAGE, QUALITY)


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
            for expr in panel.queries.values():
                yield PanelQuery(board.uid, panel.title, filled_in(expr, pipeline, rate, span), panel.only)


def filled_in(expr: str, pipeline: str, rate: str, span: str) -> str:
    """A query as Grafana sends it."""
    return expr.replace("$__rate_interval", rate).replace("$__range", span).replace("$pipeline", pipeline)
