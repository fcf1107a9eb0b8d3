"""Commits by comparison: a commit holds only on top of the snapshot whose state it was decided on.

    table as loaded ─► its state read, what to do decided ─► append(files, state) ─► still that snapshot? ─► committed
            ▲                                                                          │ no
            └── CommitFailedException: read again, decide again ◄──────────────────────┘

So of two jobs that would ingest the same records, one is refused, even if locks and connections failed meanwhile.
A commit of rows never waits for housekeeping: `tidy` merges manifests and expires snapshots in commits of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any, Literal, TypeVar, cast
from uuid import uuid4

from pydantic import Field
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.table.locations import LocationProvider, SimpleLocationProvider, load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
    ValidatableTableRequirement,
)

from twofold import windows
from twofold.errors import TwofoldError

MERGED_AT_ONCE = 40
"""At least this many manifests of one size become one: each file is written into few, and few have to be read."""
CLOCK_TOLERANCE_MS = 60_000
"""Iceberg takes a snapshot for one of the past from this much on."""
ATTEMPTS = 5
"""How often a commit is decided again where others were first."""
_T = TypeVar("_T")
_ADDED = ("added-data-files", "added-records", "added-files-size")
_DELETED = ("deleted-data-files", "deleted-records", "removed-files-size")
_TOTAL = ("total-data-files", "total-records", "total-files-size")


class CompressedMetadata(SimpleLocationProvider):
    """Names metadata files so that pyiceberg compresses them: with each commit the list of snapshots is written."""

    def new_table_metadata_file_location(self, new_version: int = 0) -> str:
        """A name that pyiceberg and Java both read as gzip."""
        return super().new_table_metadata_file_location(new_version).replace(".metadata.json", ".gz.metadata.json")


class AssertProperty(ValidatableTableRequirement):
    """A property of the table must still have the value that was read; properties change without a snapshot."""

    type: Literal["twofold-assert-property"] = Field(default="twofold-assert-property")
    key: str
    value: str | None = None

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]
        """Raise CommitFailedException where it has another."""
        found = base_metadata.properties.get(self.key) if base_metadata else None
        if found != self.value:
            raise CommitFailedException(f"Requirement failed: property {self.key} was changed meanwhile")


def append(
    table: Table,
    files: Sequence[DataFile],
    state: Mapping[str, str],
    requirements: Sequence[ValidatableTableRequirement] = (),
) -> Table:
    """Append data files, with `state` in the snapshot's summary, on top of the snapshot that `table` has.

    Returns the table as committed. Raises CommitFailedException where another commit was first: nothing was changed.
    Any other error leaves open whether it was committed: the state that the table carries shows it.
    """
    with _drafted(table, Operation.APPEND) as draft:
        return draft.commit([*draft.added(files), *manifests_of(table)], _counts(_ADDED, files), state, requirements)


def replace(
    table: Table,
    head: int | None,
    deleted: Collection[DataFile],
    added: Sequence[DataFile],
    state: Mapping[str, str],
    updates: Sequence[TableUpdate] = (),
    requirements: Sequence[ValidatableTableRequirement] = (),
    *,
    forget: bool = False,
) -> Table:
    """Put `added` files in place of `deleted` ones, if the table is still at `head`; else as `append` is refused.

    Only manifests that name one of the `deleted` files are rewritten. `updates` are of the same commit; `table` is then
    the one that they lead to. With `forget` no manifest names a deleted file any more, not even as deleted: it would
    tell the least and the highest values of its columns.
    """
    if table.metadata.current_snapshot_id != head:
        raise CommitFailedException(f"{'.'.join(table.name())} is no longer at snapshot {head}")
    changed = {**_counts(_ADDED, added), **_counts(_DELETED, deleted)}
    with _drafted(table, Operation.OVERWRITE) as draft:
        kept = draft.merged(draft.without(manifests_of(table), deleted, forget=forget))
        return draft.commit([*draft.added(added), *kept], changed, state, requirements, before=updates)


def set_properties(
    table: Table, properties: Mapping[str, str], requirements: Sequence[ValidatableTableRequirement] = ()
) -> Table:
    """Set properties, if the table is still at the snapshot that it was loaded with; else as `append` is refused."""
    return _committed(table, (SetPropertiesUpdate(updates=dict(properties)),), requirements)


def _counts(names: Sequence[str], files: Collection[DataFile]) -> dict[str, int]:
    """Files, rows and bytes, under the names that Iceberg has for them in a snapshot's summary."""
    rows, size = (sum(getattr(file, one) for file in files) for one in ("record_count", "file_size_in_bytes"))
    return dict(zip(names, (len(files), rows, size), strict=True))


def discard(table: Table, files: Iterable[DataFile]) -> None:
    """Remove data files that no commit names, after it was refused."""
    remove(table.io, [file.file_path for file in files])


def remove(io: FileIO, paths: Iterable[str]) -> None:
    """Remove files that nothing refers to; what stays, maintenance removes."""
    for path in paths:
        with suppress(OSError):
            io.delete(path)


def tidy(table: Table, expired: Collection[int] = (), *, forget: bool = False) -> Table:
    """Merge small manifests and drop the `expired` snapshots, in one commit that changes no row; then their files.

    With `forget` no manifest names a deleted file any more. Nothing to do: the table as it is. Raises
    CommitFailedException where another commit was first.
    """
    # Of pyiceberg's models mypy knows the names in JSON only.
    removal = (RemoveSnapshotsUpdate(snapshot_ids=list(expired)),) if expired else ()  # type: ignore[call-arg]
    with _drafted(table, Operation.REPLACE) as draft:
        before = manifests_of(table)
        after = draft.merged(draft.without(before, (), forget=True) if forget else before)
        if after == before and not expired:
            return table
        leftovers = _only_named_by(table, set(expired))
        if after != before:
            committed = draft.commit(after, {}, {}, updates=removal)
        else:
            committed = _committed(table, removal, at_head=False)
    # A kill in between leaves orphans, which maintenance removes.
    remove(table.io, leftovers)
    return committed


def may_hold(manifest: ManifestFile, days: Iterable[date]) -> bool:
    """Whether a manifest can name files of one of these days, by which its table is partitioned."""
    summary = manifest.partitions[0] if manifest.partitions else None
    if summary is None or summary.lower_bound is None or summary.upper_bound is None:
        return True
    bounds = (int.from_bytes(bound, "little", signed=True) for bound in (summary.lower_bound, summary.upper_bound))
    low, high = map(windows.day, bounds)
    return any(low <= day <= high for day in days)


def retried(name: str, attempt: Callable[[], _T], remedy: str, attempts: int = ATTEMPTS) -> _T:
    """The result of the first attempt whose commit holds: each reads the table again, and decides again.

    TwofoldError, with the remedy, where others change the table `name` each time.
    """
    for _ in range(attempts):
        with suppress(CommitFailedException):
            return attempt()
    raise TwofoldError(f"{name} was changed by others during each of {attempts} attempts", remedy)


def clock_behind_ms(metadata: TableMetadata) -> int:
    """How far this machine's clock is behind the table's last commit, beyond what Iceberg tolerates; 0: it is not."""
    behind = metadata.last_updated_ms - int(time.time() * 1000)
    return behind if behind > CLOCK_TOLERANCE_MS else 0


def clock_warning(table: Table) -> str:
    """What to say before a commit of rows where this machine's clock was set back; empty: it was not."""
    behind = clock_behind_ms(table.metadata)
    if not behind:
        return ""
    return (
        f"this machine's clock is {behind / 1000:.0f} s behind the last commit of {'.'.join(table.name())}: "
        "rows are committed all the same, dated as that one, until the clock is past it"
    )


@contextmanager
def _drafted(table: Table, operation: Operation) -> Iterator[_Draft]:
    """A draft that leaves nothing where it is refused: also where files that it reads went, as others expired them."""
    draft = _Draft(table, operation)
    try:
        yield draft
    except (CommitFailedException, FileNotFoundError, ValueError) as error:
        if not isinstance(error, CommitFailedException) and not draft.is_late():
            raise
        # It is certain here, and only here, that nothing refers to them.
        remove(table.io, draft.written)
        raise CommitFailedException(str(error)) from error


def is_expired(table: Table) -> bool:
    """Whether others have expired the snapshot that the table was loaded at: then its files may be gone."""
    head = table.metadata.current_snapshot_id
    return head is not None and table.catalog.load_table(table.name()).snapshot_by_id(head) is None


@contextmanager
def kept(table: Table) -> Iterator[None]:
    """Where files of the table are read as it was loaded: CommitFailedException where others have expired it since."""
    try:
        yield
    except Exception as error:
        if not is_expired(table):
            raise
        raise CommitFailedException(f"{'.'.join(table.name())} was expired while it was read: {error}") from error


class _Draft:
    """A snapshot that is not committed yet, and the files written for it."""

    def __init__(self, table: Table, operation: Operation) -> None:
        self._table = table
        self._metadata = table.metadata
        self._operation = operation
        self._id = table.metadata.new_snapshot_id()
        self._parent = table.metadata.current_snapshot()
        self._provider: LocationProvider = load_location_provider(table.metadata.location, table.metadata.properties)
        self.written: list[str] = []

    def added(self, files: Sequence[DataFile]) -> list[ManifestFile]:
        """One manifest with the new files; none where there are none."""
        return [self._manifest(self._metadata.default_spec_id, added=files)] if files else []

    def without(
        self, manifests: Sequence[ManifestFile], deleted: Collection[DataFile], *, forget: bool = False
    ) -> list[ManifestFile]:
        """The manifests, those that name `deleted` files rewritten; CommitFailedException where one is not named."""
        missing = {file.file_path for file in deleted}
        days = {windows.day(int(file.partition[0])) for file in deleted}
        kept = []
        for manifest in manifests:
            if not manifest.has_added_files() and not manifest.has_existing_files():
                continue  # it only lists what an earlier commit took away
            tells = forget and manifest.deleted_files_count != 0
            entries = (tells or may_hold(manifest, days)) and manifest.fetch_manifest_entry(
                self._table.io, discard_deleted=True
            )
            found = {entry.data_file.file_path for entry in entries or ()} & missing
            if not entries or not (found or tells):
                kept.append(manifest)
                continue
            missing -= found
            gone = [] if forget else [entry for entry in entries if entry.data_file.file_path in found]
            left = [entry for entry in entries if entry.data_file.file_path not in found]
            if gone or left:
                kept.append(self._manifest(manifest.partition_spec_id, left, gone))
        if missing:
            raise CommitFailedException(f"{'.'.join(self._table.name())} has no file {min(missing)} any more")
        return kept

    def merged(self, manifests: Sequence[ManifestFile]) -> list[ManifestFile]:
        """Manifests of one size made into one, where there are many of them."""
        sizes: dict[tuple[int, int], list[ManifestFile]] = {}
        for manifest in manifests:
            if manifest.content == ManifestContent.DATA:
                sizes.setdefault((manifest.partition_spec_id, _magnitude(manifest)), []).append(manifest)
        kept = list(manifests)
        for (spec_id, _), alike in sizes.items():
            if len(alike) < MERGED_AT_ONCE:
                continue
            # What this very commit takes away stays listed.
            alike = [one for one in alike if one.added_snapshot_id != self._id]
            entries = [
                entry for one in alike for entry in one.fetch_manifest_entry(self._table.io, discard_deleted=True)
            ]
            kept = [manifest for manifest in kept if manifest not in alike]
            if entries:
                kept.append(self._manifest(spec_id, entries))
        return kept

    def commit(
        self,
        manifests: Sequence[ManifestFile],
        changed: Mapping[str, int],
        state: Mapping[str, str],
        requirements: Sequence[ValidatableTableRequirement] = (),
        updates: Sequence[TableUpdate] = (),
        before: Sequence[TableUpdate] = (),
    ) -> Table:
        """Publish the snapshot, if the table is still at its parent."""
        sequence = self._metadata.next_sequence_number()
        path = self._place(f"snap-{self._id}-0-{uuid4()}.avro")
        with write_manifest_list(
            format_version=self._metadata.format_version,
            output_file=self._table.io.new_output(path),
            snapshot_id=self._id,
            parent_snapshot_id=self._metadata.current_snapshot_id,
            sequence_number=sequence,
            avro_compression="deflate",
        ) as writer:
            writer.add_manifests(list(manifests))
        snapshot = Snapshot(  # type: ignore[call-arg]
            snapshot_id=self._id,
            parent_snapshot_id=self._metadata.current_snapshot_id,
            manifest_list=path,
            sequence_number=sequence,
            # Snapshots are in the order of their times, also where a clock was set back.
            timestamp_ms=max(int(time.time() * 1000), self._metadata.last_updated_ms),
            summary=Summary(self._operation, **self._totals(changed), **state),
            schema_id=self._metadata.current_schema_id,
        )
        moved = SetSnapshotRefUpdate(ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH, snapshot_id=self._id)  # type: ignore[call-arg]
        return _committed(self._table, (*before, AddSnapshotUpdate(snapshot=snapshot), moved, *updates), requirements)

    def is_late(self) -> bool:
        """Whether it is not committed, and others have expired snapshots of the table since it was loaded."""
        found = (self._metadata, self._table.catalog.load_table(self._table.name()).metadata)
        known, now = ({one.snapshot_id for one in metadata.snapshots} for metadata in found)
        return self._id not in now and not known <= now

    def _totals(self, changed: Mapping[str, int]) -> dict[str, str]:
        """What the snapshot adds and takes away, and the table's totals with it."""
        before = self._parent.summary if self._parent and self._parent.summary else {}
        totals = {
            total: int(before.get(total) or 0) + changed.get(more, 0) - changed.get(less, 0)
            for total, more, less in zip(_TOTAL, _ADDED, _DELETED, strict=True)
        }
        deletes = {"total-delete-files": int(before.get("total-delete-files") or 0)}
        return {name: str(value) for name, value in {**changed, **totals, **deletes}.items()}

    def _manifest(
        self,
        spec_id: int,
        existing: Iterable[ManifestEntry] = (),
        deleted: Iterable[ManifestEntry] = (),
        added: Iterable[DataFile] = (),
    ) -> ManifestFile:
        path = self._place(f"{uuid4()}-m0.avro")
        with write_manifest(
            format_version=self._metadata.format_version,
            spec=self._metadata.specs()[spec_id],
            schema=self._metadata.schema(),
            output_file=self._table.io.new_output(path),
            snapshot_id=self._id,
            avro_compression="deflate",
        ) as writer:
            for entry in deleted:
                writer.delete(entry)
            for entry in existing:
                writer.existing(entry)
            for file in added:
                writer.add(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, data_file=file))
        return writer.to_manifest_file()

    def _place(self, name: str) -> str:
        path = self._provider.new_metadata_location(name)
        self.written.append(path)
        return path


def _committed(
    table: Table,
    updates: tuple[TableUpdate, ...],
    requirements: Sequence[ValidatableTableRequirement] = (),
    *,
    at_head: bool = True,
) -> Table:
    """Commit, if it is the same table, and (`at_head`) still at the snapshot that it was loaded with."""
    held: list[TableRequirement] = [AssertTableUUID(uuid=table.metadata.table_uuid)]
    if at_head:
        head = table.metadata.current_snapshot_id
        held.append(AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head))  # type: ignore[call-arg]
    answer = table.catalog.commit_table(table, (*held, *cast(Any, requirements)), updates)
    return Table(table.name(), answer.metadata, answer.metadata_location, table.io, table.catalog)


def _only_named_by(table: Table, expired: set[int]) -> list[str]:
    """Manifest lists of the oldest snapshots, and the manifests that no newer one names.

    Along a chain a manifest is named by consecutive snapshots: one that is still in use is named by the oldest kept.
    Data files are left alone: rewrites drop them, and maintenance looks after those.
    """
    chain = sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
    gone = [snapshot for snapshot in chain if snapshot.snapshot_id in expired]
    kept = [snapshot for snapshot in chain if snapshot.snapshot_id not in expired]
    if not gone or not kept or chain[: len(gone)] != gone:
        return []
    in_use = {manifest.manifest_path for manifest in kept[0].manifests(table.io)}
    named = {manifest.manifest_path for snapshot in gone for manifest in snapshot.manifests(table.io)}
    return [snapshot.manifest_list for snapshot in gone] + sorted(named - in_use)


def manifests_of(table: Table | None) -> list[ManifestFile]:
    """Those of the current snapshot; none where there is no table."""
    snapshot = table.metadata.current_snapshot() if table else None
    return snapshot.manifests(table.io) if table and snapshot else []


def _magnitude(manifest: ManifestFile) -> int:
    """How many times MERGED_AT_ONCE a manifest's files were merged already.

    >>> from types import SimpleNamespace as manifest
    >>> [_magnitude(manifest(added_files_count=n, existing_files_count=0)) for n in (1, 39, 40, 1600)]
    [0, 0, 1, 2]
    """
    files = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
    magnitude = 0
    while files >= MERGED_AT_ONCE:
        files, magnitude = files // MERGED_AT_ONCE, magnitude + 1
    return magnitude
