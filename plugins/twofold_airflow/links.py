"""Links from a task to the pages that show its pipeline: Grafana, the status page, the Spark UI.

Only those whose address is in the settings are shown; `{pipeline}` in an address becomes the pipeline's name.
"""

from __future__ import annotations

import attrs
from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey

from twofold.settings import Settings

_PAGES = {"Grafana": "grafana_url", "Status page": "status_page_url", "Spark UI": "spark_ui_url"}
"""Name of a link → the setting that has its address."""


@attrs.define()
class PageLink(BaseOperatorLink):
    """One link, with the address of one pipeline."""

    title: str
    address: str

    @property
    def name(self) -> str:
        """The text of the link."""
        return self.title

    @property
    def xcom_key(self) -> str:
        """Where the address is kept for the UI."""
        return f"_link_{self.title.replace(' ', '_').lower()}"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address."""
        return self.address


def pages(pipeline: str) -> tuple[PageLink, ...]:
    """The links of a pipeline's tasks."""
    settings = Settings()
    addresses = {title: str(getattr(settings, name)) for title, name in _PAGES.items()}
    return tuple(
        PageLink(title, address.replace("{pipeline}", pipeline)) for title, address in addresses.items() if address
    )


class Linked(BaseOperator):
    """An operator that has a `pipeline`: its tasks link to the pages that show it."""

    pipeline: str

    @property
    def operator_extra_links(self) -> tuple[PageLink, ...]:  # type: ignore[override]
        """Pages that show the pipeline."""
        return pages(self.pipeline)
