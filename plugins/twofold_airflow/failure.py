"""What a failed task says: what happened, what to do about it, and the page that tells more."""

from __future__ import annotations

from twofold.services.controller import runbook as address
from twofold.settings import Settings


def failed(what: str, remedy: str, runbook: str) -> str:
    """The text of a task's failure; `runbook` is the name of a page under docs/runbooks, without its ending."""
    lines = (what, f"remedy: {remedy}" if remedy else "", f"runbook: {address(Settings(), runbook)}")
    return "\n".join(line for line in lines if line)
