"""A board as a plain page of HTML and SVG, out of its panels and their data. Pure; where there is no Grafana."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

from monitoring.boards.model import BLUE, GREEN, ORANGE, RED, Board, Panel
from monitoring.boards.units import shown

COLUMN_PX, LINE_PX, LEGEND = 58, 30, 8
_INK = {BLUE: "#2f6fb2", GREEN: "#2e8b57", ORANGE: "#d9822b", RED: "#c23030"}
_LINES = ("#2f6fb2", "#d9822b", "#2e8b57", "#8e5bb5", "#c23030", "#1d9a9a", "#a0742c", "#6b7785")
_STYLE = """
body{margin:16px;font:13px/1.35 system-ui,sans-serif;color:#1c2733;background:#f4f6f8;width:1410px}
h1{font-size:20px;margin:0}
p{margin:2px 0 10px;color:#54616e}
h2{font-size:14px;margin:14px 0 6px}
.row{display:flex;flex-wrap:wrap;gap:8px}
.panel{background:#fff;border:1px solid #d8dee4;border-radius:4px;padding:6px 8px;box-sizing:border-box;overflow:hidden}
.panel b{font-size:12px}
.stats{display:flex;flex-wrap:wrap;gap:4px;margin-top:4px}
.stat{color:#fff;border-radius:3px;padding:6px 8px;flex:1 1 auto;font-size:17px}
.stat i{display:block;font:11px system-ui}
.key{font-size:11px;color:#54616e}
.key s{display:inline-block;width:10px;height:3px;margin:0 4px 3px 8px}
td,th{text-align:left;padding:2px 8px 2px 0;font-size:12px}
.none{color:#54616e;margin-top:18px}
"""


@dataclass(frozen=True)
class Series:
    """One series of a panel: its name, labels, and (time, value) pairs."""

    name: str
    labels: dict[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


def page(board: Board, data: dict[str, list[Series]], span: tuple[float, float], said: str) -> str:
    """A whole document; `data` by panel title, `said` under the heading."""
    head = f"<!doctype html><meta charset=utf-8><title>{escape(board.title)}</title><style>{_STYLE}</style>"
    rows = [
        f"<h2>{escape(row.title)}</h2><div class=row>{''.join(panel(p, data[p.title], span) for p in row.panels)}</div>"
        for row in board.rows
    ]
    return f"{head}<h1>{escape(board.title)}</h1><p>{escape(board.description)} {escape(said)}</p>{''.join(rows)}\n"


def panel(drawn: Panel, series: list[Series], span: tuple[float, float]) -> str:
    """One panel; what a query without data means is written in it."""
    width, height = drawn.width * COLUMN_PX - 8, drawn.height * LINE_PX
    if not series:
        inside = f"<div class=none>{escape(drawn.no_value or 'no data')}</div>"
    elif drawn.kind == "table":
        inside = table(series)
    elif drawn.kind == "timeseries":
        inside = chart(drawn, series, span, width - 18, height - 62) + key(series)
    else:
        inside = "<div class=stats>" + "".join(stat(drawn, one) for one in series) + "</div>"
    return f"<div class=panel style='width:{width}px;height:{height}px'><b>{escape(drawn.title)}</b>{inside}</div>"


def stat(drawn: Panel, one: Series) -> str:
    """The newest value on the colour of its threshold."""
    text = dict(drawn.words).get(one.last, shown(one.last, drawn.unit))
    ink = _INK[color(drawn, one.last)]
    return f"<div class=stat style='background:{ink}'>{escape(text)}<i>{escape(one.name)}</i></div>"


def color(drawn: Panel, value: float) -> str:
    """The colour of a value by the panel's thresholds."""
    reached = [name for step, name in drawn.steps if value >= step]
    return reached[-1] if reached else drawn.base


def table(series: list[Series]) -> str:
    """Labels as columns."""
    names = ("alertname", "severity", "pipeline", "runbook")
    rows = ["".join(f"<td>{escape(one.labels.get(name, ''))}</td>" for name in names) for one in series]
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def key(series: list[Series]) -> str:
    """Which line is whose; no more than fit."""
    marks = [
        f"<s style='background:{_LINES[i % len(_LINES)]}'></s>{escape(one.name)}"
        for i, one in enumerate(series[:LEGEND])
    ]
    more = f" and {len(series) - LEGEND} more" if len(series) > LEGEND else ""
    return f"<div class=key>{''.join(marks)}{more}</div>"


def stacked(series: list[Series]) -> list[Series]:
    """Each series upon those before it.

    >>> [one.points for one in stacked([Series("a", {}, [(0, 1.0)]), Series("b", {}, [(0, 2.0), (5, 3.0)])])]
    [[(0, 1.0)], [(0, 3.0), (5, 3.0)]]
    """
    below: dict[float, float] = {}
    found = []
    for one in series:
        below.update({time: below.get(time, 0.0) + value for time, value in one.points if isfinite(value)})
        found.append(Series(one.name, one.labels, [(time, below[time]) for time, _ in one.points if time in below]))
    return found


def chart(drawn: Panel, series: list[Series], span: tuple[float, float], width: int, height: int) -> str:
    """Lines over time, thresholds dashed, the scale at the left."""
    series = stacked(series) if drawn.stacked else series
    values = [value for one in series for _, value in one.points if isfinite(value)] or [0.0]
    low, high = min(0.0, *values) if drawn.unit != "dateTimeAsIso" else min(values), max(values)
    high = high if high > low else low + 1
    left, (start, end) = 62, span

    def at(time: float, value: float) -> str:
        x = left + (time - start) / (end - start) * (width - left)
        return f"{x:.1f},{(high - value) / (high - low) * (height - 16) + 8:.1f}"

    parts = [
        f"<polyline fill=none stroke='#eceff2' points='{at(start, y)} {at(end, y)}'/><text x=0 y="
        f"{float(at(start, y).split(',')[1]) + 4} font-size=10 fill='#54616e'>{shown(y, drawn.unit)}</text>"
        for y in (low, (low + high) / 2, high)
    ]
    parts += [
        f"<polyline fill=none stroke='{_INK[name]}' stroke-dasharray='4 3' points='{at(start, step)} {at(end, step)}'/>"
        for step, name in drawn.steps
        if low <= step <= high
    ]
    for i, one in enumerate(series):
        points = " ".join(at(time, value) for time, value in one.points if isfinite(value))
        parts.append(f"<polyline fill=none stroke='{_LINES[i % len(_LINES)]}' stroke-width=1.5 points='{points}'/>")
    return f"<svg width={width} height={height}>{''.join(parts)}</svg>"
