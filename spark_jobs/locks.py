"""A pipeline's lock for one role, held by the JVM.

The JVM is the process that commits. Were the lock held by the Python driver, a kill -9 of it would free the lock
while its JVM may still be committing. Even a dead JVM's last commit may still wait inside PostgreSQL, which does not
notice that its client is gone: so who takes a lock first ends what is left of the connections of who had it before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from twofold import database
from twofold.errors import Busy, NotRunning
from twofold.settings import CATALOG, Settings

_POLL_S = 0.5
_END_WITHIN_MS = 10_000
_REMEDY = {
    "stream": "there is one streaming job per pipeline: stop the running one first, or leave it to its work",
    "batch": "wait for it to end; what it leaves is taken by the next run",
    "union": "wait for it to end; what it leaves is taken by the next run",
}


@dataclass(frozen=True)
class Held:
    """A lock in force, as long as its connection lives."""

    connection: JavaObject
    pipeline: str
    role: str

    def check(self) -> None:
        """Raise Busy where the connection, and with it the lock, was lost: another job may have taken over."""
        try:
            alive = self.connection.isValid(5)
        except Py4JJavaError:
            alive = False
        if not alive:
            raise Busy(
                f"the lock {self.pipeline}/{self.role} was lost: its PostgreSQL connection is gone",
                "nothing more is written; start the job again once PostgreSQL answers",
            )


@contextmanager
def hold(spark: SparkSession, settings: Settings, pipeline: str, role: str, wait_s: float = 0.0) -> Iterator[Held]:
    """Take the lock, waiting up to `wait_s` for it, or raise Busy; release it at the end."""
    assert spark._jvm is not None
    connection = spark._jvm.java.sql.DriverManager.getConnection(
        settings.jdbc_url, settings.postgres_user, settings.postgres_password.get_secret_value()
    )
    try:
        deadline = time.monotonic() + wait_s
        while not (locked := _try_lock(connection, pipeline, role)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if not locked:
            raise Busy(f"another {role} job of pipeline {pipeline!r} is running", _REMEDY[role])
        _fence(settings, pipeline, role, spark.conf.get(f"spark.sql.catalog.{CATALOG}.jdbc.ApplicationName", ""))
        yield Held(connection, pipeline, role)
        # Not after a failure: the commit that failed here may still be under way there.
        _leave(settings, pipeline, role)
    finally:
        connection.close()


def _fence(settings: Settings, pipeline: str, role: str, application: str | None) -> None:
    """End the connections of the lock's last holder, and note `application` as the holder."""
    number = database.lock_key(pipeline, role)
    with database.session(settings) as connection:
        database.exclusive(connection, "holders")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS twofold_holders (lock int PRIMARY KEY, application text NOT NULL)"
        )
        ended = connection.execute(
            """SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity JOIN twofold_holders
               ON application_name = application WHERE lock = %s AND application <> %s""",
            (_END_WITHIN_MS, number, application),
        ).fetchall()
        if not all(done for (done,) in ended):
            raise Busy(f"a commit of the last {role} job of {pipeline!r} does not end in PostgreSQL", _REMEDY[role])
        connection.execute(
            "INSERT INTO twofold_holders VALUES (%s, %s) ON CONFLICT (lock) DO UPDATE SET application = %s",
            (number, application, application),
        )


def _leave(settings: Settings, pipeline: str, role: str) -> None:
    with suppress(NotRunning), database.session(settings) as connection:
        connection.execute("DELETE FROM twofold_holders WHERE lock = %s", (database.lock_key(pipeline, role),))


def _try_lock(connection: JavaObject, pipeline: str, role: str) -> bool:
    rows = connection.createStatement().executeQuery(
        f"SELECT pg_try_advisory_lock({database.LOCK_NAMESPACE}, {database.lock_key(pipeline, role)})"
    )
    rows.next()
    return bool(rows.getBoolean(1))
