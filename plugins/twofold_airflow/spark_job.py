"""The operator for Twofold's Spark jobs: the Spark provider's, with the job's own report and error message.

    task ─► look ─► spark-submit ─► JVM ─► python spark_jobs/<job>_job.py <pipeline> … --outcome FILE
      ▲       └─ nothing new: no JVM ───┐                                                │
      └── XCom: the report │ failure: sentence, remedy, runbook ◄────────────────────────┘

The job reads its settings from the environment of the task, so no secret stands on a command line. Without Airflow:
`twofold batch|union|maintain <pipeline>`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from twofold.errors import TwofoldError
from twofold.launch import configuration, jobs_folder
from twofold.settings import Settings
from twofold_airflow.wiring import SPARK_POOL, PipelineOperator, failed

_USAGE = 2
"""Exit code of a wrong command line or definition: a retry does not fix it."""


class SparkJobOperator(PipelineOperator, SparkSubmitOperator):
    """Run `spark_jobs/<job>_job.py` for a pipeline; its report is the task's XCom.

    A job that wrote its report has done its work, even where it warns (and so exits with 1): the warnings are in it.
    `only`: for which `what` of the DAG's form it runs, else it is skipped, also where somebody clears it.
    """

    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        pipeline: str,
        job: str,
        arguments: Sequence[str] = (),
        short_lived: bool = True,
        only: Sequence[str] = (),
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(
            pipeline=pipeline,
            application=str(jobs_folder() / f"{job}_job.py"),
            application_args=[pipeline, *arguments],
            conf=configuration(Settings(), short_lived),
            name=f"twofold-{pipeline}-{job}",
            pool=SPARK_POOL,
            **kwargs,
        )
        self.job = job
        self.only = tuple(only)
        self.runbook = f"{job}-failed"

    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]
        """Look whether there is work; then submit the job, and wait for its end."""
        if self.only and context["params"]["what"] not in self.only:
            raise AirflowSkipException(f"it is for {' or '.join(self.only)}")
        if (report := self._idle()) is not None:
            return report
        with tempfile.TemporaryDirectory(prefix="twofold-") as folder:
            outcome = Path(folder, "outcome.json")
            self.application_args = [*(self.application_args or []), "--outcome", str(outcome)]
            said = "spark-submit ended well, but the job wrote no report"
            try:
                super().execute(context)
            except AirflowException as error:
                said = str(error)
            return self._report(outcome, said)

    def _idle(self) -> dict[str, Any] | None:
        """The report of a run that has nothing to do."""
        from twofold import looks

        try:
            report = looks.idle(self.lake(), self.job)
        except TwofoldError as error:
            raise self._failure(error.message, error.remedy, error.exit_code) from None
        # With the same types as a job's, which comes as JSON.
        found: dict[str, Any] | None = json.loads(json.dumps(report))
        return found

    def on_kill(self) -> None:
        """End all processes that the task's process has started, even if spark-submit itself is gone."""
        tree = psutil.Process().children(recursive=True)
        super().on_kill()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _report(self, outcome: Path, said: str) -> dict[str, Any]:
        ending = json.loads(outcome.read_text()) if outcome.exists() else {}
        if "report" in ending:
            report: dict[str, Any] = ending["report"]
            return report
        if "error" in ending:
            raise self._failure(ending["error"], ending["remedy"], ending["exit_code"]) from None
        raise AirflowException(failed(f"the job ended without a report: {said}", "", self.runbook)) from None

    def _failure(self, what: str, remedy: str, exit_code: int) -> AirflowException:
        kind = AirflowFailException if exit_code == _USAGE else AirflowException
        return kind(failed(what, remedy, self.runbook))
