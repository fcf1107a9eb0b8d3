"""Every server and job is killed once: its container comes back by itself, records go on landing, the proof holds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.at_work import eventually
from tests.compose.conftest import PATIENT, Stack
from tests.compose.test_flow import rows


@pytest.mark.parametrize("service", ["kafka", "streaming-job", "object-store", "postgres", "spark-worker"])
def test_nothing_is_lost_by_a_kill(stack: Stack, service: str) -> None:
    before = rows(stack, "stream_log")
    stack.crash(service)
    eventually(lambda: rows(stack, "stream_log") > before, **PATIENT)
    report: dict[str, Any] = {}

    def caught_up() -> bool:
        report.update(stack.prove())
        assert report["ok"], report
        return not report["behind"]

    eventually(caught_up, **PATIENT)
