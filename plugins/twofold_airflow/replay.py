"""The replay as a task: plans it, and carries it out unless it is a dry run. Without Airflow: `twofold replay`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from twofold.definition.load import load_pipeline
from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold_airflow.failure import failed
from twofold_airflow.links import Linked

if TYPE_CHECKING:
    from twofold.lake import Lake
    from twofold.replay import Plan

LANDINGS = "landings"
MENDED = "mended"


class ReplayOperator(Linked):
    """Plan a replay; on a dry run tell the plan and skip the rest, else put the copies into the inbox."""

    def __init__(self, *, pipeline: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.pipeline = pipeline

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the form; the run's id is the label, so a retry puts the same copies."""
        # Here and not above: it takes a second that no parsing of a DAG file has to spare.
        from twofold import replay
        from twofold.lake import Lake

        form, settings, run = context["params"], Settings(), str(context["run_id"])
        try:
            lake = Lake(settings, load_pipeline(settings, self.pipeline))
            plan = self._plan(lake, form, run)
            if not form["dry_run"]:
                replay.carry_out(lake, plan)
        except TwofoldError as error:
            raise AirflowFailException(failed(error.message, error.remedy, "replay-refused")) from None
        told = {**asdict(plan), "done": not form["dry_run"]}
        self._tell(plan)
        if form["dry_run"]:
            context["ti"].xcom_push("return_value", told)
            raise DownstreamTasksSkipped(tasks=sorted(self.downstream_task_ids))  # type: ignore[no-untyped-call]
        return told

    def _plan(self, lake: Lake, form: Any, run: str) -> Plan:  # noqa: ANN401
        from twofold import replay

        if form["what"] == MENDED:
            files = [Path(line.strip()) for line in form["files"].splitlines() if line.strip()]
            return replay.plan_mended(lake.name, files, run)
        return replay.plan_landings(lake, form["first"], form["last"], run)

    def _tell(self, plan: Plan) -> None:
        for copy in plan.copies:
            self.log.info("%s (%s bytes) as %s", copy.source, f"{copy.size_bytes:,}", copy.target)
        for line in plan.left_out:
            self.log.warning("left out: %s", line)
