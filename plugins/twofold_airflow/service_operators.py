"""Operators for a pipeline's long-running services. They ask the services' supervisor; no worker waits for a service.

ServiceOperator ─► start, stop, restart          ServiceHealthSensor ─► ServiceHealthTrigger ─► verdict
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from twofold.definition.load import load_pipeline
from twofold.errors import NotRunning
from twofold.services.controller import Controller
from twofold.services.record import Did
from twofold.services.verdict import Verdict, judge
from twofold.settings import Settings
from twofold_airflow.triggers import ServiceHealthTrigger
from twofold_airflow.wiring import PipelineOperator

ACTIONS = START, STOP, RESTART = ("start", "stop", "restart")
BOTH = "both"
MANUAL = "manual"
_SAY: dict[Did, str] = {
    "started": "started",
    "running": "runs already",
    "finished": "has finished: all is sent, nothing to start; a manual start sends what is new",
    "stopped": "was stopped manually and stays down; start it: action=start of this DAG, or `twofold services`",
    "left down": "is left down, its restarts used up; see the task that judges its health",
}


class ServiceOperator(PipelineOperator):
    """Ask for one service: `start` (a running one is left alone), `stop` or `restart`, if `chosen` names it, or `both`.

    A scheduled run starts only what a person has not stopped, and what has restarts left; a person always does.
    """

    template_fields = ("action", "chosen")

    def __init__(
        self,
        *,
        service: str,
        action: str = START,
        chosen: str = BOTH,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        self.service, self.action, self.chosen = service, action, chosen

    def execute(self, context: Context) -> str:
        """Ask, and report the result."""
        if self.chosen not in (BOTH, self.service):
            return self._logged(f"left as it is: {self.action} was asked for {self.chosen} only")
        try:
            return self._logged(_SAY[self._did(by_hand=context["dag_run"].run_type == MANUAL)])
        except NotRunning as error:
            raise AirflowException(str(error)) from None

    def _did(self, *, by_hand: bool) -> Did:
        controller = Controller(Settings())
        if self.action == STOP:
            controller.stop(self.pipeline, self.service)
            return "stopped"
        if self.action == RESTART:
            return controller.restart(self.pipeline, self.service, by_hand=True)
        return controller.start(self.pipeline, self.service, by_hand=by_hand)

    def _logged(self, text: str) -> str:
        self.log.info("%s-%s %s", self.pipeline, self.service, text)
        return text


class ServiceHealthSensor(PipelineOperator, BaseSensorOperator):
    """Wait until several looks in a row show a healthy service; restart it, within its budget, where it is stuck.

    A service that was lost with its supervisor (a container that came back) is started, at no cost.

    Fails with what was seen, the restarts, the service's last log lines, and what to read.
    """

    def __init__(self, *, service: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.service = service

    def execute(self, context: Context) -> str:
        """Look once; a service without a verdict is then watched by a trigger."""
        settings = Settings()
        declared, controller = load_pipeline(settings, self.pipeline), Controller(settings)
        try:
            seen = controller.look(declared, controller.state(self.pipeline, self.service))
        except NotRunning as error:
            raise AirflowException(str(error)) from None
        verdict = judge(self.service, [seen], controller.limits(declared))
        self.log.info("%s-%s: %s: %s", self.pipeline, self.service, verdict.kind, verdict.reason)
        if verdict.kind in ("not yet", "healthy"):
            self._watch(settings)
        return self._settle(settings, verdict)

    def watched(self, context: Context, event: Any) -> str:  # noqa: ANN401
        """Continue with the trigger's verdict. A task that it ended comes here in `airflow tasks test` only."""
        if not isinstance(event, Mapping):
            return str(event)
        return self._settle(Settings(), Verdict(**event))

    def _watch(self, settings: Settings) -> None:
        until = time.time() + settings.service_healthy_within_s
        self.defer(trigger=ServiceHealthTrigger(self.pipeline, self.service, until), method_name="watched")

    def _settle(self, settings: Settings, verdict: Verdict) -> str:
        if verdict.fine:
            return verdict.reason
        if verdict.kind == "stopped":
            raise AirflowSkipException(f"{self.pipeline}-{self.service}: {verdict.reason}")
        if verdict.kind == "lost":
            did = Controller(settings).start(self.pipeline, self.service, by_hand=False)
            self.log.warning("%s-%s: %s: %s", self.pipeline, self.service, verdict.reason, _SAY[did])
            self._watch(settings)
        if verdict.kind == "stuck" and self._restarted(settings, verdict):
            self._watch(settings)
        raise AirflowFailException(str(Controller(settings).unhealthy(self.pipeline, self.service, verdict))) from None

    def _restarted(self, settings: Settings, verdict: Verdict) -> bool:
        """Whether a restart was still within the budget."""
        did = Controller(settings).restart(self.pipeline, self.service, by_hand=False, why=f"stuck: {verdict.reason}")
        self.log.warning("%s-%s is stuck (%s): %s", self.pipeline, self.service, verdict.reason, _SAY[did])
        return did == "started"
