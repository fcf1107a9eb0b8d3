"""The ledger of a pipeline: ids that were erased for good, so that none of their records comes back.

twofold erase ─► table `erased`: hash, when, by whom, why ─► its snapshot in a property of both logs
                        └► Erased, sent to every task ─► rows of these ids, whatever brings them, are landed blank

A commit of a log holds only under the ledger that its rows were compared with, as the property says: what was read
before an id was erased is read again. The table has hashes, keyed by a salt of its own, and no id.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from twofold import commits, schemas, table_files, tables
from twofold.commits import AssertProperty
from twofold.definition.model import Pipeline
from twofold.definition.names import ELEMENT
from twofold.errors import TwofoldError
from twofold.lake import Lake

KNOWN = "twofold.erased"
"""Property of both logs: the snapshot of the ledger that rows are compared with."""
SALT = "twofold.salt"
"""Property of the ledger: what its hashes are keyed with."""
PLACE = ("landing", "file", "row", tables.LANDED_AT, "kafka_partition", "kafka_offset", "kafka_timestamp", ELEMENT)
"""The columns that an erased record keeps: where it lay and when it came."""
_ATTEMPTS = 10
RejectedIds = Callable[[pa.RecordBatch], Mapping[int, Collection[str | None]]]
"""Index of a rejected row → the ids that its record shows, None for one that cannot be read; the row has no key."""


@dataclass(frozen=True)
class Erased:
    """The erased ids of a pipeline, as a log knows them; small enough to be sent to every task."""

    key: str = ""
    """The column of the ids."""
    salt: str = ""
    hashes: frozenset[str] = frozenset()
    known: str | None = None

    def __contains__(self, id_: str) -> bool:
        return self.hash_of(id_) in self.hashes

    def hash_of(self, id_: str) -> str:
        """The hash of an id, which is a text or a whole number, as it is in the ledger.

        >>> Erased(salt="a").hash_of("b") == hashlib.sha256(b"ab").hexdigest()
        True
        """
        return hashlib.sha256(f"{self.salt}{id_}".encode()).hexdigest()

    def blanked(self, rows: pa.RecordBatch, rejected: RejectedIds) -> pa.RecordBatch:
        """Rows of a log, those of erased ids blank; `rejected` says what ids the rejected among them have."""
        if not self.hashes:
            return rows
        ids = rows[self.key].cast(pa.string()).to_pylist()
        those = [one is not None and one in self for one in ids]
        for index, found in rejected(rows).items():
            those[index] = any(one is not None and one in self for one in found)
        return blank(rows, pa.array(those, pa.bool_()))

    def is_of(self, log: Table) -> bool:
        """Whether this is what a log is to be compared with."""
        return self.known == log.properties.get(KNOWN)

    @property
    def unchanged(self) -> AssertProperty:
        """A commit's requirement: nothing was erased since."""
        return AssertProperty(key=KNOWN, value=self.known)


def blank(rows: pa.RecordBatch, those: pa.BooleanArray) -> pa.RecordBatch:
    """Some rows without anything but their place, and with the outcome `erased`."""
    if not pc.any(those).as_py():
        return rows
    columns = [
        column
        if name in PLACE
        else pc.if_else(those, tables.ERASED if name == tables.OUTCOME else pa.scalar(None, column.type), column)
        for name, column in zip(rows.schema.names, rows.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def read(lake: Lake, log: Table) -> Erased:
    """What is known to a log; the ledger may have more by now, which does no harm."""
    known = log.properties.get(KNOWN)
    if known is None:
        return Erased()
    table = lake.find(tables.LEDGER)
    if table is None:
        raise TwofoldError(
            f"{lake.name}.{tables.LEDGER}, which has what was erased for good, is gone: it would come back",
            "`twofold recatalog` finds it in the bucket; else restore it from a backup",
        )
    return of(lake.pipeline, table, known)


def of(pipeline: Pipeline, table: Table | None, known: str | None = None) -> Erased:
    """The ledger as it is in its table; empty where nothing was ever erased."""
    if table is None:
        return Erased()
    hashes = table.scan(selected_fields=("hash",)).to_arrow()["hash"].to_pylist()
    return Erased(pipeline.event.key, table.properties[SALT], frozenset(hashes), known)


def enter(lake: Lake, ids: Collection[str], by: str, why: str) -> int:
    """Enter those ids that are not there yet, and let both logs know; gives how many are new.

    From then on no commit of a log brings a row of them.
    """

    def attempt() -> int:
        table = schemas.ensure_ledger(lake.catalog(), lake.pipeline, {SALT: secrets.token_hex(16)})
        before = of(lake.pipeline, table)
        new = sorted({before.hash_of(one) for one in ids} - before.hashes)
        row = {"erased_at": datetime.now(UTC), "by": by, "why": why}
        if new:
            commits.append(table, table_files.of_rows(table, ({"hash": one, **row} for one in new)), {})
        _tell(lake)
        return len(new)

    what = f"{lake.name}.{tables.LEDGER} or a log"
    return commits.retried(what, attempt, "run it again: what it had done stays done", _ATTEMPTS)


def _tell(lake: Lake) -> None:
    """The logs are told of the snapshot that the ledger has after what was entered, also by a run that was killed."""
    known = str(lake.table(tables.LEDGER).metadata.current_snapshot_id)
    for name in (tables.STREAM_LOG, tables.BATCH_LOG):

        def attempt(name: str = name) -> None:
            log = lake.table(name)
            if log.properties.get(KNOWN) != known:
                commits.set_properties(log, {KNOWN: known})

        commits.retried(f"{lake.name}.{name}", attempt, "run it again: what it had done stays done", _ATTEMPTS)
