"""All that the page shows, for one user: each readable pipeline's status, DAGs and problems.

pipelines/*.yaml ─► readable by the user ─► Gatherer.status, runs.dags ─► plain JSON
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from sqlalchemy.orm import Session

from twofold.definition.load import load_sound
from twofold.definition.model import Pipeline
from twofold.settings import Settings
from twofold.status.gather import Gatherer
from twofold.status.model import Problem
from twofold.status.problems import worst_first
from twofold_airflow.page import access, advice, runbooks, runs


class Overview:
    """Keeps a gatherer per pipeline, so that what does not change is read once for all who look."""

    def __init__(self) -> None:
        self._gatherers: dict[str, Gatherer] = {}
        self._lock = Lock()

    def of(self, user: BaseUser, session: Session) -> dict[str, Any]:
        """Everything this user may see."""
        settings = Settings()
        sound, faults = load_sound(settings.pipelines)
        names = access.readable(user, sound)
        refused = sorted({fault.file for fault in faults if access.may_read(user, Path(fault.file).stem)})
        return {
            "at": datetime.now(UTC).isoformat(),
            "pipelines": [self._one(settings, sound[name], session) for name in names],
            "hidden": len(names) < len(sound),
            "problems": _plain(settings, _faulty(refused)),
        }

    def _one(self, settings: Settings, pipeline: Pipeline, session: Session) -> dict[str, Any]:
        wanted = access.dag_ids(pipeline.name)
        dags = runs.dags(session, wanted)
        status = self._gatherer(settings, pipeline).status()
        return {
            "name": pipeline.name,
            "topic": pipeline.topic.name,
            "status": status.to_json(),
            "dags": [asdict(dag) for dag in dags],
            "problems": _plain(settings, [*status.problems, *advice.problems(wanted, dags)]),
        }

    def _gatherer(self, settings: Settings, pipeline: Pipeline) -> Gatherer:
        """The pipeline's own; a new one where its definition, or a setting, has changed."""
        with self._lock:
            known = self._gatherers.get(pipeline.name)
            if known is None or (known.pipeline, known.settings) != (pipeline, settings):
                known = self._gatherers[pipeline.name] = Gatherer(settings, pipeline)
            return known


def _faulty(files: Iterable[str]) -> list[Problem]:
    return [
        Problem("error", f"{file} has faults, so its pipeline is not run", f"twofold check {file}") for file in files
    ]


def _plain(settings: Settings, problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [
        {**vars(problem), "runbook": runbooks.address(settings, problem.runbook) if problem.runbook else ""}
        for problem in worst_first(problems)
    ]
