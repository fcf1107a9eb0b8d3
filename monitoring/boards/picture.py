"""Draw the boards from a live Prometheus, without Grafana: the same panels, queries, units and thresholds.

    Prometheus ─► every panel's query ─► draw ─► <folder>/<board>.html, and .png where Chromium is installed

By hand: `python -m monitoring.boards.picture --prometheus http://127.0.0.1:19090 --pipeline flights --to pictures`
"""

from __future__ import annotations

from twofold import shell

if __name__ == "__main__":
    shell.enter()

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import click

from monitoring.boards import BOARDS, filled_in
from monitoring.boards.draw import LINE_PX, Series, page
from monitoring.boards.model import Board, Panel, Query, Row
from monitoring.boards.render import COLUMNS

_POINTS = 240


@dataclass(frozen=True)
class Look:
    """What is looked at: a pipeline (or pattern) in a Prometheus, from a moment to another."""

    prometheus: str
    pipeline: str
    start: float
    end: float

    def data(self, board: Board) -> dict[str, list[Series]]:
        """The series of every panel."""
        return {
            panel.title: [one for query in panel.queries for one in self.series(panel, query)] for panel in board.panels
        }

    def series(self, panel: Panel, query: Query) -> Iterator[Series]:
        """What one query returns: over the time in charts, at its end elsewhere."""
        step = max((self.end - self.start) / _POINTS, 5)
        expr = filled_in(query.expr, self.pipeline, f"{max(step, 20):.0f}s", f"{self.end - self.start:.0f}s")
        if panel.kind == "timeseries":
            found = self.ask("query_range", query=expr, start=self.start, end=self.end, step=step)
        else:
            found = self.ask("query", query=expr, time=self.end)
        for one in found:
            points = [(float(at), float(value)) for at, value in one.get("values") or [one["value"]]]
            yield Series(legend(query.legend, one["metric"]), one["metric"], points)

    def ask(self, what: str, **parameters: object) -> list[dict[str, Any]]:
        """One question to Prometheus' API."""
        try:
            with urlopen(f"{self.prometheus}/api/v1/{what}?{urlencode(parameters)}", timeout=30) as answer:
                return list(json.load(answer)["data"]["result"])
        except URLError as error:
            raise click.ClickException(f"Prometheus at {self.prometheus}: {error}; see `twofold status`") from error


def legend(form: str, labels: dict[str, str]) -> str:
    """A series' name.

    >>> legend("{{pipeline}} landing", {"pipeline": "flights"})
    'flights landing'
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), form)


@click.command()
@click.option("--prometheus", default="http://127.0.0.1:19090", show_default=True, help="Address of Prometheus.")
@click.option("--pipeline", default=".+", help="One pipeline; all by default.")
@click.option("--minutes", default=15.0, show_default=True, help="How far back.")
@click.option("--at", default=None, type=float, help="The end, as Unix time; now by default.")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="Folder for the pages and pictures.")
def main(prometheus: str, pipeline: str, minutes: float, at: float | None, to: Path) -> None:
    """Draw every board."""
    end = time.time() if at is None else at
    look = Look(prometheus, pipeline, end - minutes * 60, end)
    to.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        when = f"{minutes:g} minutes to {datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC"
        said = f"Drawn from Prometheus by the board's own queries, {when}; not a picture of Grafana."
        path = to / f"{board.uid}.html"
        path.write_text(page(board, look.data(board), (look.start, look.end), said))
        if chromium := shutil.which("chromium"):
            photograph(chromium, path, board)


def photograph(chromium: str, path: Path, board: Board) -> None:
    """Let a browser make a PNG of a page."""
    height = 80 + sum(36 + _lines(row) * (LINE_PX + 1) for row in board.rows)
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size=1442,{height}"]
    picture = path.with_suffix(".png").absolute()
    command = [chromium, *options, f"--screenshot={picture}", path.absolute().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def _lines(row: Row) -> int:
    """Panels that do not fit beside each other go on below."""
    return -(-sum(panel.width for panel in row.panels) // COLUMNS) * max(panel.height for panel in row.panels)


if __name__ == "__main__":
    main()
