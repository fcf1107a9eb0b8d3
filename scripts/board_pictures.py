"""Pictures of the dashboards without Grafana: every panel's query, asked of Prometheus, drawn by Chart.js.

    monitoring/boards ─► Prometheus ─► <folder>/<board>.html, and .png where Chromium is installed

Manually: `python -m scripts.board_pictures --pipeline flights --to docs/images/boards`
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import httpx

from monitoring.dashboards import boards, filled_in

_CHART_JS = files("chartkick") / "django" / "static" / "chartkick" / "Chart.bundle.js"
_PAGE = """<!doctype html><meta charset="utf-8"><style>
body {margin: 16px; width: 1410px; font: 13px system-ui; background: #f4f6f8}
b {display: block}
section {display: flex; flex-wrap: wrap; gap: 8px}
article {background: #fff; border: 1px solid #d8dee4; padding: 6px 8px; box-sizing: border-box; overflow: hidden}
div {position: relative; height: calc(100% - 20px)}
span {display: inline-block; margin: 4px; padding: 6px 8px; border-radius: 3px; color: #fff; white-space: pre}
</style><body><script>LIBRARY</script><script>
const board = BOARD, INK = {blue: "#2f6fb2", green: "#2e8b57", orange: "#d9822b", red: "#c23030"};
const LINES = [...Object.values(INK), "#8e5bb5", "#1d9a9a", "#a0742c", "#6b7785"];
const add = (to, tag, text = "") => to.appendChild(Object.assign(document.createElement(tag), {textContent: text}));
function shown(value, {words, unit}) {
  const word = words[value] ?? (unit === "dateTimeAsIso" && new Date(value).toISOString().slice(0, 16));
  if (unit === "percentunit") return `${+(value * 100).toPrecision(3)} %`;
  return word || `${+value.toPrecision(4)} ${["short", "none", "locale"].includes(unit) ? "" : unit}`;
}
function stat(to, panel, [name, , points]) {
  const value = Number(points.at(-1)[1]);
  const color = panel.thresholds.findLast(([from]) => from === null || value >= from)[1];
  add(to, "span", `${shown(value, panel)}\\n${name}`).style.background = INK[color];
}
function chart(to, panel) {
  const {stacked} = panel, ticks = {maxTicksLimit: 5};
  const datasets = panel.series.map(([label, , points], n) => ({
    label, data: points.map(([x, y]) => ({x, y: Number(y)})), fill: stacked, pointRadius: 0, borderWidth: 1.5,
    borderColor: LINES[n % 8], backgroundColor: `${LINES[n % 8]}55`,
  }));
  const time = (value) => new Date(value * 1000).toISOString().slice(11, 16);
  const value = (number) => (/^date|^percent/.test(panel.unit) ? shown(number, panel) : +number.toPrecision(4));
  new Chart(add(add(to, "div"), "canvas"), {type: "line", data: {datasets}, options: {
    animation: false, maintainAspectRatio: false,
    plugins: {legend: {position: "bottom", labels: {boxHeight: 1, boxWidth: 12}}},
    scales: {x: {type: "linear", ticks: {...ticks, callback: time}}, y: {stacked, ticks: {...ticks, callback: value}}},
  }});
}
add(document.body, "h1", board.title);
for (const [title, panels] of Object.entries(board.panels)) {
  add(document.body, "h3", title);
  const row = add(document.body, "section");
  for (const panel of panels) {
    const box = add(row, "article");
    box.style = `width: ${58 * panel.width - 8}px; height: ${30 * panel.height}px`;
    add(box, "b", panel.title);
    if (!panel.series.length) add(box, "p", panel.no_value || "no data");
    else if (panel.kind === "timeseries") chart(box, panel);
    else for (const one of panel.series) {
      if (panel.kind === "table") add(box, "p", Object.values(one[1]).join(" "));
      else stat(box, panel, one);
    }
  }
}
</script>"""


@click.command()
@click.option("--prometheus", default="http://127.0.0.1:19090", show_default=True, help="Address of Prometheus.")
@click.option("--pipeline", default=".+", help="One pipeline; all by default.")
@click.option("--minutes", default=15.0, show_default=True, help="How far back.")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="Folder for the pages and pictures.")
def main(prometheus: str, pipeline: str, minutes: float, to: Path) -> None:
    """Draw every board."""
    to.mkdir(parents=True, exist_ok=True)
    span_s, end = minutes * 60, time.time()
    step = max(span_s / 240, 5)
    course = ("query_range", {"start": end - span_s, "end": end, "step": step})
    for board in boards():
        rows = {
            heading: [panel.model_dump() | {"thresholds": panel.thresholds, "series": []} for panel in row]
            for heading, row in board.panels.items()
        }
        for panel in (panel for row in rows.values() for panel in row):
            what, when = course if panel["kind"] == "timeseries" else ("query", {"time": end})
            for legend, query in panel["queries"].items():
                expr = filled_in(query, pipeline, f"{max(step, 20):.0f}s", f"{span_s:.0f}s")
                answer = httpx.get(f"{prometheus}/api/v1/{what}", params={"query": expr, **when}, timeout=30)
                for one in answer.raise_for_status().json()["data"]["result"]:
                    points = one.get("values") or [one["value"]]
                    panel["series"].append((named(legend, one["metric"]), one["metric"], points))
        path = (to / f"{board.uid}.html").absolute()
        path.write_text(document({"title": board.title, "panels": rows}))
        if chromium := shutil.which("chromium"):
            options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size=1442,{_height(rows)}"]
            command = [chromium, *options, f"--screenshot={path.with_suffix('.png')}", path.as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=120)


def _height(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
    """Of the page, in pixels: the panels of a row fill 24 columns, line by line."""
    grids = (sum(int(panel["width"]) * int(panel["height"]) for panel in row) for row in rows.values())
    return 70 + sum(50 + 31 * grid // 24 for grid in grids)


def document(data: dict[str, object]) -> str:
    """The page that draws a board; whatever the data hold, they cannot end its script."""
    page = _PAGE.replace("LIBRARY", _CHART_JS.read_text(), 1)
    return page.replace("BOARD", json.dumps(data).replace("<", "\\u003c"), 1)


def named(legend: str, labels: dict[str, str]) -> str:
    """A series' name: its labels in place of `{{…}}`."""
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), legend)


if __name__ == "__main__":
    main()
