"""One pipeline's tables and inbox: where jobs, checks and pages start from.

    lake = Lake(settings, pipeline)
    lake.ensure()                      # all tables, made or evolved
    lake.history(tables.STREAM_LOG)    # snapshots as they are now

What is new is read from the tables alone. So an announcement needs nothing from the run that changed the tables: if
that run is killed in between, the next one announces the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyiceberg.table import Table

from twofold import catalog as catalogs
from twofold import inbox, recatalog, schemas, table_state, tables
from twofold.catalog import LakeCatalog
from twofold.definition.model import Pipeline
from twofold.inbox import Folder
from twofold.settings import Settings
from twofold.table_state import Boundary, History

News = dict[str, Any]
"""Plain values, to be sent as JSON."""


@dataclass(frozen=True)
class Lake:
    """The tables and the inbox of a pipeline. Holds no connection, so it can be kept, copied and pickled."""

    settings: Settings
    pipeline: Pipeline

    @property
    def name(self) -> str:
        """The pipeline's name, which is its namespace in the catalog."""
        return self.pipeline.name

    def catalog(self) -> LakeCatalog:
        """The catalog, one per process; NotRunning where its PostgreSQL does not answer."""
        return catalogs.load(self.settings)

    def table(self, name: str) -> Table:
        """One table as it is now; NoSuchTableError where it was never made."""
        return self.catalog().load_table((self.name, name))

    def find(self, name: str) -> Table | None:
        """One table as it is now, or None where it was never made."""
        return catalogs.find(self.catalog(), self.name, name)

    def history(self, name: str) -> History:
        """A table's snapshots as they are now; an empty history where there is no table."""
        return table_state.history_of(self.find(name))

    def ensure(self) -> dict[str, Table]:
        """Make or evolve all tables but those of views; IncompatibleDefinition before anything is written.

        TwofoldError where the bucket has any of them, or of those of views, and the catalog does not.
        """
        recatalog.refuse_forgotten(self.catalog(), self.name, tables.names(self.pipeline))
        return schemas.ensure_tables(self.catalog(), self.pipeline)

    def inbox(self) -> Folder:
        """The folder where users put this pipeline's files."""
        return inbox.folder(self.settings, self.name)

    def archive(self) -> Folder:
        """The folder where taken files go, where the pipeline's file says so."""
        return inbox.archive(self.settings, self.name)

    def landed_files(self, condition: str = "true") -> list[dict[str, Any]]:
        """Rows of `landed_files` that meet a condition, in the order of landings."""
        table = self.find(tables.LANDED_FILES)
        rows = [] if table is None else table.scan(row_filter=condition).to_arrow().to_pylist()
        return sorted(rows, key=lambda row: int(row["landing"]))

    def set_aside(self) -> dict[str, str]:
        """Files in the inbox that could not be read, and have not changed since: name → reason."""
        aside = {row["file"]: row for row in self.landed_files("reason IS NOT NULL")}
        folder = self.inbox()
        return {name: row["reason"] for name, row in sorted(aside.items()) if folder.version(name) == row["version"]}

    def landed_since(self, known: Mapping[str, Any]) -> News | None:
        """Files and rows ingested after `known["landing"]`; None where there are none. Files set aside do not count."""
        taken = [row for row in self.landed_files(f"landing > {int(known.get('landing', 0))}") if row["reason"] is None]
        if not taken:
            return None
        return {
            "landing": taken[-1]["landing"],
            "landings": len({row["landing"] for row in taken}),
            "files": len(taken),
            "rows": sum(row["rows"] for row in taken),
            "size_bytes": sum(row["size_bytes"] for row in taken),
        }

    def unioned_since(self, known: Mapping[str, Any]) -> News | None:
        """How far `events` reaches; None where it reached as far when `known` was announced."""
        history = self.history(tables.EVENTS)
        edge, snapshot = table_state.boundary(history, self.name), history.nearest(Boundary.KEY)
        reach: News = {"landing": edge.landing, "offsets": {str(p): end for p, end in sorted(edge.offsets.items())}}
        if any(edge.relanded):
            reach["relanded"] = list(edge.relanded)
        if snapshot is None or not (edge.landing or edge.offsets) or reach == {key: known.get(key) for key in reach}:
            return None
        return {**reach, "snapshot": str(snapshot.id), "rows": snapshot.rows}
