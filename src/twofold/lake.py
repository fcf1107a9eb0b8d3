"""One pipeline's tables and inbox: where jobs, checks and pages start from.

lake = Lake(settings, pipeline)
lake.ensure()                      # all tables, made or evolved
lake.history(tables.STREAM_LOG)    # snapshots as they are now
"""

from __future__ import annotations

from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from twofold import catalog as catalogs
from twofold import ensure, inbox
from twofold.boundary import History
from twofold.definition.model import Pipeline
from twofold.settings import Settings


@dataclass(frozen=True)
class Lake:
    """The tables and the inbox of a pipeline. Holds no connection, so it can be kept, copied and pickled."""

    settings: Settings
    pipeline: Pipeline

    @property
    def name(self) -> str:
        """The pipeline's name, which is its namespace in the catalog."""
        return self.pipeline.name

    def catalog(self) -> Catalog:
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
        return catalogs.history(self.find(name))

    def ensure(self) -> dict[str, Table]:
        """Make or evolve the tables with declared columns; IncompatibleDefinition before anything is written."""
        return ensure.ensure(self.catalog(), self.pipeline)

    def inbox(self) -> inbox.Folder:
        """The folder where users put this pipeline's files."""
        return inbox.folder(self.settings, self.name)
