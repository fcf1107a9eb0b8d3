"""Make a pipeline's tables, or evolve them to its definition, or refuse before anything is written.

no table ─► created          a new optional field ─► column added          a wider type ─► column widened
what `twofold.evolution` refuses ─► IncompatibleDefinition, with the remedy
a view declared otherwise ─► refused; `redeclared` gives the new columns, for the commit of their rows
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table import Transaction
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.table.update import (
    AddSchemaUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    TableUpdate,
    ValidatableTableRequirement,
    update_table_metadata,
)
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import IcebergType, NestedField
from sqlalchemy.exc import IntegrityError

from twofold import catalog as catalogs
from twofold import commits, evolution, table_state, tables
from twofold.commits import AssertProperty, CompressedMetadata
from twofold.definition import fingerprint
from twofold.definition.model import Pipeline, View
from twofold.errors import DefinitionChanged, IncompatibleDefinition
from twofold.evolution import Difference
from twofold.table_state import Landed
from twofold.tables import TableShape

_OF_SPARK = {"BIGINT": "long", "TIMESTAMP": "timestamptz"}
"""Spark's names of types that Iceberg has other names for."""
_FIRST_PARTITION_ID = 1000
_PARTITION = "_tw_day"
"""Name of the days in a table's partitioning, which Iceberg keeps apart from its columns: no field may have it."""

_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}
EVENT = evolution.EVENT
DEFINITION = "twofold.definition"
"""Property of a view's table: the fingerprint of the declaration that fills it."""
_AS_THEY_COME = {
    # Rows come in Kafka's order, a task per partition: no shuffle, and offsets prune files.
    "write.distribution-mode": "none",
    "write.spark.fanout.enabled": "true",
    # They get many commits, each of which writes the list of all snapshots that are kept. For Java, and for pyiceberg,
    # which has no such setting.
    "write.metadata.compression-codec": "gzip",
    "write.py-location-provider.impl": f"{CompressedMetadata.__module__}.{CompressedMetadata.__qualname__}",
}
"""For the logs."""
_BY_DAY = {
    # One sorted file per day, one open at a time: with all of a year's open, a union does little but collect garbage.
    "write.distribution-mode": "hash",
    "write.spark.fanout.enabled": "false",
}
"""For `events` and the views, whose days are replaced whole."""
_LOGS = (tables.STREAM_LOG, tables.BATCH_LOG)


def ensure_tables(catalog: Catalog, pipeline: Pipeline) -> dict[str, IcebergTable]:
    """All tables but those of views, by name."""
    # This looks, then creates; tables that another job of this pipeline creates in between are fine.
    with suppress(IntegrityError):
        catalog.create_namespace_if_not_exists(pipeline.name)
    found = require_fit(catalog, pipeline)
    return {
        name: _evolved(catalog, pipeline, table, old) if (old := found[name]) else _created(catalog, pipeline, table)
        for name, table in shapes(pipeline).items()
    }


def require_fit(catalog: Catalog, pipeline: Pipeline) -> dict[str, IcebergTable | None]:
    """The tables that are there; IncompatibleDefinition where they cannot follow the definition. Nothing is written."""
    found = _found(catalog, pipeline)
    _refuse(pipeline, _differences(pipeline, found))
    return found


def require_readable(pipeline: Pipeline, found: Iterable[IcebergTable | None]) -> None:
    """IncompatibleDefinition where these tables have rows of another id, time or type: answers would be wrong."""
    _refuse(pipeline, _differences_of_rows(pipeline, {table.name()[-1]: table for table in found if table}))


def _refuse(pipeline: Pipeline, differences: Iterable[Difference]) -> None:
    if refused := [each for each in differences if each.effect == evolution.REFUSED]:
        raise IncompatibleDefinition(
            f"{pipeline.source_file or pipeline.name}: the definition does not fit the existing tables:\n  "
            + "\n  ".join(map(str, refused)),
            "undo the change, or declare the changed stream under a new pipeline name; nothing was written",
        )


def commit_state(
    log: IcebergTable, state: Landed, requirements: Sequence[ValidatableTableRequirement] = ()
) -> IcebergTable:
    """Commit what `stream_log` holds, without a row; raises as `commits.append`.

    Before the first row not by a snapshot: Spark's source cannot begin at one without rows, and a view's query that
    drains fails on it.
    """
    if table_state.history_of(log).nearest(Landed.KEY) is None:
        return commits.set_properties(log, table_state.as_property(state), requirements)
    return commits.append(log, (), table_state.encode(state), requirements)


def differences(catalog: Catalog, pipeline: Pipeline) -> list[Difference] | None:
    """How the definition differs from the tables that are there, views too; None: there are none."""
    found = _found(catalog, pipeline)
    if not any(found.values()):
        return None
    listed = [*_differences(pipeline, found), *_differences_of_views(catalog, pipeline)]
    if log := found[tables.STREAM_LOG]:
        listed += evolution.of_start(pipeline.topic, table_state.streamed(log, pipeline.name))
    return listed


def shapes(pipeline: Pipeline) -> dict[str, TableShape]:
    """All tables but those of views, by name; `events` last: what it has, the logs have."""
    found = (tables.stream_log(pipeline), tables.batch_log(pipeline), tables.landed_files(), tables.events(pipeline))
    return {shape.name: shape for shape in found}


def _found(catalog: Catalog, pipeline: Pipeline) -> dict[str, IcebergTable | None]:
    return {name: catalogs.find(catalog, pipeline.name, name) for name in shapes(pipeline)}


def _require_release(pipeline: Pipeline, found: Mapping[str, IcebergTable | None]) -> None:
    if older := [name for name, table in found.items() if table and evolution.EACH not in table.properties]:
        raise IncompatibleDefinition(
            f"{pipeline.name}: {older[0]} was made before version 0.2.0, the first release",
            "declare the stream under a new pipeline name, which reads its topic and files from the start",
        )


def _differences_of_rows(pipeline: Pipeline, found: Mapping[str, IcebergTable | None]) -> list[Difference]:
    """Of what tells rows apart, and of columns, each once."""
    _require_release(pipeline, found)
    listed: list[Difference] = []
    for name in (tables.STREAM_LOG, tables.BATCH_LOG, tables.EVENTS):
        if existing := found.get(name):
            listed += evolution.of_identity(pipeline, existing.properties)
            listed += evolution.of_columns(pipeline, _types_of(shapes(pipeline)[name].columns), _types(existing))
    return list(dict.fromkeys(listed))


def _differences(pipeline: Pipeline, found: Mapping[str, IcebergTable | None]) -> list[Difference]:
    """All but those of views, each once."""
    listed = _differences_of_rows(pipeline, found)
    if log := found[tables.STREAM_LOG]:
        known = table_state.landed(table_state.history_of(log), pipeline.name)
        listed += evolution.of_topic(pipeline.topic, known, log.properties)
    if events := found[tables.EVENTS]:
        logs = {name: log.properties for name in _LOGS if (log := found[name])}
        listed += evolution.of_rules(pipeline, events.properties, _types(events), logs)
    return listed


def _differences_of_views(catalog: Catalog, pipeline: Pipeline) -> Iterator[Difference]:
    for view in pipeline.views.values():
        for name in (tables.batch_view_name(view), tables.stream_view_name(view)):
            table, wanted = catalogs.find(catalog, pipeline.name, name), view_columns(pipeline, view, name)
            outdated = table is not None and is_outdated(table, pipeline, view)
            yield from evolution.of_view(name, pipeline, _types(table) if table else None, wanted, outdated)


def _types(table: IcebergTable) -> dict[str, IcebergType]:
    return {field.name: field.field_type for field in table.schema().fields}


def iceberg_type(spark: str) -> IcebergType:
    """Iceberg's type for a Spark type name of `twofold.tables`.

    >>> iceberg_type("decimal(10,2)")
    DecimalType(precision=10, scale=2)
    """
    return IcebergType.model_validate(_OF_SPARK.get(spark, spark.lower()))


def _types_of(columns: Iterable[tuple[str, str]]) -> dict[str, IcebergType]:
    return {name: iceberg_type(kind) for name, kind in columns}


def _evolved(catalog: Catalog, pipeline: Pipeline, table: TableShape, existing: IcebergTable) -> IcebergTable:
    found = _extended(catalog, existing, _types_of(table.columns))
    wanted = _kept_properties(pipeline, table)
    known = found.properties
    if table.name in _LOGS and known[EVENT] != wanted[EVENT]:
        landed = table_state.landed(table_state.history_of(found), pipeline.name)
        wanted[table_state.DEFINED_SINCE] = str(landed.landing + 1)
    changed = {key: value for key, value in wanted.items() if known.get(key) != value}
    if not changed:
        return found
    try:
        # On the snapshot that was looked at: no landing comes in between.
        return commits.set_properties(found, changed)
    except CommitFailedException:
        return _evolved(catalog, pipeline, table, catalog.load_table(found.name()))


def _created(catalog: Catalog, pipeline: Pipeline, table: TableShape) -> IcebergTable:
    properties = {
        **(_AS_THEY_COME if table.name in _LOGS else _BY_DAY),
        **_kept_properties(pipeline, table),
        **({table_state.DEFINED_SINCE: "1"} if table.name in _LOGS else {}),
        **evolution.identity(pipeline),
    }
    return _create(catalog, (pipeline.name, table.name), _types_of(table.columns), table.day_of, properties, table.sort)


def _create(
    catalog: Catalog,
    name: tuple[str, str],
    columns: Mapping[str, IcebergType],
    day_of: str,
    properties: Mapping[str, str],
    sort: Sequence[str] = (),
) -> IcebergTable:
    """A table partitioned by the day of a column, or the one that another job made at the same moment."""
    schema = Schema(*(NestedField(number, column, kind) for number, (column, kind) in enumerate(columns.items(), 1)))
    day = PartitionField(schema.find_field(day_of).field_id, _FIRST_PARTITION_ID, DayTransform(), _PARTITION)
    order = (SortField(source_id=schema.find_field(key).field_id, transform=IdentityTransform()) for key in sort)
    try:
        return catalog.create_table(
            name,
            schema,
            partition_spec=PartitionSpec(day),
            sort_order=SortOrder(*order),
            properties={**_PROPERTIES, **properties},
        )
    except TableAlreadyExistsError:
        return catalog.load_table(name)


def ensure_ledger(catalog: Catalog, pipeline: Pipeline, properties: Mapping[str, str]) -> IcebergTable:
    """The table of erased ids; these are its properties only where this call makes it."""
    shape = tables.ledger()
    return _create(catalog, (pipeline.name, shape.name), _types_of(shape.columns), shape.day_of, properties)


def _kept_properties(pipeline: Pipeline, table: TableShape) -> dict[str, str]:
    """Properties that follow the definition."""
    if table.name == tables.EVENTS:
        return {evolution.DECLARED: evolution.declared(pipeline)}
    if table.name not in _LOGS:
        return {}
    topic = {evolution.TOPIC: pipeline.topic.name} if table.name == tables.STREAM_LOG else {}
    return {EVENT: fingerprint.event(pipeline), **topic}


def same_definition(table: IcebergTable) -> AssertProperty:
    """A commit's requirement: the log is still written under the definition that it was when it was loaded."""
    return AssertProperty(key=EVENT, value=table.properties[EVENT])


def refuse_other_definition(table: IcebergTable, pipeline: Pipeline) -> None:
    """Raise DefinitionChanged where a job that started later writes this log under another definition."""
    if table.properties[EVENT] != fingerprint.event(pipeline):
        raise DefinitionChanged(pipeline.name, ["another job already works under a newer one"])


def _extended(catalog: Catalog, existing: IcebergTable, columns: Mapping[str, IcebergType]) -> IcebergTable:
    """The table with those of the columns that it lacks, and with those wider that are declared so."""
    staged = _staged(existing, columns)
    if staged is None:
        return existing
    try:
        staged.commit_transaction()
    except (CommitFailedException, ValueError):  # another job of this pipeline changed them at the same moment
        return _extended(catalog, catalog.load_table(existing.name()), columns)
    return catalog.load_table(existing.name())


def followed(existing: IcebergTable, table: TableShape) -> IcebergTable:
    """The table with the columns that the next job would give it; nothing is written."""
    staged = _staged(existing, _types_of(table.columns))
    if staged is None:
        return existing
    location = existing.metadata_location
    return IcebergTable(existing.name(), staged.table_metadata, location, existing.io, existing.catalog)


def _staged(existing: IcebergTable, columns: Mapping[str, IcebergType]) -> Transaction | None:
    """What adds and widens columns; None where nothing is to be done."""
    known = _types(existing)
    missing = {name: kind for name, kind in columns.items() if name not in known}
    wider = {name: kind for name, kind in columns.items() if name in known and evolution.is_wider(known[name], kind)}
    if not missing and not wider:
        return None
    staged = existing.transaction()
    with staged.update_schema() as update:
        for name, kind in missing.items():
            update.add_column(name, kind)
        for name, kind in wider.items():
            update.update_column(name, field_type=kind)
    return staged


def view_columns(pipeline: Pipeline, view: View, table: str) -> dict[str, IcebergType]:
    """The type of each column, in order; a stream's table says last which version of its window a row is."""
    fields = pipeline.event.fields
    kinds = [
        *((key, "TIMESTAMP") for key in ("window_start", "window_end")),
        *((name, fields[name].type.spark) for name in view.by),
        *((name, measure.type.spark) for name, measure in view.measures.items()),
        *([(tables.VERSION, "BIGINT")] if table == tables.stream_view_name(view) else []),
    ]
    return _types_of(kinds)


def ensure_view(catalog: Catalog, pipeline: Pipeline, view: View, name: str) -> IcebergTable:
    """The view's table `name`, made if there is none; IncompatibleDefinition where another declaration filled it."""
    shape = view_columns(pipeline, view, name)
    table = catalogs.find(catalog, pipeline.name, name)
    if table is None:
        declared = {**_BY_DAY, DEFINITION: fingerprint.view(pipeline, view)}
        return _create(catalog, (pipeline.name, name), shape, "window_start", declared)
    if is_outdated(table, pipeline, view):
        raise IncompatibleDefinition(
            f"{pipeline.source_file or pipeline.name}: views.{view.name} is not what {pipeline.name}.{name} was "
            "computed by (its window, groups, measures, or the pipeline's lateness changed)",
            f"`twofold rebuild {pipeline.name}` recomputes all views; or declare the change as a new view",
        )
    return _extended(catalog, table, shape)


def is_outdated(table: IcebergTable, pipeline: Pipeline, view: View) -> bool:
    """Whether another declaration filled this table."""
    return table.properties[DEFINITION] != fingerprint.view(pipeline, view)


def redeclared(
    table: IcebergTable, pipeline: Pipeline, view: View, name: str
) -> tuple[IcebergTable, tuple[TableUpdate, ...]]:
    """The table with the columns of today's declaration, and the updates that lead there: for the commit of its rows.

    Columns that stay as they were keep their ids, and so do the days that partition it.
    """
    before = {field.name: field for field in table.schema().fields}
    fresh = table.metadata.last_column_id
    fields = []
    for column, kind in view_columns(pipeline, view, name).items():
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
    return IcebergTable(table.name(), metadata, table.metadata_location, table.io, table.catalog), updates
