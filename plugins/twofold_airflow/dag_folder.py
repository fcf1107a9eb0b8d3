"""The folder of DAG files, read as soon as a pipeline file changes.

Airflow by itself reads a DAG file again when that file changes, or every few minutes. What ours declare is in the
pipeline files, and to read them all every few seconds costs as much as a pipeline that is live.

    pipelines/*.yaml ── changed since the last look ──► each DAG file is asked for, as by the button in Airflow's UI
"""

from __future__ import annotations

import time
from functools import cached_property

from airflow.configuration import conf
from airflow.dag_processing.bundles.local import LocalDagBundle

from twofold.definition.watch import FolderWatch
from twofold.settings import Settings

_AGAIN_S = 15


class DagFolder(LocalDagBundle):
    """The bundle of the folder of DAGs, whose DAG processor looks at the pipeline files, too."""

    @cached_property
    def _pipelines(self) -> FolderWatch:
        # Airflow forgets a request for a file that it is reading, and takes a DAG away only when its file has not had
        # it for this long.
        stale_s = conf.getint("dag_processor", "stale_dag_threshold")
        return FolderWatch(Settings().pipelines, (0, _AGAIN_S, stale_s + _AGAIN_S))

    def refresh(self) -> None:
        """Ask for the DAG files where a pipeline file changed; called by the DAG processor alone, every few seconds."""
        now = time.monotonic()
        if self._pipelines.is_due(now):
            self._ask()
            self._pipelines.done(now)

    def _ask(self) -> None:
        # A task's process imports this module, too, and has no database.
        from airflow.models.dagbag import DagPriorityParsingRequest
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            asked_for = select(DagPriorityParsingRequest.relative_fileloc).filter_by(bundle_name=self.name)
            wanted = {file.name for file in self.path.glob("*.py")} - set(session.scalars(asked_for))
            session.add_all(DagPriorityParsingRequest(self.name, name) for name in sorted(wanted))
