"""The last runs of some DAGs, from Airflow's database: read in the API server's process, never in a task's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from sqlalchemy import func, select
from sqlalchemy.orm import Session

LAST = 8


@dataclass(frozen=True)
class Run:
    """One run of a DAG."""

    id: str
    state: str
    at: datetime
    """When it was due."""
    seconds: float | None
    """How long it took; None: it has not ended."""


@dataclass(frozen=True)
class Dag:
    """One DAG and its last runs, the latest first."""

    id: str
    paused: bool
    next_at: datetime | None
    runs: tuple[Run, ...] = ()


def dags(session: Session, ids: Iterable[str]) -> list[Dag]:
    """Those of the DAGs that Airflow knows, in the order of `ids`."""
    wanted = list(ids)
    latest = _latest(session, wanted)
    columns = (DagModel.dag_id, DagModel.is_paused, DagModel.next_dagrun_create_after)
    rows = session.execute(select(*columns).where(DagModel.dag_id.in_(wanted), ~DagModel.is_stale))
    known = {dag_id: Dag(dag_id, bool(paused), at, tuple(latest[dag_id])) for dag_id, paused, at in rows}
    return [known[dag_id] for dag_id in wanted if dag_id in known]


def _latest(session: Session, ids: list[str]) -> dict[str, list[Run]]:
    order = func.row_number().over(partition_by=DagRun.dag_id, order_by=DagRun.run_after.desc()).label("nth")
    columns = (DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.run_after, DagRun.start_date, DagRun.end_date)
    ranked = select(*columns, order).where(DagRun.dag_id.in_(ids)).subquery()
    found: dict[str, list[Run]] = defaultdict(list)
    for dag_id, run_id, state, at, began, ended, _ in session.execute(
        select(ranked).where(ranked.c.nth <= LAST).order_by(ranked.c.dag_id, ranked.c.nth)
    ):
        seconds = round((ended - began).total_seconds(), 1) if began and ended else None
        found[dag_id].append(Run(run_id, str(state), at, seconds))
    return found
