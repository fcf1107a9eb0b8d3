"""Commits by Spark: with state in their summary, and for `events` only on top of the snapshot that was read.

    rows ─► staged: a snapshot of the table, but not its current one ─► published, if nothing was committed since

Iceberg's own validation of an overwrite refuses only what was changed where it overwrites. That is not enough for a
union: another one may have taken an event to another day, and then neither sees the other's.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.readwriter import DataFrameWriterV2

from twofold import catalog as catalogs
from twofold import commits, tables
from twofold.settings import Settings

_TICKET = "wap.id"
"""In the summary of a staged snapshot: Iceberg's write-audit-publish, which `write.wap.enabled` allows."""


def overwrite(
    rows: DataFrame,
    settings: Settings,
    table: tuple[str, str],
    head: int,
    condition: str | None,
    state: Mapping[str, str],
) -> None:
    """Put `rows` in place of those that meet `condition` (None: of none), with `state`, on top of snapshot `head`.

    Raises CommitFailedException where the table is no longer at `head`; then nothing was changed.
    """
    ticket, spark = secrets.token_hex(8), rows.sparkSession
    writer = tagged(rows.writeTo(tables.qualified(*table)), state)
    spark.conf.set("spark.wap.id", ticket)
    try:
        writer.append() if condition is None else writer.overwrite(F.expr(condition))
    finally:
        spark.conf.unset("spark.wap.id")
    _publish(catalogs.load(settings).load_table(table), ticket, head)


def _publish(table: Table, ticket: str, head: int) -> None:
    staged = next(one for one in table.metadata.snapshots if one.summary and one.summary.get(_TICKET) == ticket)
    if staged.parent_snapshot_id != head:
        raise CommitFailedException(f"{'.'.join(table.name())} is no longer at snapshot {head}")
    held, moved = commits.move_head(table.metadata, head, staged.snapshot_id)
    table.catalog.commit_table(table, held, (moved,))


def tagged(writer: DataFrameWriterV2, state: Mapping[str, str]) -> DataFrameWriterV2:
    """Put `state` (see `twofold.boundary.encode`) into the summary of the snapshot that `writer` commits."""
    for key, value in state.items():
        writer = writer.option(f"snapshot-property.{key}", value)
    return writer
