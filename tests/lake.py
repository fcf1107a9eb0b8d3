"""Tables of a pipeline filled directly, so that a test decides every row, file and boundary itself."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg import expressions
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table

from tests import small_world
from tests.at_work import Work
from twofold import catalog, schemas, tables
from twofold.catalog import LakeCatalog
from twofold.definition.model import Pipeline
from twofold.lake import Lake
from twofold.settings import Settings
from twofold.table_state import Boundary, Folded, Landed, encode

Row = Mapping[str, Any]
EqualTo = cast("Callable[[str, object], expressions.BooleanExpression]", expressions.EqualTo)
"""As it is called: pyiceberg's annotations know only the constructor that pydantic would give it."""


@dataclass(frozen=True)
class LocalLake(Lake):
    """A lake whose catalog is a file: no service is needed."""

    own: LakeCatalog

    def catalog(self) -> LakeCatalog:
        """The one of this test."""
        return self.own


def make(settings: Settings, pipeline: Pipeline) -> dict[str, Table]:
    """The pipeline's empty tables, by name."""
    return schemas.ensure_tables(catalog.load(settings), pipeline)


def append(table: Table, rows: Iterable[Row], state: Boundary | Landed | Folded | None = None) -> None:
    """One commit. Columns that a row does not have are null."""
    schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
    filled = [{name: row.get(name) for name in schema.names} for row in rows]
    table.append(pa.Table.from_pylist(filled, schema=schema), snapshot_properties=encode(state) if state else {})


def land_records(work: Work, table: Table, number: int, events: list[small_world.Row]) -> None:
    """Land a step's records, all in one partition, a millisecond apart."""
    base = len(work.rows)
    for offset, row in enumerate(events, base):
        outcome = tables.FILTERED if row["hidden"] else tables.ACCEPTED
        moment = small_world.START + timedelta(milliseconds=offset)
        place = {"kafka_partition": 0, "kafka_offset": offset, "kafka_timestamp": moment, "landing": number}
        work.rows.append({**row, "outcome": outcome, **place})
    state = Landed(work.pipeline.name, number, "t", {0: len(work.rows)})
    append(table, work.rows[base:], state)


def land_file(work: Work, table: Table, number: int, events: list[small_world.Row]) -> None:
    """Land a step's rows as one file."""
    base = len(work.batch)
    for row_number, row in enumerate(events, 1):
        outcome = tables.FILTERED if row["hidden"] else tables.ACCEPTED
        place = {"landing": number, "file": "f.json", "row": row_number, "landed_at": small_world.START}
        work.batch.append({**row, "outcome": outcome, **place})
    append(table, work.batch[base:], Landed(work.pipeline.name, number))


def plain(path: Path) -> bytes:
    """All that a file says, unpacked."""
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        said = [str(file.read().to_pydict())]
        for group in range(file.metadata.num_row_groups):
            said += [str(column["statistics"]) for column in file.metadata.row_group(group).to_dict()["columns"]]
        return " ".join(said).encode()
    if path.suffix == ".avro":
        with path.open("rb") as stream:
            return str(list(fastavro.reader(stream))).encode()
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def holding(folder: Path, what: bytes, other: bytes = b"-") -> list[str]:
    """Files that hold some bytes, other than as a part of `other` ones."""
    said = ((path, plain(path).replace(other, b"")) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path, content in said if what in content)
