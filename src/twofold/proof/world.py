"""The tables as they are at one moment, and DuckDB over them.

Pinned in an order in which everything refers to what is pinned after it:

    batch_<view>, stream_<view> ─► events ─► batch_log ─► stream_log ─► landed_files
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table as IcebergTable

from twofold import catalog as catalogs
from twofold import table_state, tables
from twofold.definition.model import Pipeline
from twofold.proof import gaps, sent, sources
from twofold.proof.gaps import Gaps
from twofold.proof.sent import Sent
from twofold.settings import Settings
from twofold.table_state import History
from twofold.tables import TableShape

UNIFIED = "unified_events"
"""DuckDB's name of the rows that a reader sees."""


@dataclass(frozen=True)
class Pinned:
    """One table at one snapshot; None where it was never made, or holds nothing."""

    name: str
    table: IcebergTable | None
    snapshot_id: int | None
    history: History

    def at(self, snapshot_id: int | None) -> Pinned:
        """The same table at another of its snapshots."""
        return Pinned(self.name, self.table, snapshot_id, History(self.history.snapshots, snapshot_id))


@dataclass
class World:
    """All that the checks look at."""

    settings: Settings
    pipeline: Pipeline
    connection: duckdb.DuckDBPyConnection
    before: Sent
    """Kafka before the tables were pinned: all of it should have landed."""
    pins: Mapping[str, Pinned]
    retained_from: Mapping[int, int] = field(default_factory=dict)
    """Partition → first offset that retention has left in stream_log; a partition not named is whole."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Table → why its files cannot be read."""

    @cached_property
    def after(self) -> Sent:
        """Kafka after the tables were pinned: nothing past its ends can have landed."""
        return sent.read(self.settings, self.pipeline)

    @cached_property
    def gaps(self) -> Gaps:
        """Offsets that stream_log does not have, and what Kafka says of them."""
        return gaps.find(self)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a query whose result is small."""
        return self.connection.execute(sql).fetchall()

    def row(self, sql: str) -> tuple[Any, ...]:
        """The one row of a query."""
        return self.rows(sql)[0]

    def number(self, sql: str) -> int:
        """The one number of a query."""
        return int(self.row(sql)[0] or 0)

    def register(self, name: str, pinned: Pinned) -> None:
        """Give a pinned table's rows a name in DuckDB."""
        try:
            sources.register(self.connection, name, pinned.table, pinned.snapshot_id, self._schema(pinned))
        except OSError as error:
            self.unreadable[name] = str(error)

    def _schema(self, pinned: Pinned) -> pa.Schema:
        if pinned.table is not None:
            return sources.arrow_schema(pinned.table)
        return sources.declared_schema(declared(self.pipeline)[pinned.name])


def declared(pipeline: Pipeline) -> dict[str, TableShape]:
    """The tables whose columns follow from the definition, in the order in which they are pinned."""
    found = (tables.events(pipeline), tables.batch_log(pipeline), tables.stream_log(pipeline), tables.landed_files())
    return {table.name: table for table in found}


def view_names(pipeline: Pipeline) -> list[str]:
    """The view tables of both layers."""
    names: Iterable[str] = pipeline.views
    return [name(view) for view in names for name in (tables.batch_view_name, tables.stream_view_name)]


def pin(catalog: Catalog, pipeline: str, name: str) -> Pinned:
    """A table at its newest snapshot."""
    return of(name, catalogs.find(catalog, pipeline, name))


def of(name: str, table: IcebergTable | None) -> Pinned:
    """A table as it was when it was loaded."""
    history = table_state.history_of(table)
    return Pinned(name, table, history.head, history)
