"""Asset events that tell what is new in a table, at least once and never for nothing.

The last event of the asset itself says what was told already, and the tables say what is there. So a job killed after
its commit, before its event, is announced by the retry or by the next run; and where nothing is new the task skips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Asset, Context
from airflow.sdk.exceptions import AirflowSkipException

from twofold import tables
from twofold.definition.load import load_pipeline
from twofold.settings import Settings
from twofold_airflow.links import Linked


class AnnounceOperator(Linked):
    """Update the asset of a table with the counts of what is new since its last event; skipped where nothing is."""

    def __init__(self, *, pipeline: str, asset: Asset, table: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(inlets=[asset], outlets=[asset], **kwargs)
        self.pipeline = pipeline
        self.asset = asset
        self.table = table

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare, and put the counts into the event's extra."""
        told = context["inlet_events"][self.asset].ascending(False).limit(1)
        news = self._news((told[0].extra or {}) if len(told) else {})
        if news is None:
            raise AirflowSkipException(f"nothing new in {self.asset.uri}")
        context["outlet_events"][self.asset].extra.update(news)
        return news

    def _news(self, known: Mapping[str, Any]) -> dict[str, Any] | None:
        # Here and not above: it takes a second that no parsing of a DAG file has to spare.
        from twofold.lake import Lake

        settings = Settings()
        lake = Lake(settings, load_pipeline(settings, self.pipeline))
        told = {tables.BATCH_LOG: lake.landed_since, tables.EVENTS: lake.unioned_since}
        return told[self.table](known)
