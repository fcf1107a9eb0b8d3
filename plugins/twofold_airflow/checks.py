"""Checks of what the jobs left behind. They fail with the numbers, and are not tried again: it would not help.

What reads tables is imported where it is used: it takes a second that no parsing of a DAG file has to spare.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException

from twofold.definition.load import load_pipeline
from twofold.settings import Settings
from twofold_airflow.failure import failed
from twofold_airflow.links import Linked


class _Check(Linked):
    """A check of one pipeline."""

    def __init__(self, *, pipeline: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**{**kwargs, "retries": 0})
        self.pipeline = pipeline


class LandedFilesCheck(_Check):
    """Fail while a file lies in the inbox that could not be read."""

    def execute(self, context: Context) -> None:
        """List them, each with its reason."""
        from twofold.lake import Lake

        settings = Settings()
        unread = Lake(settings, load_pipeline(settings, self.pipeline)).set_aside()
        if unread:
            what = "\n".join(f"{name}: {reason}" for name, reason in unread.items())
            remedy = f"mend each and land it again (`twofold land {self.pipeline} FILE`), or take it out of the folder"
            count = f"{len(unread)} file{'s' if len(unread) > 1 else ''} could not be read"
            raise AirflowFailException(failed(f"{count}:\n{what}", remedy, "files-set-aside"))
        self.log.info("every file of the inbox could be read")


class LimitsCheck(_Check):
    """Fail where the last comparison of the layers is beyond the limits that the pipeline's file declares."""

    def execute(self, context: Context) -> None:
        """Judge the kept comparison: it needs nothing from the run that made it."""
        from twofold import comparison

        settings = Settings()
        found = comparison.latest(settings, self.pipeline)
        faults = comparison.beyond(found, load_pipeline(settings, self.pipeline).limits) if found else []
        if faults:
            remedy = "see whether the speed layer is behind, or files are wrong; else raise `limits` in the definition"
            raise AirflowFailException(failed("\n".join(faults), remedy, "limit-passed"))
        self.log.info("within limits: %s", found)
