"""What is wrong with a pipeline's DAGs, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from twofold.status.model import Problem

if TYPE_CHECKING:
    from twofold_airflow.page.runs import Dag, Run

BY_HAND = "_replay"
"""A DAG that nothing schedules: paused or not, it does its work when someone asks."""

_RUNBOOKS = {"services": "service-not-healthy", "replay": "replay-refused"}


def problems(wanted: Iterable[str], known: Iterable[Dag]) -> list[Problem]:
    """What a person should look at, by DAG."""
    there = {dag.id: dag for dag in known}
    missing = [dag_id for dag_id in wanted if dag_id not in there]
    return [*_missing(missing), *(problem for dag in there.values() for problem in _of(dag))]


def last_ended(dag: Dag) -> Run | None:
    """The last run that has come to an end."""
    return next((run for run in dag.runs if run.state in ("success", "failed")), None)


def _missing(ids: list[str]) -> Iterator[Problem]:
    if ids:
        text = f"Airflow does not know {', '.join(ids)} yet: wait for the DAG processor, or see what it cannot import"
        yield Problem("note", text, "twofold airflow dags list-import-errors")


def _of(dag: Dag) -> Iterator[Problem]:
    ended = last_ended(dag)
    if ended is not None and ended.state == "failed":
        text = f"the last run of {dag.id} failed; the log of the task that failed says why"
        command, link = f"twofold airflow dags trigger {dag.id}", f"dags/{dag.id}/runs/{quote(ended.id, safe='')}"
        kind = dag.id.rpartition("_")[2]
        yield Problem("error", text, command, _RUNBOOKS.get(kind, f"{kind}-failed"), link)
    if dag.paused and not dag.id.endswith(BY_HAND):
        text = f"{dag.id} is paused: it does not run by itself"
        yield Problem("warning", text, f"twofold airflow dags unpause {dag.id}", link=f"dags/{dag.id}")
