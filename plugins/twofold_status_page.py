"""The status page's place in Airflow: its app, and its entry in the navigation. Airflow runs this file to find it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

PREFIX = "/twofold"
_BASE_PATH = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")


class StatusPage(AirflowPlugin):
    """Twofold's status page, under `/twofold/` and in the UI's navigation."""

    name = "twofold_status_page"

    @property
    def external_views(self) -> list[Any]:  # type: ignore[override]
        """The entry in the navigation: the UI shows the page in a frame of its own."""
        href = f"{_BASE_PATH}{PREFIX}/"
        return [{"name": "Twofold", "href": href, "destination": "nav", "url_route": "twofold", "nav_top_level": True}]

    @property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """Imported when the API server asks: every process of Airflow loads its plugins, each task's too."""
        from twofold_airflow.page.app import app

        return [{"app": app, "url_prefix": PREFIX, "name": "Twofold status page"}]
