"""docs/metrics.md out of `twofold.metrics`. By hand: `make metrics`; `make lint` fails while the page differs."""

from __future__ import annotations

from pathlib import Path

from twofold.generated import write_or_check
from twofold.metrics import ALL, FREE, WORDS, Metric

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_HEAD = """# Metrics

What Twofold sends of itself, under the names that Prometheus shows. Every metric has the label `pipeline`. This page is
made from `src/twofold/metrics.py` by `make metrics`; where else metrics come from is told in `docs/monitoring.md`.

| metric | type | unit | labels | sent by | |
|---|---|---|---|---|---|
"""
_LABELS = """
## Labels

What records hold never names a series: a value that is not listed here, or not in the definition, is sent as `other`.

| label | values |
|---|---|
"""


def page() -> str:
    """The page's text."""
    words = [f"| `{label}` | {', '.join(f'`{word}`' for word in values)} |" for label, values in WORDS.items()]
    free = [f"| `{label}` | {text} |" for label, text in FREE.items()]
    return _HEAD + "\n".join(map(_row, ALL)) + "\n" + _LABELS + "\n".join([*words, *free]) + "\n"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.type} | {metric.unit} | {labels} | {metric.by} | {metric.help} |"


def main() -> None:
    """Write the page, or with --check only compare."""
    write_or_check(PAGE, page(), "src/twofold/metrics.py declares", "metrics")


if __name__ == "__main__":
    main()
