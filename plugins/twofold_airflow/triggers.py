"""The trigger that watches a service until it is healthy; it only looks, and stops nothing, however it ends itself.

every few seconds: look ─► judge ─┬─ healthy, finished ─► the task succeeds here, without a worker
                                                ├─ stopped manually ──► it is skipped, the same way
                                                ├─ left down, stuck ──► back to the task
                                                └─ not yet ───────────► looks again; back to the task when time is up
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from pydantic import JsonValue

from twofold.definition.load import load_pipeline
from twofold.errors import NotRunning
from twofold.services.controller import Controller
from twofold.services.verdict import Look, Verdict, judge
from twofold.settings import Settings
from twofold_airflow.wiring import pages

_LOOKS_KEPT = 1_000
"""With a pause of a second, too, they reach further back than the two minutes after which silence is a hang."""


class ServiceHealthTrigger(BaseTrigger):
    """Look at a service until there is a verdict, at most `until` (Unix seconds): a restarted triggerer continues."""

    def __init__(self, pipeline: str, service: str, until: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pipeline = pipeline
        self.service = service
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, to be recreated in another process."""
        arguments = {"pipeline": self.pipeline, "service": self.service, "until": self.until}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: how it ended."""
        settings = Settings()
        looks: deque[Look] = deque(maxlen=_LOOKS_KEPT)
        while True:
            verdict = await asyncio.to_thread(self._judged, settings, looks)
            self.log.info("%s-%s: %s: %s", self.pipeline, self.service, verdict.kind, verdict.reason)
            if verdict.kind != "not yet" or time.time() >= self.until:
                yield self._event(verdict)
                return
            await asyncio.sleep(settings.service_sample_every_s)

    def _judged(self, settings: Settings, looks: deque[Look]) -> Verdict:
        """Look once more. A supervisor that does not answer now may answer soon; nothing is known meanwhile."""
        declared, controller = load_pipeline(settings, self.pipeline), Controller(settings)
        try:
            looks.append(controller.look(declared, controller.state(self.pipeline, self.service)))
        except NotRunning as error:
            looks.clear()
            return Verdict("not yet", error.message)
        return judge(self.service, tuple(looks), controller.limits(declared))

    def _event(self, verdict: Verdict) -> TriggerEvent:
        xcoms: dict[str, JsonValue] = {"return_value": verdict.reason}
        xcoms |= {page.xcom_key: page.address for page in pages(self.pipeline)}
        if verdict.fine:
            return TaskSuccessEvent(xcoms=xcoms)
        if verdict.kind == "stopped":
            return TaskSkippedEvent(xcoms=xcoms)
        return TriggerEvent(asdict(verdict))  # type: ignore[no-untyped-call]
