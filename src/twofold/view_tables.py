"""The tables of views: made from the declaration, refused where another one filled them, or declared anew.

keys, measures and their types ─► schema, partitioned by the day of window_start ─► batch_<view>, stream_<view>
another declaration than the table's ─► refused; `redeclared`: new columns, in one commit with their rows
"""

from __future__ import annotations

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.update import (
    AddSchemaUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    TableUpdate,
    update_table_metadata,
)
from pyiceberg.transforms import DayTransform
from pyiceberg.types import IcebergType, NestedField

from twofold import catalog as catalogs
from twofold import ensure, tables
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.errors import IncompatibleDefinition

DEFINITION = "twofold.definition"
"""Property of a view's table: the fingerprint of the declaration that fills it."""
_DAY = "window_start"


def columns(pipeline: Pipeline, view: View, table: str) -> list[tuple[str, IcebergType]]:
    """Name and type of each column, in order; a stream's table says last which version of its window a row is."""
    fields = pipeline.event.fields
    kinds = [
        *((key, "TIMESTAMP") for key in ("window_start", "window_end")),
        *((name, fields[name].type.spark) for name in view.by),
        *((name, measure.type.spark) for name, measure in view.measures.items()),
        *([(tables.VERSION, "BIGINT")] if table == tables.stream_view_name(view) else []),
    ]
    return [(name, ensure.iceberg_type(kind)) for name, kind in kinds]


def ensured(catalog: Catalog, pipeline: Pipeline, view: View, name: str) -> Table:
    """The view's table `name`, made if there is none; IncompatibleDefinition where another declaration filled it."""
    table = catalogs.find(catalog, pipeline.name, name) or _made(catalog, pipeline, view, name)
    if is_outdated(table, pipeline, view):
        raise IncompatibleDefinition(
            f"{pipeline.source_file or pipeline.name}: views.{view.name} is not what {pipeline.name}.{name} was "
            "computed by (its window, groups, measures, or the pipeline's lateness changed)",
            f"`twofold rebuild {pipeline.name}` computes all views anew; or declare the change as a new view",
        )
    return ensure.extended(catalog, table, columns(pipeline, view, name))


def is_outdated(table: Table, pipeline: Pipeline, view: View) -> bool:
    """Whether another declaration filled this table."""
    found = table.properties.get(DEFINITION)
    return found is not None and found != fingerprint.view(pipeline, view)


def redeclared(table: Table, pipeline: Pipeline, view: View, name: str) -> tuple[Table, tuple[TableUpdate, ...]]:
    """The table with the columns of today's declaration, and the updates that lead there: for the commit of its rows.

    Columns that stay as they were keep their ids, and so do the days that partition it.
    """
    before = {field.name: field for field in table.schema().fields}
    fresh = table.metadata.last_column_id
    fields = []
    for column, kind in columns(pipeline, view, name):
        known = before.get(column)
        if known is None or known.field_type != kind:
            fresh += 1
            known = NestedField(fresh, column, kind)
        fields.append(known)
    number = max(schema.schema_id for schema in table.metadata.schemas) + 1
    # Of pyiceberg's models mypy knows the names in JSON only.
    updates: tuple[TableUpdate, ...] = (
        AddSchemaUpdate(schema=Schema(*fields, schema_id=number)),
        SetCurrentSchemaUpdate(schema_id=number),  # type: ignore[call-arg]
        SetPropertiesUpdate(updates={DEFINITION: fingerprint.view(pipeline, view)}),
    )
    metadata = update_table_metadata(table.metadata, updates)
    return Table(table.name(), metadata, table.metadata_location, table.io, table.catalog), updates


def _made(catalog: Catalog, pipeline: Pipeline, view: View, name: str) -> Table:
    shape = columns(pipeline, view, name)
    schema = Schema(*(NestedField(number, column, kind) for number, (column, kind) in enumerate(shape, 1)))
    day = PartitionField(schema.find_field(_DAY).field_id, ensure.FIRST_PARTITION_ID, DayTransform(), ensure.PARTITION)
    properties = {**ensure.PROPERTIES, **ensure.BY_DAY, DEFINITION: fingerprint.view(pipeline, view)}
    try:
        return catalog.create_table(
            (pipeline.name, name), schema, partition_spec=PartitionSpec(day), properties=properties
        )
    except TableAlreadyExistsError:  # another job of this pipeline started at the same moment
        return catalog.load_table((pipeline.name, name))
