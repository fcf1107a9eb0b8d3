"""What the page serves beside its data: its own files with Chart.js, and pages of the runbook as HTML."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from twofold.settings import Settings

_WEB = Path(__file__).with_name("web")
_OWN = ("page.html", "page.css", "page.js", "parts.js", "charts.js", "format.js", "frame.js")
FILES = {
    **{name: _WEB / name for name in _OWN},
    "chart.js": Path(str(files("chartkick"))) / "django" / "static" / "chartkick" / "Chart.bundle.js",
}
"""All that is served, by name: nothing else of any folder can be asked for."""
_PAGE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LINK = re.compile(r"([a-z0-9-]+)\.md(#.*)?")


def runbook_address(settings: Settings, name: str) -> str:
    """Where a page of the runbook is read, from the status page's own address; empty: there is no such page."""
    if "://" in settings.runbooks_url:
        return f"{settings.runbooks_url.rstrip('/')}/{name}.md"
    return f"runbooks/{name}" if _page(settings, name) else ""


def runbook_html(settings: Settings, name: str) -> str | None:
    """A page of the runbook as an HTML fragment, HTML in it escaped; None where there is no such page here."""
    page = _page(settings, name)
    if page is None:
        return None
    engine = MarkdownIt("commonmark", {"html": False}).enable("table")
    engine.add_render_rule("link_open", _to_page)
    return str(engine.render(page.read_text()))


def _page(settings: Settings, name: str) -> Path | None:
    """A page's file, if the pages are on this machine and it is one of them."""
    # The setting's default is relative to the checkout, whatever folder the API server runs in.
    file = settings.plugins.parent / settings.runbooks_url / f"{name}.md"
    return file if "://" not in settings.runbooks_url and _PAGE_NAME.fullmatch(name) and file.is_file() else None


def _to_page(self: Any, tokens: Any, number: int, options: Any, env: Any) -> str:  # noqa: ANN401
    """A link from page to page of the runbook is one here, too."""
    token = tokens[number]
    if page := _LINK.fullmatch(str(token.attrGet("href"))):
        token.attrSet("href", page[1] + (page[2] or ""))
    return str(self.renderToken(tokens, number, options, env))
