"""Checks of what the jobs left behind. They fail with the numbers, and are not tried again: it would not help."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException

from twofold import accounts
from twofold.settings import Settings
from twofold_airflow.failure import failed


class LandedFilesCheck(BaseOperator):
    """Fail while a file lies in the landing folder that could not be read."""

    def __init__(self, *, pipeline: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**{**kwargs, "retries": 0})
        self.pipeline = pipeline

    def execute(self, context: Context) -> None:
        """List them, each with its reason."""
        unread = accounts.set_aside(Settings(), self.pipeline)
        if unread:
            what = "\n".join(f"{name}: {reason}" for name, reason in unread.items())
            remedy = f"mend each and land it again (`twofold land {self.pipeline} FILE`), or take it out of the folder"
            raise AirflowFailException(failed(f"{len(unread)} files set aside:\n{what}", remedy, "files-set-aside"))
        self.log.info("no file of the landing folder is set aside")
