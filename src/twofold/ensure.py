"""Make a pipeline's tables, or evolve them to its definition, or refuse before anything is written.

no table ─► created          a new optional field ─► column added
a changed type, id or event time, a field removed or newly required ─► IncompatibleDefinition, with the remedy
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)
from sqlalchemy.exc import IntegrityError

from twofold import boundary, tables
from twofold import catalog as catalogs
from twofold.commits import AssertProperty, CompressedMetadata
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline
from twofold.definition.types import FieldType
from twofold.errors import DefinitionChanged, IncompatibleDefinition
from twofold.tables import Table

_TYPES: dict[str, IcebergType] = {
    "STRING": StringType(),
    "INT": IntegerType(),
    "BIGINT": LongType(),
    "DOUBLE": DoubleType(),
    "BOOLEAN": BooleanType(),
    "TIMESTAMP": TimestamptzType(),
    "DATE": DateType(),
    "BINARY": BinaryType(),
}
FIRST_PARTITION_ID = 1000
PARTITION = "_tw_day"
"""Name of the days in a table's partitioning, which Iceberg keeps apart from its columns: no field may have it. Tables
made before have `<column>_day`, and keep it."""

PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}
COMPRESSED = {
    # For Java, and for pyiceberg, which has no such setting.
    "write.metadata.compression-codec": "gzip",
    "write.py-location-provider.impl": f"{CompressedMetadata.__module__}.{CompressedMetadata.__qualname__}",
}
"""For tables that get many commits: each commit writes the list of all snapshots that are kept."""
EVENT = "twofold.event"
"""Property of the logs: the fingerprint of the definition under which they are written."""
AS_THEY_COME = {
    # Rows come in Kafka's order, a task per partition: no shuffle, and offsets prune files.
    "write.distribution-mode": "none",
    "write.spark.fanout.enabled": "true",
}
"""For the logs."""
BY_DAY = {
    # One sorted file per day, one open at a time: with all of a year's open, a union does little but collect garbage.
    "write.distribution-mode": "hash",
    "write.spark.fanout.enabled": "false",
}
"""For `events` and the views, whose days are replaced whole."""
LOGS = (tables.STREAM_LOG, tables.BATCH_LOG)
RULED = (tables.STREAM_LOG, tables.LANDED_FILES)
"""Tables that say since which landing the present rules hold: what landed before was read otherwise."""


def ensure(catalog: Catalog, pipeline: Pipeline) -> dict[str, IcebergTable]:
    """All tables that have declared columns, by name. View tables follow from their measures; Spark makes them."""
    _make_namespace(catalog, pipeline.name)
    wanted = (tables.stream_log(pipeline), tables.batch_log(pipeline), tables.events(pipeline), tables.landed_files())
    found = {table.name: catalogs.find(catalog, pipeline.name, table.name) for table in wanted}
    faults = [fault for table in wanted for fault in incompatibilities(pipeline, table, found[table.name])]
    if faults:
        raise IncompatibleDefinition(
            f"{pipeline.source_file or pipeline.name}: the definition does not fit the existing tables:\n  "
            + "\n  ".join(dict.fromkeys(faults)),
            "undo the change, or declare the changed stream under a new pipeline name; nothing was written",
        )
    return {table.name: _made(catalog, pipeline, table, found[table.name]) for table in wanted}


def _make_namespace(catalog: Catalog, name: str) -> None:
    # It looks, then makes; what another job of this pipeline makes in between is as good.
    with suppress(IntegrityError):
        catalog.create_namespace_if_not_exists(name)


def incompatibilities(pipeline: Pipeline, table: Table, existing: IcebergTable | None) -> list[str]:
    """What of the definition this existing table cannot follow, a sentence each."""
    if existing is None or table.name == tables.LANDED_FILES:
        return []
    faults = [
        f"event.{role}: was {existing.properties[key]!r}, is now {now!r}"
        for role, key, now in (("id", "twofold.id", pipeline.event.id), ("time", "twofold.time", pipeline.event.time))
        if existing.properties.get(key, now) != now
    ]
    columns = {field.name: field.field_type for field in existing.schema().fields}
    partitions = {partition.name for partition in existing.spec().fields}
    for field in pipeline.event.fields.values():
        if field.name not in columns:
            if field.name in partitions:
                faults.append(
                    f"event.fields.{field.name}: the days of {table.name} are called so; give the field another name"
                )
            if field.required:
                faults.append(f"event.fields.{field.name}: a new field must be optional (records without it are there)")
        elif columns[field.name] != iceberg_type(field.type.spark):
            faults.append(f"event.fields.{field.name}.type: was {columns[field.name]}, is now {field.type}")
    removed = [name for name in columns if name not in table.column_names]
    faults += [f"event.fields.{name}: was removed; keep it as an optional field" for name in removed]
    return faults


def iceberg_type(spark: str) -> IcebergType:
    """Iceberg's type for a Spark type name of `twofold.tables`.

    >>> iceberg_type("decimal(10,2)")
    DecimalType(precision=10, scale=2)
    """
    if spark in _TYPES:
        return _TYPES[spark]
    declared = FieldType.parse(spark)
    return DecimalType(declared.precision, declared.scale)


def _made(catalog: Catalog, pipeline: Pipeline, table: Table, existing: IcebergTable | None) -> IcebergTable:
    if existing is None:
        return _created(catalog, pipeline, table)
    found = extended(catalog, existing, [(name, iceberg_type(kind)) for name, kind in table.columns])
    wanted = _kept_properties(pipeline, table)
    if table.name in RULED and boundary.RULES_SINCE not in found.properties:
        wanted[boundary.RULES_SINCE] = str(_last_landing(catalog, pipeline, table) + 1)
    changed = {key: value for key, value in wanted.items() if found.properties.get(key) != value}
    return _with_properties(catalog, found, changed) if changed else found


def _created(catalog: Catalog, pipeline: Pipeline, table: Table) -> IcebergTable:
    schema = Schema(*(NestedField(i, name, iceberg_type(kind)) for i, (name, kind) in enumerate(table.columns, 1)))
    day = schema.find_field(table.day_of)
    spec = PartitionSpec(PartitionField(day.field_id, FIRST_PARTITION_ID, DayTransform(), PARTITION))
    order = SortOrder(
        *(SortField(source_id=schema.find_field(name).field_id, transform=IdentityTransform()) for name in table.sort)
    )
    layout = AS_THEY_COME if table.name in LOGS else BY_DAY
    layout = {**layout, **_kept_properties(pipeline, table)}
    layout = {**layout, boundary.RULES_SINCE: "1"} if table.name in RULED else layout
    identity = {"twofold.id": pipeline.event.id, "twofold.time": pipeline.event.time}
    try:
        return catalog.create_table(
            (pipeline.name, table.name),
            schema,
            partition_spec=spec,
            sort_order=order,
            properties={**PROPERTIES, **layout, **identity},
        )
    except TableAlreadyExistsError:  # another job of this pipeline started at the same moment
        return catalog.load_table((pipeline.name, table.name))


def _kept_properties(pipeline: Pipeline, table: Table) -> dict[str, str]:
    """Properties that tables of earlier releases get, too."""
    if table.name not in LOGS:
        return {}
    return {**COMPRESSED, EVENT: fingerprint.event(pipeline)}


def _last_landing(catalog: Catalog, pipeline: Pipeline, table: Table) -> int:
    log = tables.STREAM_LOG if table.name == tables.STREAM_LOG else tables.BATCH_LOG
    return boundary.landed(catalogs.history(catalogs.find(catalog, pipeline.name, log)), pipeline.name).landing


def _with_properties(catalog: Catalog, existing: IcebergTable, changed: dict[str, Any]) -> IcebergTable:
    try:
        with existing.transaction() as transaction:
            transaction.set_properties(**changed)
    except CommitFailedException:  # the streaming job committed at the same moment
        return _with_properties(catalog, catalog.load_table(existing.name()), changed)
    return catalog.load_table(existing.name())


def same_definition(table: IcebergTable) -> AssertProperty:
    """A commit's requirement: the log is still written under the definition that it was when it was loaded."""
    return AssertProperty(key=EVENT, value=table.properties.get(EVENT))


def refuse_other_definition(table: IcebergTable, pipeline: Pipeline) -> None:
    """Raise DefinitionChanged where a job that started later writes this log under another definition."""
    if table.properties.get(EVENT) not in (None, fingerprint.event(pipeline)):
        raise DefinitionChanged(pipeline.name, ["another job already works under a newer one"])


def extended(catalog: Catalog, existing: IcebergTable, columns: Iterable[tuple[str, IcebergType]]) -> IcebergTable:
    """The table with those of the columns that it lacks."""
    missing = [(name, kind) for name, kind in columns if name not in existing.schema().column_names]
    if not missing:
        return existing
    try:
        with existing.update_schema() as update:
            for name, kind in missing:
                update.add_column(name, kind)
    except (CommitFailedException, ValueError):  # another job of this pipeline added them at the same moment
        return extended(catalog, catalog.load_table(existing.name()), missing)
    return catalog.load_table(existing.name())
