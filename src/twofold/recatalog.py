"""The catalog rebuilt from the metadata files in the bucket, after its PostgreSQL was lost or set back.

    tables/<pipeline>/<table>/metadata/00012-<uuid>.metadata.json ─► the newest version of each table ─► catalog

Each commit writes its metadata file, on top of the one before it, and then has the catalog name it: so files of the
newest version are the last commit, commits that lost against it, or one of which nobody heard whether it was made. A
writer whose commit was refused removes what it wrote. What is left of one version is either one commit, or several that
say the same, or cannot be decided here: then all are named, and nothing is done with the table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from pyarrow import fs
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError, ValidationError
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.serializers import FromInputFile
from pyiceberg.table.metadata import TableMetadata
from sqlalchemy import ColumnElement, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from twofold import inbox
from twofold.errors import TwofoldError, first_line

NAMED, NEW, BEHIND, REFUSED = "there already", "to be named", "to be moved on", "refused"
_SUFFIX = ".metadata.json"


@dataclass(frozen=True)
class FoundTable:
    """One table of the bucket, and what is to become of its row in the catalog."""

    pipeline: str
    table: str
    state: str
    """NAMED, NEW, BEHIND or REFUSED."""
    text: str
    metadata: str = ""
    """The metadata file that the catalog names, or will."""
    before: str = ""
    """The one that it names until then."""


def plan(catalog: SqlCatalog, pipeline: str | None = None) -> Iterator[FoundTable]:
    """Every table in the bucket, or those of one pipeline, beside what the catalog says of it; changes nothing."""
    root = catalog.properties["warehouse"]
    io = load_file_io(catalog.properties, root)
    for name in _folders(io, root):
        if pipeline in (None, name):
            listed = {table: _versions(io, f"{root}/{name}/{table}") for table in _folders(io, f"{root}/{name}")}
            there = {f"{root}/{name}/{table}": versions for table, versions in listed.items() if versions}
            found = [_entry(catalog, io, *each, ahead=1) for each in there.items()]
            if telling := {entry.table for entry in found if entry.state == BEHIND}:
                # It is an older copy, and all tables of a pipeline belong to one moment. What tells so goes last: a
                # run that ends before leaves it to the next.
                found = [_entry(catalog, io, *each, ahead=0) for each in there.items()]
                found.sort(key=lambda entry: entry.table in telling)
            yield from found


def _entry(catalog: SqlCatalog, io: FileIO, folder: str, versions: dict[int, list[str]], ahead: int) -> FoundTable:
    """A table, and its files by version. `ahead`: so many newer commits may be in flight, or were never made."""
    _, pipeline, table = folder.rsplit("/", 2)
    newest, known = max(versions), _named(catalog, pipeline, table)
    if known and _version(known) >= newest - ahead and known.rsplit("/", 1)[-1] in versions.get(_version(known), ()):
        return FoundTable(pipeline, table, NAMED, "the catalog has it", known)
    try:
        location, metadata = _decided(io, folder, versions[newest])
        if known and not _is_before(io, known, location, metadata):
            raise TwofoldError(
                f"the catalog names {known}, which {location} does not come from",
                "see which of them is right; remove the catalog's row, or move the other's files away",
            )
    except TwofoldError as error:
        return FoundTable(pipeline, table, REFUSED, str(error))
    snapshot = metadata.current_snapshot()
    summary = snapshot.summary if snapshot and snapshot.summary else {}
    text = f"commit {newest} of the table, {int(summary.get('total-records') or 0):,} rows"
    return FoundTable(pipeline, table, BEHIND if known else NEW, text, location, known or "")


def _decided(io: FileIO, folder: str, names: list[str]) -> tuple[str, TableMetadata]:
    """The metadata file of the newest version that was, or may as well be, the last commit."""
    read, torn = {}, {}
    for name in sorted(names):
        location = f"{folder}/{inbox.METADATA}/{name}"
        try:
            metadata = FromInputFile.table_metadata(io.new_input(location))
        except FileNotFoundError:
            what = f"{location} went away while it was looked at: a job has just committed, or was refused"
            raise TwofoldError(what, "run this again once no job runs") from None
        except (ValueError, ValidationError) as error:  # empty, or cut short, as by a full disk
            torn[location] = first_line(error)
            continue
        if _path(metadata.location).rstrip("/") != _path(folder):
            what = f"{location} was written for {metadata.location}"
            raise TwofoldError(what, "put the bucket back to where it was: tables name their files in full")
        read[location] = metadata
    whole = {location: metadata for location, metadata in read.items() if _is_whole(io, metadata)}
    if torn and not whole:
        what = f"{', '.join(torn)} cannot be read ({next(iter(torn.values()))})"
        raise TwofoldError(
            what, "bring it back from a copy of the bucket; or move it away, if its commit was never made"
        )
    if not whole:
        what = f"the snapshot that {min(read)} names is not there"
        raise TwofoldError(what, "bring the file back from a copy of the bucket")
    if len({_said(metadata) for metadata in whole.values()}) > 1:
        raise TwofoldError(
            f"{len(whole)} commits were begun on top of one: {', '.join(whole)}, and nothing tells which was made",
            "move all but one of these files out of the folder (what the others added is ingested again, as long as "
            "Kafka and the inbox have it; `twofold prove` tells), and run this again",
        )
    return next(iter(whole.items()))


def _is_whole(io: FileIO, metadata: TableMetadata) -> bool:
    """Whether its snapshot is there: a writer whose commit was refused has removed it."""
    snapshot = metadata.current_snapshot()
    return snapshot is None or io.new_input(snapshot.manifest_list).exists()


def _said(metadata: TableMetadata) -> str:
    """What a table's metadata says, whoever wrote it, and when."""
    same = {"last_updated_ms": 0, "table_uuid": UUID(int=0), "metadata_log": []}
    return metadata.model_copy(update=same).model_dump_json()


def _is_before(io: FileIO, known: str, location: str, metadata: TableMetadata) -> bool:
    """Whether the metadata comes from the file that the catalog names; it removes the oldest ones before it."""
    logged = {_path(entry.metadata_file) for entry in metadata.metadata_log}
    removed = known.rsplit("/", 1)[0] == location.rsplit("/", 1)[0] and not io.new_input(known).exists()
    return _path(known) in logged or (removed and _version(known) < _version(location))


def carry_out(catalog: SqlCatalog, entry: FoundTable) -> None:
    """Have the catalog name the table's metadata; TwofoldError where somebody else changed its row meanwhile."""
    try:
        if entry.state == NEW:
            with suppress(IntegrityError):
                catalog.create_namespace_if_not_exists(entry.pipeline)
            catalog.register_table((entry.pipeline, entry.table), entry.metadata)
        elif entry.state == BEHIND:
            _move(catalog, entry)
    except (TableAlreadyExistsError, CommitFailedException) as error:
        what = f"{entry.pipeline}.{entry.table} was changed meanwhile: {error}"
        raise TwofoldError(what, "see that no job runs, and run the command again") from None


def _move(catalog: SqlCatalog, entry: FoundTable) -> None:
    moved = {"metadata_location": entry.metadata, "previous_metadata_location": entry.before}
    with Session(catalog.engine) as session:
        row = update(IcebergTables).where(*_row(catalog, entry.pipeline, entry.table))
        done = session.execute(row.where(IcebergTables.metadata_location == entry.before).values(moved))
        if not done.rowcount:  # type: ignore[attr-defined]
            raise CommitFailedException("another commit was first")
        session.commit()


def _named(catalog: SqlCatalog, pipeline: str, table: str) -> str | None:
    """The metadata file that the catalog names, also where it is gone; None: no such table."""
    with Session(catalog.engine) as session:
        return session.scalar(select(IcebergTables.metadata_location).where(*_row(catalog, pipeline, table)))


def _row(catalog: SqlCatalog, pipeline: str, table: str) -> tuple[ColumnElement[bool], ...]:
    return (
        IcebergTables.catalog_name == catalog.name,
        IcebergTables.table_namespace == pipeline,
        IcebergTables.table_name == table,
    )


def _versions(io: FileIO, folder: str) -> dict[int, list[str]]:
    """Version → names of the metadata files in a table's folder; empty where there is no table."""
    found: dict[int, list[str]] = {}
    for info in _listed(io, f"{folder}/{inbox.METADATA}"):
        name = info.base_name
        if name.endswith(_SUFFIX) and inbox.is_table_file(f"{inbox.METADATA}/{name}"):
            found.setdefault(_version(name), []).append(name)
    return found


def refuse_forgotten(catalog: Catalog, pipeline: str, wanted: Collection[str]) -> None:
    """TwofoldError where the bucket has commits of a table that the catalog does not know: none is made beside it.

    The first metadata file alone says nothing: whoever wrote it may have been killed before the catalog named it.
    """
    for table in (table for table in wanted if not catalog.table_exists((pipeline, table))):
        folder = f"{catalog.properties['warehouse']}/{pipeline}/{table}"
        versions = _versions(load_file_io(catalog.properties, folder), folder)
        # Asked again: another job may have made the table meanwhile, and committed to it.
        if max(versions, default=0) and not catalog.table_exists((pipeline, table)):
            raise TwofoldError(
                f"{folder} has a table that the catalog does not know: the catalog was lost, or is another one",
                "`twofold recatalog` makes it again from what lies in the bucket",
            )


def _version(location: str) -> int:
    return int(location.rsplit("/", 1)[-1].split("-", 1)[0])


def _path(location: str) -> str:
    return PyArrowFileIO.parse_location(location)[2]


def _folders(io: FileIO, uri: str) -> list[str]:
    return sorted(info.base_name for info in _listed(io, uri) if info.type == fs.FileType.Directory)


def _listed(io: FileIO, uri: str) -> list[fs.FileInfo]:
    assert isinstance(io, PyArrowFileIO)
    scheme, netloc, path = PyArrowFileIO.parse_location(uri)
    selector = fs.FileSelector(path, allow_not_found=True)
    listed: list[fs.FileInfo] = io.fs_by_scheme(scheme, netloc).get_file_info(selector)
    return listed
