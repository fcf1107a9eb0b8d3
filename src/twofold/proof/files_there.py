"""I7: every file that the current metadata of a table refers to exists; and what nothing refers to.

`twofold.table_files`: referenced ──┐
                       present ─────┴─► missing, unreferenced
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table as IcebergTable

from twofold import job_metrics, table_files
from twofold.lake import Lake
from twofold.proof.findings import Check, Findings
from twofold.text import counted

OLD = timedelta(days=3)
"""Unreferenced files that are younger may belong to a commit in flight."""


@dataclass(frozen=True)
class Listed:
    """The files that one table refers to, and which of them are missing."""

    table: str
    referenced: int
    missing: tuple[str, ...]
    unreferenced: tuple[str, ...]
    """Old files of the table that nothing refers to; only files named as writers of tables name them count."""


def all_there(lake: Lake, now: datetime) -> Check:
    """I7 for every table of the pipeline."""
    found = Findings("I7")
    catalog, pipeline = lake.catalog(), lake.name
    names = sorted(name[-1] for name in catalog.list_tables(pipeline)) if catalog.namespace_exists(pipeline) else []
    with ThreadPoolExecutor(table_files.THREADS) as pool:
        listed = [files for name in names if (files := _checked(pool, lake, name, now))]
    for files in listed:
        if files.missing:
            named = [f"{pipeline}.{files.table}: {path} is missing" for path in files.missing]
            found.violated(f"{counted(len(files.missing), 'file')} of {files.table} missing", named)
    old = {files.table: len(files.unreferenced) for files in listed if files.unreferenced}
    if old:
        found.behind(
            f"{counted(sum(old.values()), 'unreferenced file')} older than 3 days: `twofold maintain {pipeline}`",
            job_metrics.failure(lake, "maintenance"),
        )
    referenced = sum(files.referenced for files in listed)
    found.numbers |= {
        "tables": len(listed),
        "files": referenced,
        "missing": sum(len(files.missing) for files in listed),
        "unreferenced_older_than_3_days": old,
    }
    if found.holds:
        found.say(f"{counted(referenced, 'file')} of {counted(len(listed), 'table')} exist")
    return found.check()


def _checked(pool: ThreadPoolExecutor, lake: Lake, name: str, now: datetime) -> Listed | None:
    """One table. Files that a commit removed during a look are not referred to at the next, so two looks must agree."""
    try:
        first = _look(pool, lake.table(name), now)
        if not first.missing:
            return first
        second = _look(pool, lake.table(name), now)
        return replace(second, missing=tuple(path for path in second.missing if path in first.missing))
    except NoSuchTableError:
        return None  # dropped since it was listed


def _look(pool: ThreadPoolExecutor, table: IcebergTable, now: datetime) -> Listed:
    referenced, present = table_files.referenced(pool, table), table_files.present(table)
    locations = referenced.locations
    absent = sorted(locations.keys() - present.keys())
    there = pool.map(lambda path: table.io.new_input(locations[path]).exists(), absent)
    missing = {locations[path] for path, exists in zip(absent, there, strict=True) if not exists} | referenced.unread
    old = table_files.own(table, (path for path, at in present.items() if path not in locations and now - at > OLD))
    return Listed(table.name()[-1], len(locations), tuple(sorted(missing)), tuple(sorted(old)))
