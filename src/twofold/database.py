"""The catalog's PostgreSQL: connections, advisory locks, and the last results of checks.

    twofold prove ──save_result──► twofold_results (pipeline, kind, at, body) ──latest_result──► the status page

A job takes its lock on a connection of the process that commits (for Spark jobs, the JVM), so the lock ends
with that process and never before its last commit.

A network may swallow packets without closing a connection. So the holder of a lock sends a heartbeat every
`HEARTBEAT_S`, and PostgreSQL ends a session that asked nothing for `RELEASED_AFTER_S`: the holder notices a loss
before anybody else can have the lock.

Whoever waits for an answer over such a connection ends, too. In Python the operating system notices that nothing is
acknowledged (`_LIBPQ`), however long a statement takes; Java's driver can only limit the wait (`SILENT_AFTER_S`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, LiteralString
from urllib.parse import quote, urlencode

import psycopg
from psycopg.types.json import Json

from twofold.errors import NotRunning, first_line
from twofold.settings import Settings

LOCK_NAMESPACE = zlib.crc32(b"twofold") & 0x7FFFFFFF
"""First of the two 32-bit halves of every lock's key; the second names pipeline and role."""
HEARTBEAT_S = 5.0
"""Pause between two heartbeats of a lock's session."""
ANSWER_WITHIN_S = 10
"""A heartbeat that is not answered for that long: the session is lost."""
RELEASED_AFTER_S = 25
"""PostgreSQL ends a lock's session that asked nothing for that long; more than a pause and an answer together."""
SILENT_AFTER_S = 90
"""A statement of the JVM's catalog that is not answered for that long: its connection is lost.

Each reads or writes a row in milliseconds, but may wait for another commit to the same table, and PostgreSQL ends one
that was cut short after `_CUT_SHORT`: so none that is only slow comes near.
"""
_CUT_SHORT = "60s"
_KEEPALIVE = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
_LIBPQ = {
    "connect_timeout": "5",
    # Of a connection whose other end is gone, what was sent is never delivered later.
    "tcp_user_timeout": str(RELEASED_AFTER_S * 1000),
    **{name.replace("tcp_", ""): value for name, value in _KEEPALIVE.items()},
}
ROLES = ("stream", "batch", "union")
"""Of the locks: each job holds that of what it writes."""
PROOF = "proof"
"""Kind of `prove`'s result: `Proof.to_json()`."""

# json, not jsonb: what a hostile record held may be quoted in it, and jsonb refuses NUL and half a surrogate pair.
_TABLE = """CREATE TABLE IF NOT EXISTS twofold_results (
    pipeline text NOT NULL, kind text NOT NULL, at timestamptz NOT NULL DEFAULT now(), body json NOT NULL,
    PRIMARY KEY (pipeline, kind))"""
_SAVE = """INSERT INTO twofold_results (pipeline, kind, body) VALUES (%s, %s, %s)
    ON CONFLICT (pipeline, kind) DO UPDATE SET at = excluded.at, body = excluded.body"""


def connect(settings: Settings) -> psycopg.Connection:
    """Connect; NotRunning where the server does not answer."""
    try:
        return psycopg.connect(f"{settings.postgres_url()}?{urlencode(_LIBPQ)}")
    except psycopg.OperationalError as error:
        raise away(settings, first_line(error)) from None


@contextmanager
def session(settings: Settings) -> Iterator[psycopg.Connection]:
    """A connection for one transaction; NotRunning where the server does not answer, or goes away meanwhile."""
    with connect(settings) as connection:
        try:
            yield connection
            connection.commit()  # here, as at the end of the block nothing would make a sentence of its error
        except psycopg.OperationalError as error:
            if connection.broken:
                raise away(settings, first_line(error)) from None
            raise


def pooled_url(settings: Settings) -> str:
    """For SQLAlchemy: connections that notice a lost server, and that the server ends where the client is lost.

    Otherwise a commit that was cut short would keep others from the same table for hours.
    """
    server = _server_options({**_KEEPALIVE, "idle_in_transaction_session_timeout": _CUT_SHORT})
    return f"{settings.postgres_url('postgresql+psycopg')}?{urlencode({**_LIBPQ, 'options': server}, quote_via=quote)}"


def catalog_session(settings: Settings) -> dict[str, str]:
    """Properties of the connections (of Java's driver) that the JVM's catalog has."""
    return _jdbc(settings, SILENT_AFTER_S, {})


def lock_session(settings: Settings) -> dict[str, str]:
    """Properties of the connection (of Java's driver) that a lock is held by."""
    released = {"idle_session_timeout": f"{RELEASED_AFTER_S}s", "tcp_user_timeout": f"{RELEASED_AFTER_S}s"}
    return _jdbc(settings, ANSWER_WITHIN_S, released)


def _jdbc(settings: Settings, silent_after_s: int, server: Mapping[str, str]) -> dict[str, str]:
    return {
        "user": settings.postgres_user,
        "password": settings.postgres_password.get_secret_value(),
        "connectTimeout": str(ANSWER_WITHIN_S),
        "socketTimeout": str(silent_after_s),
        "tcpKeepAlive": "true",
        "options": _server_options({**_KEEPALIVE, **server}),
    }


def _server_options(options: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in options.items())


def away(settings: Settings, why: str) -> NotRunning:
    """The error for a PostgreSQL that does not answer."""
    where = f"{settings.postgres_host}:{settings.postgres_port}"
    return NotRunning(
        f"PostgreSQL (the catalog) does not answer at {where}: {why}",
        "start the embedded stack with `twofold up`, or set TWOFOLD_POSTGRES_HOST, _PORT, _USER and _PASSWORD",
    )


def lock_key(pipeline: str, role: str) -> int:
    """Second half of the lock's key, a positive 32-bit int; roles are `ROLES`."""
    return zlib.crc32(f"{pipeline}/{role}".encode()) & 0x7FFFFFFF


def is_held(settings: Settings, pipeline: str, role: str) -> bool:
    """Whether some live process holds the lock, that is, whether that job runs."""
    query = """SELECT count(*) FROM pg_locks
               WHERE locktype = 'advisory' AND granted AND classid = %s::bigint AND objid = %s::bigint"""
    with session(settings) as connection:
        row = connection.execute(query, (LOCK_NAMESPACE, lock_key(pipeline, role))).fetchone()
    return bool(row and row[0])


def exclusive(connection: psycopg.Connection, name: str) -> None:
    """Hold the lock `name` until the transaction ends, after waiting for whoever holds it.

    For `CREATE … IF NOT EXISTS`: two at once may both find nothing there, and one of them fails.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_NAMESPACE, lock_key("", name)))


@dataclass(frozen=True)
class KeptResult:
    """What a check found, and when."""

    at: datetime
    body: Mapping[str, Any]


def save_result(settings: Settings, pipeline: str, kind: str, body: Mapping[str, Any]) -> None:
    """Keep a result, in place of the last one of its kind."""
    with session(settings) as connection:
        exclusive(connection, "results")
        connection.execute(_TABLE)
        connection.execute(_SAVE, (pipeline, kind, Json(body, dumps=partial(json.dumps, default=str))))


def kept_since(settings: Settings, kind: str) -> dict[str, datetime | None]:
    """Every pipeline of which there are results, and since when the one of a kind is kept; None: there is none."""
    query = "SELECT pipeline, min(at) FILTER (WHERE kind = %s) FROM twofold_results GROUP BY pipeline"
    return dict(_results(settings, query, kind))


def forget_result(settings: Settings, pipeline: str, kind: str) -> None:
    """Remove the result of a kind, if there is one."""
    with session(settings) as connection, suppress(psycopg.errors.UndefinedTable):
        connection.execute("DELETE FROM twofold_results WHERE pipeline = %s AND kind = %s", (pipeline, kind))


def latest_result(settings: Settings, pipeline: str, kind: str) -> KeptResult | None:
    """The last result of its kind; None where there was none yet."""
    return latest_results(settings, pipeline, [kind]).get(kind)


def latest_results(settings: Settings, pipeline: str, kinds: Iterable[str]) -> dict[str, KeptResult]:
    """The last results of some kinds, by kind; without those of which there was none yet."""
    query = "SELECT kind, at, body FROM twofold_results WHERE pipeline = %s AND kind = ANY(%s)"
    return {kind: KeptResult(at, body) for kind, at, body in _results(settings, query, pipeline, list(kinds))}


def _results(settings: Settings, query: LiteralString, *arguments: object) -> list[tuple[Any, ...]]:
    with session(settings) as connection, suppress(psycopg.errors.UndefinedTable):
        return connection.execute(query, arguments).fetchall()
    return []
