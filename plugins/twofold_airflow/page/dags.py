"""A pipeline's DAGs and their last runs; what is wrong with them, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from twofold.definition.model import Schedule
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


def by_hand(schedule: Schedule) -> set[str]:
    """Kinds of DAGs that run only when someone asks."""
    asked = {"replay": None, "batch": schedule.batch, "proof": schedule.proof_cron}
    return {kind for kind, cron in asked.items() if cron is None}


def dag_problems(wanted: Iterable[str], known: Iterable[Dag], schedule: Schedule) -> Iterator[Problem]:
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
            command, link = _again(dag.id, kind), f"dags/{dag.id}/runs/{quote(ended.id, safe='')}"
            yield Problem("error", text, command, _RUNBOOKS.get(kind, f"{kind}-failed"), link)
        # Paused or not, what nothing schedules does its work when someone asks.
        if dag.paused and kind not in by_hand(schedule):
            text, command = f"{dag.id} is paused: it does not run by itself", f"twofold airflow dags unpause {dag.id}"
            yield Problem("warning", text, command, link=f"dags/{dag.id}")


def _again(dag_id: str, kind: str) -> str:
    """The command that does again what failed, and nothing else: a run by hand is of what the form begins with.

    Of services that is a start, also of what somebody stopped, and of a replay a dry run, whose success hides the
    failure.
    """
    if kind == "services":
        return f"twofold services {dag_id.removesuffix('_services')}"
    return "" if kind == "replay" else f"twofold airflow dags trigger {dag_id}"
