"""The folder of DAG files, read as soon as a pipeline file changes.

Airflow by itself reads a DAG file again when that file changes, or every few minutes. What ours declare is in the
pipeline files, and to read them all every few seconds costs as much as a pipeline that is live.

    pipelines/*.yaml ── changed since the last look ──► each DAG file is asked for, as by the button in Airflow's UI
"""

from __future__ import annotations

import time
from typing import Any

from airflow.dag_processing.bundles.local import LocalDagBundle

from twofold.definition.watch import folder_content
from twofold.settings import Settings

_READ_AFTER_S = (0, 15, 75)
"""When to read after a change: Airflow forgets a request for a file that it is reading, and only removes a DAG that a
file has not had for 50 s."""


class DagFolder(LocalDagBundle):
    """The bundle of the folder of DAGs, whose DAG processor looks at the pipeline files, too."""

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(**arguments)
        self._seen: dict[str, bytes] | None = None
        self._due: list[float] = []

    def refresh(self) -> None:
        """Ask for the DAG files where a pipeline file changed; called by the DAG processor every few seconds."""
        found, now = folder_content(Settings().pipelines), time.monotonic()
        if self._seen not in (None, found):
            self._due = [now + after for after in _READ_AFTER_S]
        self._seen = found
        if self._due and self._due[0] <= now:
            self._due = [moment for moment in self._due if moment > now]
            # A task's process knows this class, too, and has no database.
            from airflow.models.dagbag import DagPriorityParsingRequest
            from airflow.utils.session import create_session

            with create_session() as session:
                session.add_all(DagPriorityParsingRequest(self.name, file.name) for file in self.path.glob("*.py"))
