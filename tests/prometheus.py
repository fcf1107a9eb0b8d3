"""A stack's Prometheus, asked as its pages ask it."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

from twofold.settings import Settings


class Prometheus:
    """Queries and alerts."""

    def __init__(self, settings: Settings) -> None:
        self._root = f"http://127.0.0.1:{settings.prometheus_port}/api/v1"

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression has now; each with `metric` (its labels) and `value` (time, text)."""
        found: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return found

    def number(self, expr: str) -> float:
        """The value of an expression that has one series."""
        (series,) = self.query(expr)
        return float(series["value"][1])

    def firing(self) -> set[tuple[str, str]]:
        """(alert, its pipeline or an empty text) of every alert that is firing."""
        alerts = [alert for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"]
        return {(alert["labels"]["alertname"], alert["labels"].get("pipeline", "")) for alert in alerts}

    def targets(self) -> dict[str, str]:
        """Job → health of what is scraped."""
        return {target["labels"]["job"]: target["health"] for target in self._get("targets")["activeTargets"]}

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._root}/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)["data"]
            return found
