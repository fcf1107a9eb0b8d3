"""What Airflow did: the runs of the demonstration's DAGs, as its pages show them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.table import Table

from demo.airflow_rest import AirflowRest
from twofold.errors import TwofoldError
from twofold.settings import Settings


class DagRuns:
    """The runs of one pipeline's DAGs."""

    def __init__(self, settings: Settings, pipeline: str) -> None:
        self._airflow, self._url, self._pipeline = AirflowRest(settings), settings.airflow_url, pipeline

    def there(self, *kinds: str) -> bool:
        """Whether Airflow has read these DAGs."""
        found = {dag["dag_id"] for dag in self._airflow.get("dags", limit=100)["dags"]}
        return found >= {f"{self._pipeline}_{kind}" for kind in kinds}

    def start(self, kind: str) -> None:
        """Start a run, as the button in the UI does, unless its schedule has."""
        if not self.of(kind):
            self._airflow.trigger(f"{self._pipeline}_{kind}")

    def all(self) -> list[dict[str, Any]]:
        """Every run, oldest first."""
        found = self._airflow.get("dags/~/dagRuns", limit=100, order_by="run_after")["dag_runs"]
        return [run for run in found if run["dag_id"].startswith(f"{self._pipeline}_")]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The runs of one DAG, oldest first."""
        return [run for run in self.all() if run["dag_id"] == f"{self._pipeline}_{kind}"]

    def succeeded(self, kind: str, by: str = "") -> bool:
        """Whether a run of a DAG succeeded, started `by` (default: any way); raises if the last one failed."""
        runs = [run for run in self.of(kind) if not by or run["run_type"] == by]
        if runs and runs[-1]["state"] == "failed":
            raise TwofoldError(f"a run of {runs[-1]['dag_id']} failed", f"see its log: {self.address(runs[-1])}")
        return any(run["state"] == "success" for run in runs)

    def address(self, run: dict[str, Any]) -> str:
        """The page of a run."""
        return f"{self._url}/dags/{run['dag_id']}/runs/{run['dag_run_id']}"

    def table(self) -> Table:
        """All runs, for the terminal."""
        table = Table(box=None, title="DAG runs", title_justify="left")
        for name in ("DAG", "started by", "state", "seconds"):
            table.add_column(name, justify="right" if name == "seconds" else "left")
        for run in self.all():
            table.add_row(run["dag_id"], run["run_type"], run["state"], _seconds(run))
        return table


def _seconds(run: dict[str, Any]) -> str:
    if not run["start_date"] or not run["end_date"]:
        return ""
    took = datetime.fromisoformat(run["end_date"]) - datetime.fromisoformat(run["start_date"])
    return f"{took.total_seconds():.0f}"
