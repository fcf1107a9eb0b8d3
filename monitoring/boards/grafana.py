"""Grafana's classic dashboard JSON of a board: the form that file provisioning takes in every version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import ascii_uppercase
from typing import Any

from monitoring.boards.panels import Board, Panel

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
DATASOURCE_UID = "twofold-prometheus"
"""Set in monitoring/grafana/provisioning/datasources."""
TAG = "twofold"
AIRFLOW_URL = "http://127.0.0.1:18080"
RUNBOOKS = "${airflow}/twofold/runbooks"


def dashboard(board: Board) -> dict[str, Any]:
    """The whole document. `id` is null: Grafana knows a provisioned board by its uid."""
    return {
        "id": None,
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
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
        "panels": list(_panels(board.rows)),
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
    ends = 'sum by (dag_id) (changes(airflow_dagrun_duration_%s_count{dag_id=~"($pipeline)_.+"}[$__rate_interval])) > 0'
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


def _panels(rows: Mapping[str, tuple[Panel, ...]]) -> Iterator[dict[str, Any]]:
    """Rows from top to bottom; in each, panels from left to right and on to the next line."""
    number, y = 1, 0
    for title, panels in rows.items():
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
        "description": panel.description,
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
    words = {str(value): {"text": text} for value, text in panel.words}
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
        "thresholdsStyle": {"mode": "dashed" if len(panel.thresholds) > 1 else "off"},
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
