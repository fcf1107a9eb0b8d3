"""The routes of the status page, and the data behind them, for one user: each depends on `reader`, files included.

    pipelines/*.yaml ─► those that the user may read ─► Gatherer.status, last runs of the DAGs ─► status.json

All are plain functions, so FastAPI runs them in its thread pool: gathering never holds the API server's event loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun as Runs
from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.encoders import jsonable_encoder
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from twofold.definition.load import load_sound
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.settings import Settings
from twofold.status.facts import Problem
from twofold.status.gather import Gatherer
from twofold.status.measures import worst_first
from twofold_airflow.page import content
from twofold_airflow.page.dags import Dag, DagRun, dag_problems
from twofold_airflow.wiring import KINDS, dag_id

_LAST = 8
_HEADERS = {
    # Chart.js draws on a canvas and sets styles by script, which `style-src` does not concern.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_RUNBOOK = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<link rel="stylesheet" href="../static/page.css"><script type="module" src="../static/frame.js"></script>
<body><main class="runbook"><p><a href="../">← Status</a></p>{body}</main></body></html>"""


def reader(user: GetUserDep) -> BaseUser:
    """The user, who must be logged in (401) and have a role that may read some DAG and its runs (403)."""
    if not get_auth_manager().is_authorized_dag(method="GET", access_entity=DagAccessEntity.RUN, user=user):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Your role may not read DAGs. An administrator can change that.")
    return user


# No openapi.json, no /docs: they would be routes that ask nobody who they are.
app = FastAPI(title="Twofold", openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(reader)])
_gatherers: dict[str, Gatherer] = {}
"""One per pipeline, so that what does not change is read once for all viewers."""
_lock = Lock()


@app.get("/")
def page(request: Request) -> Response:
    """The page; its data come by `status.json`."""
    return static(request, "page.html")


@app.get("/static/{name}")
def static(request: Request, name: str) -> Response:
    """A file of the page, compressed by Airflow: sent once to each browser, which asks whether it has changed."""
    path = content.FILES.get(name)
    if path is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such file.")
    answer = StaticFiles().file_response(path, path.stat(), request.scope)
    # private: who may have it is for each user. no-cache: ask first, so that an upgrade shows at once.
    answer.headers.update({**_HEADERS, "Cache-Control": "private, no-cache", "Vary": "Cookie"})
    return answer


@app.get("/runbooks/{name}")
def runbook(name: str) -> Response:
    """A page of the runbook."""
    body = content.runbook_html(Settings(), name)
    if body is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such page of the runbook.")
    return HTMLResponse(_RUNBOOK.format(title=escape(name), body=body), headers=_HEADERS)


@app.get("/status.json")
def status_json(user: Annotated[BaseUser, Depends(reader)], session: SessionDep) -> Response:
    """What the page shows, for this user, now: of the pipelines of which the user may read every DAG and its runs."""
    settings = Settings()
    sound, faults = load_sound(settings.pipelines)
    names = [name for name in sound if _may_read(user, name)]
    faulty = sorted({fault.file for fault in faults if _may_read(user, Path(fault.file).stem)})
    shown = {
        "at": datetime.now(UTC),
        "pipelines": [_one(settings, sound[name], session) for name in names],
        "hidden": len(names) < len(sound),
        "problems": _plain(
            settings,
            (
                Problem("error", f"{file} has faults, so its pipeline is not run", f"twofold check {file}")
                for file in faulty
            ),
        ),
    }
    return JSONResponse(jsonable_encoder(shown), headers={**_HEADERS, "Cache-Control": "no-store"})


def _dag_ids(pipeline: str) -> list[str]:
    return [dag_id(pipeline, kind) for kind in KINDS]


def _may_read(user: BaseUser, pipeline: str) -> bool:
    """Whether the user may read every DAG of the pipeline, and its runs: the page reports all of them."""
    may = get_auth_manager().is_authorized_dag
    runs = DagAccessEntity.RUN
    return all(
        may(method="GET", access_entity=runs, details=DagDetails(id=name), user=user) for name in _dag_ids(pipeline)
    )


def _one(settings: Settings, pipeline: Pipeline, session: Session) -> dict[str, Any]:
    wanted = _dag_ids(pipeline.name)
    dags = last_runs(session, wanted)
    found = _gatherer(Lake(settings, pipeline)).status()
    return {
        "name": pipeline.name,
        "topic": pipeline.topic.name,
        "status": found.to_json(),
        "dags": [asdict(dag) for dag in dags],
        "problems": _plain(settings, [*found.problems, *dag_problems(wanted, dags, pipeline.schedule)]),
    }


def _gatherer(lake: Lake) -> Gatherer:
    """The pipeline's own; a new one where its definition, or a setting, has changed."""
    with _lock:
        if lake.name not in _gatherers or _gatherers[lake.name].lake != lake:
            _gatherers[lake.name] = Gatherer(lake)
        return _gatherers[lake.name]


def _plain(settings: Settings, problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [
        {**vars(problem), "runbook": content.runbook_address(settings, problem.runbook) if problem.runbook else ""}
        for problem in worst_first(problems)
    ]


def last_runs(session: Session, wanted: list[str]) -> list[Dag]:
    """Those of the DAGs that Airflow knows, in the order of `wanted`, each with its last runs."""
    nth = func.row_number().over(partition_by=Runs.dag_id, order_by=Runs.run_after.desc()).label("nth")
    columns = (Runs.dag_id, Runs.run_id, Runs.state, Runs.run_after, Runs.start_date, Runs.end_date)
    ranked = select(*columns, nth).where(Runs.dag_id.in_(wanted)).subquery()
    latest = select(ranked).where(ranked.c.nth <= _LAST).order_by(ranked.c.dag_id, ranked.c.nth)
    runs: dict[str, list[DagRun]] = defaultdict(list)
    for dag, run_id, state, at, began, ended, _ in session.execute(latest):
        seconds = round((ended - began).total_seconds(), 1) if began and ended else None
        runs[dag].append(DagRun(run_id, str(state), at, seconds))
    models = select(DagModel.dag_id, DagModel.is_paused).where(DagModel.dag_id.in_(wanted), ~DagModel.is_stale)
    known = {dag: Dag(dag, bool(paused), tuple(runs[dag])) for dag, paused in session.execute(models)}
    return [known[dag] for dag in wanted if dag in known]
