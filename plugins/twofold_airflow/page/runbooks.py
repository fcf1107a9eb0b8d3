"""Pages of the runbook: where they are, and as HTML for those who read them in the UI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from twofold.settings import Settings

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LINK = re.compile(r"([a-z0-9-]+)\.md(#.*)?")


def folder(settings: Settings) -> Path | None:
    """Where the pages are on this machine; None where they are at an address."""
    if "://" in settings.runbooks_url:
        return None
    # The setting's default is relative to the checkout, whatever folder the API server runs in.
    return settings.plugins.parent / settings.runbooks_url


def address(settings: Settings, name: str) -> str:
    """Where a page of the runbook is read, from the status page's own address; empty: there is no such page."""
    place = folder(settings)
    if place is None:
        return f"{settings.runbooks_url.rstrip('/')}/{name}.md"
    return f"runbooks/{name}" if _NAME.fullmatch(name) and (place / f"{name}.md").is_file() else ""


def as_html(settings: Settings, name: str) -> str | None:
    """A page as an HTML fragment, HTML in it escaped; None where there is no such page."""
    place = folder(settings)
    if place is None or not _NAME.fullmatch(name):
        return None
    try:
        text = (place / f"{name}.md").read_text()
    except FileNotFoundError:
        return None
    return str(_markdown().render(text))


def _markdown() -> MarkdownIt:
    engine = MarkdownIt("commonmark", {"html": False}).enable("table")
    engine.add_render_rule("link_open", _to_page)
    return engine


def _to_page(self: Any, tokens: Any, number: int, options: Any, env: Any) -> str:  # noqa: ANN401
    """A link from page to page of the runbook is one here, too."""
    token = tokens[number]
    if page := _LINK.fullmatch(str(token.attrGet("href"))):
        token.attrSet("href", page[1] + (page[2] or ""))
    return str(self.renderToken(tokens, number, options, env))
