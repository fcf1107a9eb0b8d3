"""The Iceberg catalog (JDBC on PostgreSQL) without a JVM.

Spark writes the same tables through the same catalog rows; see `spark_jobs.spark_session`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import CommitTableResponse
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.update import AddSnapshotUpdate, TableRequirement, TableUpdate
from pyiceberg.typedef import Identifier
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from twofold import database
from twofold.commits import clock_behind_ms
from twofold.errors import ClockBehind, StoreAway, first_line
from twofold.settings import CATALOG, Settings

S3_SIGN = "AWS Error"
"""What Arrow says of an S3 store that refuses, or does not answer; of a missing file it says something else."""


class LakeCatalog(SqlCatalog):
    """Raises StoreAway where a table exists and the store that holds its metadata does not answer.

    A commit that would be dated before the last one raises ClockBehind: pyiceberg would write it, and Java could not
    read the table any longer.
    """

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self._guards: list[Callable[[], None]] = []

    @contextmanager
    def guarded(self, guard: Callable[[], None]) -> Iterator[None]:
        """Within the block, `guard` is called before each commit, and raises where none may be made any more."""
        self._guards.append(guard)
        try:
            yield
        finally:
            self._guards.remove(guard)

    def commit_table(
        self, table: IcebergTable, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit, unless this machine's clock was set back; `twofold.commits` dates its snapshots by itself."""
        dated = any(isinstance(update, AddSnapshotUpdate) for update in updates)
        if clock_behind_ms(table.metadata) and not dated:
            raise ClockBehind(".".join(table.name()))
        for guard in tuple(self._guards):
            guard()
        return super().commit_table(table, requirements, updates)

    def load_table(self, identifier: str | Identifier) -> IcebergTable:
        """One table, with its metadata of now."""
        try:
            return super().load_table(identifier)
        except OSError as error:
            # One that has just started answers 503.
            if S3_SIGN not in str(error) or not re.search("NETWORK_CONNECTION|status 503", str(error)):
                raise
            raise StoreAway(self.properties["s3.endpoint"]) from None


@cache
def load(settings: Settings) -> LakeCatalog:
    """The catalog; NotRunning where its PostgreSQL does not answer, now or at any later call."""
    properties = {
        "uri": database.pooled_url(settings),
        "warehouse": settings.tables,
        # A connection of the pool may be older than the server.
        "pool_pre_ping": "true",
        **file_io(settings),
    }
    with database.session(settings) as connection:
        # The very first one makes the catalog's tables.
        database.exclusive(connection, "catalog")
        # One per process: each has a pool of connections of its own, which nothing closes.
        catalog = LakeCatalog(CATALOG, **properties)
    _say_where_it_goes_away(catalog, settings)
    return catalog


def _say_where_it_goes_away(catalog: LakeCatalog, settings: Settings) -> None:
    """Any call may be the one during which the server ends: NotRunning, wherever it was."""

    @event.listens_for(catalog.engine, "handle_error")
    def handle(context: ExceptionContext) -> None:
        # A connection found dead before its use is replaced by the pool.
        if not context.is_pre_ping and (context.is_disconnect or context.connection is None):
            raise database.away(settings, first_line(context.original_exception)) from None


def file_io(settings: Settings) -> dict[str, str]:
    """pyiceberg's properties for the bucket."""
    if settings.store == "local":
        return {}
    return {
        "s3.endpoint": settings.s3_endpoint,
        "s3.region": settings.s3_region,
        "s3.access-key-id": settings.s3_access_key,
        "s3.secret-access-key": settings.s3_secret_key.get_secret_value(),
        "s3.force-virtual-addressing": "false",
    }


def find(catalog: Catalog, pipeline: str, table: str) -> IcebergTable | None:
    """One table, or None where it was never made."""
    try:
        return catalog.load_table((pipeline, table))
    except NoSuchTableError:
        return None
