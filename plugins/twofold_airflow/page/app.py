"""The routes of the status page. Each depends on `access.reader`, the files of the page included.

All are plain functions, so FastAPI runs them in its thread pool: gathering never holds the API server's event loop.
"""

from __future__ import annotations

from html import escape
from typing import Any

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import Depends, FastAPI, HTTPException, Request, Response, status
from fastapi.encoders import jsonable_encoder
from fastapi.responses import HTMLResponse, JSONResponse

from twofold.settings import Settings
from twofold_airflow.page import assets, runbooks
from twofold_airflow.page.access import Reader, reader
from twofold_airflow.page.overview import Overview

_HEADERS = {
    # Chart.js draws on a canvas and sets styles by script, which `style-src` does not concern.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_RUNBOOK = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<link rel="stylesheet" href="../static/page.css"><script type="module" src="../static/frame.js"></script>
<body><main class="runbook"><p><a href="../">← Status</a></p>{body}</main></body></html>"""

# No openapi.json, no /docs: they would be routes that ask nobody who they are.
app = FastAPI(title="Twofold", openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(reader)])
_overview = Overview()


@app.get("/")
def page(request: Request) -> Response:
    """The page; its data come by `status.json`."""
    return _file(request, "page.html")


@app.get("/static/{name}")
def static(request: Request, name: str) -> Response:
    """A script or style of the page."""
    return _file(request, name)


@app.get("/status.json")
def status_json(user: Reader, session: SessionDep) -> Response:
    """What the page shows, for this user, now."""
    content: Any = jsonable_encoder(_overview.of(user, session))
    return JSONResponse(content, headers={**_HEADERS, "Cache-Control": "no-store"})


@app.get("/runbooks/{name}")
def runbook(name: str) -> Response:
    """A page of the runbook."""
    body = runbooks.as_html(Settings(), name)
    if body is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such page of the runbook.")
    return HTMLResponse(_RUNBOOK.format(title=escape(name), body=body), headers=_HEADERS)


def _file(request: Request, name: str) -> Response:
    """A file of the page: compressed, and sent once to each browser, which asks whether it has changed."""
    found = assets.asset(name)
    if found is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such file.")
    # private: who may have it is for each user. no-cache: ask first, so that an upgrade shows at once.
    headers = {**_HEADERS, "Cache-Control": "private, no-cache", "ETag": found.etag, "Vary": "Accept-Encoding, Cookie"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.gzipped, media_type=found.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(found.content, media_type=found.media_type, headers=headers)
