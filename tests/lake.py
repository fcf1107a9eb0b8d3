"""Tables of a pipeline filled by hand, so that a test decides every row, file and boundary itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table

from twofold import catalog, ensure
from twofold.boundary import Boundary, Folded, Landed, encode
from twofold.definition.model import Pipeline
from twofold.settings import Settings

Row = Mapping[str, Any]


def make(settings: Settings, pipeline: Pipeline) -> dict[str, Table]:
    """The pipeline's empty tables, by name."""
    return ensure.ensure(catalog.load(settings), pipeline)


def append(table: Table, rows: Iterable[Row], state: Boundary | Landed | Folded | None = None) -> None:
    """One commit. Columns that a row does not have are null."""
    schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
    filled = [{name: row.get(name) for name in schema.names} for row in rows]
    table.append(pa.Table.from_pylist(filled, schema=schema), snapshot_properties=encode(state) if state else {})
