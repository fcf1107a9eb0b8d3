"""PostgreSQL advisory locks: their keys, and who holds them.

A job takes its lock on a connection of the process that commits (for Spark jobs, the JVM), so the lock ends
with that process and never before its last commit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from twofold.errors import NotRunning
from twofold.settings import Settings

NAMESPACE = zlib.crc32(b"twofold") & 0x7FFFFFFF
"""First of the two 32-bit halves of every key; the second names pipeline and role."""


def key(pipeline: str, role: str) -> int:
    """Second half of the lock's key, a positive 32-bit int; roles are `stream`, `batch`, `union`."""
    return zlib.crc32(f"{pipeline}/{role}".encode()) & 0x7FFFFFFF


def is_held(settings: Settings, pipeline: str, role: str) -> bool:
    """Whether some live process holds the lock, that is, whether that job runs."""
    query = """SELECT count(*) FROM pg_locks
               WHERE locktype = 'advisory' AND granted AND classid = %s::bigint AND objid = %s::bigint"""
    with session(settings) as connection:
        row = connection.execute(query, (NAMESPACE, key(pipeline, role))).fetchone()
    return bool(row and row[0])


def connect(settings: Settings) -> psycopg.Connection:
    """Connect to the catalog's PostgreSQL, or say that it does not answer."""
    try:
        return psycopg.connect(settings.postgres_url(), connect_timeout=5)
    except psycopg.OperationalError as error:
        raise away(settings, error) from None


@contextmanager
def session(settings: Settings) -> Iterator[psycopg.Connection]:
    """A connection for one transaction; NotRunning where the server does not answer, or goes away meanwhile."""
    with connect(settings) as connection:
        try:
            yield connection
        except psycopg.OperationalError as error:
            if connection.broken:
                raise away(settings, error) from None
            raise


def away(settings: Settings, error: BaseException) -> NotRunning:
    """What is said of a PostgreSQL that is not there."""
    where = f"{settings.postgres_host}:{settings.postgres_port}"
    return NotRunning(
        f"PostgreSQL (the catalog) does not answer at {where}: {str(error).splitlines()[0]}",
        "start the embedded stack with `twofold up`, or set TWOFOLD_POSTGRES_HOST, _PORT, _USER and _PASSWORD",
    )


def alone(connection: psycopg.Connection, what: str) -> None:
    """Wait until no other transaction does `what`, and keep others from it until this one ends.

    For `CREATE … IF NOT EXISTS`: two at once may both find nothing there, and one of them fails.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (NAMESPACE, key("", what)))
