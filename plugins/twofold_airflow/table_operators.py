"""Operators of a pipeline's tables: announce what is new, check, compare the layers, replay. All but Spark's jobs.

Code that reads tables is imported where it is used: the import takes a second, too long for parsing a DAG file.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from twofold import tables
from twofold.errors import TwofoldError, UsageError
from twofold.text import counted
from twofold_airflow.wiring import PipelineOperator, asset, failed

if TYPE_CHECKING:
    from twofold.lake import Lake
    from twofold.replay import Plan

LANDINGS = "landings"
MENDED = "mended"
RELAND = "reland"
"""What is replayed; the last one is also the task that does it, by itself."""
LOSS = "accept-loss"
"""Nothing is replayed: what Kafka no longer has is accepted as lost."""
_OF = {"first": (LANDINGS, 1), "last": (LANDINGS, None), "files": (MENDED, ""), "since": (RELAND, "")}
"""Field of the form → what it is for, and what it is unless somebody sets it."""


class AnnounceOperator(PipelineOperator):
    """Update the asset of a table with the counts of what is new since its last event; skipped where nothing is.

    The asset's own last event says what was announced, and the tables say what exists. So a job killed after its
    commit, before its event, is announced by the retry or by the next run: at least once, and never for nothing.
    """

    def __init__(self, *, pipeline: str, table: str, **kwargs: Any) -> None:  # noqa: ANN401
        self.asset, self.table = asset(pipeline, table), table
        super().__init__(pipeline=pipeline, inlets=[self.asset], outlets=[self.asset], **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare, and put the counts into the event's extra."""
        from twofold.lake import Lake

        since = {tables.BATCH_LOG: Lake.landed_since, tables.EVENTS: Lake.unioned_since}[self.table]
        last = context["inlet_events"][self.asset].ascending(False).limit(1)
        news = since(self.lake(), (last[0].extra or {}) if len(last) else {})
        if news is None:
            raise AirflowSkipException(f"nothing new in {self.asset.uri}")
        context["outlet_events"][self.asset].extra.update(news)
        return news


class LandedFilesCheck(PipelineOperator):
    """Fail while a file lies in the inbox that could not be read."""

    def execute(self, context: Context) -> None:
        """List them, each with its reason."""
        unread = self.lake().set_aside()
        if unread:
            what = "\n".join(f"{name}: {reason}" for name, reason in unread.items())
            remedy = f"fix each and land it again (`twofold land {self.pipeline} FILE`), or take it out of the inbox"
            said = f"{counted(len(unread), 'file')} could not be read:\n{what}"
            raise AirflowFailException(failed(said, remedy, "files-set-aside"))
        self.log.info("every file of the inbox could be read")


class LimitsCheck(PipelineOperator):
    """Fail where the last comparison of the layers is beyond the limits that the pipeline's file declares."""

    def execute(self, context: Context) -> None:
        """Judge the kept comparison: it needs nothing from the run that made it."""
        from twofold import comparison

        lake = self.lake()
        found = comparison.latest(lake.settings, lake.name)
        faults = comparison.beyond(found, lake.pipeline.limits) if found else []
        if faults:
            remedy = "see whether the speed layer is behind, or files are wrong; else raise `limits` in the definition"
            raise AirflowFailException(failed("\n".join(faults), remedy, "limit-passed"))
        self.log.info("within limits: %s: %s", found.change if found else "nothing was compared yet", found)


class CompareOperator(PipelineOperator):
    """Compare the layers in the windows that unions changed; send the numbers as metrics, and keep them.

    No JVM, so no slot of the Spark pool. Without Airflow: `twofold compare`.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare; repeated with no union in between, it reports the same again."""
        from twofold import comparison

        return asdict(comparison.compare_and_send(self.lake()))


class ProveOperator(PipelineOperator):
    """Check the invariants: on what changed since the last proof, and once a week on everything.

    No JVM, so no slot of the Spark pool. Without Airflow: `twofold prove`.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Prove; what is violated fails for good, as a retry would find the same."""
        from twofold.proof import last_proof
        from twofold.proof.prover import LONGEST_WAIT_S, prove

        lake = self.lake()
        in_full = last_proof.is_due_in_full(last_proof.load(lake), datetime.now(UTC))
        proof = prove(lake, LONGEST_WAIT_S, self.log.info, since_last=not in_full)
        if proof.exit_code == 1:
            wrong = [one for one in proof.checks if not one.ok or one.stuck]
            what = "\n".join(line for one in wrong for line in (f"{one.id} {one.state}: {one.text}", *one.offenders))
            remedy = f"`twofold prove {self.pipeline}` checks everything again; the page says what each means"
            raise AirflowFailException(failed(what, remedy, "invariant-violated"))
        return {
            "since": proof.since and proof.since.isoformat(),
            "states": {check.id: check.state for check in proof.checks},
        }


class ReplayOperator(PipelineOperator):
    """Plan a replay; on a dry run report the plan and skip the rest, else put the copies into the inbox.

    Records that are judged again have no plan: their own task reports what would change.

    Without Airflow: `twofold replay`.
    """

    def execute(self, context: Context) -> NoReturn:
        """Read the form; the run's id is the label, so a retry puts the same copies."""
        from twofold import loss, replay

        form, run = context["params"], str(context["run_id"])
        try:
            _refuse_ignored(form)
            if form["what"] == RELAND:
                raise _only({RELAND}, self)
            lake = self.lake()
            if form["what"] == LOSS:
                found = loss.look(lake)
                for one in found.lost:
                    self.log.warning("lost: %s", loss.sentence(lake.pipeline.topic.name, one))
                if found.lost and not form["dry_run"]:
                    loss.accept(lake, found)
                raise _only(set(), self)
            plan = self._plan(lake, form, run)
            if not form["dry_run"]:
                replay.carry_out(lake, plan)
        except TwofoldError as error:
            raise AirflowFailException(failed(error.message, error.remedy, "replay-refused")) from None
        for copy in plan.copies:
            self.log.info("%s (%s bytes) as %s", copy.source, f"{copy.size_bytes:,}", copy.target)
        for line in plan.left_out:
            self.log.warning("left out: %s", line)
        report = {**asdict(plan), "done": not form["dry_run"]}
        context["ti"].xcom_push("return_value", report)
        raise _only(set() if form["dry_run"] else self.downstream_task_ids - {RELAND}, self)

    def _plan(self, lake: Lake, form: Any, run: str) -> Plan:  # noqa: ANN401
        from twofold import replay

        if form["what"] == MENDED:
            files = [Path(line.strip()) for line in form["files"].splitlines() if line.strip()]
            return replay.plan_mended(lake.name, files, run)
        return replay.plan_landings(lake, form["first"], form["last"], run)


def _refuse_ignored(form: Any) -> None:  # noqa: ANN401
    """UsageError where a field is set that says nothing of what is asked for."""
    for name, (what, default) in _OF.items():
        if what != form["what"] and form[name] != default:
            said = f"{name} is set to {form[name]!r}, which is for `what: {what}` and not for `{form['what']}`"
            raise UsageError(said, f"set `what: {what}`, or leave {name} as the form has it")


def _only(tasks: set[str], operator: BaseOperator) -> DownstreamTasksSkipped:
    """What makes only these follow, of the tasks behind an operator."""
    return DownstreamTasksSkipped(tasks=sorted(operator.downstream_task_ids - tasks))  # type: ignore[no-untyped-call]
