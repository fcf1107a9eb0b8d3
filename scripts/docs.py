"""Writes what is generated from the code: pages of docs/, and Grafana's dashboards.

docstrings of dags/*.py ─► docs/DAGS.md        twofold.metrics ───► docs/metrics.md
twofold.stack.programs ──► docs/ports.md       monitoring/boards ─► monitoring/grafana/dashboards/*.json

Manually: `make docs`; `make lint` fails while a file differs.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from monitoring.dashboards import boards, dashboard
from twofold import metrics
from twofold.stack.programs import PORTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DASHBOARDS = ROOT / "monitoring" / "grafana" / "dashboards"

_MANUALS = """# DAGs

For every file of the pipelines folder Airflow runs these DAGs; `<p>` is the pipeline's name. This page is generated
from the docstrings in `dags/` by `make docs`, and Airflow's UI shows the same texts. Runbooks: `docs/runbooks/`.
"""
_METRICS = """# Metrics

The metrics that Twofold sends, under the names that Prometheus shows. Every metric has the label `pipeline`. This page
is generated from `src/twofold/metrics.py` by `make docs`; `docs/monitoring.md` says where other metrics come from.

| metric | type | unit | labels | sent by | |
|---|---|---|---|---|---|
"""
_LABELS = """
## Labels

The content of records never names a series: a value that is not listed here, or not in the definition, is sent as
`other`.

| label | values |
|---|---|
"""
_PORTS = """# Ports of the embedded stack

Everything listens on 127.0.0.1 only. `twofold up` says which port is taken, and by which setting to move it; a moved
port is remembered in the home folder. This page is generated from `src/twofold/stack/programs.py` by `make docs`.

| port | used by | setting |
|---|---|---|
"""


def manuals() -> str:
    """The manual of each DAG file, by name, its title one level down."""
    docstrings = (ast.get_docstring(ast.parse(file.read_text())) or "" for file in sorted((ROOT / "dags").glob("*.py")))
    return "\n".join([_MANUALS, *(f"#{text}\n" for text in docstrings if text.startswith("# "))])


def metrics_page() -> str:
    """Every metric, and every label with its values."""
    rows = (
        (f"`{one.name}`", one.type, one.unit, ", ".join(f"`{label}`" for label in one.labels), _sender(one), one.help)
        for one in metrics.ALL
    )
    words = ((f"`{label}`", ", ".join(f"`{word}`" for word in values)) for label, values in metrics.WORDS.items())
    free = ((f"`{label}`", text) for label, text in metrics.FREE.items())
    return _METRICS + _table(rows) + _LABELS + _table([*words, *free])


def ports() -> str:
    """Every port with the setting that moves it."""
    rows = (
        (f"{port.default}/udp" if port.use.protocol == "udp" else str(port.default), port.use.by, f"`{port.setting}`")
        for port in PORTS.values()
    )
    return _PORTS + _table(rows)


def generated() -> dict[Path, str]:
    """Every generated file, with its text."""
    pages = {"DAGS.md": manuals(), "metrics.md": metrics_page(), "ports.md": ports()}
    return {DOCS / name: text for name, text in pages.items()} | {
        DASHBOARDS / f"{board.uid}.json": json.dumps(dashboard(board), indent=2, ensure_ascii=False) + "\n"
        for board in boards()
    }


def _sender(metric: metrics.Metric) -> str:
    return next(who for start, who in metrics.SENDERS.items() if metric.name.startswith(f"twofold_{start}_"))


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 where a file differs.")
def main(check: bool) -> None:
    """Write the generated files."""
    wanted = generated()
    there = [path for path in {*wanted, *DASHBOARDS.glob("*.json")} if path.exists()]
    found = {path: path.read_text() for path in there}
    different = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
    if check and different:
        click.echo(f"not as generated: {', '.join(path.name for path in different)}; run `make docs`", err=True)
        sys.exit(1)
    for path in different:
        if path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()


if __name__ == "__main__":
    main()
