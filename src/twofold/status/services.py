"""The long-running services of a pipeline, as they tell of themselves.

<home>/run/<p>-<service>.json ─► where ─► GET /healthz ─► Service
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from twofold.services.record import SERVICES
from twofold.settings import Settings
from twofold.status.model import Service

_TIMEOUT_S = 1.0

Told = Mapping[str, Any]
"""The body of a `/healthz`; empty: it does not answer."""


def told(settings: Settings, pipeline: str) -> dict[str, Told]:
    """What each service says of itself."""
    return {name: _ask(settings, pipeline, name) for name in SERVICES}


def service(name: str, says: Told) -> Service:
    """One service, by what it says."""
    if not says:
        return Service(name, "not running")
    text = f"{says['state']}: {says['problem']}" if says.get("problem") else ""
    return Service(name, says["state"], running=True, healthy=says.get("healthy", True), text=text)


def _ask(settings: Settings, pipeline: str, name: str) -> Told:
    try:
        place = json.loads((settings.home / "run" / f"{pipeline}-{name}.json").read_text())
        with urlopen(f"http://{place['host']}:{place['port']}/healthz", timeout=_TIMEOUT_S) as answer:
            return dict(json.load(answer))
    except HTTPError as error:
        return dict(json.load(error))  # 503: it answers, and is not well
    except (OSError, ValueError):
        return {}
