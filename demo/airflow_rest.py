"""Airflow's REST interface, as its pages use it: log in, trigger a DAG, look at a run. For the demo, the benchmarks and
tests.

With httpx, which comes with Airflow; import this module only where Airflow is.
"""

from __future__ import annotations

from typing import Any

import httpx

from twofold.errors import TwofoldError
from twofold.settings import Settings

TIMEOUT_S = 120.0
"""A machine that is busy starting JVMs lets Airflow answer late."""


class AirflowRest:
    """A session of the administrator that the settings name. Every call raises TwofoldError on a refusal."""

    def __init__(self, settings: Settings) -> None:
        self._client = httpx.Client(base_url=settings.airflow_url, timeout=TIMEOUT_S)
        password = settings.airflow_password.get_secret_value()
        answer = self.call("POST", "/auth/token", json={"username": settings.airflow_user, "password": password})
        self._client.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """One request; `arguments` are httpx's (`json`, `params`)."""
        try:
            response = self._client.request(method, path, **arguments)
            response.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise TwofoldError(f"Airflow refused {method} {path}: {error.response.text}") from error
        except httpx.TransportError as error:
            remedy = "see `twofold status`"
            raise TwofoldError(f"Airflow does not answer at {self._client.base_url}: {error}", remedy) from error
        answer: dict[str, Any] = response.json()
        return answer

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401
        """What is at a path below /api/v2: `get("dags/flights_union/dagRuns", limit=1)`."""
        return self.call("GET", f"/api/v2/{path}", params=parameters)

    def unpause(self, dag: str) -> None:
        """Switch a DAG on: its schedule and its assets start runs from now on."""
        self.call("PATCH", f"/api/v2/dags/{dag}", json={"is_paused": False})

    def pause(self, dag: str) -> None:
        """Switch a DAG off: no run starts from now on; one that runs goes on."""
        self.call("PATCH", f"/api/v2/dags/{dag}", json={"is_paused": True})

    def trigger(self, dag: str, **params: Any) -> str:  # noqa: ANN401
        """Start a run, as the form in the UI does; returns its run id."""
        body = {"logical_date": None, "conf": params}
        return str(self.call("POST", f"/api/v2/dags/{dag}/dagRuns", json=body)["dag_run_id"])

    def run_state(self, dag: str, run: str) -> str:
        """`queued`, `running`, `success` or `failed`."""
        return str(self.get(f"dags/{dag}/dagRuns/{run}")["state"])

    def task_states(self, dag: str, run: str) -> dict[str, str | None]:
        """State of each task of a run."""
        found = self.get(f"dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in found}
