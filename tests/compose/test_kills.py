"""Every server and job is killed once: its container comes back by itself, records go on landing, the proof holds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.compose.conftest import Stack, patiently
from tests.compose.test_flow import rows


@pytest.mark.parametrize("service", ["kafka", "streaming-job", "object-store", "postgres", "spark-worker"])
def test_nothing_is_lost_by_a_kill(stack: Stack, service: str) -> None:
    before = rows(stack, "stream_log")
    stack.crash(service)
    patiently(lambda: rows(stack, "stream_log") > before)

    def proved() -> bool:
        """Nothing is violated, and what was acknowledged is landed; views follow as long as records come."""
        report: dict[str, Any] = stack.prove()
        assert report["ok"], report
        return not any(each["behind"] for each in report["invariants"] if each["id"] in ("I1", "I2"))

    patiently(proved)
