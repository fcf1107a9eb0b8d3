"""The comparison of the two layers as a task: no JVM, so no slot of the Spark pool. By hand: `twofold compare`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from airflow.sdk import Context

from twofold.definition.load import load_pipeline
from twofold.settings import Settings
from twofold_airflow.links import Linked


class CompareOperator(Linked):
    """Compare the layers in the windows that unions changed; send the numbers as metrics, and keep them."""

    def __init__(self, *, pipeline: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.pipeline = pipeline

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare; repeated with no union in between, it tells the same again."""
        # Here and not above: it takes a second that no parsing of a DAG file has to spare.
        from twofold import comparison
        from twofold.lake import Lake

        settings = Settings()
        return asdict(comparison.compare_and_send(Lake(settings, load_pipeline(settings, self.pipeline))))
