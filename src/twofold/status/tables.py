"""The tables of a pipeline as they are now, loaded anew only when a commit has moved them.

PostgreSQL: table ─► where its metadata is ─changed?─► metadata, and the manifests that were not there before
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.types import TimestamptzType

from twofold import catalog as catalogs
from twofold import database, table_state
from twofold.settings import CATALOG, Settings
from twofold.status.model import Extent, Log
from twofold.table_state import History

_LOCATIONS = "SELECT table_name, metadata_location FROM iceberg_tables WHERE catalog_name = %s AND table_namespace = %s"
_EARLIEST, _LATEST = (limit.replace(tzinfo=UTC).timestamp() for limit in (datetime.min, datetime.max))


@dataclass(frozen=True)
class Loaded:
    """A table as of one commit."""

    table: IcebergTable
    history: History


@dataclass
class Tables:
    """The tables of one pipeline; what was read of them is kept until it changes."""

    settings: Settings
    pipeline: str
    _loaded: dict[str, Loaded] = field(default_factory=dict)
    _extents: dict[str, dict[str, Extent | None]] = field(default_factory=dict)
    """Table → path of a manifest → event time of the rows in its files. A manifest never changes."""

    def refresh(self) -> None:
        """Load what was committed since the last time; NotRunning where the catalog does not answer."""
        catalog = catalogs.load(self.settings)
        with database.session(self.settings) as connection:
            locations: dict[str, str] = dict(connection.execute(_LOCATIONS, (CATALOG, self.pipeline)).fetchall())
        kept = {n: one for n, one in self._loaded.items() if one.table.metadata_location == locations.get(n)}
        moved = {name: catalogs.find(catalog, self.pipeline, name) for name in locations.keys() - kept.keys()}
        self._loaded = kept | {n: Loaded(table, table_state.history_of(table)) for n, table in moved.items() if table}

    def history(self, name: str) -> History:
        """A table's snapshots; an empty history where there is no such table."""
        return self._loaded[name].history if name in self._loaded else History({}, None)

    def log(self, name: str, time: str) -> Log:
        """Rows of a table and their event time (column `time`), from its metadata alone."""
        history = self.history(name)
        if history.head is None:
            return Log()
        head = history.snapshots[history.head]
        return Log(head.rows, self._extent(name, time), head.at)

    def _extent(self, name: str, time: str) -> Extent | None:
        table, known = self._loaded[name].table, self._extents.get(name, {})
        snapshot = table.current_snapshot()
        manifests = {one.manifest_path: one for one in (snapshot.manifests(table.io) if snapshot else ())}
        fresh = {path: extent_of(table, one, time) for path, one in manifests.items() if path not in known}
        self._extents[name] = {path: extent for path, extent in (known | fresh).items() if path in manifests}
        return joined(self._extents[name].values())


def extent_of(table: IcebergTable, manifest: ManifestFile, time: str) -> Extent | None:
    """From the lowest to the highest value of `time` in the manifest's data files, by their statistics."""
    column = table.schema().find_field(time).field_id
    files = [entry.data_file for entry in manifest.fetch_manifest_entry(table.io)]
    bounds = [((file.lower_bounds or {}).get(column), (file.upper_bounds or {}).get(column)) for file in files]
    return joined(Extent(_moment(low), _moment(high)) for low, high in bounds if low and high)


def joined(extents: Iterable[Extent | None]) -> Extent | None:
    """From the first of all to the last of all; None where there is none."""
    found = [extent for extent in extents if extent]
    return reduce(Extent.joined, found) if found else None


def _moment(bound: bytes) -> datetime:
    """A bound as a moment, cut to the years that Python knows."""
    seconds = int(from_bytes(TimestamptzType(), bound)) / 1_000_000
    return datetime.fromtimestamp(min(max(seconds, _EARLIEST), _LATEST), UTC)
