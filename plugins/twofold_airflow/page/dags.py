"""A pipeline's DAGs and their last runs; what is wrong with them, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from twofold.status.facts import Problem

_RUNBOOKS = {"services": "service-not-healthy", "replay": "replay-refused", "proof": "invariant-violated"}


@dataclass(frozen=True)
class DagRun:
    """One run of a DAG."""

    id: str
    state: str
    at: datetime
    """When it was due."""
    seconds: float | None = None
    """How long it took; None: it has not ended."""


@dataclass(frozen=True)
class Dag:
    """One DAG and its last runs, the latest first."""

    id: str
    paused: bool
    runs: Sequence[DagRun] = ()


def dag_problems(wanted: Iterable[str], known: Iterable[Dag]) -> Iterator[Problem]:
    """Problems for the operator: DAGs that are missing, failed or paused."""
    there = {dag.id: dag for dag in known}
    if missing := [dag_id for dag_id in wanted if dag_id not in there]:
        text = (
            f"Airflow does not know {', '.join(missing)} yet: wait for the DAG processor, or see what it cannot import"
        )
        yield Problem("note", text, "twofold airflow dags list-import-errors")
    for dag in there.values():
        kind = dag.id.rpartition("_")[2]
        ended = next((run for run in dag.runs if run.state in ("success", "failed")), None)
        if ended and ended.state == "failed":
            text = f"the last run of {dag.id} failed; the log of the task that failed says why"
            command, link = f"twofold airflow dags trigger {dag.id}", f"dags/{dag.id}/runs/{quote(ended.id, safe='')}"
            yield Problem("error", text, command, _RUNBOOKS.get(kind, f"{kind}-failed"), link)
        # Nothing schedules a replay: paused or not, it does its work when someone asks.
        if dag.paused and kind != "replay":
            text, command = f"{dag.id} is paused: it does not run by itself", f"twofold airflow dags unpause {dag.id}"
            yield Problem("warning", text, command, link=f"dags/{dag.id}")
