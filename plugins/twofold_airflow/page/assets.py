"""The files of the page: our own, and Chart.js out of the installed package `chartkick`; each compressed once."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
_OWN = files(__package__) / "web"
_FILES: dict[str, Traversable] = {
    "page.html": _OWN / "page.html",
    "page.css": _OWN / "page.css",
    **{name: _OWN / name for name in ("page.js", "parts.js", "charts.js", "format.js", "frame.js")},
    "chart.js": files("chartkick") / "django" / "static" / "chartkick" / "Chart.bundle.js",
}
"""All that is served, by name: nothing else of any folder can be asked for."""


@dataclass(frozen=True)
class Asset:
    """One file as it goes over the wire."""

    content: bytes
    gzipped: bytes
    media_type: str
    etag: str


@cache
def asset(name: str) -> Asset | None:
    """One file; None where there is none of that name."""
    if name not in _FILES:
        return None
    content = _FILES[name].read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    return Asset(content, gzip.compress(content, mtime=0), _TYPES[name.rpartition(".")[2]], etag)
