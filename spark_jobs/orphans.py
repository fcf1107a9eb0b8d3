"""Files that nothing refers to: left by commits that were cut short, and by copies into the inbox.

    the table's data/ and metadata/ ─► old, and named as its writers name files ─► in no snapshot kept ─► removed

Only files of the kinds that we write ourselves are ever removed, whatever else lies in a folder: see `twofold.inbox`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table as IcebergTable

from twofold import catalog as catalogs
from twofold import inbox, table_files
from twofold.errors import TwofoldError
from twofold.retention import Upkeep
from twofold.settings import Settings

_TRIES = 3


def of_table(catalog: Catalog, pipeline: str, table: str, asked: Upkeep, now: datetime) -> int:
    """Remove a table's files that no snapshot refers to, old enough not to be of a commit in flight."""
    found = catalogs.find(catalog, pipeline, table)
    if found is None:
        return 0
    written = table_files.present(found)
    old = table_files.own(found, (path for path, moment in written.items() if moment < now - asked.orphan_age))
    # Without an old file there is no orphan: a look that reads no manifest.
    orphans = old - _referenced(catalog, found) if old else set()
    if not asked.dry_run:
        table_files.remove(found, orphans)
    return len(orphans)


def of_inbox(settings: Settings, pipeline: str, asked: Upkeep, now: datetime) -> int:
    """Remove the copies that `twofold land` was killed in. (An S3 upload leaves none.)"""
    folder = inbox.folder(settings, pipeline)
    old = folder.leftovers(now - asked.orphan_age) if isinstance(folder, inbox.LocalFolder) else []
    for path in [] if asked.dry_run else old:
        path.unlink(missing_ok=True)
    return len(old)


def _referenced(catalog: Catalog, table: IcebergTable) -> set[str]:
    """Paths of all files that are needed; TwofoldError where the metadata cannot be read to its end.

    What a commit took away during a look is not referred to by the next. But where a manifest stays missing, it is not
    known which data files it named: to remove the others would lose what a repair could still save.
    """
    with ThreadPoolExecutor(table_files.THREADS) as pool:
        for _ in range(_TRIES):
            table = catalog.load_table(table.name())
            found = table_files.referenced(pool, table)
            if not found.unread:
                return set(found.locations)
    raise TwofoldError(
        f"{'.'.join(table.name())}: {min(found.unread)} is missing, so what it refers to cannot be told from orphans",
        "restore the file from a backup; no orphan of this table was removed",
    )
