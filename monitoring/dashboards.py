"""Grafana's dashboards: each is a file of monitoring/boards, and becomes the JSON that Grafana's provisioning takes.

    boards/*.yml ─► boards() ─► dashboard ─► grafana/dashboards/*.json (`make docs`)
                       └─► panel_queries: every query, for a test to run

A panel in such a file: its title, `text` (what it shows), `queries` (legend ─► PromQL), `show` (all else of `Panel`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
DATASOURCE_UID = "twofold-prometheus"
"""Set in monitoring/grafana/provisioning/datasources."""
TAG = "twofold"
DAGS = "($pipeline)_(batch|maintenance|proof|replay|services|union)"
"""The DAGs of the chosen pipelines; by `flights_.+` those of a pipeline `flights_eu` would be among them."""
AIRFLOW_URL = "http://127.0.0.1:18080"
RUNBOOKS = "${airflow}/twofold/runbooks"


class Panel(BaseModel):
    """One panel: `kind` is Grafana's panel type, `unit` one of its units, `width` in its 24 columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    text: str
    queries: dict[str, str]
    """PromQL by legend; a legend names its series by labels in `{{…}}`."""
    unit: str
    kind: Literal["stat", "timeseries", "table", "state-timeline"] = "timeseries"
    colors: tuple[str | float | int, ...] = ("blue",)
    """A colour, and from each value on another one: green, 60, orange, 300, red."""
    width: int = 8
    height: int = 7
    stacked: bool = False
    decimals: int | None = None
    words: dict[int, str] = {}
    """What a value is shown as."""
    no_value: str = ""
    """What is shown where there are no data."""
    runbook: str = ""
    """The page that says what to do about a bad value."""
    only: Literal["", "alert", "failed task", "proof", "minio", "minio failed"] = ""
    """When it has data, if it has none on a healthy stack under load: while an alert fires, once a task has failed,
    after `twofold prove`, where the store is MinIO, once a request to MinIO has failed."""

    @property
    def thresholds(self) -> tuple[tuple[Any, Any], ...]:
        """(value, colour from it on), ascending; the first value is None: the colour below all others."""
        return tuple(zip((None, *self.colors[1::2]), self.colors[::2], strict=True))


class Board(BaseModel):
    """One dashboard: rows of panels, each under its heading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uid: str
    title: str
    text: str
    rows: dict[str, dict[str, Any]]

    @property
    def panels(self) -> dict[str, list[Panel]]:
        """The panels of each row, as they are read."""
        return {
            heading: [
                Panel(title=title, text=panel["text"], queries=_written_out(panel["queries"]), **panel["show"])
                for title, panel in row.items()
            ]
            for heading, row in self.rows.items()
        }


def _written_out(queries: dict[str, str]) -> dict[str, str]:
    """The queries with what boards abbreviate: `$dags`, and `gained(x[1h])`, as rules/quality.yml says why.

    >>> _written_out({"": "gained(x_total[1h])"})[""].endswith("> increase(x_total[1h]) or increase(x_total[1h])")
    True
    """

    def gained(found: re.Match[str]) -> str:
        counter, span = found.groups()
        scrapes = f"on (job, instance) group_left sum_over_time(up[{span}])"
        new = f"({counter} and count_over_time({counter}[{span}]) < {scrapes})"
        return f"{new} > increase({counter}[{span}]) or increase({counter}[{span}])"

    return {
        legend: re.sub(r"gained\((\w+(?:\{[^}]*\})?)\[(\w+)\]\)", gained, expr).replace("$dags", DAGS)
        for legend, expr in queries.items()
    }


class PanelQuery(NamedTuple):
    """One query of one panel, ready to be run."""

    board: str
    panel: str
    expr: str
    only: str


@cache
def boards() -> tuple[Board, ...]:
    """All of them, by title."""
    read = (Board(**YAML(typ="safe").load(path)) for path in (Path(__file__).parent / "boards").glob("*.yml"))
    return tuple(sorted(read, key=lambda board: board.title))


def panel_queries(pipeline: str = ".+", rate: str = "20s", span: str = "15m") -> Iterator[PanelQuery]:
    """Every query with its variables filled in: `pipeline` a name or pattern, `rate` and `span` Prometheus durations.

    >>> next(panel_queries("flights")).expr
    'count(ALERTS{alertstate="firing",pipeline=~"flights|"}) or vector(0)'
    """
    for board in boards():
        for panel in (panel for row in board.panels.values() for panel in row):
            for expr in panel.queries.values():
                yield PanelQuery(board.uid, panel.title, filled_in(expr, pipeline, rate, span), panel.only)


def filled_in(expr: str, pipeline: str, rate: str, span: str) -> str:
    """A query as Grafana sends it."""
    return expr.replace("$__rate_interval", rate).replace("$__range", span).replace("$pipeline", pipeline)


def dashboard(board: Board) -> dict[str, Any]:
    """The whole document. `id` is null: Grafana knows a provisioned board by its uid."""
    return {
        "id": None,
        "uid": board.uid,
        "title": board.title,
        "description": board.text,
        "tags": [TAG],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "links": _links(),
        "templating": {"list": _variables()},
        "annotations": {"list": _annotations()},
        "panels": list(_panels(board)),
    }


def _links() -> list[dict[str, Any]]:
    boards = {"type": "dashboards", "title": "Twofold", "tags": [TAG], "asDropdown": False}
    status = {"type": "link", "title": "Status page", "url": "${airflow}/twofold/", "icon": "external link"}
    return [
        {**boards, "includeVars": True, "keepTime": True, "targetBlank": False},
        {**status, "tooltip": "What each pipeline does now, and what to type", "targetBlank": True, "tags": []},
    ]


def _variables() -> list[dict[str, Any]]:
    pipelines = 'label_values({__name__=~"twofold_.+"}, pipeline)'
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "current": {"text": "Prometheus", "value": DATASOURCE_UID, "selected": True},
            "hide": 0,
            "refresh": 1,
            "regex": "",
            "options": [],
        },
        {
            "name": "pipeline",
            "label": "Pipeline",
            "type": "query",
            "datasource": DATASOURCE,
            "definition": pipelines,
            "query": {"query": pipelines, "refId": "pipelines"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "current": {"text": ["All"], "value": ["$__all"], "selected": True},
            "hide": 0,
            "regex": "",
            "options": [],
        },
        {
            "name": "airflow",
            "label": "Airflow",
            "description": "Where Airflow's pages are; those of the runbook are among them.",
            "type": "textbox",
            "query": AIRFLOW_URL,
            "current": {"text": AIRFLOW_URL, "value": AIRFLOW_URL, "selected": True},
            "hide": 0,
            "options": [],
        },
    ]


def _annotations() -> list[dict[str, Any]]:
    alerts = 'ALERTS{alertstate="firing",pipeline=~"$pipeline|"}'
    counted = f'airflow_dagrun_duration_%s_count{{dag_id=~"{DAGS}"}}'
    ends = f"sum by (dag_id) (changes({counted}[$__rate_interval])) > 0"
    built_in = {"datasource": {"type": "grafana", "uid": "-- Grafana --"}, "type": "dashboard", "builtIn": 1}
    return [
        {**built_in, "name": "Annotations & Alerts", "enable": True, "hide": True, "iconColor": "blue"},
        _annotation("Alerts", alerts, "red", "{{alertname}} ({{severity}})", "pipeline,table,task_id"),
        _annotation("DAG runs", ends % "success", "green", "{{dag_id}} succeeded", "dag_id"),
        _annotation("Failed DAG runs", ends % "failed", "orange", "{{dag_id}} failed", "dag_id"),
    ]


def _annotation(name: str, expr: str, color: str, title: str, tags: str) -> dict[str, Any]:
    """The query stands twice: Grafana up to 11 reads `expr` and `step`, later ones read `target`."""
    query = {"expr": expr, "step": "10s", "target": {"refId": "Anno", "expr": expr, "interval": "10s"}}
    look = {"titleFormat": title, "tagKeys": tags, "textFormat": "", "useValueForTime": False}
    return {"name": name, "datasource": DATASOURCE, "enable": True, "iconColor": color, **query, **look}


def _panels(board: Board) -> Iterator[dict[str, Any]]:
    """Rows from top to bottom; in each, panels from left to right and on to the next line."""
    number, y = 1, 0
    for title, panels in board.panels.items():
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], **_at(0, y, COLUMNS, 1)}
        number, y, x, tallest = number + 1, y + 1, 0, 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            yield {"id": number, **_panel(panel), **_at(x, y, panel.width, panel.height)}
            number, x, tallest = number + 1, x + panel.width, max(tallest, panel.height)
        y += tallest


def _at(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(panel: Panel) -> dict[str, Any]:
    instant, table = panel.kind in ("stat", "table"), panel.kind == "table"
    how = {
        "instant": instant,
        "range": not instant,
        "format": "table" if table else "time_series",
        "editorMode": "code",
    }
    link = {"title": "What to do", "url": f"{RUNBOOKS}/{panel.runbook}", "targetBlank": True}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATASOURCE,
        "targets": [
            {"refId": ref, "datasource": DATASOURCE, "expr": expr, "legendFormat": legend or "__auto", **how}
            for ref, (legend, expr) in zip(ascii_uppercase, panel.queries.items(), strict=False)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides() if table else []},
        "options": _options(panel),
        "transformations": _columns() if table else [],
        "links": [link] if panel.runbook else [],
        **({} if instant else {"interval": "5s"}),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    words = {str(value): {"text": text} for value, text in panel.words.items()}
    optional = {"decimals": panel.decimals, "noValue": panel.no_value or None}
    return {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for value, color in panel.thresholds],
        },
        "mappings": [{"type": "value", "options": words}] if words else [],
        "custom": _drawing(panel),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _drawing(panel: Panel) -> dict[str, Any]:
    if panel.kind != "timeseries":
        return {}
    return {
        "lineWidth": 1,
        "fillOpacity": 40 if panel.stacked else 8,
        "showPoints": "never",
        "spanNulls": 60000,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if len(panel.colors) > 1 else "off"},
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "background", "graphMode": "none", "textMode": "auto"}
    if panel.kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "state-timeline":
        return {"showValue": "never", "rowHeight": 0.8, "mergeValues": True, "legend": {"showLegend": False}}
    return {"showHeader": True, "cellHeight": "sm"}


def _columns() -> list[dict[str, Any]]:
    """A table of series: their labels are the columns; what every series has is left out."""
    hidden = dict.fromkeys(("Time", "Value", "__name__", "alertstate", "instance", "job"), True)
    return [{"id": "organize", "options": {"excludeByName": hidden, "renameByName": {}}}]


def _overrides() -> list[dict[str, Any]]:
    """The column of runbook pages is made of links."""
    link = {"title": "What to do", "url": f"{RUNBOOKS}/${{__value.text}}", "targetBlank": True}
    colors = {"critical": {"color": "red", "text": "critical"}, "warning": {"color": "orange", "text": "warning"}}
    return [
        {"matcher": {"id": "byName", "options": "runbook"}, "properties": [{"id": "links", "value": [link]}]},
        {
            "matcher": {"id": "byName", "options": "severity"},
            "properties": [
                {"id": "mappings", "value": [{"type": "value", "options": colors}]},
                {"id": "custom.cellOptions", "value": {"type": "color-background"}},
            ],
        },
    ]
