"""The last result of a check, kept where every process can read it: a table in the catalog's PostgreSQL.

twofold prove ──save──► twofold_results (pipeline, kind, at, body) ──latest──► the status page
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Json

from twofold import locks
from twofold.settings import Settings

PROOF = "proof"
"""Kind of `prove`'s result: `Proof.to_json()`."""

# json, not jsonb: what a hostile record held may be quoted in it, and jsonb refuses NUL and half a surrogate pair.
_TABLE = """CREATE TABLE IF NOT EXISTS twofold_results (
    pipeline text NOT NULL, kind text NOT NULL, at timestamptz NOT NULL DEFAULT now(), body json NOT NULL,
    PRIMARY KEY (pipeline, kind))"""
_SAVE = """INSERT INTO twofold_results (pipeline, kind, body) VALUES (%s, %s, %s)
    ON CONFLICT (pipeline, kind) DO UPDATE SET at = excluded.at, body = excluded.body"""


@dataclass(frozen=True)
class Result:
    """What was found, and when."""

    at: datetime
    body: Mapping[str, Any]


def save(settings: Settings, pipeline: str, kind: str, body: Mapping[str, Any]) -> None:
    """Put a result in the place of the one before it."""
    with locks.session(settings) as connection:
        locks.alone(connection, "results")
        connection.execute(_TABLE)
        connection.execute(_SAVE, (pipeline, kind, Json(body, dumps=_dumps)))


def latest(settings: Settings, pipeline: str, kind: str) -> Result | None:
    """The last result of its kind; None where there was none yet."""
    query = "SELECT at, body FROM twofold_results WHERE pipeline = %s AND kind = %s"
    with locks.session(settings) as connection:
        try:
            row = connection.execute(query, (pipeline, kind)).fetchone()
        except psycopg.errors.UndefinedTable:
            return None
    return Result(*row) if row else None


def _dumps(body: object) -> str:
    return json.dumps(body, default=str)
