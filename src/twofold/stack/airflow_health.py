"""Health of Airflow's processes: the heartbeats that the API server tells, judged against the start of each process."""

from __future__ import annotations

import http.client
import json
import time
import xmlrpc.client
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from twofold.settings import Settings
from twofold.stack import supervisor
from twofold.supervisor_rpc import UNREACHABLE

TIMEOUT_S = 5.0
_SLACK_S = 2.0
"""supervisord tells starts in whole seconds."""


def check(settings: Settings, process: str) -> str:
    """Why a process is not healthy, or an empty string. The API server is when it answers and has its database."""
    try:
        health = _health(settings)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"the API server: {error}"
    if process == "api-server":
        return "" if health["metadatabase"]["status"] == "healthy" else "it does not reach its database"
    return _heartbeat_fault(settings, process, health.get(process.replace("-", "_")) or {})


def _heartbeat_fault(settings: Settings, process: str, told: dict[str, Any]) -> str:
    """A heartbeat counts only if the process that runs now gave it: that of a killed one stays good for a while."""
    beat = told.get(f"latest_{process.replace('-', '_')}_heartbeat")
    if beat is None:
        return "no heartbeat yet"
    beat_at = datetime.fromisoformat(beat).timestamp()
    if beat_at < _started_at(settings, f"airflow-{process}") - _SLACK_S:
        return "no heartbeat since its start"
    return "" if told["status"] == "healthy" else f"last heartbeat {time.time() - beat_at:.0f} s ago"


def _started_at(settings: Settings, program: str) -> float:
    """When the process started; a process that nobody supervises any more has run for ever."""
    try:
        return time.time() - supervisor.states(settings)[program].uptime_s
    except (*UNREACHABLE, xmlrpc.client.Error, KeyError):
        return 0.0


def _health(settings: Settings) -> dict[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(settings.airflow_internal_url).netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/api/v2/monitor/health")
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"HTTP status {answer.status}")
        health: dict[str, Any] = json.load(answer)
        return health
    finally:
        connection.close()
