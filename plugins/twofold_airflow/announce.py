"""Asset events that tell what is new in a table, at least once and never for nothing.

The last event of the asset itself says what was told already, and the tables say what is there. So a job killed after
its commit, before its event, is announced by the retry or by the next run; and where nothing is new the task skips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk import Asset, BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from twofold.accounts import News
from twofold.settings import Settings

Account = Callable[[Settings, str, Mapping[str, Any]], News | None]
"""One of `twofold.accounts`."""


class AnnounceOperator(BaseOperator):
    """Update `asset` with the counts of what is new since its last event; skipped where nothing is."""

    def __init__(self, *, pipeline: str, asset: Asset, account: Account, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(inlets=[asset], outlets=[asset], **kwargs)
        self.pipeline = pipeline
        self.asset = asset
        self.account = account

    def execute(self, context: Context) -> News:
        """Compare, and put the counts into the event's extra."""
        told = context["inlet_events"][self.asset].ascending(False).limit(1)
        known: Mapping[str, Any] = (told[0].extra or {}) if len(told) else {}
        news = self.account(Settings(), self.pipeline, known)
        if news is None:
            raise AirflowSkipException(f"nothing new in {self.asset.uri}")
        context["outlet_events"][self.asset].extra.update(news)
        return news
